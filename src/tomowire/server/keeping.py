"""The archive's hold on its index, kept while nothing is stored: what was lost is taken again before another takes it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self

from tomowire.errors import IndexUnavailable

if TYPE_CHECKING:
    from tomowire.server.batch import BatchWriter
    from tomowire.server.commit import GroupCommit
    from tomowire.server.index.hangup import Hangup
    from tomowire.server.index.rows import IndexWriter

logger: Final = logging.getLogger(__name__)

_FIRST: Final = 0.25
_LONGEST: Final = 5.0
"""Seconds between attempts at an index that cannot be had: nothing tells that a server is there again."""


class Keeping:
    """`async with Keeping(commit, index) as keeping`: a loss of `index`, the writer of `commit`, is noticed at once and mended."""

    def __init__(self, commit: GroupCommit, index: IndexWriter) -> None:
        self._commit = commit
        self._index = index
        self._trouble = ""
        self._lost = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def lost() -> None:
            loop.call_soon_threadsafe(self._lost.set)

        self._index.on_lost = lost
        if (hangup := self._index.hangup) is not None and hangup.fileno() >= 0:
            loop.add_reader(hangup.fileno(), self._hung_up, hangup)
        self._mending = loop.create_task(self._mend(), name="tomowire-keeping")
        return self

    async def __aexit__(self, *_: object) -> None:
        if (hangup := self._index.hangup) is not None and hangup.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(hangup.fileno())
        self._index.on_lost = lambda: None
        tasks = [task for task in (self._mending, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def _hung_up(self, hangup: Hangup) -> None:
        if hangup.take():
            self._lost.set()

    async def trouble(self) -> str:
        """Why nothing can be stored in the index now, for everybody to read; empty if nothing is in the way.

        Waits for what is being stored. May be cancelled; whoever asks next waits for the same answer.
        """
        if not self._trouble:  # it is being asked for again and again otherwise
            await self._asked()
        return self._trouble

    async def _asked(self) -> None:
        """Ask, or wait for the answer that somebody waits for already: it may take seconds, and a second one as many again."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name="tomowire-asking")
        await asyncio.shield(self._asking)

    async def _mend(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            await self._asked()
            if not self._trouble:  # that may have been asked before the loss
                await self._asked()
            pause = _FIRST
            while self._trouble:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                await self._asked()

    async def _ask(self) -> None:
        try:
            await self._commit.perform(self._require_writable)
        except IndexUnavailable as error:  # why is in the log: it may name paths and hosts
            self._trouble = "another archive uses it" if error.is_taken else "it cannot be written to now"
            self._lost.set()
        except Exception:
            logger.exception("whether the index can be written to is not known")
            self._trouble = "it cannot be written to now"
            self._lost.set()
        else:
            self._trouble = ""

    def _require_writable(self, _: BatchWriter) -> None:
        self._index.require_writable()
