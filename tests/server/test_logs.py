"""The log as JSON lines, which association and request each belongs to, and its last lines for those who follow it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from support.network import LOOPBACK
from support.objects import Sample
from tomowire import Peer, associate, verification
from tomowire.errors import AssociationRejected, UsageError
from tomowire.server import logs
from tomowire.server.app import Archive, Settings
from tomowire.server.logs import JsonLines, LogTail, fields_of

log = logging.getLogger("tomowire.test_logs")


def write_sample(folder: Path, sample: Sample) -> Path:
    path = folder / f"{sample.number}.dcm"
    path.write_bytes(sample.header + sample.data_set)
    return path


@pytest.fixture(autouse=True)
def talkative() -> Iterator[None]:
    """What tomowire logs is made, whatever becomes of it; and the level is as before afterwards."""
    logger = logging.getLogger("tomowire")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(before)


@pytest.fixture
def tail() -> Iterator[LogTail]:
    with LogTail(kept=5).installed() as tail:
        yield tail


def line(message: str, *arguments: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("tomowire.x", logging.WARNING, __file__, 1, message, arguments, more.get("exc_info"))
    formatted = JsonLines().format(record)
    assert "\n" not in formatted
    assert formatted.isascii()
    found: dict[str, Any] = json.loads(formatted)
    return found


# A line


def test_a_line_says_when_how_bad_who_and_what() -> None:
    found = line("%d objects", 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found.pop("time"))
    assert found == {"level": "warning", "logger": "tomowire.x", "message": "3 objects"}


def test_whatever_is_logged_stays_one_line() -> None:
    hostile = "a\nb\r\x1b[31m\u2028\x85\udc80\0"
    assert line("%s", hostile)["message"] == hostile


def test_an_exception_has_its_traceback() -> None:
    try:
        raise LookupError("not there")
    except LookupError:
        found = line("failed", exc_info=sys.exc_info())
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("LookupError: not there")


def test_an_http_request_is_named_by_its_id() -> None:
    token = logs.http_request.set("7f3a")
    try:
        assert line("x")["request"] == "7f3a"
    finally:
        logs.http_request.reset(token)
    assert "request" not in line("x")


def test_what_goes_to_a_stream_becomes_json(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    stream, other = logging.StreamHandler(sys.__stderr__), logging.NullHandler()
    monkeypatch.setattr(root, "handlers", [*root.handlers, stream, other])
    logs.write_json()
    assert [isinstance(each.formatter, JsonLines) for each in (stream, other)] == [True, False]


def test_the_level_can_be_changed(tail: LogTail) -> None:
    logs.set_level("error")
    log.warning("not this")
    logs.set_level("info")
    log.info("but this")
    assert [each["message"] for each in tail.last()] == ["but this"]
    assert logs.level() == "info"
    with pytest.raises(UsageError, match="'loud' is no log level: debug, info, warning, error, critical"):
        logs.set_level("loud")


# The tail


async def test_the_last_lines_are_kept_and_no_more(tail: LogTail) -> None:
    for number in range(8):
        log.info("line %d", number)
    assert [each["message"] for each in tail.last()] == [f"line {number}" for number in range(3, 8)]
    assert [each["message"] for each in tail.last(2)] == ["line 6", "line 7"]
    assert tail.last(0) == []


async def following(tail: LogTail, last: int = 0, **options: Any) -> AsyncIterator[dict[str, Any]]:
    async with aclosing(tail.subscribe(last, **options)) as lines:
        async for fields in lines:
            yield fields


async def test_who_follows_gets_the_last_lines_and_those_to_come_in_order(tail: LogTail) -> None:
    log.info("before")
    lines = tail.subscribe(1)
    assert (await anext(lines))["message"] == "before"
    log.info("first")
    threading.Thread(target=log.info, args=("second",)).start()
    assert [(await anext(lines))["message"] for _ in range(2)] == ["first", "second"]
    await lines.aclose()
    assert tail._subscribers == set()


async def test_who_is_slow_is_told_how_many_are_missing(tail: LogTail) -> None:
    lines = tail.subscribe(1, most_waiting=3)
    log.info("begin")
    await anext(lines)
    for number in range(10):
        log.info("line %d", number)
    found = [await anext(lines) for _ in range(4)]
    assert [each.get("message") for each in found] == ["line 0", "line 1", "line 2", None]
    assert found[3] == {"dropped": 7}
    log.info("after")
    assert (await anext(lines))["message"] == "after"
    await lines.aclose()


async def test_the_tail_ends_with_the_archive() -> None:
    with LogTail().installed() as tail:
        log.info("last words")
        lines = tail.subscribe(1)
        assert (await anext(lines))["message"] == "last words"
    with pytest.raises(StopAsyncIteration):
        await anext(lines)


# Of an archive


async def test_every_line_about_an_association_names_it(tmp_path: Path) -> None:
    """Lines of the library as well: its beginning, its requests, its end, and why somebody was rejected."""
    path = write_sample(tmp_path, Sample(1, patient_id="SECRET"))
    settings = Settings(tmp_path / "data", port=0, allowed_callers=("MODALITY",))
    async with Archive(settings) as archive:
        async with Peer(f"TOMOWIRE@{LOOPBACK}:{archive.port}", aet="MODALITY") as peer:
            assert [sent.response.is_success async for sent in peer.send(path) if sent.response is not None] == [True]
        with pytest.raises(AssociationRejected):
            async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", [verification()], aet="STRANGER"):
                pass
        seen = [
            each
            for each in archive.log_tail.last()
            if "MODALITY" in each["message"] or each.get("calling") == "MODALITY"
        ]
        ours = [each for each in seen if each.get("association") and each["logger"] != "tomowire.sending"]
        accepted = next(
            each for each in ours if "association accepted" in each["message"] and "127.0.0.1" in each["address"]
        )
        number = accepted["association"]
        about = [each for each in ours if each["association"] == number]
        texts = [each["message"] for each in about]
        assert any("released" in text for text in texts)
        assert any("ended, 1 object stored" in text for text in texts)
        stored = next(each for each in about if each["logger"] == "tomowire.server.ingest")
        assert re.fullmatch(rf"{number}\.\d+", stored["request"])
        assert stored["operation"] == "CStoreRQ"
        assert {(each["calling"], each["called"]) for each in about} == {("MODALITY", "TOMOWIRE")}
        assert len({each["address"] for each in about}) == 1
        rejected = next(
            each for each in archive.log_tail.last() if "rejected:" in each["message"] and each["level"] == "warning"
        )
        assert rejected["calling"] == "STRANGER"
        assert rejected["association"] != number
        assert "SECRET" not in json.dumps(archive.log_tail.last())


async def test_two_associations_at_once_are_told_apart(tmp_path: Path) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:

        async def send(number: int) -> None:
            path = write_sample(tmp_path, Sample(number))
            async with Peer(f"TOMOWIRE@{LOOPBACK}:{archive.port}", aet=f"SENDER{number}") as peer:
                assert [sent async for sent in peer.send(path)]

        await asyncio.gather(*(send(number) for number in range(1, 6)))
        stored = [each for each in archive.log_tail.last() if each["logger"] == "tomowire.server.ingest"]
    assert len(stored) == 5
    assert len({each["association"] for each in stored}) == 5
    assert all(each["message"].startswith(f"{each['calling']} ({each['address']})") for each in stored)


def test_what_cannot_be_formatted_does_not_raise(capsys: pytest.CaptureFixture[str]) -> None:
    tail = LogTail()
    tail.emit(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    assert "Logging error" in capsys.readouterr().err
    assert tail.last() == []
    assert fields_of(logging.makeLogRecord({"msg": "fine"}))["message"] == "fine"
