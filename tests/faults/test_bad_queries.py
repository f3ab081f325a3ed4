"""Identifiers and messages that no honest peer would send, to a whole archive: each is answered, and nothing dies or grows."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.data_sets import EXPLICIT
from support.filled import fill, small_hospital
from support.network import LOOPBACK, free_port
from support.objects import ROOT, SECONDARY_CAPTURE
from support.programs import Program, serving
from support.queries import Attributes, encode
from support.raw_peer import RawPeer, associate_rq, command_pdu, echo_rq, message_pdus, p_data
from tomowire.services.models import Model
from tomowire.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from tomowire.wire.command_set import encode_command
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CCancelRQ, CFindRQ, CFindRSP, CGetRQ, CGetRSP, CMoveRQ, CMoveRSP, CStoreRQ, CStoreRSP
from tomowire.wire.user_information import RoleSelection

pytestmark = pytest.mark.usefixtures("ends_well")

SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
FIND, MOVE, GET, STORE = range(4)
"""Presentation context IDs are one more than twice these, and twice four times the number of the transfer syntax."""

STUDY_UID, SERIES_UID, INSTANCE_UID, PATIENT_ID = 0x0020000D, 0x0020000E, 0x00080018, 0x00100020
PATIENT_NAME, STUDY_DATE, STUDY_TIME, LEVEL, CHARACTER_SET = 0x00100010, 0x00080020, 0x00080030, 0x00080052, 0x00080005
REFERENCED_STUDIES = 0x00081110

PENDING = (0xFF00, 0xFF01)
ENDS = {0x0000, 0xFE00, 0xA700, 0xA701, 0xA702, 0xA801, 0xA900, 0xB000, *range(0xC000, 0xD000)}
"""PS3.4 Tables C.4-1, C.4-2 and C.4-3."""
REFUSED = {0xA900, *range(0xC000, 0xD000)}

MEMORY = 96 << 20
"""What may be added to the archive: pydicom, codecs and the query's own, and not what a bad identifier claims to be."""


def context_id(service: int, syntax: int = 0) -> int:
    return 1 + 2 * (service + 4 * syntax)


@dataclass
class Peer:
    """An association on which anything can be said."""

    raw: RawPeer
    message_id: int = 0
    objects: int = 0
    statuses: set[int] = field(default_factory=set)

    async def ask(self, service: int, identifier: bytes, syntax: int = 0, destination: str = "NOWHERE") -> int:
        """The final status. What comes as C-STORE is taken."""
        self.message_id += 1
        request = request_of(service, self.message_id, destination)
        await self.raw.send(message_pdus(context_id(service, syntax), request, identifier, fragment=1 << 16))
        return await self.final()

    async def final(self) -> int:
        while True:
            message = await self.raw.read_message()
            if isinstance(message.command, CStoreRQ):
                self.objects += 1
                await self.raw.send(command_pdu(message.context_id, stored(message.command)))
                continue
            assert isinstance(message.command, CFindRSP | CMoveRSP | CGetRSP)
            assert message.command.message_id_being_responded_to == self.message_id
            if message.command.status not in PENDING:
                assert message.command.status in ENDS
                assert len(message.command.error_comment or "") <= 64
                self.statuses.add(message.command.status)
                return message.command.status


def request_of(service: int, message_id: int, destination: str) -> CFindRQ | CMoveRQ | CGetRQ:
    model = Model.STUDY_ROOT
    if service == FIND:
        return CFindRQ(message_id=message_id, affected_sop_class_uid=model.find)
    if service == GET:
        return CGetRQ(message_id=message_id, affected_sop_class_uid=model.get)
    return CMoveRQ(message_id=message_id, affected_sop_class_uid=model.move, move_destination=destination)


