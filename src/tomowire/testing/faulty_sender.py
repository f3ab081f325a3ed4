"""`FaultySender`: a requestor that misbehaves against the SCP under test, in one way for each of its methods."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.testing.checks import one_of, positive, whole_number
from tomowire.testing.raw import malformed_command_pdu, p_data, with_wrong_length
from tomowire.testing.requesting import ECHO_CONTEXT, STORE_CONTEXT, Offer, Outcome, Requesting
from tomowire.testing.samples import CT_IMAGE_STORAGE
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CEchoRQ
from tomowire.wire.pdu import AReleaseRQ, encode_pdu

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Part: TypeAlias = Literal["association", "pdu", "data set", "object"]

DEFAULT_PATIENCE: Final = 10.0
_UNKNOWN_COMMAND: Final = 0x0777
_COMMAND_FIELD: Final = struct.Struct("<HHIH")


class FaultySender:
    """A requestor that goes wrong on an association with an SCP, and tells what the SCP made of it: an `Outcome`.

    Each method opens an association to `address` (`AET@host:port`), where it sends one object with C-STORE or a part of it, made
    anew each time: of `sop_class_uid`, in `transfer_syntax_uid`, with `size` bytes of pixel data. `patience` is how long it waits
    for the SCP's next word, in seconds. All raise `OSError` when there is no connection, and `UsageError` when the SCP does not
    take the object's SOP class in that transfer syntax.
    """

    def __init__(
        self,
        *,
        aet: str = "FAULTY",
        sop_class_uid: str = CT_IMAGE_STORAGE,
        transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
        size: int = 100_000,
        patience: float = DEFAULT_PATIENCE,
    ) -> None:
        self._offer = Offer(check_ae_title(aet), sop_class_uid, transfer_syntax_uid, whole_number("size", size))
        self._patience = positive("patience", patience)

    async def well_behaved(self, address: str) -> Outcome:
        """Send the object as it should be sent, and release."""
        return await self._send_and_hear(address, lambda talk: b"".join(talk.store_pdus()))

    # Vanishing

    async def never_asks(self, address: str) -> Outcome:
        """Open the connection, and never ask for an association."""
        async with await self._connect(address) as talk:
            await talk.hear()
        return talk.outcome

    async def falls_silent(self, address: str, after_bytes: int | None = None) -> Outcome:
        """Stop in the middle of the C-STORE, and stay: after so many bytes of it, or half of them."""
        _check_after(after_bytes)
        return await self._send_and_hear(address, lambda talk: _beginning(talk, after_bytes))

    async def resets(self, address: str, after_bytes: int | None = None) -> Outcome:
        """Send RST in the middle of the C-STORE: after so many bytes of it, or half of them."""
        _check_after(after_bytes)

        async def reset(talk: Requesting) -> None:
            await talk.send(_beginning(talk, after_bytes))
            talk.connection.reset()

        return await self._on_association(address, reset)

    async def closes(self, address: str, after_bytes: int | None = None) -> Outcome:
        """Send FIN in the middle of the C-STORE: after so many bytes of it, or half of them."""
        _check_after(after_bytes)
        return await self._on_association(address, lambda talk: talk.send(_beginning(talk, after_bytes)))

    async def releases_early(self, address: str) -> Outcome:
        """Ask for release in the middle of the data set."""
        return await self._send_and_hear(
            address, lambda talk: b"".join(talk.store_pdus()[:-1]) + encode_pdu(AReleaseRQ())
        )

    # Slow

    async def trickles(self, address: str, bytes_per_second: float = 1.0) -> Outcome:
        """Send all as it should be, but byte by byte; with a small `size` that has an end."""
        interval = 1 / positive("bytes_per_second", bytes_per_second)

        async def trickle(talk: Requesting) -> None:
            for byte in b"".join(talk.store_pdus()):
                await talk.send(bytes((byte,)))
                await asyncio.sleep(interval)
            await talk.hear()

        return await self._on_association(address, trickle)

    # Truncating

    async def truncates(self, address: str, inside: Part = "data set") -> Outcome:
        """Send half of something, and that nothing more will come (FIN); what the SCP says to it is still heard.

        Half of the A-ASSOCIATE-RQ ("association"), of a PDU ("pdu"), or of the data set in whole PDUs. With "object" the message is
        whole, and what ends too early is the object in it: the association goes on.
        """
        one_of("inside", inside, get_args(Part))
        async with await self._connect(address) as talk:
            if inside == "association":
                await talk.send(talk.request[: len(talk.request) // 2])
            elif await talk.associate():
                await talk.send(_truncated(talk, inside))
            else:
                return talk.outcome
            if inside != "object":
                talk.half_close()
            await talk.hear()
        return talk.outcome

    # Lying

    async def babbles(self, address: str, data: bytes = b"GET / HTTP/1.1\r\n\r\n") -> Outcome:
        """Send bytes that are no DICOM, in place of a C-STORE."""
        return await self._send_and_hear(address, lambda _: data)

    async def wrong_length(self, address: str) -> Outcome:
        """Send a PDU that says that it is shorter than its content."""
        return await self._send_and_hear(address, lambda talk: with_wrong_length(talk.store_pdus()[0]))

    async def malformed_command_set(self, address: str) -> Outcome:
        """Send a command set in which the length of an element goes past the end."""
        return await self._send_and_hear(address, lambda talk: malformed_command_pdu(STORE_CONTEXT, talk.command))

    async def unknown_command(self, address: str) -> Outcome:
        """Send a command that the standard does not define."""
        return await self._send_and_hear(address, _unknown_command)

    async def unproposed_context(self, address: str) -> Outcome:
        """Send the object on a presentation context that was not proposed."""
        return await self._send_and_hear(address, lambda talk: b"".join(talk.store_pdus(context_id=99)))

    # What they have in common

    async def _connect(self, address: str) -> Requesting:
        return await Requesting.connect(PeerAddress.parse(address), self._offer, self._patience)

    async def _on_association(self, address: str, go_wrong: Callable[[Requesting], Awaitable[None]]) -> Outcome:
        async with await self._connect(address) as talk:
            if await talk.associate():
                await go_wrong(talk)
        return talk.outcome

    async def _send_and_hear(self, address: str, what: Callable[[Requesting], bytes]) -> Outcome:
        async def send(talk: Requesting) -> None:
            await talk.send(what(talk))
            await talk.hear()

        return await self._on_association(address, send)


def _check_after(after_bytes: int | None) -> None:
    if after_bytes is not None:
        whole_number("after_bytes", after_bytes)


def _beginning(talk: Requesting, after_bytes: int | None) -> bytes:
    whole = b"".join(talk.store_pdus())
    return whole[: len(whole) // 2 if after_bytes is None else after_bytes]


def _truncated(talk: Requesting, inside: Part) -> bytes:
    if inside == "pdu":
        return _beginning(talk, None)
    if inside == "object":
        whole = talk.data_set()
        return b"".join(talk.store_pdus(whole[: len(whole) // 4 * 2]))
    pdus = talk.store_pdus()
    return b"".join(pdus[: max(len(pdus) // 2, 1)])


def _unknown_command(talk: Requesting) -> bytes:
    echo = encode_command(CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION))
    known = _COMMAND_FIELD.pack(0, 0x0100, 2, CEchoRQ.command_field)
    unknown = _COMMAND_FIELD.pack(0, 0x0100, 2, _UNKNOWN_COMMAND)
    return p_data(ECHO_CONTEXT, echo.replace(known, unknown), command=True, last=True)
