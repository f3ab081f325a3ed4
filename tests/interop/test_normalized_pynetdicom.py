"""DIMSE-N with pynetdicom, in both directions: all six services, their statuses, and events from the SCP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset

from support.network import LOOPBACK
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import OperationFailed
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.normalized import EventReporter, NormalizedScu
from tomowire.services.normalized_handling import NormalizedAnswer, NormalizedRequest
from tomowire.services.normalized_scp import Normalized
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

FILM_SESSION = "1.2.840.10008.5.1.1.1"
PRINTER, PRINTER_INSTANCE = "1.2.840.10008.5.1.1.16", "1.2.840.10008.5.1.1.17"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
MADE, REFUSED = "1.2.3.4", "1.2.3.5"
SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
SECONDS = 20


def dataset(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


# Their SCP


@contextmanager
def their_scp(pynetdicom: ModuleType, requests: list[Any]) -> Iterator[str]:
    """pynetdicom serving all operations; the requests as it has understood them go to `requests`. Gives its address."""
    evt = pynetdicom.evt

    def create(event: Any) -> tuple[int, Dataset]:
        requests.append(("create", event.request.AffectedSOPInstanceUID, event.attribute_list))
        return 0x0000, dataset(AffectedSOPInstanceUID=MADE, NumberOfCopies=3)

    def change(event: Any) -> tuple[Any, Dataset | None]:
        requests.append(("set", event.request.RequestedSOPInstanceUID, event.modification_list))
        if event.request.RequestedSOPInstanceUID == REFUSED:
            return dataset(Status=0x0106, ErrorComment="not such a label", ErrorID=7), None
        return 0x0107, dataset(FilmSessionLabel="changed")

    def tell(event: Any) -> tuple[int, Dataset]:
        requests.append(("get", event.request.RequestedSOPInstanceUID, list(event.attribute_identifiers)))
        return 0x0000, dataset(PrinterStatus="NORMAL", PrinterName="Drucker^Größe", SpecificCharacterSet="ISO_IR 100")

    def act(event: Any) -> tuple[int, Dataset]:
        requests.append(("action", event.action_type, event.action_information))
        if event.request.RequestedSOPClassUID == COMMITMENT:
            done = threading.Thread(target=report, args=(event.assoc,))
            done.start()
        return 0x0000, dataset(TransactionUID="1.2.9")

    def report(association: Any) -> None:
        information = dataset(TransactionUID="1.2.7")
        status, reply = association.send_n_event_report(information, 1, COMMITMENT, COMMITMENT_INSTANCE)
        requests.append(("event", status.Status, reply))

    def delete(event: Any) -> int:
        requests.append(("delete", event.request.RequestedSOPInstanceUID, None))
        return 0x0000 if event.request.RequestedSOPInstanceUID == MADE else 0x0112

    entity = pynetdicom.AE("THEIRS")
    for each in (FILM_SESSION, PRINTER, COMMITMENT):
        entity.add_supported_context(each, list(SYNTAXES))
    handlers = [
        (evt.EVT_N_CREATE, create),
        (evt.EVT_N_SET, change),
        (evt.EVT_N_GET, tell),
        (evt.EVT_N_ACTION, act),
        (evt.EVT_N_DELETE, delete),
    ]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    try:
        yield f"THEIRS@{LOOPBACK}:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()


@pytest.mark.parametrize("syntax", SYNTAXES)
async def test_their_scp_serves_our_operations(pynetdicom: ModuleType, syntax: str) -> None:
    requests: list[Any] = []
    contexts = [ProposedContext(each, (syntax,)) for each in (FILM_SESSION, PRINTER)]
    with their_scp(pynetdicom, requests) as address:
        async with associate(address, contexts) as association:
            scu = NormalizedScu(association)
            created = await scu.create(FILM_SESSION, dataset(NumberOfCopies=2, FilmSessionLabel="Ä"))
            changed = await scu.set(FILM_SESSION, MADE, dataset(FilmSessionLabel="new"))
            refused = await scu.set(FILM_SESSION, REFUSED, dataset(FilmSessionLabel="new"))
            got = await scu.get(PRINTER, PRINTER_INSTANCE, [0x21100010, 0x21100030])
            acted = await scu.action(FILM_SESSION, MADE, 1, dataset(TransactionUID="1.2.8"))
            deleted = await scu.delete(FILM_SESSION, MADE)
            unknown = await scu.delete(FILM_SESSION, REFUSED)
    assert (created.status, created.sop_instance_uid, created.dataset().NumberOfCopies) == (0, MADE, 3)
    assert (changed.status, changed.is_warning, changed.dataset().FilmSessionLabel) == (0x0107, True, "changed")
    assert (refused.status, refused.error_comment, refused.error_id) == (0x0106, "not such a label", 7)
    assert (got.dataset().PrinterStatus, got.dataset().PrinterName) == ("NORMAL", "Drucker^Größe")
    assert (acted.type_id, acted.dataset().TransactionUID) == (1, "1.2.9")
    assert [deleted.status, unknown.status] == [0x0000, 0x0112]
    kinds = [each[0] for each in requests]
    assert kinds == ["create", "set", "set", "get", "action", "delete", "delete"]
    assert requests[0][1] is None, "without an instance UID"
    assert (requests[0][2].NumberOfCopies, requests[0][2].FilmSessionLabel) == (2, "Ä")
    assert requests[3][2] == [0x21100010, 0x21100030]
    assert (requests[4][1], requests[4][2].TransactionUID) == (1, "1.2.8")


async def test_their_scp_reports_an_event_to_us(pynetdicom: ModuleType) -> None:
    requests: list[Any] = []
    told: asyncio.Future[tuple[int | None, str]] = asyncio.get_running_loop().create_future()

    async def on_event(request: NormalizedRequest) -> Dataset:
        told.set_result((request.type_id, request.dataset().TransactionUID))
        return dataset(TransactionUID="1.2.10")

    services = [Normalized([COMMITMENT], event=on_event)]
    with their_scp(pynetdicom, requests) as address:
        async with associate(address, [ProposedContext(COMMITMENT, SYNTAXES)], services=services) as association:
            action = await NormalizedScu(association).action(
                COMMITMENT, COMMITMENT_INSTANCE, 1, dataset(TransactionUID="1.2.7")
            )
            async with asyncio.timeout(SECONDS):
                assert await told == (1, "1.2.7")
    assert action.is_success


async def test_we_report_an_event_to_their_scu_with_roles_reversed(pynetdicom: ModuleType) -> None:
    """We open the association as SCP (PS3.7 D.3.3.4), and they take the event as SCU."""
    events: list[Any] = []

    def on_event(event: Any) -> tuple[int, Dataset]:
        events.append((event.event_type, event.event_information.TransactionUID))
        return 0x0000, dataset(TransactionUID="1.2.11")

    entity = pynetdicom.AE("THEIRS")
    entity.add_supported_context(COMMITMENT, list(SYNTAXES), scu_role=False, scp_role=True)
    handlers = [(pynetdicom.evt.EVT_N_EVENT_REPORT, on_event)]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    try:
        address = f"THEIRS@{LOOPBACK}:{server.socket.getsockname()[1]}"
        context = ProposedContext(COMMITMENT, SYNTAXES, scu=False, scp=True)
        async with associate(address, [context]) as association:
            reporter = EventReporter(association)
            response = await reporter.report(COMMITMENT, COMMITMENT_INSTANCE, 2, dataset(TransactionUID="1.2.7"))
    finally:
        await asyncio.to_thread(server.shutdown)
    assert events == [(2, "1.2.7")]
    assert (response.status, response.type_id, response.dataset().TransactionUID) == (0, 2, "1.2.11")


# Our SCP


class Ours(Normalized):
    """Serves all operations, and reports an event after each action on the commitment instance."""

    def __init__(self) -> None:
        super().__init__(
            [FILM_SESSION, PRINTER, COMMITMENT],
            create=self.make,
            set=self.change,
            get=self.tell,
            action=self.act,
            delete=self.remove,
            event=self.take,
        )
        self.seen: list[NormalizedRequest] = []
        self.replies: list[str] = []
        self.reported = asyncio.Event()

    async def make(self, request: NormalizedRequest) -> NormalizedAnswer:
        self.seen.append(request)
        return NormalizedAnswer(dataset(NumberOfCopies=3), sop_instance_uid=MADE)

    async def change(self, request: NormalizedRequest) -> int | Dataset:
        self.seen.append(request)
        if request.sop_instance_uid == REFUSED:
            raise OperationFailed(
                0x0106,
                "not such a label",
                error_id=7,
                attribute_identifiers=(0x20000050,),
                offending_elements=(0x20000050,),
            )
        return dataset(FilmSessionLabel="changed")

    async def tell(self, request: NormalizedRequest) -> NormalizedAnswer:
        self.seen.append(request)
        answer = dataset(PrinterStatus="NORMAL", PrinterName="Größe", SpecificCharacterSet="ISO_IR 100")
        return NormalizedAnswer(answer, 0x0107, attribute_identifiers=(0x21100030,))

    async def act(self, request: NormalizedRequest) -> NormalizedAnswer:
        self.seen.append(request)

        async def report() -> None:
            information = dataset(TransactionUID=request.dataset().TransactionUID)
            reporter = EventReporter(request.association)
            response = await reporter.report(COMMITMENT, COMMITMENT_INSTANCE, 1, information)
            self.replies.append(f"{response.status} {response.dataset().TransactionUID}")
            self.reported.set()

        is_commitment = request.sop_class_uid == COMMITMENT
        return NormalizedAnswer(dataset(TransactionUID="1.2.9"), then=report if is_commitment else None)

    async def remove(self, request: NormalizedRequest) -> int:
        self.seen.append(request)
        return 0x0000 if request.sop_instance_uid == MADE else 0x0112

    async def take(self, request: NormalizedRequest) -> Dataset:
        self.seen.append(request)
        return dataset(TransactionUID="1.2.12")


def ask_all(association: Any) -> list[tuple[Any, Any]]:
    """Each operation once, as pynetdicom's SCU: status and data set of each response."""
    return [
        association.send_n_create(dataset(NumberOfCopies=2), FILM_SESSION, None),
        association.send_n_set(dataset(FilmSessionLabel="new"), FILM_SESSION, MADE),
        association.send_n_set(dataset(FilmSessionLabel="new"), FILM_SESSION, REFUSED),
        association.send_n_get([0x21100010, 0x21100030], PRINTER, PRINTER_INSTANCE),
        association.send_n_action(dataset(TransactionUID="1.2.8"), 1, FILM_SESSION, MADE),
        (association.send_n_delete(FILM_SESSION, MADE), None),
        (association.send_n_delete(FILM_SESSION, REFUSED), None),
    ]


