"""`FaultyPeer`: an acceptor that misbehaves in one way, by the name of the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, Unpack

from tomowire.testing import lying, refusing, slow, vanishing
from tomowire.testing.acceptor import FaultyAcceptor, Options
from tomowire.testing.behaviour import Behaviour

if TYPE_CHECKING:
    from tomowire.testing.refusing import Rejection
    from tomowire.testing.slow import Inside, Leaving

_SMALL_BUFFER: Final = 1 << 16


class FaultyPeer(FaultyAcceptor):
    """An acceptor on 127.0.0.1 and a free port that misbehaves in one way: `async with FaultyPeer.resets() as peer:`.

    `fault` says how; there is a named constructor for each that is built in. The first `after` occasions go well, then it happens
    `times` times (None: every time), and all is well again. What an occasion is, a connection or a request, stands with the
    fault. `aet` is the AE title in `address`; any is answered to. No step of a connection takes longer than `patience`
    seconds: then the peer closes it. `receive_buffer` is the size of the socket's buffer in bytes.

    In a test that is not asynchronous `with` does the same, in a thread.

    What it was told stands in `heard`, also after the block.
    """

    @classmethod
    def well_behaved(cls, **options: Unpack[Options]) -> Self:
        """No fault at all."""
        return cls(Behaviour(), **options)

    @classmethod
    def never_answers(cls, **options: Unpack[Options]) -> Self:
        """Accepts the connection, reads, and says nothing. Occasion: a connection."""
        return cls(vanishing.NeverAnswers(), **options)

    @classmethod
    def falls_silent(cls, **options: Unpack[Options]) -> Self:
        """Accepts the association, reads, and says nothing more, not even to a release. Occasion: a connection."""
        return cls(vanishing.FallsSilent(), **options)

    @classmethod
    def resets(cls, after_bytes: int = 1, **options: Unpack[Options]) -> Self:
        """Sends RST when so many bytes have come on an association. Occasion: a connection."""
        return cls(vanishing.Resets(after_bytes), **options)

    @classmethod
    def closes(cls, after_bytes: int = 1, **options: Unpack[Options]) -> Self:
        """Sends FIN when so many bytes have come on an association. Occasion: a connection."""
        return cls(vanishing.Closes(after_bytes), **options)

    @classmethod
    def stops_reading(cls, after_bytes: int = 1, **options: Unpack[Options]) -> Self:
        """Stays connected and reads nothing more when so many bytes have come. Occasion: a connection."""
        options.setdefault("receive_buffer", _SMALL_BUFFER)
        return cls(vanishing.StopsReading(after_bytes), **options)

    @classmethod
    def answers_late(cls, seconds: float, **options: Unpack[Options]) -> Self:
        """Gives each answer so much later. Occasion: a request."""
        return cls(vanishing.AnswersLate(seconds), **options)

    @classmethod
    def trickles(cls, bytes_per_second: float = 1.0, **options: Unpack[Options]) -> Self:
        """Sends byte by byte. Occasion: a connection."""
        return cls(slow.Trickles(bytes_per_second), **options)

    @classmethod
    def delays(cls, seconds: float, **options: Unpack[Options]) -> Self:
        """Waits before each thing that it says. Occasion: a connection."""
        return cls(slow.Delays(seconds), **options)

    @classmethod
    def truncates(cls, inside: Inside = "pdu", then: Leaving = "close", **options: Unpack[Options]) -> Self:
        """Sends half of an answer. Occasion: a request; a connection for "association"."""
        return cls(slow.Truncates(inside, then), **options)

    @classmethod
    def rejects(
        cls, rejection: Rejection | tuple[int, int, int] = refusing.Rejection.NO_REASON, **options: Unpack[Options]
    ) -> Self:
        """Rejects the association. Occasion: a connection."""
        return cls(refusing.Rejects(rejection), **options)

    @classmethod
    def refuses_contexts(cls, **options: Unpack[Options]) -> Self:
        """Accepts the association, and no presentation context. Occasion: a connection."""
        return cls(refusing.RefusesContexts(), **options)

    @classmethod
    def aborts(cls, source: int = 2, reason: int = 0, **options: Unpack[Options]) -> Self:
        """Answers with A-ABORT. Occasion: a request."""
        return cls(refusing.Aborts(source, reason), **options)

    @classmethod
    def answers(cls, status: int, comment: str | None = None, **options: Unpack[Options]) -> Self:
        """Gives this status, also one that the standard does not know. Occasion: a request."""
        return cls(refusing.Answers(status, comment), **options)

    @classmethod
    def congested(cls, **options: Unpack[Options]) -> Self:
        """Is out of resources (A700H), `times` times for instance, and then well. Occasion: a request."""
        return cls(refusing.Answers(0xA700, "out of resources"), **options)

    @classmethod
    def wrong_message_id(cls, **options: Unpack[Options]) -> Self:
        """Answers a request that was never made. Occasion: a request."""
        return cls(lying.WrongMessageId(), **options)

    @classmethod
    def wrong_response(cls, **options: Unpack[Options]) -> Self:
        """Answers with the response to another kind of request. Occasion: a request."""
        return cls(lying.WrongResponse(), **options)

    @classmethod
    def answers_twice(cls, **options: Unpack[Options]) -> Self:
        """Answers everything twice. Occasion: a request."""
        return cls(lying.AnswersTwice(), **options)

    @classmethod
    def wrong_length(cls, **options: Unpack[Options]) -> Self:
        """Sends a PDU whose length contradicts its content. Occasion: a request."""
        return cls(lying.WrongLength(), **options)

    @classmethod
    def malformed_command_set(cls, **options: Unpack[Options]) -> Self:
        """Sends a command set that cannot be decoded. Occasion: a request."""
        return cls(lying.MalformedCommandSet(), **options)

    @classmethod
    def babbles(cls, data: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n", **options: Unpack[Options]) -> Self:
        """Answers with bytes that are no DICOM. Occasion: a request."""
        return cls(lying.Babbles(data), **options)

    @classmethod
    def unproposed_transfer_syntax(cls, **options: Unpack[Options]) -> Self:
        """Accepts contexts in a transfer syntax that was not proposed. Occasion: a connection."""
        return cls(lying.UnproposedTransferSyntax(), **options)

    @classmethod
    def unproposed_context(cls, **options: Unpack[Options]) -> Self:
        """Accepts a presentation context that was not proposed. Occasion: a connection."""
        return cls(lying.UnproposedContext(), **options)
