"""Objects that are not what they say, or not whole: a failure status, nothing stored, and the association goes on."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.archives import RunningArchive
from support.objects import SECONDARY_CAPTURE, Sample, element
from support.raw_peer import RawPeer, associate_rq, message_pdus, p_data, store_rq
from tomowire.errors import FileFormatError
from tomowire.protocol.status import Status
from tomowire.services.dicom_file import inspect
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP, Response
from tomowire.wire.pdu import PDataTF

pytestmark = pytest.mark.usefixtures("witness")

SYNTAXES = {
    EXPLICIT_VR_LITTLE_ENDIAN: 1,
    IMPLICIT_VR_LITTLE_ENDIAN: 3,
    EXPLICIT_VR_BIG_ENDIAN: 5,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: 7,
    "1.2.840.10008.1.2.4.50": 9,
}
SUCCESS, INVALID_INSTANCE, NO_MATCH, CANNOT_UNDERSTAND = 0x0000, 0x0117, 0xA900, 0xC000


@dataclass
class Sender:
    """An association with a context for each of `SYNTAXES`, for one SOP class."""

    peer: RawPeer
    sop_class: str = SECONDARY_CAPTURE
    sent: int = 0

    async def store(self, data: bytes, instance: str, *, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> CStoreRSP:
        self.sent += 1
        request = store_rq(self.sent, instance, self.sop_class)
        await self.peer.send(message_pdus(SYNTAXES[syntax], request, data, fragment=1 << 17))
        response = (await self.peer.read_message()).command
        assert isinstance(response, CStoreRSP)
        assert response.message_id_being_responded_to == self.sent
        return response


async def open_sender(victim: RunningArchive, sop_class: str) -> Sender:
    peer = await RawPeer.connect(victim.port)
    contexts = [PresentationContextRQ(number, sop_class, (syntax,)) for syntax, number in SYNTAXES.items()]
    await peer.associate(associate_rq(*contexts, called="TOMOWIRE", calling="FUZZER"))
    return Sender(peer, sop_class)


@pytest.fixture
async def sender(victim: RunningArchive) -> AsyncIterator[Sender]:
    sender = await open_sender(victim, SECONDARY_CAPTURE)
    async with sender.peer:
        yield sender
        await sender.peer.release()


GOOD = Sample(1, size=500)
TREACHEROUS = [
    "../../../../../../../../tmp/pwned",
    "/etc/cron.d/pwned",
    "..",
    ".",
    "...",
    "1.2.3/../../../4",
    "1.2.3\\..\\..\\4",
    "..\\..\\orthanc.json",
    "1..2",
    ".1.2",
    "1.2.",
    "1.2.3\n",
    "1.2.3.dcm",
    "1.2.3-1",
    "A",
    "1.2.3 4",
    "1" * 65,
    "1." * 100 + "1",
    "%2e%2e",
    "NUL",
]


@pytest.mark.parametrize("uid", TREACHEROUS)
@pytest.mark.parametrize("tag", [0x00080018, 0x0020000D, 0x0020000E])
async def test_a_uid_that_is_none_is_refused_wherever_it_stands(
    victim: RunningArchive, sender: Sender, uid: str, tag: int
) -> None:
    sample = Sample(2, overrides={tag: ("UI", uid)})
    before = victim.stored(), victim.objects()
    response = await sender.store(sample.data_set, uid if tag == 0x00080018 else sample.uid)
    assert response.status in (INVALID_INSTANCE, NO_MATCH)
    assert response.error_comment
    assert (victim.stored(), victim.objects(), victim.unfinished()) == (*before, [])


async def test_leading_zeros_are_not_allowed_and_harmless(victim: RunningArchive, sender: Sender) -> None:
    """PS3.5 9.1 forbids them; many devices write them; they are digits and dots all the same."""
    overrides = {0x00080018: ("UI", "1.2.03.4"), 0x0020000D: ("UI", "1.02.1"), 0x0020000E: ("UI", "1.2.00.1")}
    sample = Sample(2, overrides=overrides)
    assert (await sender.store(sample.data_set, "1.2.03.4")).status == SUCCESS
    assert victim.stored()["1.2.03.4"] == sample.data_set


@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
async def test_a_uid_that_is_empty_or_missing(victim: RunningArchive, sender: Sender, tag: int) -> None:
    before = victim.stored()
    empty = Sample(2, overrides={tag: ("UI", "")})
    assert (await sender.store(empty.data_set, empty.uid)).status == NO_MATCH
    whole = Sample(2)
    missing = whole.data_set.replace(element(tag, "UI", _value_of(whole, tag)), b"")
    assert len(missing) < len(whole.data_set)
    assert (await sender.store(missing, whole.uid)).status == NO_MATCH
    assert victim.stored() == before


def _value_of(sample: Sample, tag: int) -> str:
    return {
        0x00080016: SECONDARY_CAPTURE,
        0x00080018: sample.uid,
        0x0020000D: sample.study_uid,
        0x0020000E: sample.series_uid,
    }[tag]


async def test_a_data_set_that_is_of_another_object_than_the_command(victim: RunningArchive, sender: Sender) -> None:
    before = victim.stored(), victim.objects()
    other_instance = await sender.store(Sample(3).data_set, Sample(4).uid)
    assert (other_instance.status, other_instance.error_comment) == (
        NO_MATCH,
        "SOP Instance UID of data set and command differ",
    )
    other_class = Sample(3, overrides={0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.2")})
    assert (await sender.store(other_class.data_set, other_class.uid)).status == NO_MATCH
    assert (victim.stored(), victim.objects()) == before


async def test_an_empty_instance_uid_in_the_command(victim: RunningArchive, sender: Sender) -> None:
    before = victim.stored()
    assert (await sender.store(Sample(3).data_set, "")).status in (INVALID_INSTANCE, NO_MATCH, 0x0110)
    assert victim.stored() == before


async def test_a_data_set_cut_short_anywhere(victim: RunningArchive, sender: Sender) -> None:
    """Cut between two elements it may still be whole; nowhere else."""
    before = victim.stored(), victim.objects()
    whole = GOOD.data_set
    for end in range(2, len(whole) - 2, 7):
        status = (await sender.store(whole[:end], GOOD.uid)).status
        assert status in (CANNOT_UNDERSTAND, NO_MATCH) or _ends_between_elements(whole, end), end
    assert victim.unfinished() == []
    stored = {uid: data for uid, data in victim.stored().items() if uid not in before[0]}
    assert all(_ends_between_elements(whole, len(data)) for data in stored.values())


def _ends_between_elements(data: bytes, end: int) -> bool:
    position = 0
    while position < end:
        is_long = data[position + 4 : position + 6] == b"OB"
        length = int.from_bytes(
            data[position + 8 : position + 12] if is_long else data[position + 6 : position + 8], "little"
        )
        position += (12 if is_long else 8) + length
    return position == end


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        bytes(10_000),
        b"\xff" * 10_000,
        b"not a data set at all" * 100,
        Sample(5).header + Sample(5).data_set,  # a whole file
        b"\xfe\xff\x0d\xe0\0\0\0\0" * 100,
        element(0x00081140, "SQ", b"") * 2,
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20_000,  # deep nesting
        b"\x08\x00\x16\x00UI\xff\xff" + bytes(100),
        b"\xe0\x7f\x10\x00OB\0\0\xfe\xff\xff\xff" + bytes(100),
    ],
    ids=lambda data: f"{len(data)} bytes" if isinstance(data, bytes) else str(data),
)
async def test_what_cannot_be_parsed(victim: RunningArchive, sender: Sender, data: bytes, syntax: str) -> None:
    before = victim.stored(), victim.objects()
    response = await sender.store(data, "1.2.3.4", syntax=syntax)
    assert response.status == NO_MATCH or 0xC000 <= response.status <= 0xCFFF
    assert response.error_comment
    assert len(response.error_comment) <= 64
    assert (victim.stored(), victim.objects(), victim.unfinished()) == (*before, [])


async def test_a_deflate_bomb_costs_no_memory(victim: RunningArchive, sender: Sender) -> None:
    """Half a megabyte that would be half a gigabyte."""
    before = victim.stored(), resident_size(victim)
    compressor = zlib.compressobj(9, wbits=-15)
    zeros = bytes(1 << 20)
    bomb = compressor.compress(element(0x00080005, "CS", b"ISO_IR 100") + b"\xe0\x7f\x10\x00OB\0\0\xf0\xff\xff\xff")
    bomb += b"".join(compressor.compress(zeros) for _ in range(512)) + compressor.flush()
    response = await sender.store(bomb, "1.2.3.4", syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert response.status in (CANNOT_UNDERSTAND, NO_MATCH)
    assert victim.stored() == before[0]
    # What the archive imports some seconds after its start, codecs with it, may come in between: 40 MB.
    assert resident_size(victim) - before[1] < 96 << 20


def resident_size(victim: RunningArchive) -> int:
    status = Path(f"/proc/{victim.program.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def test_every_object_of_the_corpus_under_every_syntax(victim: RunningArchive, shared_data: Path) -> None:
    """Deliberately malformed objects under a valid command, each also under transfer syntaxes that are not its own."""
    answers: dict[int, int] = {}
    senders: dict[str, Sender] = {}
    before = victim.stored()
    sent: dict[str, set[bytes]] = {}
    for path in sorted((shared_data / "fuzz-pwnlab").rglob("*.dcm")):
        data, sop_class, instance = read_anyhow(path)
        if sop_class not in senders:
            senders[sop_class] = await open_sender(victim, sop_class)
        for syntax in SYNTAXES:
            response = await senders[sop_class].store(data, instance, syntax=syntax)
            assert response.status in (SUCCESS, INVALID_INSTANCE, NO_MATCH, CANNOT_UNDERSTAND), path
            answers[response.status] = answers.get(response.status, 0) + 1
            if response.status == SUCCESS:
                sent.setdefault(instance, set()).add(data)
    for sender in senders.values():
        await sender.peer.release()
        sender.peer.close()
    assert sum(answers.values()) > 1400
    assert {SUCCESS, NO_MATCH, CANNOT_UNDERSTAND} <= answers.keys()
    stored = {uid: data for uid, data in victim.stored().items() if uid not in before}
    assert stored.keys() == sent.keys()
    assert all(data in sent[uid] for uid, data in stored.items())


def read_anyhow(path: Path) -> tuple[bytes, str, str]:
    """The data set of a file as far as it can be found, and UIDs for the command."""
    content = path.read_bytes()
    content += b"\0" * (len(content) % 2)
    try:
        file = inspect(path)
    except FileFormatError:
        return content[132:] if content[128:132] == b"DICM" else content, SECONDARY_CAPTURE, "1.2.3.4.5"
    sop_class = file.sop_class_uid if file.sop_class_uid.replace(".", "").isdigit() else SECONDARY_CAPTURE
    data = content[file.offset :]
    return data + b"\0" * (len(data) % 2), sop_class, file.sop_instance_uid


def command_set(**elements: bytes | int) -> bytes:
    """A command set (Implicit VR Little Endian, PS3.7 6.3.1) put together by hand: e0110=7 is (0000,0110) US."""
    body = b""
    for name, value in sorted(elements.items()):
        raw = value.to_bytes(2, "little") if isinstance(value, int) else value + b"\0" * (len(value) % 2)
        body += struct.pack("<HHI", 0, int(name[1:], 16), len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


CLASS_UID, C_STORE_RQ, HAS_DATA = SECONDARY_CAPTURE.encode(), 0x0001, 0x0102


@pytest.mark.parametrize(
    ("command", "status"),
    [
        # Affected SOP Instance UID missing, and there but empty
        (command_set(e0002=CLASS_UID, e0100=C_STORE_RQ, e0110=7, e0700=0, e0800=HAS_DATA), None),
        (command_set(e0002=CLASS_UID, e0100=C_STORE_RQ, e0110=7, e0700=0, e0800=HAS_DATA, e1000=b""), None),
        # the SOP class of another presentation context (CONFORMANCE 42)
        (command_set(e0002=b"1.2.3", e0100=C_STORE_RQ, e0110=7, e0700=0, e0800=HAS_DATA, e1000=b"1.2.3"), 0x0122),
        # no data set announced
        (command_set(e0002=CLASS_UID, e0100=C_STORE_RQ, e0110=7, e0700=0, e0800=0x0101, e1000=b"1.2.3"), 0xC000),
        # C-FIND: a command that the service does not have
        (command_set(e0002=CLASS_UID, e0100=0x0020, e0110=7, e0700=0, e0800=HAS_DATA), 0x0211),
    ],
)
async def test_a_command_that_cannot_be_obeyed_is_answered_and_the_association_goes_on(
    victim: RunningArchive, sender: Sender, command: bytes, status: int | None
) -> None:
    before = victim.stored()
    await sender.peer.send(p_data(1, command, command=True, last=True))
    if struct.pack("<HHIH", 0, 0x0800, 2, HAS_DATA) in command:
        await sender.peer.send(p_data(1, Sample(6).data_set, command=False, last=True))
    response = (await sender.peer.read_message()).command
    assert isinstance(response, Response)
    assert response.message_id_being_responded_to == 7
    assert Status(response.status).is_failure
    assert status in (None, response.status)
    sample = Sample(7)
    assert (await sender.store(sample.data_set, sample.uid)).status == SUCCESS
    assert victim.stored().keys() == before.keys() | {sample.uid}


async def test_a_command_that_nobody_has_defined(victim: RunningArchive, sender: Sender) -> None:
    await sender.peer.send(p_data(1, command_set(e0100=0x0F0F, e0110=7, e0800=0x0101), command=True, last=True))
    pdu = await sender.peer.read_pdu()
    assert isinstance(pdu, PDataTF)
    answer = bytes(pdu.pdvs[0].data)
    for number, value in ((0x0120, 7), (0x0900, 0x0211)):  # being responded to, unrecognized operation
        assert struct.pack("<HHIH", 0, number, 2, value) in answer
    sample = Sample(8)
    assert (await sender.store(sample.data_set, sample.uid)).status == SUCCESS
