"""What a piece of asyncio code must not leave behind: tasks, timers, threads, file descriptors."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DESCRIPTORS: Final = Path("/proc/self/fd")
SECONDS_TO_SETTLE: Final = 2.0
_INTERVAL: Final = 0.005


@dataclass(frozen=True, slots=True)
class Resources:
    """What is there at one moment, inside the running event loop. `timers` is empty for loops that do not tell."""

    tasks: frozenset[asyncio.Task[object]]
    timers: frozenset[asyncio.TimerHandle]
    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> Resources:
        loop = asyncio.get_running_loop()
        current = asyncio.current_task()
        return cls(
            frozenset(task for task in asyncio.all_tasks() if task is not current),
            frozenset(timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()),
            frozenset(thread for thread in threading.enumerate() if not _is_kept(thread)),
            open_descriptors(),
        )

    def left_since(self, before: Resources) -> list[str]:
        """One line for each thing that is here and was not there in `before`."""
        return [
            *(f"task {task.get_name()}: {task.get_coro()}" for task in self.tasks - before.tasks),
            *(f"timer {timer}" for timer in self.timers - before.timers),
            *(f"thread {thread.name}" for thread in self.threads - before.threads),
            *(f"file descriptor {number}: {target}" for number, target in self.descriptors - before.descriptors),
        ]


def open_descriptors() -> frozenset[tuple[int, str]]:
    """Number and target of every open file descriptor; empty where the system does not say."""
    found = set()
    for name in os.listdir(DESCRIPTORS) if DESCRIPTORS.is_dir() else ():
        try:
            found.add((int(name), os.readlink(DESCRIPTORS / name)))
        except FileNotFoundError:
            continue  # the one that listed the directory
    return frozenset(found)


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Raises `AssertionError` at the end of the block if something that was opened in it is still there two seconds later."""
    before = Resources.now()
    yield
    if left := await leaks_since(before):
        raise AssertionError("left behind:\n  " + "\n  ".join(left))


async def leaks_since(before: Resources) -> list[str]:
    """What is left of the work done since `before`, after closing connections and ending threads had a moment to finish."""
    left = Resources.now().left_since(before)
    for _ in range(round(SECONDS_TO_SETTLE / _INTERVAL)):
        if not left:
            break
        await asyncio.sleep(_INTERVAL)
        left = Resources.now().left_since(before)
    return left


def _is_kept(thread: threading.Thread) -> bool:
    # `asyncio.to_thread` keeps its pool until the loop is closed; the one in which large objects are transcoded is the process'.
    return thread.name.startswith(("asyncio_", "uvloop_", "tomowire-transcoding_"))
