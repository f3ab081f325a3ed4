"""Waiting for what the log says: a line about something may come after the thing itself can be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Told(logging.Handler):
    """Waits for what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.loop.call_soon_threadsafe(self.messages.put_nowait, f"{record.levelname}: {record.getMessage()}")

    async def message(self) -> str:
        """The next one."""
        async with asyncio.timeout(60):
            return await self.messages.get()

    async def of(self, text: str) -> str:
        """The next message with `text` in it; those before it are dropped."""
        while text not in (message := await self.message()):
            pass
        return message


@contextmanager
def listening(name: str, level: int = logging.NOTSET) -> Iterator[Told]:
    """All that the logger `name` and those below it say from now on; with `level`, it says that much."""
    told, logger = Told(), logging.getLogger(name)
    before = logger.level
    logger.addHandler(told)
    if level:
        logger.setLevel(level)
    try:
        yield told
    finally:
        logger.removeHandler(told)
        logger.setLevel(before)
