"""Extended negotiation, role selection and windows with pynetdicom, both ways (PS3.7 D.3.3.3 to D.3.3.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from support.network import LOOPBACK
from support.raw_peer import CT
from support.services import Keeper
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.extended import QueryOptions, RetrieveOptions, StorageOptions
from tomowire.services.find_scp import Find
from tomowire.services.get_scp import Get
from tomowire.services.models import Model, querying
from tomowire.services.related import Related, related
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import Verification, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

ECHO = "1.2.840.10008.1.1"
PRIVATE = "1.2.826.0.1.3680043.9.1"
FIND, GET = Model.STUDY_ROOT.find, Model.STUDY_ROOT.get


async def no_answers(request: Any) -> Any:
    raise AssertionError("nothing is asked here")
    yield


def ask_as_pynetdicom(
    pynetdicom: ModuleType,
    port: int,
    classes: Sequence[str],
    items: Sequence[Any],
    then: Callable[[Any], Any] = lambda association: None,
) -> tuple[Any, Any]:
    """The association that pynetdicom gets, after its release, and what `then` made of it before."""
    entity = pynetdicom.AE("PYNETDICOM")
    for sop_class in classes:
        entity.add_requested_context(sop_class, EXPLICIT_VR_LITTLE_ENDIAN)
    association = entity.associate(LOOPBACK, port, ext_neg=list(items))
    assert association.is_established
    try:
        result = then(association)
    finally:
        association.release()
    return association, result


@contextmanager
def pynetdicom_acceptor(pynetdicom: ModuleType, contexts: Sequence[tuple[Any, ...]], handlers: Any) -> Iterator[int]:
    """An SCP for these abstract syntaxes, each perhaps with the roles that it lets the requestor have; gives its port."""
    entity = pynetdicom.AE("PYNETDICOM")
    for uid, *roles in contexts:
        scu, scp = roles or (None, None)
        entity.add_supported_context(uid, EXPLICIT_VR_LITTLE_ENDIAN, scu_role=scu, scp_role=scp)
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


# SOP class extended negotiation


async def test_pynetdicom_asks_for_more_than_there_is_and_gets_what_there_is(pynetdicom: ModuleType) -> None:
    from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

    items = []
    for uid, information in [(FIND, b"\1\1\1\1"), (GET, b"\1\1"), (CT, b"\3\0\0\0\2\0")]:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = uid
        item.service_class_application_information = information
        items.append(item)

    async def no_objects(request: Any) -> Any:
        raise AssertionError("nothing is asked here")

    services = [Find(no_answers, relational=True), Get(no_objects), Storage(Keeper().keep)]
    async with listen(port=0, services=services) as server:
        association, _ = await asyncio.to_thread(ask_as_pynetdicom, pynetdicom, server.port, [FIND, GET, CT], items)
    assert association.acceptor.sop_class_extended == {FIND: b"\1\0\0\0", GET: b"\0\0", CT: b"\2\0\0\0\0\0"}


async def test_pynetdicom_agrees_to_some_of_what_is_asked(pynetdicom: ModuleType) -> None:
    asked: dict[str, bytes] = {}

    def on_extended(event: Any) -> dict[str, bytes]:
        asked.update({str(uid): information for uid, information in event.app_info.items()})
        return {FIND: b"\1\0\1", CT: b"\0\0\2\0\0\0"}

    handlers = [(pynetdicom.evt.EVT_SOP_EXTENDED, on_extended)]
    contexts = [querying(), ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
    extended = [
        QueryOptions(relational=True, date_time_matching=True, fuzzy_matching=True).on(FIND),
        RetrieveOptions(relational=True).on(GET),
        StorageOptions().on(CT),
    ]
    with pynetdicom_acceptor(pynetdicom, [(FIND,), (CT,)], handlers) as port:
        async with associate(f"PYNETDICOM@{LOOPBACK}:{port}", contexts, extended=extended) as association:
            agreed = QueryOptions.agreed(association, FIND)
            assert agreed == QueryOptions(relational=True, fuzzy_matching=True)
            assert StorageOptions.of_acceptor(association, CT) == StorageOptions(0, 2, 0)
    assert asked == {FIND: b"\1\1\1", CT: b"\3\0\0\0\2\0"}  # GET is not proposed


# SOP class common extended negotiation


async def test_pynetdicom_sends_objects_of_a_private_class_that_it_explains(pynetdicom: ModuleType) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation

    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid = PRIVATE
    item.service_class_uid = "1.2.840.10008.4.2"
    item.related_general_sop_class_identification = ["1.2.3.4", CT]

    def send(association: Any) -> int:
        data_set = Dataset()
        data_set.SOPClassUID, data_set.SOPInstanceUID, data_set.PatientID = PRIVATE, "1.2.3", "x"
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
        status: int = association.send_c_store(data_set).Status
        return status

    keeper = Keeper()
    async with listen(port=0, services=[Related(Storage(keeper.keep))]) as server:
        _, status = await asyncio.to_thread(ask_as_pynetdicom, pynetdicom, server.port, [PRIVATE], [item], send)
    assert status == 0
    assert list(keeper.stored) == ["1.2.3"]


async def test_pynetdicom_reads_what_is_said_of_a_private_class(pynetdicom: ModuleType) -> None:
    said: list[tuple[str, str, list[str]]] = []

    def on_common(event: Any) -> dict[Any, Any]:
        for uid, item in event.items.items():
            related_to = [str(each) for each in item.related_general_sop_class_identification]
            said.append((str(uid), str(item.service_class_uid), related_to))
        return dict(event.items)

    handlers = [(pynetdicom.evt.EVT_SOP_COMMON, on_common)]
    context = ProposedContext(PRIVATE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    with pynetdicom_acceptor(pynetdicom, [(PRIVATE,)], handlers) as port:
        async with associate(
            f"PYNETDICOM@{LOOPBACK}:{port}", [context], extended=[related(PRIVATE, CT)]
        ) as association:
            assert association.contexts(PRIVATE)
    assert said == [(PRIVATE, "1.2.840.10008.4.2", [CT])]


# Roles


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((True, True), (True, True)), ((False, True), (False, True)), ((True, False), (True, False))],
)
async def test_pynetdicom_asks_for_roles_and_gets_those_that_can_be(
    pynetdicom: ModuleType, asked: tuple[bool, bool], expected: tuple[bool, bool]
) -> None:
    """Storage is served by one provider, and the C-GET SCP would be SCU of it: the requestor may have both roles."""

    async def no_objects(request: Any) -> Any:
        raise AssertionError("nothing is asked here")

    role = pynetdicom.build_role(CT, scu_role=asked[0], scp_role=asked[1])
    async with listen(port=0, services=[Get(no_objects), Storage(Keeper().keep)]) as server:
        association, _ = await asyncio.to_thread(ask_as_pynetdicom, pynetdicom, server.port, [GET, CT], [role])
    answered = association.acceptor.role_selection[CT]
    assert (answered.scu_role, answered.scp_role) == expected


async def test_a_role_that_nobody_here_can_take_is_refused(pynetdicom: ModuleType) -> None:
    role = pynetdicom.build_role(CT, scu_role=True, scp_role=True)
    async with listen(port=0, services=[Storage(Keeper().keep)]) as server:
        association, _ = await asyncio.to_thread(ask_as_pynetdicom, pynetdicom, server.port, [CT], [role])
    answered = association.acceptor.role_selection[CT]
    assert (answered.scu_role, answered.scp_role) == (True, False)


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ((True, True), (True, True), (True, True)),
        ((False, True), (True, True), (False, True)),
        ((True, True), (True, False), (True, False)),
        ((True, False), (True, True), (True, False)),
    ],
)
async def test_pynetdicom_answers_the_roles_that_are_asked_for(
    pynetdicom: ModuleType, wanted: tuple[bool, bool], offered: tuple[bool, bool], expected: tuple[bool, bool]
) -> None:
    context = ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,), scu=wanted[0], scp=wanted[1])
    with pynetdicom_acceptor(pynetdicom, [(CT, *offered)], []) as port:
        async with associate(f"PYNETDICOM@{LOOPBACK}:{port}", [context]) as association:
            (accepted,) = association.contexts(CT)
    assert (accepted.requestor_is_scu, accepted.requestor_is_scp) == expected


# Windows


@pytest.mark.parametrize(("asked", "expected"), [((5, 3), (5, 3)), ((50, 20), (16, 16)), ((0, 0), (16, 16))])
async def test_pynetdicom_asks_for_a_window(
    pynetdicom: ModuleType, asked: tuple[int, int], expected: tuple[int, int]
) -> None:
    from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation

    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked, item.maximum_number_operations_performed = asked
    async with listen(port=0, services=[Verification()], window=16) as server:
        association, _ = await asyncio.to_thread(ask_as_pynetdicom, pynetdicom, server.port, [ECHO], [item])
    assert association.acceptor.asynchronous_operations == expected


async def test_pynetdicom_grants_no_window_and_one_request_is_outstanding(pynetdicom: ModuleType) -> None:
    """pynetdicom answers 1, 1 whatever its handler says: it works in synchronous mode only."""
    asked: list[tuple[int, int]] = []

    def on_window(event: Any) -> tuple[int, int]:
        asked.append((event.nr_invoked, event.nr_performed))
        return 7, 2

    handlers = [(pynetdicom.evt.EVT_ASYNC_OPS, on_window)]
    with pynetdicom_acceptor(pynetdicom, [(ECHO,)], handlers) as port:
        async with associate(
            f"PYNETDICOM@{LOOPBACK}:{port}",
            [verification((EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))],
            window=8,
            performed=4,
        ) as association:
            assert (association.agreement.maximum_invoked, association.agreement.maximum_performed) == (1, 1)
            assert association.window == 1
    assert asked == [(8, 4)]