@pytest.mark.parametrize("syntax", SYNTAXES)
async def test_our_scp_serves_their_operations(pynetdicom: ModuleType, syntax: str) -> None:
    ours = Ours()
    received: list[Any] = []

    def work(port: int) -> list[tuple[Any, Any]]:
        entity = pynetdicom.AE("THEIRS")
        for each in (FILM_SESSION, PRINTER):
            entity.add_requested_context(each, syntax)
        remember = (pynetdicom.evt.EVT_DIMSE_RECV, lambda event: received.append(event.message.command_set))
        association = entity.associate(LOOPBACK, port, evt_handlers=[remember])
        assert association.is_established
        try:
            return ask_all(association)
        finally:
            association.release()

    async with listen(LOOPBACK, 0, services=[ours]) as server:
        created, changed, refused, got, acted, deleted, unknown = await asyncio.to_thread(work, server.port)
    assert (created[0].Status, created[1].NumberOfCopies) == (0, 3)
    assert received[0].AffectedSOPInstanceUID == MADE, "which pynetdicom keeps to itself"
    assert (changed[0].Status, changed[1].FilmSessionLabel) == (0, "changed")
    assert (refused[0].Status, refused[0].ErrorComment, refused[0].ErrorID) == (0x0106, "not such a label", 7)
    assert (got[0].Status, got[1].PrinterStatus, got[1].PrinterName) == (0x0107, "NORMAL", "Größe")
    assert got[0].AttributeIdentifierList == 0x21100030
    assert (acted[0].Status, acted[1].TransactionUID) == (0, "1.2.9")
    assert [deleted[0].Status, unknown[0].Status] == [0x0000, 0x0112]
    assert [each.operation for each in ours.seen] == [
        *("N-CREATE", "N-SET", "N-SET", "N-GET", "N-ACTION", "N-DELETE", "N-DELETE")
    ]
    assert ours.seen[3].attribute_identifiers == (0x21100010, 0x21100030)
    assert ours.seen[0].dataset().NumberOfCopies == 2


