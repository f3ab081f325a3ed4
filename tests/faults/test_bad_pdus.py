"""Bytes that are no DICOM, or DICOM that contradicts itself, sent to a real archive: it says so, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import replace

import pytest

from support.archives import RunningArchive
from support.objects import SECONDARY_CAPTURE, Sample
from support.raw_peer import (
    Closed,
    RawPeer,
    associate_rq,
    command_pdu,
    echo_rq,
    message_pdus,
    p_data,
    store_rq,
)
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ, encode_pdu

pytestmark = pytest.mark.usefixtures("witness")

PROVIDER = 2
UNRECOGNIZED, UNEXPECTED, UNEXPECTED_PARAMETER, INVALID_PARAMETER = 1, 2, 5, 6

REQUEST = associate_rq(called="TOMOWIRE")
"""Proposes Verification (1) and CT in Explicit VR Little Endian (3)."""


def pdu(pdu_type: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxI", pdu_type, len(content) if length is None else length) + content


def pdv(context_id: int, control: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(content) + 2 if length is None else length, context_id, control) + content


COMMAND = command_pdu(1, echo_rq())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (pdu(0x08, b""), UNRECOGNIZED),
        (pdu(0xFF, bytes(100)), UNRECOGNIZED),
        (pdu(0x04, b"", 0xFFFFFFFF), INVALID_PARAMETER),  # longer than what was announced
        (pdu(0x04, pdv(1, 3, bytes(100), 2_000_000), 2_000_006), INVALID_PARAMETER),
        (pdu(0x05, bytes(5)), INVALID_PARAMETER),
        (pdu(0x05, b"", 0x00FFFFFF), INVALID_PARAMETER),  # refused before a byte of it has come
        (pdu(0x07, bytes(100)), INVALID_PARAMETER),
        (pdu(0x04, b""), INVALID_PARAMETER),  # no PDV
        (pdu(0x04, pdv(1, 3, b"", 1)), INVALID_PARAMETER),  # no room for its own header
        (pdu(0x04, pdv(1, 3, bytes(10), 100)), INVALID_PARAMETER),  # leads out of its PDU
        (pdu(0x04, pdv(1, 3, bytes(10))[:5]), INVALID_PARAMETER),
        (encode_pdu(REQUEST), UNEXPECTED),  # a second one
        (encode_pdu(AAssociateAC("A", "B", ())), UNEXPECTED),
        (p_data(99, bytes(10), command=True, last=True), INVALID_PARAMETER),  # a context that was not proposed
        (p_data(3, bytes(10), command=False, last=True), UNEXPECTED_PARAMETER),  # data where a command is due
        (command_pdu(3, store_rq()) + p_data(3, bytes(10), command=True, last=True), UNEXPECTED_PARAMETER),
        (command_pdu(3, store_rq()) + p_data(1, bytes(10), command=False, last=True), UNEXPECTED_PARAMETER),
        (p_data(1, bytes(300_000)[:200_000], command=True, last=False) * 2, INVALID_PARAMETER),  # endless command set
    ],
)
async def test_what_breaks_the_protocol_is_aborted_by_the_provider(
    victim: RunningArchive, sent: bytes, reason: int
) -> None:
    async with await RawPeer.connect(victim.port) as peer:
        await peer.associate(REQUEST)
        await peer.send(COMMAND)
        await peer.read_message()
        await peer.send(sent)
        assert await peer.expect_abort() == AAbort(source=PROVIDER, reason=reason)


@pytest.mark.parametrize(
    ("sent", "said", "offset"),
    [
        (pdu(0x04, pdv(1, 3, bytes(10), 100)), "PDV length 100 contradicts the 16 bytes left of its P-DATA-TF", 6),
        (pdu(0x04, pdv(1, 3, b"", 1)), "PDV length 1 contradicts the 6 bytes left of its P-DATA-TF", 6),
        (pdu(0x04, b"", 0xFFFFFFFF), "P-DATA-TF of 4294967295 bytes, more than the maximum of 262144 announced", 2),
        (pdu(0x08, b""), "PDU type 08H is not defined", 0),
    ],
)
async def test_the_log_says_who_and_which_byte(victim: RunningArchive, sent: bytes, said: str, offset: int) -> None:
    """Counted from the beginning of the connection."""
    request = replace(REQUEST, calling_ae_title="CULPRIT")
    async with await RawPeer.connect(victim.port) as peer:
        address = "{}:{}".format(*peer.socket.getsockname())
        await peer.associate(request)
        await peer.send(sent)
        await peer.expect_abort()
    victim.program.stderr.wait_for(
        rf'CULPRIT -> TOMOWIRE \({address}\): .*{said} \(at byte {len(encode_pdu(request)) + offset}\)["\n]', timeout=5
    )


@pytest.mark.parametrize(
    ("request_", "rejection"),
    [
        (replace(REQUEST, called_ae_title="SOMEBODY"), AAssociateRJ(result=1, source=1, reason=7)),
        (replace(REQUEST, protocol_version=2), AAssociateRJ(result=1, source=2, reason=2)),
        (replace(REQUEST, application_context_name="1.2.3"), AAssociateRJ(result=1, source=1, reason=2)),
    ],
)
async def test_what_is_not_wanted_is_rejected(
    victim: RunningArchive, request_: AAssociateRQ, rejection: AAssociateRJ
) -> None:
    async with await RawPeer.connect(victim.port) as peer:
        await peer.send(request_)
        assert await peer.read_pdu() == rejection


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505),  # a TLS hello
        b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes(1000),
        b"\xff" * 1000,
        pdu(0x01, bytes(60)),
        pdu(0x01, b"", 0x7FFFFFFF),
        encode_pdu(REQUEST)[:-10] + bytes(10),
        COMMAND,
    ],
)
async def test_what_does_not_begin_with_an_association_is_shown_the_door(
    victim: RunningArchive, greeting: bytes
) -> None:
    async with await RawPeer.connect(victim.port) as peer:
        await peer.send(greeting)
        with contextlib.suppress(Closed, ConnectionResetError):
            assert isinstance(await peer.read_pdu(), AAbort)
        with contextlib.suppress(OSError):
            peer.half_close()
        assert await peer.read_until_closed() == b""


async def test_bytes_one_at_a_time_are_as_good_as_in_one_go(victim: RunningArchive) -> None:
    sample = Sample(1)
    contexts = (
        PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        PresentationContextRQ(3, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    )
    everything = encode_pdu(associate_rq(*contexts, called="TOMOWIRE"))
    request = store_rq(2, sample.uid, SECONDARY_CAPTURE)
    async with await RawPeer.connect(victim.port) as peer:
        for byte in everything:
            await peer.send(bytes([byte]))
        assert isinstance(await peer.read_pdu(), AAssociateAC)
        for byte in message_pdus(3, request, sample.data_set):
            await peer.send(bytes([byte]))
        assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]
        await peer.release()
    assert victim.stored()[sample.uid] == sample.data_set


async def test_many_bad_ones_at_once_do_not_disturb_a_good_one(victim: RunningArchive) -> None:
    async def misbehave(number: int) -> None:
        async with await RawPeer.connect(victim.port) as peer:
            await peer.associate(REQUEST)
            await peer.send(command_pdu(3, store_rq()), p_data(3, bytes(1000), command=False, last=False))
            if number % 2:
                await peer.send(pdu(0x99, b""))
                await peer.expect_abort()
            else:
                peer.reset()

    sample = Sample(2, size=2_000_000)
    context = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    async with await RawPeer.connect(victim.port) as good:
        await good.associate(associate_rq(context, called="TOMOWIRE"))
        pdus = message_pdus(1, store_rq(1, sample.uid, SECONDARY_CAPTURE), sample.data_set)
        half = len(pdus) // 2
        await good.send(pdus[:half])
        await asyncio.gather(*(misbehave(number) for number in range(40)))
        await good.send(pdus[half:])
        assert (await good.read_message()).command.status == 0  # type: ignore[attr-defined]
        await good.release()
    assert victim.stored()[sample.uid] == sample.data_set
    assert victim.unfinished() == []
