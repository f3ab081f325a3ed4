"""What an acceptor asks of its requestor, and C-CANCEL, with pynetdicom and DCMTK on the other side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

from support.network import LOOPBACK, free_port, listening_process
from support.services import Keeper
from tomowire.aio.address import PeerAddress
from tomowire.aio.connect import associate
from tomowire.aio.responses import responses
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.dicom_file import inspect
from tomowire.services.identifiers import encode
from tomowire.services.sending import send_files
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import CEchoScu, verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.messages import CFindRQ, CGetRQ

pytestmark = pytest.mark.interop

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN,)
CONTEXTS = [
    ProposedContext(GET, SYNTAXES),
    ProposedContext(FIND, SYNTAXES),
    ProposedContext(CT, SYNTAXES, scu=True, scp=True),
    verification(),
]
SUCCESS, CANCEL, PENDING = 0x0000, 0xFE00, 0xFF00


def ct_file() -> Path:
    found = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(found, str)
    return Path(found)


def study_of(file: Path) -> bytes:
    """An identifier that asks for the study of a file."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = dcmread(file, stop_before_pixels=True).StudyInstanceUID
    return encode(identifier, EXPLICIT_VR_LITTLE_ENDIAN)


async def get(port: int, called: str, keeper: Keeper) -> list[int]:
    """The statuses of the responses to one C-GET; what it brings goes to `keeper`."""
    async with associate(
        f"{called}@{LOOPBACK}:{port}", CONTEXTS, services=[Storage(keeper.keep)], aet="REQUESTOR"
    ) as association:
        assert association.context(CT).requestor_is_scp
        request = CGetRQ(message_id=association.next_message_id(), affected_sop_class_uid=GET)
        context = association.context(GET)
        answers = responses(association, context, request, study_of(ct_file()), name="C-GET", timeout=20.0, grace=5.0)
        async with aclosing(answers):
            statuses = [response.status async for response, _ in answers]
        assert (await CEchoScu(association).echo()).is_success
    return statuses


@contextmanager
def pynetdicom_scp(module: ModuleType, **handlers: Callable[..., Any]) -> Iterator[int]:
    entity = module.AE("PYNETDICOM")
    for uid in (GET, FIND, "1.2.840.10008.1.1"):
        entity.add_supported_context(uid)
    entity.add_supported_context(CT, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    events = [(getattr(module.evt, name), handler) for name, handler in handlers.items()]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=events)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


@contextmanager
def dcmqrscp(program: Path, folder: Path) -> Iterator[int]:
    """DCMTK's archive, with nothing in it."""
    port = free_port()
    storage = folder / "objects"
    storage.mkdir()
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f'AETable BEGIN\nARCHIVE "{storage}" RW (200, 1024mb) ANY\nAETable END\n'
    )
    with listening_process([program, "-c", configuration], port, log=folder / "log"):
        yield port


async def test_pynetdicom_sends_what_is_retrieved_with_c_get(pynetdicom: ModuleType) -> None:
    data_set = dcmread(ct_file())

    def answer(_: object) -> Iterator[Any]:
        yield 1
        yield PENDING, data_set

    keeper = Keeper()
    with pynetdicom_scp(pynetdicom, EVT_C_GET=answer) as port:
        statuses = await get(port, "PYNETDICOM", keeper)
    assert statuses[-1] == SUCCESS
    assert list(keeper.stored) == [data_set.SOPInstanceUID]


async def test_dcmtk_sends_what_is_retrieved_with_c_get(dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    keeper = Keeper()
    with dcmqrscp(dcmtk("dcmqrscp"), tmp_path) as port:
        async with aclosing(send_files(PeerAddress("ARCHIVE", LOOPBACK, port), [inspect(ct_file())])) as results:
            assert [sent.is_failure async for sent in results] == [False]
        statuses = await get(port, "ARCHIVE", keeper)
    assert statuses[-1] == SUCCESS
    assert list(keeper.stored) == [dcmread(ct_file()).SOPInstanceUID]


async def test_pynetdicom_is_stopped_by_c_cancel(pynetdicom: ModuleType) -> None:
    """It would go on for ever; the association can be used afterwards."""
    ended: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def answer(event: Any) -> Iterator[Any]:
        found = Dataset()
        found.QueryRetrieveLevel = "STUDY"
        found.StudyInstanceUID = "1.2.3"
        while not event.is_cancelled:
            yield PENDING, found
            time.sleep(0.001)  # else its own thread that reads may not get to run
        loop.call_soon_threadsafe(ended.put_nowait, "cancelled")
        yield CANCEL, None

    with pynetdicom_scp(pynetdicom, EVT_C_FIND=answer) as port:
        async with associate(f"PYNETDICOM@{LOOPBACK}:{port}", CONTEXTS) as association:
            request = CFindRQ(message_id=association.next_message_id(), affected_sop_class_uid=FIND)
            context = association.context(FIND)
            answers = responses(
                association, context, request, study_of(ct_file()), name="C-FIND", timeout=20.0, grace=10.0
            )
            async with aclosing(answers):
                for _ in range(3):
                    response, data = await anext(answers)
                    assert (response.status, data is not None) == (PENDING, True)
            assert await asyncio.wait_for(ended.get(), 10) == "cancelled"
            assert (await CEchoScu(association).echo()).is_success
