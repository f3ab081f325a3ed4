"""Which objects are written in the event loop's own thread, and which are not."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from support.objects import chunks_of, stream
from tomowire.services import object_file
from tomowire.services.object_file import write_object

SMALL, CT, LARGEST = 4_000, 526_000, 3_000_000


class Disk:
    """Remembers which threads write, and waits before it does when it is told to."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._write_all = object_file.write_all

    def write_all(self, descriptor: int, buffers: list[bytes | memoryview]) -> None:
        self.threads.append(threading.current_thread())
        assert self.goes_on.wait(10)
        self._write_all(descriptor, buffers)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(object_file, "write_all", disk.write_all)
    return disk


async def write(path: Path, data: bytes, size_of_chunks: int = LARGEST) -> None:
    chunks = stream(chunks_of(data, size_of_chunks))
    await write_object(str(path), b"head", await anext(chunks), chunks)


@pytest.mark.parametrize(("size", "is_here"), [(SMALL, True), (CT, False), (LARGEST, False)])
async def test_for_a_small_object_no_thread_is_asked(disk: Disk, tmp_path: Path, size: int, is_here: bool) -> None:
    data = bytes(range(250)) * (size // 250)
    await write(tmp_path / "1", data)
    assert (tmp_path / "1").read_bytes() == b"head" + data
    assert (disk.threads == [threading.current_thread()]) is is_here


async def test_a_disk_that_makes_us_wait_does_not_stop_the_event_loop(disk: Disk, tmp_path: Path) -> None:
    disk.goes_on.clear()
    asyncio.get_running_loop().call_soon(disk.goes_on.set)  # which takes an event loop that goes on
    await write(tmp_path / "1", bytes(CT))
    assert (tmp_path / "1").stat().st_size == len(b"head") + CT


async def test_what_comes_in_pieces_is_written_beside_the_event_loop(disk: Disk, tmp_path: Path) -> None:
    await asyncio.wait_for(write(tmp_path / "1", bytes(CT), 1 << 14), 30)
    assert threading.current_thread() not in disk.threads
    assert (tmp_path / "1").stat().st_size == len(b"head") + CT
