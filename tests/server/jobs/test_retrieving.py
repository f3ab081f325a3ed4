"""Jobs that ask another archive: remote retrieve and remote query; and delete."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.audit_schema import violations
from support.filled import fill, small_hospital
from support.network import LOOPBACK, free_port
from support.objects import ROOT
from support.raw_peer import RawPeer, command_pdu, raw_acceptor
from tomowire.server.app import Archive
from tomowire.server.audit.trail import Filter
from tomowire.server.jobs.jobs import Job, JobState
from tomowire.server.nodes import Node
from tomowire.server.settings import JobSettings, Settings
from tomowire.services.models import Model
from tomowire.wire.messages import CMoveRQ, CMoveRSP

SAMPLES = small_hospital()
STUDY, OTHER_STUDY = f"{ROOT}.1.1", f"{ROOT}.1.3"
ONCE = JobSettings(attempts=1)
EACH_INDEX = pytest.mark.parametrize("index_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def index_url(request: pytest.FixtureRequest) -> str | None:
    """SQLite unless a test says `EACH_INDEX`: what differs between the two is tested with the claims."""
    is_postgresql = getattr(request, "param", "sqlite") == "postgresql"
    return str(request.getfixturevalue("postgres_url")) if is_postgresql else None


@pytest.fixture
async def local(tmp_path: Path, index_url: str | None) -> AsyncIterator[Archive]:
    """An empty archive that knows one that is full, and is known there."""
    port, own_port = free_port(), free_port()
    node = Node("REMOTE", LOOPBACK, port)
    settings = Settings(tmp_path / "local", port=own_port, ae_title="LOCAL", index_url=index_url, jobs=ONCE)
    await fill(tmp_path / "remote", SAMPLES)
    remote = Settings(tmp_path / "remote", port=port, ae_title="REMOTE", nodes=(Node("LOCAL", LOOPBACK, own_port),))
    async with Archive(remote), Archive(replace(settings, nodes=(node,))) as archive:
        yield archive


async def ended(archive: Archive, making: Awaitable[Job]) -> Job:
    future = asyncio.get_running_loop().create_future()
    archive.jobs.on_end = future.set_result
    job = await making
    async with asyncio.timeout(30):
        assert (await future).job_id == job.job_id
    found = await archive.jobs.get(job.job_id)
    assert found is not None
    return found


async def stored(archive: Archive) -> set[str]:
    return {found.name.sop_instance_uid async for found in archive.storage.index.objects()}


@EACH_INDEX
@pytest.mark.parametrize("method", ["get", "move"])
async def test_studies_are_retrieved_into_the_archive(local: Archive, method: str) -> None:
    asking = local.jobs.retrieve("STUDY", [STUDY, OTHER_STUDY], "REMOTE", by="me", method=method)
    job = await ended(local, asking)
    [item, other] = await local.jobs.items(job.job_id)
    assert (job.state, job.progress.done, job.error) == (JobState.DONE, 2, "")
    assert (item.comment, other.comment) == ("5 objects", "3 objects")
    assert await stored(local) == {sample.uid for sample in SAMPLES if sample.study in (1, 3)}
    if method == "get":
        assert job.progress.bytes_done == sum(len(each.data_set) for each in SAMPLES if each.study in (1, 3))


@pytest.mark.parametrize(
    ("level", "uid", "above", "count"),
    [
        ("PATIENT", "JANE", {}, 6),
        ("SERIES", f"{ROOT}.2.1.2", {"study_uid": STUDY}, 2),
        ("IMAGE", f"{ROOT}.3.4", {"study_uid": STUDY, "series_uid": f"{ROOT}.2.1.2"}, 1),
    ],
)
async def test_what_is_retrieved_can_be_named_at_any_level(
    local: Archive, level: str, uid: str, above: dict[str, str], count: int
) -> None:
    job = await ended(local, local.jobs.retrieve(level, [uid], "REMOTE", by="me", **above))
    assert (job.state, len(await stored(local))) == (JobState.DONE, count)


async def test_what_the_node_has_not_fails_and_the_others_come(local: Archive) -> None:
    job = await ended(local, local.jobs.retrieve("STUDY", ["1.2.3", STUDY], "REMOTE", by="me"))
    [item, other] = await local.jobs.items(job.job_id)
    assert (job.state, item.state, other.state) == ("failed", "failed", "done")
    assert item.comment == "the node has nothing of it"
    assert len(await stored(local)) == 5


async def test_a_node_that_does_not_know_us_as_a_destination_is_told_of(local: Archive) -> None:
    object.__setattr__(local.jobs._parts, "ae_title", "STRANGER")  # it is frozen
    job = await ended(local, local.jobs.retrieve("STUDY", [STUDY], "REMOTE", by="me", method="move"))
    [item] = await local.jobs.items(job.job_id)
    assert (job.state, item.status) == (JobState.FAILED, 0xA801)


async def test_a_node_that_does_not_count_what_it_sends_is_not_said_to_have_nothing(tmp_path: Path) -> None:
    """PS3.4 C.4.2.1.6 and following: the counts need not be there."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        message = await peer.read_message()
        assert isinstance(message.command, CMoveRQ)
        done = CMoveRSP(message_id_being_responded_to=message.command.message_id, status=0x0000)
        await peer.send(command_pdu(message.context_id, done))
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        settings = Settings(tmp_path, port=0, nodes=(Node("REMOTE", LOOPBACK, port),), jobs=ONCE)
        async with Archive(settings) as archive:
            job = await ended(archive, archive.jobs.retrieve("STUDY", [STUDY], "REMOTE", by="me", method="move"))
            [item] = await archive.jobs.items(job.job_id)
    assert (job.state, item.state) == ("done", "done")
    assert item.comment == "the node says that it is done, and not how many objects it has sent"


