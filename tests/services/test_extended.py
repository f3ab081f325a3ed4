"""Extended negotiation of queries, retrieval and storage, and SOP classes that are known by what they are related to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import CT, MR, RawPeer, raw_acceptor
from support.services import Keeper
from tomowire.aio.address import PeerAddress
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.aio.serving import IncomingRequest, ServiceProvider
from tomowire.errors import UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.dicom_file import DicomFile
from tomowire.services.extended import QueryOptions, RetrieveOptions, StorageOptions, relational
from tomowire.services.find_scp import Find, FindAnswers, FindRequest
from tomowire.services.models import Model, querying
from tomowire.services.move import moving
from tomowire.services.move_scp import Destination, Move
from tomowire.services.peer import Peer
from tomowire.services.query import Query
from tomowire.services.related import STORAGE_SERVICE_CLASS, Related, related
from tomowire.services.storage import storage
from tomowire.services.storage_scp import Storage
from tomowire.services.suboperations import Retrieval, RetrieveRequest
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextAC
from tomowire.wire.messages import CStoreRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ
from tomowire.wire.user_information import CommonExtendedNegotiation, ExtendedNegotiation, UserInformation

pytestmark = pytest.mark.usefixtures("no_leaks")

FIND = Model.STUDY_ROOT.find
PRIVATE = "1.2.826.0.1.3680043.9.1"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # PS3.4 Table C.5-1: one byte each, in this order; all but the first are optional.
        (QueryOptions(), b"\0"),
        (QueryOptions(relational=True), b"\1"),
        (QueryOptions(date_time_matching=True), b"\0\1"),
        (QueryOptions(fuzzy_matching=True), b"\0\0\1"),
        (QueryOptions(relational=True, timezone_adjustment=True), b"\1\0\0\1"),
        (QueryOptions(multi_frame_conversion=True), b"\0\0\0\0\1"),
        (QueryOptions(empty_value_matching=True), b"\0\0\0\0\0\1"),
        (QueryOptions(multiple_value_matching=True), b"\0\0\0\0\0\0\1"),
        (RetrieveOptions(relational=True), b"\1"),  # Table C.5-3
        (RetrieveOptions(multi_frame_conversion=True), b"\0\1"),
        (StorageOptions(), b"\3\0\0\0\2\0"),  # Table B.3-1: an SCU only
        (StorageOptions(2, 1, 1), b"\2\0\1\0\1\0"),
    ],
)
def test_options_in_bytes(options: Any, expected: bytes) -> None:
    item = options.on("1.2.3")
    assert item == ExtendedNegotiation("1.2.3", expected)
    assert type(options).read(expected) == options
    assert type(options).read(expected + bytes(9)) == options


def test_what_is_not_1_is_no() -> None:
    assert QueryOptions.read(b"\2\1") == QueryOptions(date_time_matching=True)


def test_of_storage_options_that_are_cut_short_the_rest_is_the_default() -> None:
    assert StorageOptions.read(b"\2") == StorageOptions(level=2)
    assert StorageOptions.read(b"") == StorageOptions()


@pytest.mark.parametrize(
    "options", [StorageOptions(level=4), StorageOptions(signature_level=-1), StorageOptions(2, 0, 3)]
)
def test_storage_options_that_the_standard_does_not_define_are_the_callers_fault(options: StorageOptions) -> None:
    with pytest.raises(UsageError, match=r"B\.3\.1"):
        options.on(CT)


def test_relational_is_for_all_models_or_for_some() -> None:
    uids = {item.sop_class_uid for item in relational()}
    assert uids == {uid for model in Model for uid in (model.find, model.move, model.get)}
    (find, *_) = items = relational([Model.PATIENT_ROOT])
    assert [item.application_information for item in items] == [b"\1"] * 3
    assert find.sop_class_uid == Model.PATIENT_ROOT.find


async def agreed_with(answer: bytes | None, proposed: QueryOptions | None) -> tuple[QueryOptions, bytes | None]:
    """What an association says was agreed on, with an acceptor that answers so."""

    async def script(peer: RawPeer) -> None:
        request = await peer.read_pdu()
        assert isinstance(request, AAssociateRQ)
        given = (ExtendedNegotiation(FIND, answer),) if answer is not None else ()
        information = UserInformation(implementation_class_uid="1.2.3", extended_negotiations=given)
        contexts = (PresentationContextAC(1, 0, EXPLICIT_VR_LITTLE_ENDIAN),)
        await peer.send(AAssociateAC("ANY", "TOMOWIRE", contexts, information))
        await peer.answer_release()

    extended = [proposed.on(FIND)] if proposed is not None else []
    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [querying()], extended=extended) as association,
    ):
        return QueryOptions.agreed(association, FIND), association.extended(FIND)


@pytest.mark.parametrize(
    ("answer", "proposed", "expected", "raw"),
    [
        (b"\1\0\1", QueryOptions(True, True, True), QueryOptions(relational=True, fuzzy_matching=True), b"\1\0\1"),
        (b"\1", QueryOptions(True, True, True), QueryOptions(relational=True), b"\1"),  # the rest was not answered
        (b"\1\1\1", QueryOptions(relational=True), QueryOptions(relational=True), b"\1\1\1"),  # nor asked
        (b"\0", QueryOptions(relational=True), QueryOptions(), b"\0"),
        (b"", QueryOptions(relational=True), QueryOptions(), b""),
        (None, QueryOptions(relational=True), QueryOptions(), None),
        (b"\1", None, QueryOptions(), None),
    ],
)
async def test_what_was_agreed_is_what_both_said(
    answer: bytes | None, proposed: QueryOptions | None, expected: QueryOptions, raw: bytes | None
) -> None:
    assert await agreed_with(answer, proposed) == (expected, raw)


async def test_an_acceptor_agrees_to_what_it_does_and_to_nothing_else() -> None:
    """PS3.4 C.5.1.1.2: it "either accepts the proposal by returning the same value (1) or turns down the proposal"."""

    async def answer(request: Any) -> Any:
        raise AssertionError
        yield

    everything = QueryOptions(True, True, True, True, True, True, True)
    for serves, expected in [(True, b"\1\0\0\0\0\0\0"), (False, bytes(7))]:
        async with (
            listen(port=0, services=[Find(answer, relational=serves)]) as server,
            associate(f"ANY@{LOOPBACK}:{server.port}", [querying()], extended=[everything.on(FIND)]) as association,
        ):
            assert association.extended(FIND) == expected
            assert QueryOptions.agreed(association, FIND) == QueryOptions(relational=serves)
            (accepted,) = server.associations
            assert QueryOptions.agreed(accepted, FIND) == QueryOptions(relational=serves)


@pytest.mark.parametrize(
    ("proposed", "expected"),
    [(b"", b"\0"), (b"\1", b"\1"), (b"\0\1\1", b"\0\0\1"), (b"\2\0\1\1", b"\0\0\1\0"), (b"\1" * 9, b"\1\0\1\0\0\0\0")],
)
def test_an_answer_is_as_long_as_what_was_proposed_and_no_longer_than_the_standard_has_it(
    proposed: bytes, expected: bytes
) -> None:
    assert QueryOptions(relational=True, fuzzy_matching=True).answer(proposed) == expected


async def test_a_handler_that_can_do_more_agrees_to_more_and_sees_what_was_agreed_on() -> None:
    seen: list[QueryOptions] = []

    async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
        seen.append(request.options)
        assert request.relational is request.options.relational
        yield FindAnswers([])

    asked = QueryOptions(relational=True, date_time_matching=True, fuzzy_matching=True)
    find = Find(answer, relational=True, options=QueryOptions(fuzzy_matching=True))
    async with listen(port=0, services=[find]) as server:
        for extended in ([asked.on(FIND)], []):
            async with Peer(f"ANY@{LOOPBACK}:{server.port}", extended=extended) as peer:
                assert [each async for each in peer.find(Query.studies())] == []
    assert seen == [QueryOptions(relational=True, fuzzy_matching=True), QueryOptions()]


async def test_a_list_for_all_associations_is_sent_as_far_as_it_fits() -> None:
    asked: list[AAssociateRQ] = []

    async def script(peer: RawPeer) -> None:
        asked.append(await peer.accept())
        await peer.answer_release()

    async with (
        raw_acceptor(script) as port,
        associate(f"ANY@{LOOPBACK}:{port}", [querying(), moving()], extended=relational()),
    ):
        pass
    (request,) = asked
    assert request.user_information.extended_negotiations == (
        ExtendedNegotiation(Model.STUDY_ROOT.find, b"\1"),
        ExtendedNegotiation(Model.STUDY_ROOT.move, b"\1"),
    )


async def test_what_one_query_asks_for_is_said_without_a_sop_class() -> None:
    """It is for the query's own SOP class, and another query of the same peer does not have it."""
    seen: list[QueryOptions] = []

    async def answer(request: FindRequest) -> FindAnswers:
        seen.append(request.options)
        return
        yield

    find = Find(answer, options=QueryOptions(fuzzy_matching=True, relational=True))
    async with listen(port=0, services=[find]) as server, Peer(f"ANY@{LOOPBACK}:{server.port}") as peer:
        for extended in (QueryOptions(fuzzy_matching=True), [QueryOptions(relational=True), RetrieveOptions()], ()):
            for model in (Model.STUDY_ROOT, Model.PATIENT_ROOT):
                assert [each async for each in peer.find(Query.studies(), model=model, extended=extended)] == []
    asked = [QueryOptions(fuzzy_matching=True), QueryOptions(relational=True), QueryOptions()]
    assert seen == [each for each in asked for _ in range(2)]


