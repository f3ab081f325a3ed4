"""One association with an SCP under test, by hand: what is offered, one object to store, and what the SCP made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from tomowire.errors import UnknownCommand, UsageError
from tomowire.protocol.negotiation import ProposedContext, propose
from tomowire.testing.raw import Closed, RawConnection, Unexpected, command_pdu, data_pdus
from tomowire.testing.samples import new_uid, sample_object
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION, name_of
from tomowire.wire.elements import HEADER
from tomowire.wire.messages import CStoreRQ, Response
from tomowire.wire.pdu import AAbort, AAssociateAC, AAssociateRJ, AReleaseRP, AReleaseRQ, encode_pdu
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.aio.address import PeerAddress
    from tomowire.wire.pdu import Pdu

STORE_CONTEXT: Final = 1
ECHO_CONTEXT: Final = 3
"""The presentation contexts that are proposed: for the object, and for Verification."""

_FRAGMENT: Final = 1 << 12
_STATUS: Final = HEADER.pack(0, 0x0900, 2)


@value()
class Outcome:
    """What an SCP did with an association on which something went wrong."""

    sop_instance_uid: str
    """That of the object which was sent, or of which a part was."""
    status: int | None = None
    """That of the response, if there was one."""
    abort: AAbort | None = None
    """The A-ABORT, if there was one."""
    rejection: AAssociateRJ | None = None
    """The A-ASSOCIATE-RJ, if there was one."""
    released: bool = False
    """Whether the association was released in an orderly way."""
    closed: bool = False
    """Whether the SCP closed the connection without a word."""


@value()
class Offer:
    """Who calls, and what is sent: one object of a SOP class in a transfer syntax, with so many bytes of pixel data."""

    ae_title: str
    sop_class_uid: str
    transfer_syntax_uid: str
    size: int


class Requesting:
    """One association, from the requestor's end. To be entered with `async with`."""

    def __init__(self, connection: RawConnection, address: PeerAddress, offer: Offer) -> None:
        self.connection = connection
        self.uid = new_uid()
        self.status: int | None = None
        self.abort: AAbort | None = None
        self.rejection: AAssociateRJ | None = None
        self.released = self.closed = False
        self._offer = offer
        contexts = [
            ProposedContext(offer.sop_class_uid, (offer.transfer_syntax_uid,)),
            ProposedContext(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        ]
        self.request: Final = encode_pdu(
            propose(
                called_ae_title=address.ae_title,
                calling_ae_title=offer.ae_title,
                contexts=contexts,
                maximum_length=_FRAGMENT * 4,
            )
        )

    @classmethod
    async def connect(cls, address: PeerAddress, offer: Offer, patience: float) -> Self:
        """Open the connection, and say nothing yet."""
        connection = await RawConnection.connect(address.port, host=address.host, patience=patience)
        return cls(connection, address, offer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.close()

    async def associate(self) -> bool:
        """Ask for the association; whether it was accepted. Raises `UsageError` if it was, but not for the object."""
        await self.send(self.request)
        try:
            answer = await self.connection.read_pdu()
        except (Closed, ConnectionError):
            self.closed = True
            return False
        except TimeoutError:
            return False
        self._on_control(answer)
        if not isinstance(answer, AAssociateAC):
            return False
        if not any(each.context_id == STORE_CONTEXT and each.result == 0 for each in answer.presentation_contexts):
            what = f"{name_of(self._offer.sop_class_uid)} in {name_of(self._offer.transfer_syntax_uid)}"
            raise UsageError(f"the SCP does not take {what}: give the FaultySender what it does take")
        return True

    @property
    def command(self) -> CStoreRQ:
        """The command set of the C-STORE request."""
        return CStoreRQ(
            message_id=1, affected_sop_class_uid=self._offer.sop_class_uid, affected_sop_instance_uid=self.uid
        )

    def store_pdus(self, data: bytes | None = None, *, context_id: int = STORE_CONTEXT) -> list[bytes]:
        """The PDUs of the C-STORE request: the command set, then the data set (the whole object, if not given) in pieces."""
        whole = self.data_set() if data is None else data
        return [command_pdu(context_id, self.command), *data_pdus(context_id, whole, _FRAGMENT)]

    def data_set(self) -> bytes:
        """The object."""
        offer = self._offer
        return sample_object(
            self.uid,
            sop_class_uid=offer.sop_class_uid,
            transfer_syntax_uid=offer.transfer_syntax_uid,
            size=offer.size,
        )

    async def send(self, *items: bytes | Pdu) -> None:
        """Send bytes and PDUs. That the SCP has closed the connection shows in what is read next."""
        try:
            await self.connection.send(*items)
        except ConnectionError:
            return

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        try:
            self.connection.half_close()
        except OSError:
            return  # the SCP was faster

    async def hear(self) -> None:
        """Take what the SCP says until the association is over; ask for release when it has answered the request."""
        try:
            while not self.released and self.abort is None:
                try:
                    message = await self.connection.read_message()
                except Unexpected as unexpected:
                    self._on_control(unexpected.pdu)
                except UnknownCommand:  # the response to a command that nobody knows is such a one itself
                    await self._on_status(_status_in(self.connection.last_command))
                else:
                    if isinstance(message.command, Response):
                        await self._on_status(message.command.status)
        except (Closed, ConnectionError):
            self.closed = True
        except TimeoutError:
            return

    @property
    def outcome(self) -> Outcome:
        """What has come of it."""
        return Outcome(self.uid, self.status, self.abort, self.rejection, self.released, self.closed)

    async def _on_status(self, status: int | None) -> None:
        self.status = status
        await self.send(AReleaseRQ())

    def _on_control(self, pdu: Pdu) -> None:
        match pdu:
            case AAssociateRJ():
                self.rejection = pdu
            case AAbort():
                self.abort = pdu
            case AReleaseRP():
                self.released = True
            case AAssociateAC():
                return
            case _:
                raise Unexpected(pdu)


def _status_in(command: bytes) -> int | None:
    at = command.find(_STATUS)
    return int.from_bytes(command[at + len(_STATUS) :][:2], "little") if at >= 0 else None
