"""`tomowire retrieve --method move` takes what its own C-MOVE brings (PS3.7 9.1.1.1), and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from support.dcmqrscp import write_files
from support.network import LOOPBACK, free_port, listening_process
from support.objects import SECONDARY_CAPTURE, Sample
from support.programs import run_tomowire, start, tomowire
from support.raw_peer import RELEASE_RP, RawPeer, associate_rq, message_pdus, raw_acceptor, store_rq
from support.subprocesses import python_environment
from tomowire.aio.address import PeerAddress
from tomowire.cli.originator import OfOurMove
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CMoveRQ, CMoveRSP, CStoreRSP
from tomowire.wire.pdu import AReleaseRQ

STORAGE = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
ELSEWHERE = "127.0.0.2"
"""Another address of this machine, from which nobody would take the peer to call."""
SAMPLE = Sample(1)


OURS, OTHER = "ours", "other"


@dataclass(frozen=True)
class Cause:
    """What a sender names as the cause of an object: an AE title, and a Message ID, that of the request or another one."""

    title: str | None
    message_id: str | int | None = OURS

    def number(self, ours: int) -> int | None:
        return ours if self.message_id == OURS else ours % 0xFFFF + 1 if self.message_id == OTHER else self.message_id


async def answer_from(host: str, port: int, originator: tuple[str | None, int | None], calling: str) -> CStoreRSP:
    """What the sample is answered that `calling` sends from the address `host`."""
    with socket.socket() as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no address {host}")
        sock.connect((LOOPBACK, port))
        async with RawPeer(sock) as sender:
            await sender.associate(associate_rq(STORAGE, called="HERE", calling=calling))
            request = replace(
                store_rq(instance=SAMPLE.uid, sop_class=SECONDARY_CAPTURE),
                move_originator_application_entity_title=originator[0],
                move_originator_message_id=originator[1],
            )
            await sender.send(message_pdus(1, request, SAMPLE.data_set))
            response = (await sender.read_message()).command
            assert isinstance(response, CStoreRSP)
            return response


@pytest.mark.parametrize(
    ("host", "cause", "calling", "is_taken"),
    [
        (LOOPBACK, Cause("HERE"), "ARCHIVE", True),
        (ELSEWHERE, Cause("HERE"), "GATEWAY", True),  # an archive may send from another host than it is asked on
        (LOOPBACK, Cause(None), "ARCHIVE", True),
        (LOOPBACK, Cause("ARCHIVE"), "ARCHIVE", True),
        (LOOPBACK, Cause("OTHER"), "ARCHIVE", False),
        (ELSEWHERE, Cause(None), "ARCHIVE", False),
        (ELSEWHERE, Cause("ARCHIVE"), "ARCHIVE", False),
        (ELSEWHERE, Cause("OTHER"), "ARCHIVE", False),
        # Of the same title, but of another request: of a retrieval that was killed, say, and of which the peer goes on sending.
        (LOOPBACK, Cause("HERE", OTHER), "ARCHIVE", False),
        (LOOPBACK, Cause("ARCHIVE", OTHER), "ARCHIVE", False),
        (LOOPBACK, Cause(None, OTHER), "ARCHIVE", False),
        # Peers that say nothing about it.
        (LOOPBACK, Cause("HERE", None), "ARCHIVE", True),
        (LOOPBACK, Cause("HERE", 0), "ARCHIVE", True),
        (LOOPBACK, Cause(None, None), "ARCHIVE", True),
        (ELSEWHERE, Cause(None, None), "ARCHIVE", False),
    ],
)
async def test_whose_objects_are_taken(host: str, cause: Cause, calling: str, is_taken: bool, tmp_path: Path) -> None:
    asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    sent = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        assert isinstance(request.command, CMoveRQ)
        asked.set_result(request.command.message_id)
        await sent.wait()
        final = CMoveRSP(
            message_id_being_responded_to=request.command.message_id,
            affected_sop_class_uid=request.command.affected_sop_class_uid,
            status=0 if is_taken else 0xA702,
            number_of_completed_suboperations=int(is_taken),
            number_of_failed_suboperations=int(not is_taken),
        )
        await peer.send(message_pdus(request.context_id, final))
        assert isinstance(await peer.read_pdu(), AReleaseRQ)
        await peer.send(RELEASE_RP)
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        options = ["--method", "move", "--aet", "HERE", "--port", "0", "-v", "--json"]
        study = ["--study-uid", SAMPLE.study_uid]
        program = await asyncio.to_thread(
            start, ["retrieve", f"ARCHIVE@localhost:{port}", "-o", tmp_path, *study, *options]
        )
        listening = await asyncio.to_thread(program.stderr.wait_for, rf"listening as HERE@{LOOPBACK}:(\d+)")
        async with asyncio.timeout(30):
            originator = (cause.title, cause.number(await asked))
            response = await answer_from(host, int(listening[1]), originator, calling)
            sent.set()
        code = await asyncio.to_thread(program.process.wait, 20)
        await asyncio.to_thread(program.stdout.join)
        await asyncio.to_thread(program.stderr.join)
    told = "and not this one of HERE" in program.stderr.text
    stored = json.loads(program.stdout.text)["stored"]
    files = os.listdir(tmp_path)
    if is_taken:
        assert (response.status, code, told, stored, files) == (0, 0, False, 1, [f"{SAMPLE.uid}.dcm"])
    else:  # PS3.7 C.5.22
        assert (response.status, code, told, stored, files) == (0x0124, 1, True, 0, [])
        assert response.error_comment == "not of this C-MOVE of HERE"


def test_each_run_has_message_ids_of_its_own() -> None:
    """What the peer still sends for an earlier run would be taken for this one's, if both began to count at 1."""
    peer = PeerAddress("ARCHIVE", LOOPBACK, 1)
    runs = [OfOurMove("HERE", peer, AsyncMock(), print) for _ in range(4)]
    numbers = [tuple(run.new_message_id() for _ in range(3)) for run in runs]
    assert len(set(numbers)) > 1  # that all four are the same by chance does not happen
    assert all(1 <= each <= 0xFFFF for each in chain(*numbers))


