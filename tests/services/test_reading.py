"""Reading a file in pieces, and many files ahead: off the loop, and with nothing left open whatever happens."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import deque
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.files import data_of, sparse_file, write_file
from tomowire.services.dicom_file import DicomFile
from tomowire.services.read_ahead import ReadAhead
from tomowire.services.reading import even, read_pieces

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20


async def pieces_of(path: Path, offset: int, size: int, payload: int = 16378) -> list[tuple[bytes, bool]]:
    async with read_pieces(path, offset, size, payload) as pieces:
        return [(bytes(piece), last) async for piece, last in pieces]


def file_of(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


# One file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    size=st.integers(0, 5000) | st.sampled_from([MB - 1, MB, MB + 1, 2 * MB + 2]),
    offset=st.integers(0, 300),
    payload=st.integers(2, 200).map(lambda half: 2 * half) | st.sampled_from([16378, MB - 6, 4 * MB]),
)
async def test_the_pieces_are_the_file(tmp_path: Path, size: int, offset: int, payload: int) -> None:
    data = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
    path = file_of(tmp_path, b"x" * offset + data[:size] + b"what follows is not asked for")
    pieces = await pieces_of(path, offset, size, payload)
    assert b"".join(piece for piece, _ in pieces) == data[:size] + b"\0" * (size % 2)
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(len(piece) % payload == 0 for piece, last in pieces if not last), (
        "no PDU is cut short between two pieces"
    )
    assert all(len(piece) % 2 == 0 for piece, _ in pieces)
    assert max(len(piece) for piece, _ in pieces) <= max(MB, payload) + 1


async def test_a_piece_is_valid_while_the_next_is_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, b"a" * MB + b"b" * MB + b"c" * MB)
    async with read_pieces(path, 0, 3 * MB, MB) as pieces:
        first, _ = await anext(pieces)
        await asyncio.to_thread(lambda: None)  # the next piece is being read meanwhile, into other memory
        assert bytes(first) == b"a" * MB
        second, _ = await anext(pieces)
        assert bytes(second) == b"b" * MB
        third, last = await anext(pieces)
        assert (bytes(third), last) == (b"c" * MB, True)
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


@pytest.mark.parametrize("size", [0, 10, MB, 3 * MB])
async def test_a_file_that_was_shortened_is_noticed_before_the_first_piece(tmp_path: Path, size: int) -> None:
    """Nothing has been sent then."""
    path = file_of(tmp_path, bytes(size))
    with pytest.raises(OSError, match="has become shorter"):
        await pieces_of(path, 0, size + 1)


async def test_a_file_that_is_being_shortened_is_noticed(tmp_path: Path) -> None:
    path = file_of(tmp_path, bytes(5 * MB))

    async def read() -> None:
        async with read_pieces(path, 0, 5 * MB, MB) as pieces:
            async for _ in pieces:
                os.truncate(path, 2 * MB + 3)

    with pytest.raises(OSError, match=r"ended \d+ bytes early"):
        await read()


async def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await pieces_of(tmp_path / "missing", 0, 1)
    with pytest.raises(IsADirectoryError):
        await pieces_of(tmp_path, 0, 1)


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_left_early_the_file_is_closed(tmp_path: Path, taken: int) -> None:
    path = file_of(tmp_path, bytes(4 * MB))
    async with read_pieces(path, 0, 4 * MB, MB) as pieces:
        for _ in range(taken):
            await anext(pieces)


async def test_cancelled_at_any_step_the_file_is_closed(tmp_path: Path) -> None:
    """Also while a thread is opening or reading it: the thread finishes, and the file is closed after it."""
    path = file_of(tmp_path, bytes(3 * MB))
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    for steps in range(100):
        task = asyncio.create_task(pieces_of(path, 0, 3 * MB, MB))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await loop.run_in_executor(None, gc.collect)
    assert complaints == [], "a read met a closed file"


def test_even() -> None:
    """PS3.8 E.1."""
    assert [even(data) for data in (b"", b"a", b"ab", b"abc")] == [b"", b"a\0", b"ab", b"abc\0"]


# Many files


async def drain(ahead: ReadAhead) -> list[tuple[DicomFile, bytes | memoryview | OSError | None]]:
    found = []
    while (item := await ahead.next()) is not None:
        found.append(item)
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(200)]


async def test_small_files_come_with_their_data_and_in_order(files: list[DicomFile]) -> None:
    assert await drain(ReadAhead(deque(files))) == [(file, data_of(number)) for number, file in enumerate(files)]


async def test_large_files_come_without_and_bad_ones_with_an_error(tmp_path: Path, files: list[DicomFile]) -> None:
    large, largest_small = sparse_file(tmp_path, 500, MB + 1), sparse_file(tmp_path, 501, MB)
    os.unlink(files[1].path)
    os.truncate(files[2].path, files[2].offset)
    found = [
        content for _, content in await drain(ReadAhead(deque([files[0], large, files[1], files[2], largest_small])))
    ]
    assert found[:2] == [data_of(0), None]
    assert isinstance(found[2], FileNotFoundError)
    assert "shorter" in str(found[3])
    assert found[4] == bytes(MB)[:2].replace(b"\0\0", b"\x10\0") + bytes(MB - 2)


@pytest.mark.parametrize("size", [100, 65_536, 200_000])
async def test_a_small_file_that_is_being_written_to_is_an_error(tmp_path: Path, size: int) -> None:
    """What was found when it was looked at is no whole object any more."""
    file = write_file(tmp_path, 1, bytes(size))
    with file.path.open("ab") as more:
        more.write(b"!")
    ((_, content),) = await drain(ReadAhead(deque([file])))
    assert "has become longer" in str(content)


async def test_the_memory_of_larger_files_is_used_again_when_they_are_done_with_and_not_before(tmp_path: Path) -> None:
    contents = [bytes([number]) * (70_000 + number % 5) for number in range(200)]
    files = [write_file(tmp_path, number, content) for number, content in enumerate(contents)]
    ahead = ReadAhead(deque(files))
    in_use: deque[tuple[int, Any]] = deque()
    memory: set[int] = set()
    for number in range(200):
        item = await ahead.next()
        assert item is not None
        in_use.append((number, item))
        memory.add(id(cast("memoryview", item[1]).obj))
        for each, (_, content) in in_use:
            assert content == even(contents[each])
        if len(in_use) > 4:
            ahead.done(in_use.popleft()[1])
    assert await ahead.next() is None
    assert len(memory) < 150


async def test_several_take_from_the_same_and_each_file_comes_once(files: list[DicomFile]) -> None:
    ahead = ReadAhead(deque(files))
    shares = await asyncio.gather(*(drain(ahead) for _ in range(7)))
    taken = [file for share in shares for file, _ in share]
    assert sorted(taken, key=lambda file: int(file.path.stem)) == files


async def test_what_was_not_taken_goes_back_in_order(files: list[DicomFile]) -> None:
    queue = deque(files)
    ahead = ReadAhead(queue)
    taken = [await ahead.next() for _ in range(3)]
    assert [item[0] for item in taken if item] == files[:3]
    assert len(queue) < 197
    await ahead.close()
    assert list(queue) == files[3:]
    await ahead.close()
    assert list(queue) == files[3:]


async def test_no_more_is_held_in_memory_than_a_few_megabytes(tmp_path: Path) -> None:
    files = [sparse_file(tmp_path, number, MB) for number in range(40)]
    queue = deque(files)
    ahead = ReadAhead(queue)
    await ahead.next()
    assert 40 - len(queue) <= 8
    await ahead.close()


async def test_one_of_several_leaves_something_for_the_others(files: list[DicomFile]) -> None:
    queue = deque(files[:8])
    ahead = ReadAhead(queue, sharers=4)
    await ahead.next()
    assert len(queue) >= 4
    await ahead.close()


async def test_cancelled_at_any_step_no_file_is_lost(files: list[DicomFile]) -> None:
    for steps in range(30):
        queue = deque(files)
        ahead = ReadAhead(queue)
        taken: list[DicomFile] = []

        async def take(ahead: ReadAhead = ahead, taken: list[DicomFile] = taken) -> None:
            while (item := await ahead.next()) is not None:
                taken.append(item[0])
                await asyncio.sleep(0)

        takers = [asyncio.create_task(take()) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
        await ahead.close()
        assert sorted([*taken, *queue], key=lambda file: int(file.path.stem)) == files