def stored(request: CStoreRQ, status: int = 0) -> CStoreRSP:
    return CStoreRSP(
        message_id_being_responded_to=request.message_id,
        affected_sop_class_uid=request.affected_sop_class_uid,
        affected_sop_instance_uid=request.affected_sop_instance_uid,
        status=status,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    data_dir = tmp_path_factory.mktemp("asked") / "data"
    asyncio.run(fill(data_dir, small_hospital()))
    with serving("serve", "--data-dir", data_dir, "--node", f"NOBODY@{LOOPBACK}:{free_port()}") as program:
        yield program
        assert program.process.poll() is None
        assert program.end() == 0
    assert "Traceback" not in program.stderr.text


@pytest.fixture
async def peer(archive: Program) -> AsyncIterator[Peer]:
    async with await opened(archive) as raw:
        yield Peer(raw)
        await raw.release()


async def opened(archive: Program) -> RawPeer:
    raw = await RawPeer.connect(archive.port)
    classes = (Model.STUDY_ROOT.find, Model.STUDY_ROOT.move, Model.STUDY_ROOT.get, SECONDARY_CAPTURE)
    contexts = [
        PresentationContextRQ(context_id(service, syntax), sop_class, (SYNTAXES[syntax],))
        for syntax in range(len(SYNTAXES))
        for service, sop_class in enumerate(classes)
    ]
    contexts.append(PresentationContextRQ(99, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)))
    request = associate_rq(*contexts, called="TOMOWIRE")
    roles = (RoleSelection(SECONDARY_CAPTURE, scu=False, scp=True),)
    information = dataclasses.replace(request.user_information, role_selections=roles)
    await raw.associate(dataclasses.replace(request, user_information=information))
    return raw


@pytest.fixture
async def ends_well(archive: Program) -> AsyncIterator[None]:
    """An association that is there before a test works after it; and the archive has not grown."""
    before = peak_of(archive)
    async with await opened(archive) as witness:
        yield
        await witness.send(command_pdu(99, echo_rq(7)))
        await witness.read_message()
        assert await Peer(witness).ask(FIND, encode({LEVEL: ("CS", "STUDY"), STUDY_UID: ("UI", "")})) == 0
        await witness.release()
    assert peak_of(archive) - before < MEMORY


