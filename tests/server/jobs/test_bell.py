"""How commands tell an archive that it should look at its jobs."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tomowire.server.jobs.bell import heard, is_forsaken, ring


async def test_who_rings_is_heard_each_time(tmp_path: Path) -> None:
    rung = asyncio.Queue[None]()
    with heard(tmp_path, lambda: rung.put_nowait(None)):
        for _ in range(3):
            assert ring(tmp_path)
            async with asyncio.timeout(10):
                await rung.get()
    assert not ring(tmp_path), "nobody is there any more"
    assert os.listdir(tmp_path) == []


async def test_where_nobody_listens_nobody_is_waited_for(tmp_path: Path) -> None:
    assert not ring(tmp_path)
    assert not is_forsaken(tmp_path), "it is not known that anybody was"
    os.mkfifo(tmp_path / "jobs.bell")  # left by a process that was killed
    assert not ring(tmp_path)
    assert is_forsaken(tmp_path)
    with heard(tmp_path, lambda: None):
        assert ring(tmp_path)
        assert not is_forsaken(tmp_path)


async def test_a_pipe_that_is_full_blocks_nobody(tmp_path: Path) -> None:
    rung = asyncio.Event()
    with heard(tmp_path, rung.set):
        pipe = os.open(tmp_path / "jobs.bell", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(pipe, bytes(4096))
        os.close(pipe)
        assert ring(tmp_path)
        async with asyncio.timeout(10):
            await rung.wait()


async def test_something_else_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "jobs.bell").mkdir()
    with heard(tmp_path, lambda: pytest.fail("who rings?")):
        assert not ring(tmp_path)
    assert (tmp_path / "jobs.bell").is_dir()
