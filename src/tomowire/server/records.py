"""What the index database holds besides objects (`index.administration`): transactions in worker threads.

One thread writes, so that transactions of one process never wait for each other in the database; two read. A transaction of SQLite
that writes begins with `BEGIN IMMEDIATE`, and waits for the one that stores objects as long as the busy timeout says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tomowire.aio.threads import finished
from tomowire.server.index.engines import WRITES, database_errors, sqlite_engine

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Records", "database_errors", "sqlite_engine"]

T = TypeVar("T")

_READERS: Final = 2


class Records:
    """`async with Records(make_engine) as records`; `write_now` and `read_now` need no event loop.

    The engine is made when it is first needed: SQLAlchemy is not imported while an archive starts. Whoever does not use `async
    with` calls `close`.

    The work is a function of an SQLAlchemy connection that is in a transaction; it is rolled back when the function raises. Raises
    `IndexUnavailable` for what the database cannot do now; `sqlalchemy.exc.IntegrityError` stays what it is.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._made: Engine | None = None
        self._making = Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tomowire-records")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="tomowire-records-read")

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do `work` and commit, in the thread that writes. It is finished even when this is cancelled."""
        loop = asyncio.get_running_loop()
        return await finished(loop.run_in_executor(self._writer, self.write_now, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction that is not committed."""
        loop = asyncio.get_running_loop()
        return await finished(loop.run_in_executor(self._readers, self.read_now, work))

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Do `work` and commit, in this thread."""
        engine = self._engine.execution_options(**{WRITES: True})
        with database_errors(), engine.begin() as connection:
            return work(connection)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction that is not committed, in this thread."""
        with database_errors(), self._engine.connect() as connection:
            return work(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what is being worked on, and close the connections."""
        self._writer.shutdown()
        self._readers.shutdown()
        if self._made is not None:
            self._made.dispose()

    @property
    def _engine(self) -> Engine:
        with self._making:
            if self._made is None:
                self._made = self._make_engine()
            return self._made