async def test_a_peer_asks_for_relational_queries_and_retrieval() -> None:
    """PS3.4 C.4.1.2.2.1, C.4.2.2.2: no unique keys above the level are needed then."""
    asked: list[tuple[str, bool]] = []

    async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
        asked.append(("find", request.relational))
        yield FindAnswers([])

    async def objects(request: RetrieveRequest) -> Retrieval:
        asked.append(("move", request.relational))
        return Retrieval(0, nothing())

    async def nothing() -> AsyncIterator[Sequence[DicomFile]]:
        return
        yield

    async def destination(request: RetrieveRequest, ae_title: str) -> Destination:
        return Destination(PeerAddress("SOMEWHERE", LOOPBACK, 1))

    services = [Find(answer, relational=True), Move(objects, destination, relational=True)]
    async with (
        listen(port=0, services=services) as server,
        Peer(f"ANY@{LOOPBACK}:{server.port}", extended=relational()) as peer,
    ):
        assert [each async for each in peer.find(Query.series())] == []
        async for _ in peer.move(Query.images().sop_instance_uid("1.2.3"), "SOMEWHERE"):
            pass
    assert asked == [("find", True), ("move", True)]


async def test_the_storage_scp_says_what_it_does() -> None:
    extended = [StorageOptions().on(CT)]
    async with (
        listen(port=0, services=[Storage(Keeper().keep)]) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", storage(CT), extended=extended) as association,
    ):
        assert StorageOptions.of_acceptor(association, CT) == StorageOptions(level=2, signature_level=0, coercion=0)
        assert StorageOptions.of_acceptor(association, MR) is None