async def test_answers_to_a_query_are_kept_with_the_job(local: Archive) -> None:
    keys = {"PatientName": "doe^jane*", "StudyDate": "20240101-20241231"}
    job = await ended(local, local.jobs.query("STUDY", keys, "REMOTE", by="me"))
    [item] = await local.jobs.items(job.job_id)
    assert (job.state, item.comment) == (JobState.DONE, "1 answer")
    [answer] = job.result
    assert answer["0020000D"] == {"vr": "UI", "Value": [STUDY]}
    [listed] = await local.jobs.list(kind="query")
    assert listed.result is None


async def asked(archive: Archive) -> list[tuple[str, int, str, bool]]:
    """Of each query in the audit trail: who wanted it, how it went, the SOP class, and whether the study is in it."""
    assert await archive.audit.flush(20)
    found = await archive.audit.list(Filter(event="query"))
    return [(each.actor, each.outcome, *what_was_asked(each.message)) for each in found]


def what_was_asked(message: str) -> tuple[str, bool]:
    root = ElementTree.fromstring(message)
    assert list(violations(root)) == []
    source, destination, person = root.findall("ActiveParticipant")
    assert (source.get("UserName"), destination.get("UserID"), person.get("UserID")) == ("tomowire", "REMOTE", "me")
    [query] = root.findall("ParticipantObjectIdentification")
    identifier = base64.b64decode(query.findtext("ParticipantObjectQuery") or "")
    return query.get("ParticipantObjectID", ""), STUDY.encode() in identifier


async def test_what_a_node_is_asked_is_in_the_audit_trail(local: Archive) -> None:
    model = Model.STUDY_ROOT
    await ended(local, local.jobs.query("STUDY", {"StudyInstanceUID": STUDY}, "REMOTE", by="me"))
    await ended(local, local.jobs.retrieve("STUDY", [STUDY], "REMOTE", by="me"))
    await ended(local, local.jobs.retrieve("STUDY", [STUDY], "REMOTE", by="me", method="move"))
    assert await asked(local) == [
        ("me", 0, model.find, True),
        ("me", 0, model.get, True),
        ("me", 0, model.move, True),
    ]


async def test_that_a_node_could_not_be_asked_is_in_the_audit_trail_too(tmp_path: Path) -> None:
    nobody = Node("REMOTE", LOOPBACK, free_port())
    async with Archive(Settings(tmp_path, port=0, nodes=(nobody,), jobs=ONCE)) as archive:
        await ended(archive, archive.jobs.query("STUDY", {}, "REMOTE", by="me"))
        assert await asked(archive) == [("me", 4, Model.STUDY_ROOT.find, False)]


async def test_answers_beyond_the_limit_are_left_out_and_that_is_said(local: Archive) -> None:
    job = await ended(local, local.jobs.query("STUDY", {}, "REMOTE", by="me", most=3))
    [item] = await local.jobs.items(job.job_id)
    assert (len(job.result), item.comment) == (3, "the first 3 answers: there are more")


async def test_a_query_that_makes_no_sense_fails_and_says_why(local: Archive) -> None:
    job = await ended(local, local.jobs.query("STUDY", {"NoSuchKeyword": "x"}, "REMOTE", by="me"))
    assert job.state is JobState.FAILED
    assert "NoSuchKeyword" in job.error


async def test_studies_are_deleted_one_by_one_and_protected_ones_stay(local: Archive) -> None:
    await ended(local, local.jobs.retrieve("STUDY", [STUDY, OTHER_STUDY], "REMOTE", by="me"))
    await local.protection.protect(STUDY, by="me", reason="a trial")
    job = await ended(local, local.jobs.delete("STUDY", [STUDY, OTHER_STUDY], by="me"))
    [item, other] = await local.jobs.items(job.job_id)
    assert (job.state, item.state, other.state) == ("failed", "failed", "done")
    assert "protected" in item.comment
    assert await stored(local) == {sample.uid for sample in SAMPLES if sample.study == 1}