async def test_our_scp_reports_an_event_to_their_scu(pynetdicom: ModuleType) -> None:
    ours = Ours()
    events: list[Any] = []
    may_release = threading.Event()

    def on_event(event: Any) -> tuple[int, Dataset]:
        events.append((event.event_type, event.event_information.TransactionUID))
        return 0x0000, dataset(TransactionUID="1.2.13")

    def work(port: int) -> int:
        entity = pynetdicom.AE("THEIRS")
        entity.add_requested_context(COMMITMENT, list(SYNTAXES))
        handlers = [(pynetdicom.evt.EVT_N_EVENT_REPORT, on_event)]
        association = entity.associate(LOOPBACK, port, evt_handlers=handlers)
        assert association.is_established
        try:
            status, _ = association.send_n_action(dataset(TransactionUID="1.2.7"), 1, COMMITMENT, COMMITMENT_INSTANCE)
            may_release.wait(SECONDS)
            return int(status.Status)
        finally:
            association.release()

    async with listen(LOOPBACK, 0, services=[ours]) as server:
        working = asyncio.create_task(asyncio.to_thread(work, server.port))
        try:
            async with asyncio.timeout(SECONDS):
                await ours.reported.wait()
        finally:
            may_release.set()
        assert await working == 0
    assert events == [(1, "1.2.7")]
    assert ours.replies == ["0000H (success) 1.2.13"]


async def test_their_scp_role_reports_an_event_to_our_acceptor(pynetdicom: ModuleType) -> None:
    """They open the association and ask for the SCP role, as a commitment SCP that calls back does."""
    ours = Ours()

    def work(port: int) -> tuple[Any, Any]:
        entity = pynetdicom.AE("THEIRS")
        entity.add_requested_context(COMMITMENT, list(SYNTAXES))
        role = pynetdicom.build_role(COMMITMENT, scp_role=True)
        association = entity.associate(LOOPBACK, port, ext_neg=[role])
        assert association.is_established
        try:
            information = dataset(TransactionUID="1.2.7")
            return association.send_n_event_report(information, 2, COMMITMENT, COMMITMENT_INSTANCE)
        finally:
            association.release()

    async with listen(LOOPBACK, 0, services=[ours]) as server:
        status, reply = await asyncio.to_thread(work, server.port)
    assert (status.Status, reply.TransactionUID) == (0, "1.2.12")
    assert (ours.seen[0].type_id, ours.seen[0].dataset().TransactionUID) == (2, "1.2.7")