# SOP classes that are known by what they are related to


def services(keeper: Keeper, *, unrelated: bool = False) -> list[ServiceProvider]:
    return [Related(Storage(keeper.keep), unrelated=unrelated)]


@pytest.mark.parametrize(
    ("said", "unrelated", "is_accepted"),
    [
        (None, False, False),
        (related(PRIVATE, CT), False, True),
        (related(PRIVATE, "1.2.3.4", CT), False, True),
        (related(PRIVATE, "1.2.3.4"), False, False),
        (related(PRIVATE), False, False),
        (related(PRIVATE), True, True),
        (related(PRIVATE, CT, service_class_uid="1.2.840.10008.4.9"), True, False),
        (related("1.2.3.4", CT), False, False),
    ],
)
async def test_an_unknown_sop_class_is_accepted_by_what_the_requestor_says_of_it(
    said: CommonExtendedNegotiation | None, unrelated: bool, is_accepted: bool
) -> None:
    """PS3.7 D.3.3.6."""
    context = ProposedContext(PRIVATE, (IMPLICIT_VR_LITTLE_ENDIAN,))
    async with (
        listen(port=0, services=services(Keeper(), unrelated=unrelated)) as server,
        associate(
            f"ANY@{LOOPBACK}:{server.port}", [context, *storage(CT)], extended=[said] if said is not None else []
        ) as association,
    ):
        assert bool(association.contexts(PRIVATE)) is is_accepted
        assert association.contexts(CT)


async def test_its_objects_go_to_the_handler() -> None:
    keeper = Keeper()
    context = ProposedContext(PRIVATE, (IMPLICIT_VR_LITTLE_ENDIAN,))
    async with (
        listen(port=0, services=services(keeper)) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [context], extended=[related(PRIVATE, CT)]) as association,
    ):
        request = CStoreRQ(message_id=1, affected_sop_class_uid=PRIVATE, affected_sop_instance_uid="1.2.3")
        async with association.operation(request, name="C-STORE", timeout=10) as operation:
            await association.send(
                association.context(PRIVATE).context_id, request, b"\x08\x00\x05\x00\x00\x00\x00\x00"
            )
            assert (await operation.only_response()).status == 0
        assert list(keeper.stored) == ["1.2.3"]


async def test_without_such_a_provider_nothing_is_taken_on_trust() -> None:
    context = ProposedContext(PRIVATE, (IMPLICIT_VR_LITTLE_ENDIAN,))
    async with (
        listen(port=0, services=[Storage(Keeper().keep)]) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [context], extended=[related(PRIVATE, CT)]) as association,
    ):
        assert association.contexts(PRIVATE) == []


async def test_what_a_provider_knows_it_serves_as_before() -> None:
    class Plain:
        handled = 0

        def transfer_syntaxes(self, abstract_syntax: str) -> set[str] | None:
            return {"1.2"} if abstract_syntax == CT else None

        def may_be_scp(self, abstract_syntax: str) -> bool:
            return abstract_syntax == MR

        def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
            return proposed

        async def handle(self, request: IncomingRequest) -> None:
            self.handled += 1

    plain = Plain()
    wrapped = Related(plain)
    assert wrapped.transfer_syntaxes(CT) == {"1.2"}
    assert wrapped.transfer_syntaxes(MR) is None
    assert wrapped.may_be_scp(MR)
    assert not wrapped.may_be_scp(CT)
    assert wrapped.extended_negotiation(CT, b"\2") == b"\2"
    await wrapped.handle(None)  # type: ignore[arg-type]
    assert plain.handled == 1
    assert related(PRIVATE, CT) == CommonExtendedNegotiation(PRIVATE, STORAGE_SERVICE_CLASS, (CT,))
