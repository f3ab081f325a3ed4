"""A requestor that serves requests of its acceptor: sub-operations of C-GET, event reports (PS3.7 D.3.3.4, 10.1.1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import CT, RELEASE_RP, RawPeer, message_pdus, raw_acceptor, store_rq
from support.services import Keeper
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.aio.responses import responses
from tomowire.aio.serving import IncomingRequest, ServiceProvider
from tomowire.errors import AssociationAborted
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import CEchoScu, Verification, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextAC
from tomowire.wire.messages import (
    CGetRQ,
    CGetRSP,
    CStoreRSP,
    NEventReportRQ,
    NEventReportRSP,
    Response,
)
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ, AReleaseRQ
from tomowire.wire.user_information import AsynchronousOperationsWindow, RoleSelection, UserInformation

pytestmark = pytest.mark.usefixtures("no_leaks")

GET = "1.2.840.10008.5.1.4.1.2.2.3"
COMMITMENT = "1.2.840.10008.1.20.1"
SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN,)
GET_CONTEXT, CT_CONTEXT, COMMITMENT_CONTEXT = 1, 3, 5
CONTEXTS = [
    ProposedContext(GET, SYNTAXES),
    ProposedContext(CT, SYNTAXES, scu=False, scp=True),
    ProposedContext(COMMITMENT, SYNTAXES),
    verification(),
]
SUCCESS, UNRECOGNIZED = 0x0000, 0x0211

Script = Callable[[RawPeer], Awaitable[None]]


class Reports:
    """Serves event reports: of each it keeps the data set."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def transfer_syntaxes(self, abstract_syntax: str) -> tuple[str, ...] | None:
        return SYNTAXES if abstract_syntax == COMMITMENT else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return None

    async def handle(self, request: IncomingRequest) -> None:
        assert request.data is not None
        self.seen.append(await request.data.read())
        await request.respond(NEventReportRSP(message_id_being_responded_to=request.message_id, status=SUCCESS))


async def accept(peer: RawPeer, *, roles: bool = True, window: tuple[int, int] | None = None) -> AAssociateRQ:
    """Accept every context, and the roles that are asked for if `roles`."""
    request = await peer.read_pdu()
    assert isinstance(request, AAssociateRQ)
    contexts = tuple(
        PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[0]) for each in request.presentation_contexts
    )
    information = UserInformation(
        implementation_class_uid="1.2.3",
        asynchronous_operations_window=AsynchronousOperationsWindow(*window) if window else None,
        role_selections=request.user_information.role_selections if roles else (),
    )
    await peer.send(AAssociateAC(request.called_ae_title, request.calling_ae_title, contexts, information))
    return request


@asynccontextmanager
async def association_with(
    script: Script, services: list[ServiceProvider], *, roles: bool = True, **options: Any
) -> AsyncIterator[Association]:
    async def play(peer: RawPeer) -> None:
        await accept(peer, roles=roles, window=(16, 4))
        await script(peer)

    async with (
        raw_acceptor(play) as port,
        associate(f"PEER@{LOOPBACK}:{port}", CONTEXTS, services=services, **options) as association,
    ):
        yield association


def event_report(message_id: int = 1) -> NEventReportRQ:
    return NEventReportRQ(
        message_id=message_id,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid="1.2.840.10008.1.20.1.1",
        event_type_id=1,
        data_set_type=1,
    )


async def read_status(peer: RawPeer, kind: type[Response]) -> tuple[int, int]:
    """Message ID and status of the response that comes next."""
    command = (await peer.read_message()).command
    assert isinstance(command, kind)
    return command.message_id_being_responded_to, command.status


def get(association: Association) -> Any:
    request = CGetRQ(message_id=association.next_message_id(), affected_sop_class_uid=GET)
    return responses(association, association.context(GET), request, b"what", name="C-GET", timeout=10.0, grace=5.0)