def peak_of(archive: Program) -> int:
    status = Path(f"/proc/{archive.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def nested(depth: int) -> bytes:
    """Sequences of undefined length, one in the other."""
    begin = (
        EXPLICIT.element(REFERENCED_STUDIES, "SQ", b"")[:8] + b"\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    )
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return begin * depth + end * depth


STUDY: Attributes = {LEVEL: ("CS", "STUDY"), STUDY_UID: ("UI", f"{ROOT}.1.1")}


REFUSED_IDENTIFIERS: dict[str, bytes] = {
    "nothing": b"",
    "no level": encode({STUDY_UID: ("UI", f"{ROOT}.1.1")}),
    "an empty level": encode(STUDY | {LEVEL: ("CS", "")}),
    "two levels": encode(STUDY | {LEVEL: ("CS", "STUDY\\SERIES")}),
    "no such level": encode(STUDY | {LEVEL: ("CS", "FRAME")}),
    "a level in bytes that are no text": encode(STUDY | {LEVEL: ("CS", b"\xff\xfe\x00\x01")}),
    "a level of 60 kB": encode(STUDY | {LEVEL: ("CS", "STUDY" * 12000)}),
    "not the level of the model": encode({LEVEL: ("CS", "PATIENT"), PATIENT_ID: ("LO", "JANE")}),
    "no study above the series": encode({LEVEL: ("CS", "SERIES"), SERIES_UID: ("UI", f"{ROOT}.2.1.1")}),
    "many studies above the series": encode(
        {LEVEL: ("CS", "SERIES"), STUDY_UID: ("UI", "1.2\\1.3"), SERIES_UID: ("UI", "1.4")}
    ),
    "noise": bytes(random.Random(1).randbytes(5000)),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "cut short": encode(STUDY)[:-3],
    "an element of 4 GB": encode(STUDY) + struct.pack("<HH2sHI", 0x4008, 0x0100, b"UN", 0, 0xFFFFFFF0),
    "sequences without end": nested(1000)[: 20 * 1000] + encode(STUDY),
}


@pytest.mark.parametrize("service", [FIND, MOVE, GET])
@pytest.mark.parametrize("what", REFUSED_IDENTIFIERS)
async def test_what_is_no_request_is_refused(peer: Peer, service: int, what: str) -> None:
    assert await peer.ask(service, REFUSED_IDENTIFIERS[what], destination="NOBODY") in REFUSED
    assert peer.objects == 0
    assert await peer.ask(GET, encode(STUDY)) == 0
    assert peer.objects == 5


STRANGE: dict[str, Attributes] = {
    "a pattern that takes long where matching goes back": {PATIENT_NAME: ("PN", "*a" * 30 + "*b")},
    "a pattern of 60 kB": {PATIENT_NAME: ("PN", "*?" * 30000)},
    "brackets and quotes": {PATIENT_NAME: ("PN", "[a-z]*' OR 1=1; --%_\\\x00")},
    "a thousand components": {PATIENT_NAME: ("PN", "^" * 1000 + "=" * 1000)},
    "ten thousand UIDs": {STUDY_UID: ("UN", "\\".join(f"1.2.{number}" for number in range(10000)))},
    "a UID of 60 kB": {STUDY_UID: ("UI", "1." + "2" * 60000)},
    "empty UIDs": {STUDY_UID: ("UI", "\\" * 9)},
    "no date": {STUDY_DATE: ("DA", "99999999")},
    "a hyphen for a date": {STUDY_DATE: ("DA", "-")},
    "dates the wrong way round": {STUDY_DATE: ("DA", "20250101-20200101"), STUDY_TIME: ("TM", "250000-")},
    "a date of 60 kB": {STUDY_DATE: ("DA", "2" * 60000)},
    "no such character set": {CHARACTER_SET: ("CS", "KLINGON"), PATIENT_NAME: ("PN", b"\xff\xfe*")},
    "many character sets": {CHARACTER_SET: ("CS", "\\ISO 2022 IR 87" * 500), PATIENT_NAME: ("PN", b"\x1b$B" * 1000)},
    "escapes that nothing announces": {PATIENT_NAME: ("PN", b"\x1b$)C\x1b(I\x1b")},
    "a sequence where text belongs": {PATIENT_NAME: ("SQ", [{PATIENT_ID: ("LO", "1")}])},
    "text where a sequence belongs": {REFERENCED_STUDIES: ("LO", "text")},
    "two items to match": {REFERENCED_STUDIES: ("SQ", [{STUDY_UID: ("UI", "1.2")}, {STUDY_UID: ("UI", "1.3")}])},
    "other groups": {tag << 16 | 0x10: ("UN", b"\0\1") for tag in range(0x0009, 0x1009, 2)},
}


@pytest.mark.parametrize("service", [FIND, MOVE, GET])
@pytest.mark.parametrize("what", STRANGE)
async def test_strange_keys_get_an_answer(peer: Peer, service: int, what: str) -> None:
    keys = dict(STUDY) | STRANGE[what]
    if service == FIND and STUDY_UID not in STRANGE[what]:
        keys[STUDY_UID] = ("UI", "")
    await peer.ask(service, encode(keys), destination="NOBODY")
    assert await peer.ask(FIND, encode(STUDY)) == 0


async def test_a_deep_identifier_is_refused(peer: Peer) -> None:
    """A reader that calls itself for each level would end."""
    for service in (FIND, MOVE, GET):
        for depth in (100, 20000):
            await peer.ask(
                service, encode(STUDY)[:20] + nested(depth) + encode({STUDY_UID: ("UI", "")}), destination="NOBODY"
            )
    assert await peer.ask(FIND, encode(STUDY)) == 0


@pytest.mark.parametrize("syntax", range(len(SYNTAXES)))
@pytest.mark.parametrize("service", [FIND, MOVE, GET])
async def test_damaged_identifiers_get_an_answer(peer: Peer, service: int, syntax: int) -> None:
    """Bytes changed, taken away and put in, always the same way; under each transfer syntax, its own or not."""
    chance = random.Random(service * 10 + syntax)
    whole = encode(dict(STUDY) | {PATIENT_NAME: ("PN", "D*"), STUDY_DATE: ("DA", "20240101-"), PATIENT_ID: ("LO", "")})
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randint(1, 8)]
                case _:
                    data[at:at] = chance.randbytes(chance.randint(1, 8))
        await peer.ask(service, bytes(data), syntax, destination="NOBODY")
    assert await peer.ask(FIND, encode(STUDY)) == 0


@pytest.mark.parametrize(
    "destination", ["", " ", "nobody", "NOBODY\\NOBODY", "X" * 60000, "\x00", "../../etc", "\u00e4"]
)
async def test_destinations_that_are_none(peer: Peer, destination: str) -> None:
    """PS3.4 Table C.4-2: Move Destination unknown."""
    command = encode_command(request_of(MOVE, 1, "PLACEHOLDER"))
    at = command.index(b"PLACEHOLDER")
    raw = destination.encode("utf-8")
    raw += b" " * (len(raw) % 2)
    command = command[: at - 4] + struct.pack("<I", len(raw)) + raw + command[at + 12 :]
    command = command[:8] + struct.pack("<I", len(command) - 12) + command[12:]
    peer.message_id = 1
    await peer.raw.send(
        p_data(context_id(MOVE), command, command=True, last=True),
        p_data(context_id(MOVE), encode(STUDY), command=False, last=True),
    )
    assert await peer.final() in {0xA801, *REFUSED}


async def test_cancels_of_nothing(peer: Peer) -> None:
    """PS3.7 9.3.2.3: one that comes too late finds nothing; that is no reason to end the association."""
    for number in range(3000):
        await peer.raw.send(command_pdu(context_id(number % 3), CCancelRQ(message_id_being_responded_to=number)))
    assert await peer.ask(FIND, encode(STUDY)) == 0
    assert await peer.ask(GET, encode(STUDY)) == 0


@pytest.mark.parametrize("status", [0x0000, 0x0001, 0xA700, 0xB007, 0xC123, 0xFFFF])
async def test_whatever_status_the_requestor_gives_its_objects(peer: Peer, status: int) -> None:
    """PS3.4 C.4.3.1.4: each is counted, whatever it may be."""
    peer.message_id = 1
    request = request_of(GET, 1, "")
    await peer.raw.send(message_pdus(context_id(GET), request, encode(STUDY)))
    while True:
        message = await peer.raw.read_message()
        if isinstance(message.command, CStoreRQ):
            await peer.raw.send(command_pdu(message.context_id, stored(message.command, status)))
            continue
        assert isinstance(message.command, CGetRSP)
        if message.command.status not in PENDING:
            break
    rsp = message.command
    counts = (
        rsp.number_of_completed_suboperations,
        rsp.number_of_failed_suboperations,
        rsp.number_of_warning_suboperations,
    )
    if status == 0:
        assert (rsp.status, counts) == (0, (5, 0, 0))
    elif status in (0x0001, 0xB007):
        assert (rsp.status, counts) == (0xB000, (0, 0, 5))
    else:
        assert (rsp.status, counts) == (0xA702, (0, 5, 0))


async def test_an_answer_to_no_sub_operation_is_passed_over(peer: Peer) -> None:
    """A server is lenient: the log says so, and the true answers count."""
    await peer.raw.send(message_pdus(context_id(GET), request_of(GET, 1, ""), encode(STUDY)))
    while True:
        message = await peer.raw.read_message()
        if isinstance(message.command, CStoreRQ):
            answer = stored(message.command)
            stray = dataclasses.replace(answer, message_id_being_responded_to=999)
            await peer.raw.send(command_pdu(message.context_id, stray), command_pdu(message.context_id, answer))
            continue
        assert isinstance(message.command, CGetRSP)
        if message.command.status not in PENDING:
            break
    assert (message.command.status, message.command.number_of_completed_suboperations) == (0x0000, 5)
