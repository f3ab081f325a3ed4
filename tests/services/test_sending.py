"""Sending many files: one bad file, one bad association or one refused context never stops the others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.files import data_of, sparse_file, write_file
from support.network import LOOPBACK, free_port
from support.raw_peer import CT, MR, RELEASE_RP, Closed, RawPeer, Unexpected, command_pdu, raw_acceptor
from support.services import Keeper, serve
from support.store_peers import Ending, StorePeer, close
from tomowire.aio.address import PeerAddress
from tomowire.aio.connection import Connection
from tomowire.aio.listen import listen
from tomowire.aio.serving import IncomingRequest
from tomowire.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    AssociationReleased,
    ConnectFailed,
    InvalidUid,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
    UsageError,
)
from tomowire.services import lanes
from tomowire.services.dicom_file import DicomFile
from tomowire.services.feed import Feed
from tomowire.services.sending import Sent, plan, send_feed, send_files
from tomowire.services.storage import MoveOriginator
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.pdu import AAbort, AAssociateRJ, AReleaseRQ

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20


def peer_at(port: int) -> PeerAddress:
    return PeerAddress("ANY", LOOPBACK, port)


async def send(port: int, files: Iterable[DicomFile], **options: Any) -> dict[str, Sent]:
    """What became of each file, by its number. Each must be accounted for once."""
    files = list(files)
    options.setdefault("retry_waits", (0.0,))
    async with asyncio.timeout(30):
        results = [sent async for sent in send_files(peer_at(port), files, **options)]
    by_number = {sent.file.path.stem: sent for sent in results}
    assert len(results) == len(by_number) == len(files)
    return by_number


async def collected(sending: AsyncIterator[Sent]) -> list[Sent]:
    return [sent async for sent in sending]


def failures(results: dict[str, Sent]) -> dict[str, type[Exception] | int]:
    return {
        number: type(sent.error) if sent.error is not None else int(sent.response.status)  # type: ignore[union-attr]
        for number, sent in sorted(results.items())
        if sent.is_failure
    }


@pytest.fixture
def files(tmp_path: Path) -> list[DicomFile]:
    return [write_file(tmp_path, number) for number in range(1, 21)]


# What goes well


async def test_memory_that_is_used_again_spoils_no_object(tmp_path: Path) -> None:
    """The peer reads late, so that several objects are on their way at once, and answers out of order."""
    contents = {number: bytes([number]) * (70_000 + 7919 * number) for number in range(1, 61)}
    files = [write_file(tmp_path, number, content) for number, content in contents.items()]
    received: dict[str, bytes] = {}

    async def keep(request: StoreRequest) -> int:
        await asyncio.sleep(int(request.sop_instance_uid.rpartition(".")[2]) % 3 / 100)
        received[request.sop_instance_uid] = await request.data.read()
        return 0

    async with listen(LOOPBACK, 0, services=[Storage(keep)]) as server:
        assert failures(await send(server.port, files)) == {}
    assert received == {f"1.2.{number}": content + b"\0" * (len(content) % 2) for number, content in contents.items()}


@pytest.mark.parametrize("associations", [1, 3, 50])
@pytest.mark.parametrize("window", [1, 16])
async def test_all_files_arrive(tmp_path: Path, associations: int, window: int) -> None:
    """Many small ones, some large ones, one that is empty."""
    files = [write_file(tmp_path, number) for number in range(150)]
    files += [sparse_file(tmp_path, 1000 + number, 2 * MB) for number in range(3)]
    files.append(write_file(tmp_path, 2000, b""))
    keeper = Keeper()
    async with serve(keeper) as server:
        results = await send(server.port, files, associations=associations, window=window)
    assert failures(results) == {}
    assert all(keeper.stored[f"1.2.{number}"] == data_of(number) for number in range(150))
    assert all(len(keeper.stored[f"1.2.{1000 + number}"]) == 2 * MB for number in range(3))
    assert keeper.stored["1.2.2000"] == b""
    assert len(keeper.stored) == 154


async def test_the_window_is_used(files: list[DicomFile]) -> None:
    for window, most in [(4, 4), (1, 1)]:
        keeper = Keeper()
        keeper.gate.clear()
        async with serve(keeper) as server:
            sending = asyncio.create_task(send(server.port, files, window=window))
            for _ in range(most):
                await keeper.next_begun()
            keeper.gate.set()
            await sending
        assert keeper.most_running == most


async def test_several_associations_are_used_at_once(files: list[DicomFile]) -> None:
    """The files are shared out, so that each of them has some."""
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server:
        sending = asyncio.create_task(send(server.port, files, associations=5, window=1))
        peers = {(await keeper.next_begun()).association.peer_address for _ in range(5)}
        assert len(peers) == 5
        keeper.gate.set()
        assert failures(await sending) == {}


async def test_results_come_as_soon_as_they_are_known(files: list[DicomFile]) -> None:
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server, aclosing(send_files(peer_at(server.port), files, window=1)) as results:
        first = asyncio.ensure_future(anext(results))
        await keeper.next_begun()
        assert not first.done()
        keeper.gate.set()
        assert not (await first).is_failure
        assert len(keeper.stored) <= 3, "the others are not waited for"


async def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    files = [write_file(tmp_path, 1), sparse_file(tmp_path, 2, 3 * MB)]
    counted: list[int] = []
    async with serve() as server:
        await send(server.port, files, progress=counted.append)
    assert sum(counted) == sum(file.size for file in files)
    assert len(counted) > 2


async def test_no_files_need_no_association() -> None:
    assert await send(free_port(), []) == {}


# One bad file


async def test_files_that_cannot_be_read(tmp_path: Path, files: list[DicomFile]) -> None:
    os.unlink(files[0].path)
    os.truncate(files[1].path, files[1].offset + 3)
    large_missing = sparse_file(tmp_path, 101, 2 * MB)
    os.unlink(large_missing.path)
    large_short = sparse_file(tmp_path, 102, 4 * MB)
    os.truncate(large_short.path, 2 * MB)
    keeper = Keeper()
    async with serve(keeper) as server:
        results = await send(server.port, [*files, large_missing, large_short])
    assert failures(results) == {"1": FileNotFoundError, "2": OSError, "101": FileNotFoundError, "102": OSError}
    assert "shorter" in str(results["2"].error)
    assert len(keeper.stored) == 18


async def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path, files: list[DicomFile]) -> None:
    """The association is lost with it, and the others are sent on another one."""
    victim = sparse_file(tmp_path, 100, 64 * MB)

    class Shrinking(Keeper):
        async def keep(self, request: StoreRequest) -> int:
            if request.sop_instance_uid == "1.2.100":
                os.truncate(victim.path, victim.offset + 2 * MB)
            return await super().keep(request)

    keeper = Shrinking()
    async with serve(keeper) as server:
        results = await send(server.port, [*files[:5], victim, *files[5:]], window=3)
    assert failures(results) == {"100": OSError}
    assert len(keeper.stored) == 20


async def test_what_is_no_uid_is_not_proposed(files: list[DicomFile]) -> None:
    """A peer may refuse the whole association because of one."""
    bad_class = DicomFile(Path("bad1"), "../../etc", "1.2", EXPLICIT_VR_LITTLE_ENDIAN, 0, 0)
    bad_syntax = DicomFile(Path("bad2"), CT, "1.2", "\N{SNOWMAN}" * 70, 0, 0)
    keeper = Keeper()
    async with serve(keeper) as server:
        results = await send(server.port, [bad_class, *files, bad_syntax])
    assert failures(results) == {"bad1": InvalidUid, "bad2": InvalidUid}
    assert len(keeper.stored) == 20


async def test_an_instance_uid_that_cannot_be_sent_is_that_files_failure(files: list[DicomFile]) -> None:
    """It stands in the command set, and harms nobody else."""
    good = files[0]
    unencodable = replace(files[1], sop_instance_uid="1.\N{SNOWMAN}")
    traversal = replace(files[2], sop_instance_uid="../../etc/passwd")
    async with serve() as server:
        results = await send(server.port, [unencodable, traversal, good])
    assert failures(results) == {"2": UsageError, "3": 0x0117}


async def test_statuses_are_values(files: list[DicomFile]) -> None:
    async def keep(request: StoreRequest) -> int:
        return {"1.2.3": 0xA700, "1.2.4": 0xB000}.get(request.sop_instance_uid, 0)

    async with listen(port=0, services=[Storage(keep)]) as server:
        results = await send(server.port, files)
    assert failures(results) == {"3": 0xA700}
    assert results["4"].response is not None
    assert results["4"].response.is_warning


# Contexts


async def test_a_refused_context_fails_its_own_files_only(tmp_path: Path, files: list[DicomFile]) -> None:
    keeper = Keeper()
    mr = [write_file(tmp_path, number, sop_class=MR) for number in (101, 102)]
    jpeg = write_file(tmp_path, 103, transfer_syntax="1.2.840.10008.1.2.4.50")
    service = Storage(keeper.keep, sop_classes={CT}, transfer_syntaxes={EXPLICIT_VR_LITTLE_ENDIAN})
    async with listen(port=0, services=[service]) as server:
        results = await send(server.port, [mr[0], *files, mr[1], jpeg])
    assert failures(results) == dict.fromkeys(("101", "102", "103"), NoAcceptedContext)
    assert "does not support this SOP class" in str(results["101"].error)
    assert len(keeper.stored) == 20


async def test_more_than_128_contexts_take_further_associations(tmp_path: Path) -> None:
    proposed: list[int] = []

    class Noting(Keeper):
        async def keep(self, request: StoreRequest) -> int:
            proposed.append(len(request.association.agreement.request.presentation_contexts))
            return await super().keep(request)

    keeper = Noting()
    files = [write_file(tmp_path, number, sop_class=f"1.2.3.{number}") for number in range(300)]
    async with listen(port=0, services=[Storage(keeper.keep, any_sop_class=True)]) as server:
        results = await send(server.port, files)
    assert failures(results) == {}
    assert Counter(proposed) == {128: 256, 44: 44}


UIDS = st.integers(1, 200).map(lambda number: f"1.2.{number}")


@settings(max_examples=50)
@given(st.lists(st.tuples(UIDS, st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])), max_size=400))
def test_every_file_finds_its_context_in_the_plan(pairs: list[tuple[str, str]]) -> None:
    files = [DicomFile(Path(str(number)), *_pair, 0, 0) for number, _pair in enumerate((c, "1.2", t) for c, t in pairs)]
    groups = plan(files)
    assert sorted((file for _, group in groups for file in group), key=lambda file: int(file.path.name)) == files
    for contexts, group in groups:
        assert 1 <= len(contexts) <= 128
        offered = [(each.abstract_syntax, syntax) for each in contexts for syntax in each.transfer_syntaxes]
        assert len(set(offered)) == len(offered) == len(contexts)
        assert {(file.sop_class_uid, file.transfer_syntax_uid) for file in group} == set(offered)
    assert len(groups) == -(-len(set(pairs)) // 128)


@pytest.mark.parametrize("status", [0xFE00, 0x1234, 0xFFFF])
async def test_what_is_no_success_and_no_warning_is_a_failure(files: list[DicomFile], status: int) -> None:
    """A C-STORE cannot be cancelled: a peer that says so has not stored the object."""
    async with raw_acceptor(StorePeer(lambda _: status)) as port:
        results = await send(port, files[:1])
    assert failures(results) == {"1": status}


# Associations that end


class Fragile(StorePeer):
    """An SCP that goes away, in one way or another, whenever it meets one of its `poisons`."""

    def __init__(self, *poisons: str, by: Ending, window: tuple[int, int] | None = None, releases: bool = True) -> None:
        super().__init__(lambda uid: by if uid in poisons else 0, window=window)
        self.poisons = poisons
        self.releases = releases

    @property
    def stored(self) -> Counter[str]:
        return Counter({uid: times for uid, times in self.asked.items() if uid not in self.poisons})

    async def release(self, peer: RawPeer) -> None:
        await (super().release(peer) if self.releases else hang(peer))


async def abort(peer: RawPeer) -> None:
    await peer.send(AAbort(2, 0))


async def reset(peer: RawPeer) -> None:
    peer.reset()


async def hang(peer: RawPeer) -> None:
    """Answer nothing until the other side has had enough."""
    await peer.expect_abort()


@pytest.mark.parametrize("by", [abort, close, reset, hang])
@pytest.mark.parametrize("window", [None, (8, 1)])
@pytest.mark.parametrize("associations", [1, 3])
async def test_an_object_that_makes_the_peer_go_away_is_the_only_one_that_fails(
    files: list[DicomFile], by: Callable[[RawPeer], Awaitable[None]], window: tuple[int, int] | None, associations: int
) -> None:
    """What was under way with it is sent again, one at a time, so that it is clear who is to blame."""
    scp = Fragile("1.2.7", "1.2.20", by=by, window=window)
    async with raw_acceptor(scp) as port:
        results = await send(port, files, associations=associations, timeout=1.0 if by is hang else 20.0)
    expected = OperationTimeout if by is hang else AssociationError
    assert {number: issubclass(kind, expected) for number, kind in failures(results).items()} == {"7": True, "20": True}  # type: ignore[arg-type]
    assert set(scp.stored) == {file.sop_instance_uid for file in files} - {"1.2.7", "1.2.20"}


async def answer_what_was_not_asked(peer: RawPeer) -> None:
    await peer.send(command_pdu(1, CStoreRSP(message_id_being_responded_to=60_000, status=0)))
    await peer.expect_abort()


@pytest.mark.parametrize("window", [None, (8, 1)])
async def test_a_peer_that_breaks_the_protocol_at_one_object_gets_the_others(
    files: list[DicomFile], window: tuple[int, int] | None
) -> None:
    """The association is broken off for what was under way beside it, too."""
    scp = Fragile("1.2.7", "1.2.20", by=answer_what_was_not_asked, window=window)
    async with raw_acceptor(scp) as port:
        results = await send(port, files)
    assert failures(results) == {"20": PeerMisbehaved, "7": PeerMisbehaved}
    assert set(scp.stored) == {file.sop_instance_uid for file in files} - {"1.2.7", "1.2.20"}


async def test_without_retries_nothing_is_sent_to_a_peer_that_broke_the_protocol_twice(files: list[DicomFile]) -> None:
    scp = Fragile("1.2.7", by=answer_what_was_not_asked)
    async with raw_acceptor(scp) as port:
        results = await send(port, files, retry_waits=())
    assert failures(results) == {"7": PeerMisbehaved}
    assert set(scp.asked.values()) == {1}


async def test_a_peer_that_goes_away_at_every_object_is_not_asked_for_ever(files: list[DicomFile]) -> None:
    scp = Fragile(*(file.sop_instance_uid for file in files), by=abort)
    async with raw_acceptor(scp) as port:
        results = await send(port, files)
    assert failures(results) == {str(number): AssociationAborted for number in range(1, 21)}
    assert scp.associations == 40, "each object has two chances"


@pytest.mark.parametrize(
    ("ending", "error"),
    [(AAbort(2, 0), AssociationAborted), (AReleaseRQ(), AssociationReleased)],
    ids=["abort", "release"],
)
@pytest.mark.parametrize(("waits", "times"), [((), 1), ((0.0, 0.0), 3)], ids=["no retries", "retries"])
async def test_a_peer_that_ends_each_association_at_once_is_not_asked_for_ever(
    files: list[DicomFile], ending: AAbort | AReleaseRQ, error: type[Exception], waits: tuple[float, ...], times: int
) -> None:
    """Nothing was begun on them: it is as if they could not be opened."""
    associations = 0

    async def script(peer: RawPeer) -> None:
        nonlocal associations
        associations += 1
        await peer.accept(then=[ending])
        with suppress(Closed):
            await peer.read_pdu()

    async with raw_acceptor(script) as port:
        results = await send(port, files, retry_waits=waits)
    assert failures(results) == {str(number): error for number in range(1, 21)}
    assert associations == times


async def test_a_peer_that_ends_one_association_at_once_gets_all_on_the_next(files: list[DicomFile]) -> None:
    scp = StorePeer(lambda uid: 0)
    first = True

    async def script(peer: RawPeer) -> None:
        nonlocal first
        if not first:
            await scp(peer)
            return
        first = False
        await peer.accept(then=[AAbort(2, 0)])

    async with raw_acceptor(script) as port:
        results = await send(port, files)
    assert failures(results) == {}
    assert scp.associations == 1


async def test_a_peer_that_does_not_answer_the_release_has_the_objects_all_the_same(files: list[DicomFile]) -> None:
    scp = Fragile(by=hang, releases=False)
    async with raw_acceptor(scp) as port:
        results = await send(port, files, associations=2, release_timeout=0.2)
    assert failures(results) == {}
    assert scp.stored.total() == 20


# No association


async def test_a_refused_connection_is_the_error_of_every_file(files: list[DicomFile]) -> None:
    for associations in (1, 4):
        results = await send(free_port(), files, associations=associations)
        assert failures(results) == {str(number): ConnectFailed for number in range(1, 21)}


async def test_a_rejection_is_the_error_of_every_file(files: list[DicomFile]) -> None:
    async with serve(aet="RIGHT") as server:
        results = await send(server.port, files)
    assert failures(results) == {str(number): AssociationRejected for number in range(1, 21)}


async def test_a_peer_that_allows_fewer_associations_gets_fewer(files: list[DicomFile]) -> None:
    """Rejected lanes are no failures while another one works."""
    keeper = Keeper()
    async with serve(keeper, maximum_associations=1) as server:
        results = await send(server.port, files, associations=5)
    assert failures(results) == {}
    assert len(keeper.stored) == 20


async def test_a_peer_that_lets_nobody_in_any_more(files: list[DicomFile]) -> None:
    """It took some, went away, and then rejects: what is left gets the rejection, and it ends."""
    taken = Fragile("1.2.5", by=abort)

    async def script(peer: RawPeer) -> None:
        if taken.associations:
            await peer.read_pdu()
            await peer.send(AAssociateRJ(2, 3, 1))
        else:
            await taken(peer)

    async with raw_acceptor(script) as port:
        results = await send(port, files)
    assert set(taken.stored) == {f"1.2.{number}" for number in range(1, 5)}
    assert failures(results) == {str(number): AssociationRejected for number in range(5, 21)}


async def test_the_callers_mistake_is_raised(files: list[DicomFile]) -> None:
    with pytest.raises(UsageError, match="AE title"):
        await send(free_port(), files, aet="MUCH TOO LONG A TITLE")


async def test_a_peer_that_answers_nothing_is_not_asked_for_ever(files: list[DicomFile]) -> None:
    """Four associations in a row: that is more than one bad object can be the reason of."""
    asked = 0

    async def silent(peer: RawPeer) -> None:
        nonlocal asked
        asked += 1
        await peer.accept()
        await peer.expect_abort()

    async with raw_acceptor(silent) as port:
        results = await send(port, files, timeout=0.05)
    assert failures(results) == dict.fromkeys((str(number) for number in range(1, 21)), OperationTimeout)
    assert asked == 4


async def test_a_peer_that_answers_nothing_costs_no_more_with_a_window(tmp_path: Path) -> None:
    """Of 16 requests only those are late that were sent first: the others are told that the association is over."""
    files = [sparse_file(tmp_path, number, MB) for number in range(100)]
    asked = 0

    async def silent(peer: RawPeer) -> None:
        nonlocal asked
        asked += 1
        await peer.accept(window=(16, 1))
        await peer.expect_abort()

    async with raw_acceptor(silent) as port:
        results = await send(port, files, timeout=0.05)
    assert len(failures(results)) == 100
    assert asked == 4


async def test_objects_here_and_there_that_are_never_answered_fail_alone(files: list[DicomFile]) -> None:
    """However many associations end because of them: the peer answers all the others."""
    bad = {"2", "6", "9", "13", "17", "20"}

    async def keep(request: StoreRequest) -> int:
        if request.sop_instance_uid.rpartition(".")[2] in bad:
            await asyncio.get_running_loop().create_future()
        return 0

    async with listen(LOOPBACK, 0, services=[Storage(keep)], shutdown_grace=0.1) as server:
        results = await send(server.port, files, timeout=0.2, window=1)
    assert failures(results) == dict.fromkeys(sorted(bad), OperationTimeout)


async def test_one_object_that_is_never_answered_fails_alone(files: list[DicomFile]) -> None:
    async def keep(request: StoreRequest) -> int:
        if request.sop_instance_uid == "1.2.1":
            await asyncio.get_running_loop().create_future()
        return 0

    async with listen(LOOPBACK, 0, services=[Storage(keep)], shutdown_grace=0.1) as server:
        results = await send(server.port, files, timeout=0.2, window=1)
    assert failures(results) == {"1": OperationTimeout}


# Other transfer syntaxes, and who asked for it


def test_what_is_planned_with_transcoding() -> None:
    """One context more for each SOP class, with what is not stored already; an association has room for 128 contexts.

    So 64 classes in one compressed syntax each fill one, and 63 in two do not quite: 3 contexts for each of 42 make 126, and the
    next class has two pairs of which the first fits with its fallback.
    """
    explicit, implicit, jpeg = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.80"
    stored = [(CT, jpeg), (MR, explicit), ("1.2.3", explicit), ("1.2.3", implicit)]
    files = [DicomFile(Path(str(number)), sop, "1.2", syntax, 0, 0) for number, (sop, syntax) in enumerate(stored)]
    ((contexts, group),) = plan(files, transcode=True)
    assert group == files
    assert [(each.abstract_syntax, each.transfer_syntaxes) for each in contexts] == [
        *((sop, (syntax,)) for sop, syntax in stored),
        (CT, (explicit, implicit)),
        (MR, (implicit,)),
    ]
    many = [DicomFile(Path(str(number)), f"1.2.{number}", "1.2", jpeg, 0, 0) for number in range(130)]
    assert [len(contexts) for contexts, _ in plan(many, transcode=True)] == [128, 128, 4]
    assert [len(contexts) for contexts, _ in plan(many[:100], transcode=True)] == [128, 72]
    twice = [replace(file, transfer_syntax_uid=syntax) for file in many[:63] for syntax in (jpeg, explicit)]
    assert [len(contexts) for contexts, _ in plan(twice, transcode=True)] == [128, 62]
    for contexts, group in [*plan(many, transcode=True), *plan(twice, transcode=True)]:
        takes_anything = {each.abstract_syntax for each in contexts if implicit in each.transfer_syntaxes}
        assert takes_anything == {file.sop_class_uid for file in group}


@pytest.mark.parametrize("originator", [MoveOriginator("ASKED", 4711), None])
async def test_the_move_originator_is_told(files: list[DicomFile], originator: MoveOriginator | None) -> None:
    """PS3.7 9.3.1.1: (0000,1030) and (0000,1031)."""
    keeper = Keeper()
    async with serve(keeper) as server:
        assert failures(await send(server.port, files[:1], originator=originator)) == {}
        message = (await keeper.next_begun()).message
    told = (message.move_originator_application_entity_title, message.move_originator_message_id)
    assert told == (("ASKED", 4711) if originator is not None else (None, None))


# Stopping


async def test_nothing_is_begun_once_it_is_stopped(files: list[DicomFile]) -> None:
    stop = asyncio.Event()
    stop.set()
    assert [sent async for sent in send_files(peer_at(free_port()), files, stop=stop)] == []


@pytest.mark.parametrize("associations", [1, 2])
async def test_what_is_being_sent_is_finished_when_it_is_stopped(files: list[DicomFile], associations: int) -> None:
    stop = asyncio.Event()
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server:
        sending = send_files(peer_at(server.port), files, stop=stop, window=2, associations=associations)
        results = asyncio.create_task(collect(sending))
        begun = {(await keeper.next_begun()).sop_instance_uid for _ in range(2 * associations)}
        stop.set()
        await asyncio.sleep(0)
        keeper.gate.set()
        sent = await results
        assert server.associations == []
    assert {each.file.sop_instance_uid for each in sent} == begun == set(keeper.stored)
    assert not any(each.is_failure for each in sent)


async def collect(sending: AsyncIterator[Sent]) -> list[Sent]:
    return [sent async for sent in sending]


# Leaving early


async def test_leaving_the_iteration_ends_everything(files: list[DicomFile]) -> None:
    keeper = Keeper()
    async with serve(keeper) as server:
        async with aclosing(send_files(peer_at(server.port), files, associations=2)) as results:
            async for _ in results:
                break
        before = asyncio.all_tasks()
        assert not [task for task in before if "_lane" in str(task.get_coro())]


async def test_cancelled_in_the_middle(files: list[DicomFile]) -> None:
    keeper = Keeper()
    keeper.gate.clear()
    async with serve(keeper) as server:
        sending = asyncio.create_task(send(server.port, files, associations=2))
        await keeper.next_begun()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)
    assert keeper.stored == {}


async def test_success_for_what_has_not_been_sent_whole_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that answers before it has taken the data set, and goes away, does not have the object."""
    made = Connection.connection_made

    def with_small_buffers(self: Connection, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        made(self, transport)

    class AnswersEarly(Storage):
        async def handle(self, request: IncomingRequest) -> None:
            request.association.connection.hold_reading("test")
            message = request.message
            assert isinstance(message, CStoreRQ)
            await request.respond(
                CStoreRSP(
                    message_id_being_responded_to=message.message_id,
                    affected_sop_class_uid=message.affected_sop_class_uid,
                    affected_sop_instance_uid=message.affected_sop_instance_uid,
                    status=0,
                )
            )
            request.association.abort()

    monkeypatch.setattr(Connection, "connection_made", with_small_buffers)
    files = [write_file(tmp_path, number, bytes(900_000)) for number in range(1, 4)]
    async with listen(LOOPBACK, 0, services=[AnswersEarly(Keeper().keep)], shutdown_grace=0.1) as server:
        results = await send(server.port, files)
    assert set(failures(results).values()) == {AssociationAborted}
    assert len(failures(results)) == 3


@pytest.mark.parametrize("free", [1, 2])
async def test_lanes_that_wait_for_a_turn_are_let_go_when_nothing_is_left(files: list[DicomFile], free: int) -> None:
    """Somebody else has the other turns of this peer, and keeps them."""
    keeper, turns, opened = Keeper(), asyncio.Semaphore(5), set[object]()
    for _ in range(5 - free):
        await turns.acquire()

    async def keep(request: StoreRequest) -> int:
        opened.add(request.association)
        return await keeper.keep(request)

    async def batches() -> AsyncIterator[list[DicomFile]]:
        for start in range(0, len(files), 4):
            await asyncio.sleep(0)
            yield files[start : start + 4]

    for _ in range(5):
        opened.clear()
        async with (
            asyncio.timeout(30),
            listen(LOOPBACK, 0, services=[Storage(keep)], window=1) as server,
            Feed(batches(), 1000) as feed,
        ):
            results = [
                sent
                async for sent in send_feed(peer_at(server.port), feed, associations=5, turns=turns, retry_waits=())
            ]
        assert sorted(sent.file.path.stem for sent in results) == sorted(file.path.stem for file in files)
        assert not any(sent.is_failure for sent in results)
        assert len(opened) <= free
        assert not turns.locked()


async def test_each_lane_waits_before_it_sends_again_what_was_refused(files: list[DicomFile]) -> None:
    """The peer is out of resources (A700H); the times are lower bounds: the waits, less a quarter, which is left to chance."""
    loop = asyncio.get_running_loop()
    attempts: list[float] = []

    async def keep(request: StoreRequest) -> int:
        await request.data.read()
        if request.sop_instance_uid != "1.2.3":
            return 0
        attempts.append(loop.time())
        return 0xA700

    async with listen(LOOPBACK, 0, services=[Storage(keep)]) as server:
        results = await send(server.port, files, associations=4, retry_waits=(0.2, 0.4))
    assert failures(results) == {"3": 0xA700}
    first, second, third = attempts
    assert second - first > 0.14
    assert third - second > 0.29


async def test_a_file_that_is_named_twice_and_refused_is_told_of_twice(files: list[DicomFile]) -> None:
    async with serve(Keeper(status=0xA700)) as server:
        sending = send_files(peer_at(server.port), [files[0], files[0], files[1]], retry_waits=(0.0,))
        results = [sent.file.path.stem async for sent in sending]
    assert sorted(results) == ["1", "1", "2"]


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_file_that_is_named_twice_has_two_chances_each_time(files: list[DicomFile], is_same: bool) -> None:
    """Both were under way when the peer aborted, because of neither."""
    twice = [files[0], files[0] if is_same else replace(files[0])]
    associations = 0

    async def script(peer: RawPeer) -> None:
        nonlocal associations
        associations += 1
        await peer.accept(window=(2, 1))
        with suppress(Unexpected):
            for number in (1, 2, 3):
                message = await peer.read_message()
                if associations == 1 and number == 2:
                    await abort(peer)
                    return
                if associations > 1:
                    assert isinstance(message.command, CStoreRQ)
                    answer = CStoreRSP(message_id_being_responded_to=message.command.message_id, status=0)
                    await peer.send(command_pdu(message.context_id, answer))
        await peer.send(RELEASE_RP)

    async with raw_acceptor(script) as port:
        results = [sent async for sent in send_files(peer_at(port), twice, retry_waits=(0.0,))]
    assert [sent.status for sent in results] == [0, 0]


async def test_a_file_that_is_named_twice_is_told_of_twice_when_it_is_stopped(
    files: list[DicomFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "STOP_GRACE", 0.05)
    keeper, stop = Keeper(), asyncio.Event()
    keeper.gate.clear()
    async with serve(keeper) as server:
        sending = asyncio.create_task(collected(send_files(peer_at(server.port), [files[0], files[0]], stop=stop)))
        for _ in range(2):
            await keeper.next_begun()
        stop.set()
        results = await sending
    assert [type(sent.error) for sent in results] == [OperationTimeout, OperationTimeout]
