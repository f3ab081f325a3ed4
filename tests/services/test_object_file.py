"""Which objects are written in the event loop's own thread, and which are not."""

from __future__ import annotations

import asyncio
import os
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
        self.now = 1000.0
        self.seconds = 0.0
        """What the next write takes."""

    def write_all(self, descriptor: int, buffers: list[bytes | memoryview]) -> None:
        self.threads.append(threading.current_thread())
        assert self.goes_on.wait(10)
        self._write_all(descriptor, buffers)
        self.now += self.seconds

    @property
    def is_written_here(self) -> list[bool]:
        return [thread is threading.current_thread() for thread in self.threads]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(object_file, "write_all", disk.write_all)
    monkeypatch.setattr(object_file, "monotonic", lambda: disk.now)
    return disk


async def write(path: Path, data: bytes, size_of_chunks: int = LARGEST, seen: object_file.Disk | None = None) -> None:
    chunks = stream(chunks_of(data, size_of_chunks))
    await write_object(str(path), b"head", await anext(chunks), chunks, seen)


async def write_many(folder: Path, count: int, seen: object_file.Disk, size: int = CT) -> None:
    first = len(os.listdir(folder))
    for number in range(first, first + count):
        await write(folder / str(number), bytes(size), seen=seen)


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


async def test_a_disk_that_keeps_up_is_written_to_without_a_thread(disk: Disk, tmp_path: Path) -> None:
    seen = object_file.Disk()
    await write_many(tmp_path, 12, seen)
    assert disk.is_written_here == [False] * 8 + [True] * 4
    assert (tmp_path / "11").read_bytes() == b"head" + bytes(CT)


async def test_after_one_slow_write_threads_are_asked_again(disk: Disk, tmp_path: Path) -> None:
    seen = object_file.Disk()
    await write_many(tmp_path, 8, seen)
    disk.seconds = 0.5
    await write_many(tmp_path, 3, seen)
    assert disk.is_written_here[8:] == [True, False, False], "one write has held up the event loop, and no more"
    disk.seconds = 0.0
    await write_many(tmp_path, 9, seen)
    assert disk.is_written_here[11:] == [False] * 8 + [True]


async def test_after_a_slow_failure_too(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = object_file.Disk()
    await write_many(tmp_path, 8, seen)

    def fail(*_: object) -> None:
        disk.now += 60
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(object_file, "write_all", fail)
    with pytest.raises(OSError, match="Input/output error"):
        await write_many(tmp_path, 1, seen)
    assert not seen.keeps_up


async def test_after_a_pause_a_thread_looks_whether_the_disk_is_there_still(disk: Disk, tmp_path: Path) -> None:
    seen = object_file.Disk()
    await write_many(tmp_path, 8, seen)
    disk.now += 1.5
    await write_many(tmp_path, 2, seen)
    assert disk.is_written_here[8:] == [False, True]


async def test_small_objects_say_nothing_about_a_disk(disk: Disk, tmp_path: Path) -> None:
    seen = object_file.Disk()
    await write_many(tmp_path, 20, seen, SMALL)
    assert not seen.keeps_up


async def test_what_comes_in_pieces_is_written_by_a_thread_whatever_the_disk(disk: Disk, tmp_path: Path) -> None:
    seen = object_file.Disk()
    await write_many(tmp_path, 8, seen)
    await write(tmp_path / "large", bytes(LARGEST), 1 << 20, seen)
    assert disk.is_written_here == [False] * 11
