"""Which objects are written in the event loop's own thread, and which are not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.objects import chunks_of, stream
from tomowire.services import object_file
from tomowire.services.object_file import write_object

SMALL, CT, LARGEST = 4_000, 526_000, 3_000_000


class Disk:
    """Counts by thread what is written, and says how long that takes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.seconds = 0.0
        self.threads: list[threading.Thread] = []
        self._write_all = object_file.write_all

    def write_all(self, descriptor: int, buffers: list[bytes | memoryview]) -> None:
        self.threads.append(threading.current_thread())
        self._write_all(descriptor, buffers)
        self.now += self.seconds

    @staticmethod
    def check(path: Path, content: bytes) -> None:
        assert path.read_bytes() == content

    async def writes_here(self, path: Path, size: int) -> bool:
        """Write an object of `size` bytes; whether that was done in the thread of the event loop."""
        self.threads.clear()
        data = bytes(range(250)) * (size // 250)
        chunks = stream(chunks_of(data))
        await write_object(str(path), b"head", await anext(chunks), chunks)
        self.check(path, b"head" + data)
        return self.threads == [threading.current_thread()]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(object_file, "write_all", disk.write_all)
    monkeypatch.setattr(object_file, "monotonic", lambda: disk.now)
    monkeypatch.setattr(object_file, "_page_cache", type(object_file._page_cache)())
    return disk


@pytest.mark.parametrize(("size", "is_here"), [(SMALL, True), (CT, True), (LARGEST, False)])
async def test_an_object_that_the_page_cache_takes_at_once_needs_no_thread(
    disk: Disk, tmp_path: Path, size: int, is_here: bool
) -> None:
    assert await disk.writes_here(tmp_path / "1", size) is is_here


async def test_a_disk_that_cannot_follow_does_not_hold_up_the_event_loop_again(disk: Disk, tmp_path: Path) -> None:
    disk.seconds = 0.3
    assert await disk.writes_here(tmp_path / "1", CT)
    disk.seconds = 0.0
    assert not await disk.writes_here(tmp_path / "2", CT)
    assert await disk.writes_here(tmp_path / "3", SMALL)
    disk.now += 60
    assert await disk.writes_here(tmp_path / "4", CT)


async def test_what_comes_in_pieces_is_written_beside_the_event_loop(disk: Disk, tmp_path: Path) -> None:
    chunks = stream(chunks_of(bytes(CT), 1 << 16))
    await asyncio.wait_for(write_object(str(tmp_path / "1"), b"head", await anext(chunks), chunks), 30)
    assert threading.current_thread() not in disk.threads
    assert (tmp_path / "1").stat().st_size == len(b"head") + CT
