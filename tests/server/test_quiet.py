"""A full disk does not fill the log: the first failure, and now and then how many more there were."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tomowire.errors import StoreFailed
from tomowire.server.app import Archive, Settings
from tomowire.server.quiet import fewer_failures

log = logging.getLogger("tomowire.storage")


def fail(number: int, status: int = 0xA700) -> None:
    log.warning("PEER: %s not stored: %s", f"1.{number}", StoreFailed(status, "no space"))


@pytest.fixture
def at_warning(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "tomowire")
    return caplog


async def lines(log: pytest.LogCaptureFixture, count: int) -> None:
    async with asyncio.timeout(20):
        while len(log.messages) < count:  # noqa: ASYNC110 - nothing tells when a line is logged
            await asyncio.sleep(0)


async def test_repeated_failures_are_counted(at_warning: pytest.LogCaptureFixture) -> None:
    with fewer_failures():
        for number in range(526):
            fail(number)
        log.warning("something else")
        fail(0, 0xC000)  # another status has lines of its own
        assert at_warning.messages == [
            "PEER: 1.0 not stored: no space",
            "something else",
            "PEER: 1.0 not stored: no space",
        ]
        at_warning.clear()
    [line] = at_warning.messages  # at the end nothing is left unsaid
    assert line.startswith("525 more objects not stored, A700H")
    assert line.endswith("PEER: 1.525 not stored: no space")
    at_warning.clear()
    fail(1)
    fail(2)
    assert len(at_warning.messages) == 2  # nothing is left out any more


async def test_the_count_comes_by_itself(at_warning: pytest.LogCaptureFixture) -> None:
    with fewer_failures(interval=0.01):
        for number in range(3):
            fail(number)
        await lines(at_warning, 2)
        assert at_warning.messages[1].startswith("2 more")
        fail(3)  # in the next interval
        await lines(at_warning, 3)
        assert at_warning.messages[2].startswith("1 more")
    assert len(at_warning.messages) == 3


async def test_a_talkative_log_leaves_nothing_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tomowire")
    with fewer_failures():
        for number in range(5):
            fail(number)
    assert len(caplog.messages) == 5


async def test_an_archive_counts_them(tmp_path: Path, at_warning: pytest.LogCaptureFixture) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)):
        for number in range(5):
            fail(number)
        assert len(at_warning.messages) == 1
    assert at_warning.messages[-1].startswith("4 more")
