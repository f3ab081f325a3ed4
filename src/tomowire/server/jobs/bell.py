"""How a command tells an archive on the same machine that it has changed jobs: a named pipe in the data directory.

Nothing is said through it but "look": what there is to do stands in the database.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

logger: Final = logging.getLogger(__name__)

_NAME: Final = "jobs.bell"
_MODE: Final = 0o600


def ring(data_dir: Path) -> bool:
    """Have the archive that uses this data directory look at its jobs; whether there is one."""
    try:
        pipe = os.open(data_dir / _NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody has it open, or there is none
        return False
    try:
        with suppress(BlockingIOError):  # it has been rung often enough
            os.write(pipe, b"!")
    finally:
        os.close(pipe)
    return True


def is_forsaken(data_dir: Path) -> bool:
    """Whether the archive that listened here has ended without a word. Where nobody has listened that is not known: False."""
    try:
        os.close(os.open(data_dir / _NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


@contextmanager
def heard(data_dir: Path, on_ring: Callable[[], None]) -> Iterator[None]:
    """In the block `on_ring` is called in the event loop when somebody rings. Where there are no named pipes nobody does."""
    try:
        pipe = _open(data_dir / _NAME)
    except (OSError, AttributeError) as error:
        logger.info("jobs that commands make are noticed later: there is no named pipe in %s: %s", data_dir, error)
        yield
        return

    def read() -> None:
        with suppress(BlockingIOError):
            os.read(pipe, 4096)
        on_ring()

    loop = asyncio.get_running_loop()
    loop.add_reader(pipe, read)
    try:
        yield
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)
        with suppress(OSError):  # who copies the directory wants no pipe in it
            os.unlink(data_dir / _NAME)


def _open(path: Path) -> int:
    """For reading; and for writing, so that it does not end when somebody who has rung goes."""
    with suppress(FileExistsError):
        os.mkfifo(path, _MODE)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