async def test_sub_operations_are_served_between_the_responses() -> None:
    """PS3.4 C.4.3.3: C-STORE requests come on the same association; their Message IDs are the acceptor's own."""
    keeper = Keeper()

    async def script(peer: RawPeer) -> None:
        request = await peer.read_message()
        assert isinstance(request.command, CGetRQ)
        number = request.command.message_id
        for at in range(3):
            await peer.send(message_pdus(CT_CONTEXT, store_rq(number + at, f"1.2.{at}"), b"object %d" % at))
            assert await read_status(peer, CStoreRSP) == (number + at, SUCCESS)
            pending = CGetRSP(message_id_being_responded_to=number, status=0xFF00)
            await peer.send(message_pdus(GET_CONTEXT, pending))
        await peer.send(message_pdus(GET_CONTEXT, CGetRSP(message_id_being_responded_to=number, status=SUCCESS)))
        await peer.answer_release()

    async with association_with(script, [Storage(keeper.keep)]) as association:
        stored_by_then = [(response.status, len(keeper.stored)) async for response, _ in get(association)]
    assert stored_by_then == [(0xFF00, 1), (0xFF00, 2), (0xFF00, 3), (SUCCESS, 3)]
    assert keeper.stored == {f"1.2.{at}": b"object %d" % at for at in range(3)}


async def test_the_same_between_two_of_our_own() -> None:
    """The acceptor grants the SCP role for what its service says, and sends on the association that it serves."""
    keeper = Keeper()
    count = 20

    class Getter:
        def transfer_syntaxes(self, abstract_syntax: str) -> tuple[str, ...] | None:
            return SYNTAXES if abstract_syntax in {GET, CT} else None

        def may_be_scp(self, abstract_syntax: str) -> bool:
            return abstract_syntax == CT

        def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
            return None

        async def handle(self, request: IncomingRequest) -> None:
            association = request.association
            context = association.context(CT)
            assert (context.requestor_is_scu, context.requestor_is_scp) == (False, True)
            for at in range(count):
                store = store_rq(association.next_message_id(), f"1.2.{at}")
                async with association.operation(store, name="C-STORE", timeout=10) as operation:
                    await association.send(context.context_id, store, b"%d" % at)
                    assert (await operation.only_response()).status == SUCCESS
            await request.respond(CGetRSP(message_id_being_responded_to=request.message_id, status=SUCCESS))

    async with (
        listen(LOOPBACK, 0, services=[Getter(), Verification()]) as server,
        associate(f"PEER@{LOOPBACK}:{server.port}", CONTEXTS, services=[Storage(keeper.keep)]) as association,
    ):
        assert [response.status async for response, _ in get(association)] == [SUCCESS]
    assert keeper.stored == {f"1.2.{at}": b"%d" % at for at in range(count)}


async def test_an_operation_is_refused_where_this_side_was_not_accepted_as_scp() -> None:
    """The acceptor did not answer the role selection, so the requestor is SCU alone (PS3.7 D.3.3.4): the association goes on."""
    keeper = Keeper()

    async def script(peer: RawPeer) -> None:
        await peer.send(message_pdus(CT_CONTEXT, store_rq(7), b"object"))
        assert await read_status(peer, CStoreRSP) == (7, UNRECOGNIZED)
        await peer.send(message_pdus(COMMITMENT_CONTEXT, event_report(8), b"report"))
        assert await read_status(peer, NEventReportRSP) == (8, SUCCESS)
        done.set()
        await peer.answer_release()

    done = asyncio.Event()
    reports = Reports()
    async with association_with(script, [Storage(keeper.keep), reports], roles=False):
        await done.wait()
    assert keeper.stored == {}
    assert reports.seen == [b"report"]


async def test_an_event_report_goes_to_the_scu() -> None:
    """PS3.7 10.1.1 and PS3.4 J.3.3: the requestor is SCU of storage commitment and is told what became of it.

    Where it is SCP alone, a notification is its own to send.
    """
    reports = Reports()
    done = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.send(message_pdus(COMMITMENT_CONTEXT, event_report(1), b"report"))
        assert await read_status(peer, NEventReportRSP) == (1, SUCCESS)
        await peer.send(message_pdus(CT_CONTEXT, event_report(2), b"not here"))
        assert await read_status(peer, NEventReportRSP) == (2, UNRECOGNIZED)
        done.set()
        await peer.answer_release()

    async with association_with(script, [reports, Storage(Keeper().keep)]):
        await done.wait()
    assert reports.seen == [b"report"]


async def test_without_services_a_request_of_the_acceptor_ends_the_association() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.send(message_pdus(CT_CONTEXT, store_rq(1), b"object"))
        await peer.expect_abort()

    async with association_with(script, []) as association:
        await association.wait_closed()
        assert isinstance(association.error, AssociationAborted)


