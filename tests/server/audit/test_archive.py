"""What an archive records of what is done to it over the network, and what of that survives its being killed."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.audit_schema import violations
from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE, Sample
from support.programs import run_tomowire, serving
from tomowire import Find, FindAnswers, FindRequest, Peer, Query, Storage, associate, listen, verification
from tomowire.errors import AssociationLost, AssociationRejected
from tomowire.protocol.status import PROCESSING_FAILURE, SUCCESS, Status
from tomowire.server.access import CallerRule, Right
from tomowire.server.app import Archive, Settings
from tomowire.server.audit.events import Party
from tomowire.server.audit.teller import person
from tomowire.server.audit.trail import Entry
from tomowire.server.check import check
from tomowire.server.findings import FindingKind
from tomowire.server.nodes import Node
from tomowire.server.settings import QuotaSettings
from tomowire.services.storage_scp import StoreRequest


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.server.audit.audit._INTERVAL", 0.0)


def write(folder: Path, *samples: Sample) -> list[Path]:
    paths = [folder / f"{sample.number}.dcm" for sample in samples]
    for path, sample in zip(paths, samples, strict=True):
        path.write_bytes(sample.header + sample.data_set)
    return paths


@asynccontextmanager
async def peer(archive: Archive, title: str = "MODALITY") -> AsyncIterator[Peer]:
    async with Peer(f"TOMOWIRE@{LOOPBACK}:{archive.port}", aet=title) as opened:
        yield opened


async def entries(archive: Archive, *kinds: str) -> list[Entry]:
    """Those of these kinds, once the last association is over and all is written."""
    async with asyncio.timeout(20):
        while archive.associations:  # noqa: ASYNC110 - nobody is told of the last one
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert await archive.audit.flush(20)
    found = await archive.audit.list(limit=1000)
    assert [list(violations(ElementTree.fromstring(entry.message))) for entry in found] == [[]] * len(found)
    assert await archive.audit.verify() == []
    return [entry for entry in found if entry.event in kinds or not kinds]


def studies(entry: Entry) -> dict[str, dict[str, int]]:
    """The number of instances by SOP class, for each study of a message."""
    objects = ElementTree.fromstring(entry.message).iter("ParticipantObjectIdentification")
    return {
        each.attrib["ParticipantObjectID"]: {
            kind.attrib["UID"]: int(kind.attrib["NumberOfInstances"]) for kind in each.iter("SOPClass")
        }
        for each in objects
        if each.get("ParticipantObjectTypeCode") == "2"
    }


def patients(entry: Entry) -> list[str]:
    objects = ElementTree.fromstring(entry.message).iter("ParticipantObjectIdentification")
    return [each.attrib["ParticipantObjectID"] for each in objects if each.get("ParticipantObjectTypeCode") == "1"]


async def test_what_comes_is_told_by_study_and_not_by_object(tmp_path: Path) -> None:
    one = [Sample(number, study=1, patient_id="P1") for number in range(1, 6)]
    other = [Sample(number, study=2, patient_id="P2") for number in range(6, 9)]
    paths = write(tmp_path, *one, *other)
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        async with peer(archive) as sender:
            assert len([sent async for sent in sender.send(paths)]) == 8
        first = await entries(archive, "instances-transferred")
        async with peer(archive) as sender:
            assert len([sent async for sent in sender.send(paths[:2])]) == 2
        again = (await entries(archive, "instances-transferred"))[len(first) :]
    assert {uid: kinds for entry in first for uid, kinds in studies(entry).items()} == {
        one[0].study_uid: {SECONDARY_CAPTURE: 5},
        other[0].study_uid: {SECONDARY_CAPTURE: 3},
    }
    assert [patients(entry) for entry in first] == [["P1"], ["P2"]]
    assert [entry.actor for entry in first] == ["MODALITY"] * 2
    assert all('EventActionCode="C"' in entry.message for entry in first)
    assert [studies(entry) for entry in again] == [{one[0].study_uid: {SECONDARY_CAPTURE: 2}}]
    assert all('EventActionCode="R"' in entry.message for entry in again), "the archive had them"


async def test_an_association_that_lasts_is_told_of_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.server.audit.transfers.MOST", 3)
    monkeypatch.setattr(
        "tomowire.server.audit.transfers.Transfers.__init__.__kwdefaults__", {"most": 3, "longest": 0.2}
    )
    paths = write(tmp_path, *(Sample(number) for number in range(1, 5)))
    async with Archive(Settings(tmp_path / "data", port=0)) as archive, peer(archive) as sender:
        assert len([sent async for sent in sender.send(paths)]) == 4
        await asyncio.sleep(0.4)
        assert await archive.audit.flush(20)
        found = [entry for entry in await archive.audit.list(limit=100) if entry.event == "instances-transferred"]
    assert [next(iter(studies(entry).values())) for entry in found] == [{SECONDARY_CAPTURE: 3}, {SECONDARY_CAPTURE: 1}]


async def test_associations_begin_and_end_and_are_refused(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "data", port=0, allowed_callers=("MODALITY",))
    async with Archive(settings) as archive:
        address = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        async with associate(address, [verification()], aet="MODALITY"):
            pass
        async with associate(address, [verification()], aet="MODALITY") as aborted:
            aborted.abort()
        for _ in range(5):
            with pytest.raises(AssociationRejected):
                async with associate(address, [verification()], aet="STRANGER"):
                    pass
        found = await entries(archive)
    kinds = [(entry.event, entry.actor, entry.outcome) for entry in found]
    assert kinds.count(("association-begun", "MODALITY", 0)) == 2
    assert kinds.count(("association-ended", "MODALITY", 0)) == 1
    assert kinds.count(("association-ended", "MODALITY", 4)) == 1
    assert kinds.count(("association-refused", "STRANGER", 4)) == 1, "the first; how many more there were comes later"
    with closing(sqlite3.connect(tmp_path / "data" / "index.sqlite")) as index:
        [(message,)] = index.execute(
            "SELECT message FROM audit_events WHERE event = 'association-refused' ORDER BY event_key DESC LIMIT 1"
        )
        [last] = index.execute("SELECT event FROM audit_events ORDER BY event_key DESC LIMIT 1").fetchone()
    assert "4 more from there within 10 s" in message
    assert last == "application-stopped"


async def test_queries_are_told_with_their_identifiers(tmp_path: Path) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        async with peer(archive, "STATION") as asking:
            assert [each async for each in asking.find(Query.studies().patient_name("Doe*"))] == []
        [*_, found] = await entries(archive, "query")
    assert (found.actor, found.outcome) == ("STATION", 0)
    query = ElementTree.fromstring(found.message).findtext(".//ParticipantObjectQuery")
    assert query is not None
    assert b"Doe*" in base64.b64decode(query)


async def test_a_job_that_is_cancelled_while_it_asks_was_not_answered(tmp_path: Path) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        node, asked = Node("REMOTE", LOOPBACK, 104), asyncio.Event()

        async def ask() -> None:
            with archive.witness.asking(node, Party("doctor", "10.0.0.1"), "1.2.840.10008.5.1.4.1.2.2.1", b""):
                asked.set()
                await asyncio.Event().wait()

        work = asyncio.create_task(ask())
        await asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        [query] = await entries(archive, "query")
    assert query.outcome == 4
    assert "it ended before it was answered" in query.message


async def test_a_query_that_is_given_up_was_not_answered(tmp_path: Path) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        answering = asyncio.Event()

        async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
            answering.set()
            await asyncio.Event().wait()
            yield FindAnswers([])

        async with (
            listen(LOOPBACK, 0, services=[Find(archive.witness.find(answer))]) as server,
            Peer(f"ANY@{LOOPBACK}:{server.port}", aet="STATION") as asking,
        ):
            found = asyncio.ensure_future(anext(asking.find(Query.studies())))
            await answering.wait()
            found.cancel()
            with pytest.raises(asyncio.CancelledError):
                await found
        [query] = await entries(archive, "query")
    assert query.outcome == 4
    assert "it ended before it was answered" in query.message


async def test_what_is_got_is_an_export_to_who_got_it(tmp_path: Path) -> None:
    samples = [Sample(number) for number in range(1, 4)]
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        async with peer(archive) as sender:
            assert len([sent async for sent in sender.send(write(tmp_path, *samples))]) == 3
        async with peer(archive, "STATION") as getting:
            async for _ in getting.get(Query.study(samples[0].study_uid), into=tmp_path / "got"):
                pass
        begun, export = await entries(archive, "transfer-begun", "export")
    assert [begun.event, export.event] == ["transfer-begun", "export"]
    assert (export.actor, export.outcome) == ("STATION", 0)
    assert studies(export) == {samples[0].study_uid: {SECONDARY_CAPTURE: 3}}
    assert patients(begun) == patients(export) == ["P1"]


async def test_what_is_moved_is_told_as_the_destination_acknowledged_it(tmp_path: Path) -> None:
    """One message for what went well, and one for what did not (Table A.5.2-1)."""
    samples = [Sample(number) for number in range(1, 6)]

    async def keep(request: StoreRequest) -> Status:
        return PROCESSING_FAILURE if request.sop_instance_uid == samples[0].uid else SUCCESS

    async with listen(LOOPBACK, 0, services=[Storage(keep)], shutdown_grace=0) as destination:
        port = destination.port
        node = Node("STATION", LOOPBACK, port)
        async with Archive(Settings(tmp_path / "data", port=0, nodes=(node,))) as archive:
            async with peer(archive) as sender:
                assert len([sent async for sent in sender.send(write(tmp_path, *samples))]) == 5
            async with peer(archive, "READER") as asking:
                with pytest.raises(ExceptionGroup):
                    async for _ in asking.move(Query.study(samples[0].study_uid), destination="STATION"):
                        pass
            begun, sent, failed = await entries(archive, "transfer-begun", "export")
    assert begun.event == "transfer-begun"
    assert 'UserID="READER"' in begun.message
    assert (sent.outcome, studies(sent)) == (0, {samples[0].study_uid: {SECONDARY_CAPTURE: 4}})
    assert (failed.outcome, studies(failed)) == (4, {samples[0].study_uid: {SECONDARY_CAPTURE: 1}})
    assert sent.actor == failed.actor == "READER"
    assert f'UserID="dicom://STATION@{LOOPBACK}:{port}"' in sent.message


async def test_a_move_to_nowhere_is_told(tmp_path: Path) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        async with peer(archive, "READER") as asking:
            with pytest.raises(Exception, match="A801H"):
                async for _ in asking.move(Query.study("1.2.3"), destination="NOWHERE"):
                    pass
        [export] = await entries(archive, "export")
    assert export.outcome == 4
    assert "A801H" in export.message
    assert 'UserID="NOWHERE"' in export.message


async def test_what_is_deleted_is_told_with_who_did_it(tmp_path: Path) -> None:
    samples = [Sample(number) for number in range(1, 4)]
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        async with peer(archive) as sender:
            assert len([sent async for sent in sender.send(write(tmp_path, *samples))]) == 3
        await archive.deletion.instance(samples[0].uid, by="alice")
        await archive.deletion.study(samples[0].study_uid, by="bob")
        part, whole = await entries(archive, "instances-accessed", "study-deleted")
    assert (part.event, part.actor, list(studies(part))) == ("instances-accessed", "alice", [samples[0].study_uid])
    assert (whole.event, whole.actor, list(studies(whole))) == ("study-deleted", "bob", [samples[0].study_uid])
    assert patients(part) == patients(whole) == ["P1"], "though the index does not know it any more"
    assert [sum(studies(each)[samples[0].study_uid].values()) for each in (part, whole)] == [1, 2]


async def test_a_study_that_the_quota_takes_is_told_as_deleted_by_nobody_but_the_archive(tmp_path: Path) -> None:
    quota = QuotaSettings(bytes=1, every=3600, grace=0)
    samples = [Sample(1, study=1), Sample(2, study=1)]
    async with Archive(Settings(tmp_path / "data", port=0, quota=quota)) as archive:
        async with peer(archive) as sender:
            assert len([sent async for sent in sender.send(write(tmp_path, *samples))]) == 2
        assert await archive.quotas.enforce() == 1
        [gone] = await entries(archive, "study-deleted")
    assert gone.actor == "tomowire"
    assert list(violations(ElementTree.fromstring(gone.message))) == []
    assert "2 objects in 1 series, for the quota" in gone.message
    assert (sum(studies(gone)[samples[0].study_uid].values()), patients(gone)) == (2, ["P1"])


async def test_who_aborts_an_association_or_ends_the_archive_is_told(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "data", port=0)
    jane = Party("jane", "192.0.2.9")
    async with Archive(settings) as archive:
        with suppress(AssociationLost):
            async with associate(f"{settings.ae_title}@{LOOPBACK}:{archive.port}", contexts=[verification()]):
                [association] = archive.server.associations
                archive.witness.aborting(association, jane)
                association.abort()
        [ended] = await entries(archive, "association-ended")
        archive.witness.stopping(jane)
    assert (ended.actor, ended.source, ended.outcome) == ("jane", "192.0.2.9", 4)
    [stopped] = [row for row in recorded_rows(tmp_path / "data") if row[0] == "application-stopped"]
    assert stopped[1:] == ("jane", "192.0.2.9")


async def test_names_that_are_new_since_a_reload_are_told(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "data", port=0)
    async with Archive(settings) as archive:
        async with peer(archive) as caller:
            await caller.echo()
        [before] = await entries(archive, "association-begun")
        await archive.reconfigure(replace(settings, aliases=("NEWNAME",)))
        async with peer(archive) as caller:
            await caller.echo()
        *_, after = await entries(archive, "association-begun")
    assert f'AlternativeUserID="AETITLES={settings.ae_title}"' in before.message
    assert f'AlternativeUserID="AETITLES={settings.ae_title};NEWNAME"' in after.message


async def test_a_changed_configuration_and_what_is_not_allowed_are_told(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "data", port=0)
    async with Archive(settings) as archive:
        rule = CallerRule("MODALITY", may=frozenset({Right.ECHO}))
        await archive.reconfigure(replace(settings, callers=(rule,)))
        async with peer(archive) as caller:
            await caller.echo()
            with pytest.raises(Exception):  # noqa: B017, PT011 - by which status or rejection is for others to test
                assert [each async for each in caller.find(Query.studies())]
        changed, *_ = await entries(archive, "configuration-changed")
    assert changed.actor == "tomowire"
    assert "Security Configuration" in changed.message


def test_what_was_recorded_survives_being_killed(tmp_path: Path) -> None:
    data, paths = tmp_path / "data", write(tmp_path, Sample(1), Sample(2))
    with serving("serve", "--data-dir", data) as archive:
        assert run_tomowire("send", f"TOMOWIRE@{LOOPBACK}:{archive.port}", *paths).returncode == 0
        wait_for(lambda: "instances-transferred" in recorded(data))
        archive.process.send_signal(signal.SIGKILL)
        archive.process.wait(20)
    before = recorded(data)
    assert [finding for finding in check(data) if finding.kind is FindingKind.AUDIT_BROKEN] == []
    with serving("serve", "--data-dir", data) as archive:
        assert archive.end() == 0
    after = recorded(data)
    assert after[: len(before)] == before
    assert after[len(before) :] == ["application-started", "application-stopped"]
    assert "application-stopped" not in before
    assert [finding for finding in check(data) if finding.kind is FindingKind.AUDIT_BROKEN] == []


def recorded(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "index.sqlite")) as index:
        return [event for (event,) in index.execute("SELECT event FROM audit_events ORDER BY event_key")]


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_what_is_read_over_http_is_told_by_study(tmp_path: Path) -> None:
    """However many objects a viewer asks for."""
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        for number in range(5):
            archive.witness.read(Party("alice", "192.0.2.1"), f"1.2.{number % 2}", SECONDARY_CAPTURE)
        archive.witness.read(Party("bob", "192.0.2.2"), "1.2.0", SECONDARY_CAPTURE)
    with closing(sqlite3.connect(tmp_path / "data" / "index.sqlite")) as index:
        rows = index.execute(
            "SELECT actor, source, message FROM audit_events WHERE event = 'instances-accessed'"
        ).fetchall()
    assert [(actor, source) for actor, source, _ in rows] == [
        ("alice", "192.0.2.1"),
        ("alice", "192.0.2.1"),
        ("bob", "192.0.2.2"),
    ]
    assert [re.findall(r'NumberOfInstances="(\d+)"', message) for *_, message in rows] == [["3"], ["2"], ["1"]]
    assert all('EventActionCode="R"' in message for *_, message in rows)


def test_what_is_imported_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "cd"
    folder.mkdir()
    write(folder, Sample(1, study=1), Sample(2, study=1), Sample(3, study=2))
    assert run_tomowire("import", folder, "--data-dir", tmp_path / "data").returncode == 0
    with closing(sqlite3.connect(tmp_path / "data" / "index.sqlite")) as index:
        [(message,)] = index.execute("SELECT message FROM audit_events WHERE event = 'import'").fetchall()
    assert counts(message) == ["1", "2"]
    assert f'UserID="{folder.as_uri()}"' in message
    assert list(violations(ElementTree.fromstring(message))) == []
    assert list(check(tmp_path / "data")) == []


def test_upkeep_is_told_of_an_archive_that_is_not_running(tmp_path: Path) -> None:
    """A backup, a backup with nothing new, a repair of a lost file and of one that is not indexed, a new index, and a restore."""
    folder, data, backups = tmp_path / "cd", tmp_path / "data", tmp_path / "backups"
    folder.mkdir()
    write(folder, Sample(1, study=1), Sample(2, study=1), Sample(3, study=2))
    assert run_tomowire("import", folder, "--data-dir", data).returncode == 0
    for _ in range(2):
        assert run_tomowire("backup", backups, "--data-dir", data).returncode == 0
    lost = next(data.glob(f"objects/*/{Sample(3, study=2).study_uid}/*/*"))
    kept = lost.read_bytes()
    lost.unlink()
    assert run_tomowire("db", "check", "--repair", "--data-dir", data).returncode == 0
    lost.parent.mkdir(parents=True, exist_ok=True)
    lost.write_bytes(kept)
    assert run_tomowire("db", "check", "--repair", "--data-dir", data).returncode == 0
    assert run_tomowire("db", "reindex", "--data-dir", data).returncode == 0
    assert run_tomowire("restore", backups, "--data-dir", tmp_path / "again").returncode == 0

    me = person().name
    _, first, second, gone, came, made = rows = messages(data)
    assert [(event, actor) for event, actor, _ in rows] == [
        ("import", me),
        ("export", me),
        ("export", me),
        ("study-deleted", me),
        ("instances-accessed", me),
        ("configuration-changed", me),
    ]
    assert counts(first[2]) == ["1", "2"]
    assert f'UserID="{backups.as_uri()}"' in first[2]
    assert counts(second[2]) == []
    assert "none of its objects that were not there" in second[2]
    assert (counts(gone[2]), counts(came[2])) == (["1"], ["1"])
    assert 'ParticipantObjectID="P1"' in gone[2]
    assert 'EventActionCode="C"' in came[2]
    assert "Software Configuration" in made[2]
    restored = messages(tmp_path / "again")
    assert [(event, actor) for event, actor, _ in restored][-1] == ("import", me)
    assert counts(restored[-1][2]) == ["1", "2"]
    assert "restored from point" in restored[-1][2]
    for row in (*rows, *restored):
        assert list(violations(ElementTree.fromstring(row[2]))) == []
    for each in (data, tmp_path / "again"):
        assert list(check(each)) == []


def messages(data: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(data / "index.sqlite")) as index:
        return index.execute("SELECT event, actor, message FROM audit_events ORDER BY event_key").fetchall()


def recorded_rows(data: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(data / "index.sqlite")) as index:
        return index.execute("SELECT event, actor, source FROM audit_events ORDER BY event_key").fetchall()


def counts(message: str) -> list[str]:
    return sorted(re.findall(r'NumberOfInstances="(\d+)"', message))