def test_message_ids_are_not_used_twice_as_long_as_there_are_others() -> None:
    ours = OfOurMove("HERE", PeerAddress("ARCHIVE", LOOPBACK, 1), AsyncMock(), print)
    assert {ours.new_message_id() for _ in range(0xFFFF)} == set(range(1, 0x10000))
    assert 1 <= ours.new_message_id() <= 0xFFFF


@pytest.fixture(params=["qrscp", "orthanc"])
def foreign_archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of somebody else's archive with the sample, and the port at which it knows DEST."""
    port, destination = free_port(), free_port()
    storage = tmp_path / "storage"
    storage.mkdir()
    if request.param == "qrscp":
        request.getfixturevalue("pynetdicom")
        configuration = tmp_path / "qrscp.ini"
        configuration.write_text(
            f"[DEFAULT]\nae_title: ARCHIVE\nport: {port}\nmax_pdu: 65536\nacse_timeout: 30\ndimse_timeout: 30\n"
            f"network_timeout: 30\nbind_address: {LOOPBACK}\ninstance_location: {storage}\n"
            f"database_location: {storage / 'instances.sqlite'}\nlog_identifier: False\n"
            f"[DEST]\naddress: {LOOPBACK}\nport: {destination}\n"
        )
        command = [sys.executable, "-m", "pynetdicom", "qrscp", "-c", configuration]
    else:
        configuration = tmp_path / "orthanc.json"
        settings = {
            "StorageDirectory": str(storage),
            "IndexDirectory": str(storage),
            "DicomPort": port,
            "DicomAet": "ARCHIVE",
            "HttpServerEnabled": False,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {"dest": ["DEST", LOOPBACK, destination]},
            "Plugins": [],
        }
        configuration.write_text(json.dumps(settings))
        command = [request.getfixturevalue("orthanc"), configuration]
    with listening_process(command, port, log=tmp_path / "log", env=python_environment()):
        address = f"ARCHIVE@{LOOPBACK}:{port}"
        write_files(tmp_path / "send", [SAMPLE])
        assert run_tomowire("send", address, tmp_path / "send").returncode == 0
        yield address, destination


@pytest.mark.interop
async def test_what_other_archives_say_is_understood(foreign_archive: tuple[str, int], tmp_path: Path) -> None:
    """Orthanc names us; pynetdicom's archive names itself. DCMTK's is among those of test_retrieve."""
    address, destination = foreign_archive
    options = ["--method", "move", "--aet", "DEST", "--port", destination]
    done = await tomowire("retrieve", address, "-o", tmp_path / "out", "--study-uid", SAMPLE.study_uid, *options)
    assert done.code == 0, done.stderr
    assert os.listdir(tmp_path / "out") == [f"{SAMPLE.uid}.dcm"]