async def test_requests_that_are_being_served_are_answered_before_the_release() -> None:
    """After our A-RELEASE-RQ no response could be sent any more (PS3.8 Table 9-10, Sta7)."""
    keeper = Keeper()
    keeper.gate.clear()

    async def script(peer: RawPeer) -> None:
        await peer.send(message_pdus(CT_CONTEXT, store_rq(1), b"object"))
        assert await read_status(peer, CStoreRSP) == (1, SUCCESS)
        assert await peer.read_pdu() == AReleaseRQ()
        await peer.send(RELEASE_RP)

    async with association_with(script, [Storage(keeper.keep)]) as association:
        await keeper.next_begun()
        releasing = asyncio.ensure_future(association.release())
        await asyncio.wait([releasing], timeout=0.05)
        assert association.is_established
        keeper.gate.set()
        await releasing
    assert len(keeper.stored) == 1


async def test_a_handler_that_is_running_is_cancelled_when_the_association_breaks() -> None:
    keeper = Keeper()
    keeper.gate.clear()
    begun = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.send(message_pdus(CT_CONTEXT, store_rq(1), b"object"))
        await begun.wait()
        peer.reset()

    async with association_with(script, [Storage(keeper.keep)]):
        await keeper.next_begun()
        begun.set()
        assert isinstance(await keeper.next_end(), asyncio.CancelledError)
    assert keeper.stored == {}


@pytest.mark.parametrize(
    ("options", "proposed", "granted", "performed"),
    [
        ({"window": 1}, None, (16, 4), 1),
        ({"window": 1, "performed": 8}, (1, 8), (1, 4), 4),
        ({"performed": 0}, (16, 0), (16, 4), 4),
        ({"performed": 8}, (16, 8), None, 1),
        ({}, (16, 1), (16, 1), 1),
    ],
)
async def test_the_window_for_the_acceptors_requests_is_negotiated(
    options: dict[str, int], proposed: tuple[int, int] | None, granted: tuple[int, int] | None, performed: int
) -> None:
    """PS3.7 D.3.3.3: without an item both sides have one operation at a time."""
    requests: list[AAssociateRQ] = []

    async def script(peer: RawPeer) -> None:
        requests.append(await accept(peer, window=granted))
        await peer.answer_release()

    async with (
        raw_acceptor(script) as port,
        associate(f"PEER@{LOOPBACK}:{port}", CONTEXTS, services=[Storage(Keeper().keep)], **options) as association,
    ):
        assert association.agreement.maximum_performed == performed
    window = requests[0].user_information.asynchronous_operations_window
    assert window == (AsynchronousOperationsWindow(*proposed) if proposed else None)


async def test_requests_within_the_window_are_served_side_by_side() -> None:
    keeper = Keeper()
    keeper.gate.clear()

    async def script(peer: RawPeer) -> None:
        await peer.send(*(message_pdus(CT_CONTEXT, store_rq(at, f"1.2.{at}"), b"object") for at in range(4)))
        assert sorted([await read_status(peer, CStoreRSP) for _ in range(4)]) == [(at, SUCCESS) for at in range(4)]
        done.set()
        await peer.answer_release()

    done = asyncio.Event()
    async with association_with(script, [Storage(keeper.keep)], performed=4):
        for _ in range(4):
            await keeper.next_begun()
        keeper.gate.set()
        await done.wait()
    assert keeper.most_running == 4


async def test_roles_are_proposed_for_what_the_contexts_say() -> None:
    requests: list[AAssociateRQ] = []

    async def script(peer: RawPeer) -> None:
        requests.append(await accept(peer))
        await peer.answer_release()

    async with raw_acceptor(script) as port, associate(f"PEER@{LOOPBACK}:{port}", CONTEXTS) as association:
        assert association.context(CT).requestor_is_scp
        assert not association.context(GET).requestor_is_scp
    assert requests[0].user_information.role_selections == (RoleSelection(CT, scu=False, scp=True),)


async def test_a_server_grants_the_scp_role_only_where_its_service_says_so() -> None:
    """Storage and Verification never do: they are SCPs themselves."""
    contexts = [
        ProposedContext(CT, SYNTAXES, scp=True),
        ProposedContext("1.2.840.10008.1.1", ("1.2.840.10008.1.2",), scp=True),
    ]
    async with (
        listen(LOOPBACK, 0, services=[Verification(), Storage(Keeper().keep)]) as server,
        associate(f"PEER@{LOOPBACK}:{server.port}", contexts) as association,
    ):
        assert all(each.requestor_is_scu for each in association.agreement.contexts.values())
        assert not any(each.requestor_is_scp for each in association.agreement.contexts.values())
        assert (await CEchoScu(association).echo()).is_success
