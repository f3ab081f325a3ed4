"""The audit trail over HTTP, as an auditor uses it: whose data, who, when; all of it, each event once, and as a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from support.web import Web, web
from tomowire.server.audit.events import Export, InstancesTransferred, Login, Outcome, Party, Patient, Study

CT = "1.2.840.10008.5.1.4.1.1.2"
WS = Party.node("WS", "192.0.2.1:104")


def transferred(patient: str, study: str) -> InstancesTransferred:
    return InstancesTransferred(source=WS, study=Study(study, ((CT, 2),), Patient(patient, "Doe^John")))


@pytest.fixture
async def running(tmp_path: Path, index_url: str | None) -> AsyncIterator[Web]:
    async with web(tmp_path, index_url=index_url, users=False, filled=False) as running:
        yield running


async def told(running: Web, *events: Any) -> None:
    for event in events:
        running.archive.audit.record(event)
    assert await running.archive.audit.flush(20)


async def found(running: Web, **parameters: Any) -> list[dict[str, Any]]:
    answer = await running.nobody.get("/api/audit", params={"newest_first": False, **parameters})
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["entries"]
    return listed


HOSTILE = "A\"<&>'%_^1"


async def test_events_are_found_by_whose_objects_they_are_about_by_whom_and_when(running: Web) -> None:
    await told(
        running,
        transferred("4711", "1.2.3"),
        transferred("4711a", "1.2.4"),
        transferred(HOSTILE, "1.2.5"),
        transferred("ABC", "1.2.6"),
        Export(destination=WS, studies=(Study("1.2.3", (), Patient("4711")), Study("1.2.6", (), Patient("ABC")))),
        Login(user=Party("jane", "192.0.2.9"), outcome=Outcome.MINOR_FAILURE),
        Login(user=Party("4711", "192.0.2.9")),
    )

    async def kinds(**wanted: Any) -> list[str]:
        return [each["event"] for each in await found(running, **wanted)]

    transfer = "instances-transferred"
    assert await kinds(patient="4711") == [transfer, "export"], "and neither 4711a nor a user of that name"
    assert await kinds(patient=HOSTILE) == [transfer]
    assert await kinds(patient="abc") == [], "a Patient ID has upper and lower case"
    assert await kinds(patient="%") == await kinds(patient="47_1") == await kinds(patient="4711*") == []
    assert await kinds(study="1.2.6") == [transfer, "export"]
    assert await kinds(study="1.2") == []
    assert await kinds(patient="4711", event="export", actor="WS") == ["export"]
    assert await kinds(patient="4711", study="1.2.6") == ["export"]
    assert await kinds(actor="jane", outcome=4) == ["login"]
    assert await kinds(actor="jane", outcome=0) == []
    [moved] = await found(running, patient="4711", event="export")
    at = datetime.fromisoformat(moved["recorded_at"])
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    east = at.astimezone(tz=None)
    assert await kinds(event="export", since=east.isoformat()) == ["export"]
    assert await kinds(event="export", until=east.isoformat()) == [], "excluded"
    assert await kinds(event="export", until=(at + timedelta(microseconds=1)).isoformat()) == ["export"]
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"):
        assert await kinds(event="export", since=moment) in ([], ["export"])


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_have_each_event_once_whatever_comes_meanwhile(running: Web, newest_first: bool) -> None:
    await told(running, *(Login(user=Party(f"user{number}")) for number in range(10)))
    seen: list[str] = []
    parameters: dict[str, Any] = {"event": "login", "limit": 3, "newest_first": newest_first}
    while True:
        answer = await running.nobody.get("/api/audit", params=parameters)
        page = answer.json()
        seen += [each["actor"] for each in page["entries"]]
        await told(running, Login(user=Party("late"))) if len(seen) < 10 else None
        if page["next"] is None:
            break
        parameters["after"] = page["next"]
    before = [name for name in seen if name != "late"]
    assert (
        before
        == sorted(before, reverse=newest_first)
        == [f"user{number}" for number in sorted(range(10), reverse=newest_first)]
    )
    assert seen.count("late") == (0 if newest_first else 3), "what comes later is behind what was there"


async def test_it_is_exported_in_three_forms(running: Web) -> None:
    await told(
        running,
        transferred("4711", "1.2.3"),
        transferred("=1+1", "1.2.4"),
        Login(user=Party('=HYPERLINK("x"),\n', "192.0.2.9"), outcome=Outcome.MINOR_FAILURE, reason="wrong, or not"),
    )
    everything = await running.nobody.get("/api/audit/export")
    events = [json.loads(line) for line in everything.text.splitlines()]
    assert [each["number"] for each in events] == list(range(1, len(events) + 1))

    table = await running.nobody.get("/api/audit/export", params={"format": "csv"})
    assert table.headers["Content-Type"].startswith("text/csv")
    assert table.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
    rows = list(csv.DictReader(io.StringIO(table.content.decode(), newline="")))
    assert [row["message"] for row in rows][: len(events)] == [each["message"] for each in events]
    assert all(datetime.fromisoformat(row["recorded_at"]).utcoffset() == timedelta(0) for row in rows)
    about = [(row["patients"], row["studies"]) for row in rows if row["event"] == "instances-transferred"]
    assert about == [("4711", "1.2.3"), ("'=1+1", "1.2.4")], "no spreadsheet calculates what a modality sends"
    [login] = [row for row in rows if row["event"] == "login"]
    assert (login["actor"], login["reason"]) == ('\'=HYPERLINK("x"),\n', "wrong, or not")
    assert table.content.startswith(b"number,recorded_at,event,")

    document = await running.nobody.get("/api/audit/export", params={"format": "xml", "patient": "4711"})
    [message] = ElementTree.fromstring(document.content)
    assert message.tag == "AuditMessage"


async def test_what_comes_during_an_export_is_not_in_it(running: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would have no end where events come faster than a client takes them."""
    monkeypatch.setattr("tomowire.web.api.audit._PAGE", 1)
    await told(running, *(Login(user=Party(f"user{number}")) for number in range(3)))
    audit, real = running.archive.audit, running.archive.audit.list

    async def busy(*arguments: Any, **options: Any) -> Any:
        audit.record(Login(user=Party("late")))
        assert await audit.flush(20)
        return await real(*arguments, **options)

    monkeypatch.setattr(audit, "list", busy)
    answer = await running.nobody.get("/api/audit/export", params={"event": "login"})
    names = [json.loads(line)["actor"] for line in answer.text.splitlines()]
    assert names == ["user0", "user1", "user2", "late"], "one was there before it was asked which the last is"
