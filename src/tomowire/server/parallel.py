"""Work on many items in a few threads, with few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD: Final = 4


def in_parallel(work: Callable[[In], Out], items: Iterable[In], *, threads: int) -> Generator[Out, None, None]:
    """`work` done on each of `items`, in their order; at most a few items for each thread are begun ahead of the caller."""
    with ThreadPoolExecutor(threads, thread_name_prefix="tomowire-check") as pool:
        begun: deque[Future[Out]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) >= threads * _AHEAD:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
