"""Every exception that tomowire raises, in one tree.

    TomowireError
    ├── WireError                 bytes that break the standard's encoding
    │   ├── PduError              in a PDU, an item or a PDV; knows the A-ABORT reason it means
    │   ├── CommandSetError       in a DIMSE command set
    │   │   └── UnknownCommand    a command field that PS3.7 does not define
    │   ├── FileFormatError       in the preamble or file meta information of a Part 10 file
    │   │   └── IncompleteFileMeta   well formed so far, but more bytes are needed
    │   └── DataSetError          in a data set: cut short, or not to be parsed
    ├── LoginFailed               no user has this name and password, or this token
    │   └── TooManyLogins         nor will they be looked at for some seconds
    ├── InvalidUid                text that is not a UID (also a ValueError)
    ├── UsageError                the caller asked for what the state or the arguments do not allow (also a RuntimeError)
    │   ├── InUse                 another process uses the data directory or the backups now: to be tried again later
    │   ├── ConfigurationInvalid  a configuration has mistakes; knows all of them, each with its file, key and line
    │   ├── UnknownUser           no user, or no token, of that name
    │   ├── UserExists            there is a user of that name already
    │   └── LastAdministrator     without this user nobody could administer the archive
    ├── AssociationError          there is no association, or none any more
    │   ├── ConnectFailed         the transport connection was not opened (also a ConnectionError)
    │   │   └── TlsFailed         it was, but the two sides did not agree on TLS: certificates, versions, no TLS at all
    │   ├── AssociationRejected   the peer answered A-ASSOCIATE-RJ
    │   ├── IdentityNotConfirmed  the peer accepted the association and said nothing about the user
    │   ├── AssociationAborted    A-ABORT, by the peer or by our own provider
    │   ├── AssociationLost       the connection went away without a word (also a ConnectionError)
    │   └── AssociationReleased   the association has been released; nothing more can be sent
    ├── NoAcceptedContext         the peer accepted no presentation context for what is to be sent
    ├── PeerMisbehaved            a response that breaks PS3.7: wrong Message ID, no status, ...
    ├── OperationTimeout          no progress within the time allowed (also a TimeoutError)
    ├── IndexUnavailable          the archive's index cannot be used now: locked, disk full, read-only, damaged
    ├── StudyProtected            a study that is protected is not deleted
    ├── MemoryShort               a data set does not fit in the memory that a server may use
    ├── StoreFailed               an object could not be kept; knows the C-STORE status it means
    ├── OperationFailed           a DIMSE-N operation could not be performed; knows the status it means
    ├── TranscodingFailed         an object cannot be had in the transfer syntax that was asked for
    ├── QueryFailed               a query ended with a failure status, or has to: knows that status
    ├── NotConfirmed              answers to a query do not say that they match: what they are about is not retrieved
    ├── RetrieveFailed            so did a C-GET or C-MOVE: knows the counts of its sub-operations too
    └── SubOperationFailed        one object of a C-GET or C-MOVE was not transferred; they come in an `ExceptionGroup`

A failure *status* in a response is a value and not an exception: see `tomowire.protocol.status`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomowire.protocol.negotiation import Agreement
    from tomowire.server.config.problems import Problem
    from tomowire.wire.pdu import AAssociateRQ


class TomowireError(Exception):
    """The root: `except TomowireError` catches all that tomowire raises by design."""


class WireError(TomowireError):
    """Bytes that break the encoding of the standard. `offset` is the byte, counted from the start of the unit named in the text."""

    def __init__(self, message: str, *, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset


class PduError(WireError):
    """A PDU, an item in it or a PDV breaks PS3.8 9.3. `reason` is the A-ABORT reason/diag. of PS3.8 Table 9-26 that fits.

    `foreign` is set where a connection begins with what is no PDU: the protocol that it seems to be, such as "HTTP"; or "?".
    """

    def __init__(self, message: str, *, offset: int | None = None, reason: int = 6, foreign: str | None = None) -> None:
        super().__init__(message, offset=offset)
        self.reason = reason
        self.foreign = foreign


class CommandSetError(WireError):
    """A command set breaks PS3.7 6.3. What could be read of it stands in the attributes, so that a lenient SCP can answer."""

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        command_field: int | None = None,
        message_id: int | None = None,
        has_data_set: bool | None = None,
    ) -> None:
        super().__init__(message, offset=offset)
        self.command_field = command_field
        self.message_id = message_id
        self.has_data_set = has_data_set


class UnknownCommand(CommandSetError):
    """The command field is none of PS3.7 E.1-1: an SCP answers 0211H, unrecognized operation."""


class FileFormatError(WireError):
    """Not a DICOM file (PS3.10 7.1), or one whose file meta information cannot be read."""


class IncompleteFileMeta(FileFormatError):
    """The bytes given end before the file meta information does; at least `needed` bytes from the start of the file are needed."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"the file meta information needs at least {needed} bytes")
        self.needed = needed


class DataSetError(WireError):
    """A data set is cut short, or breaks PS3.5 so that it cannot be read further."""


class InvalidUid(TomowireError, ValueError):
    """Text that PS3.5 9.1 does not allow as a UID."""


class UsageError(TomowireError, RuntimeError):
    """The caller's fault: the state of the association or the arguments do not allow what was asked."""


class InUse(UsageError):
    """Another process uses the data directory, or the folder of backups, and nobody else may meanwhile. Later it can be had."""


class ConfigurationInvalid(UsageError):
    """A configuration cannot be used. `problems` are all that is wrong with it; the text has a line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class UnknownUser(UsageError):
    """There is no user of that name, or no token of that id."""


class UserExists(UsageError):
    """There is a user of that name already."""


class LastAdministrator(UsageError):
    """Who is the last administrator is not removed, and stays one."""


class LoginFailed(TomowireError):
    """No user has this name and password, or this token: which of them is wrong is not said."""


class TooManyLogins(LoginFailed):
    """Too many logins have failed, or wait to be looked at; `seconds` from now it may be tried again."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class AssociationError(TomowireError):
    """There is no association to work with, or none any more.

    `proposed` is what this side asked for, if it was the one to ask; `agreement` what was agreed on, if it came to that.
    """

    proposed: AAssociateRQ | None = None
    agreement: Agreement | None = None


class ConnectFailed(AssociationError, ConnectionError):
    """The transport connection could not be opened: name not found, refused, unreachable, TLS."""


class TlsFailed(ConnectFailed):
    """There is no TLS with the peer; the text says whether it is for a certificate, a version or cipher, or for want of TLS."""


class AssociationRejected(AssociationError):
    """The peer sent A-ASSOCIATE-RJ; `result`, `source` and `reason` are those of PS3.8 Table 9-21.

    A handler of an acceptor raises it to have that answered; the text goes to the log. By default it is for good (1), by the
    application (1), without a reason (1); `result=2` is for now.
    """

    def __init__(self, message: str, *, result: int = 1, source: int = 1, reason: int = 1) -> None:
        super().__init__(message)
        self.result = result
        self.source = source
        self.reason = reason


class IdentityNotConfirmed(AssociationError):
    """The peer was to confirm who the user is, and accepted the association without doing so (PS3.7 D.3.3.7)."""


class AssociationAborted(AssociationError):
    """A-ABORT; `source` and `reason` are those of PS3.8 Table 9-26, `by_peer` says who sent it.

    `foreign` is the protocol that the peer speaks instead of DICOM, "HTTP", "SSH", "TLS" or "?"; None if it speaks DICOM.
    """

    def __init__(self, message: str, *, source: int, reason: int, by_peer: bool, foreign: str | None = None) -> None:
        super().__init__(message)
        self.foreign = foreign
        self.source = source
        self.reason = reason
        self.by_peer = by_peer


class AssociationLost(AssociationError, ConnectionError):
    """The connection was closed or broke without an A-ABORT or a release (A-P-ABORT, PS3.8 AA-4)."""


class AssociationReleased(AssociationError):
    """The association has been released by one of the two sides; nothing more can be sent on it."""


class NoAcceptedContext(TomowireError):
    """The peer accepted no presentation context for the SOP class and transfer syntax of what is to be sent.

    These two stand in `abstract_syntax` and `transfer_syntax` (None for any), and in `agreement` what the two sides did agree on,
    with all that was proposed and refused; each None where that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        abstract_syntax: str | None = None,
        transfer_syntax: str | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        super().__init__(message)
        self.abstract_syntax = abstract_syntax
        self.transfer_syntax = transfer_syntax
        self.agreement = agreement


class PeerMisbehaved(TomowireError):
    """The peer's fault: a DIMSE message that breaks PS3.7, such as a response to a Message ID that was never used."""


class OperationTimeout(TomowireError, TimeoutError):
    """No progress within the time allowed; the text names the operation and the seconds."""


class IndexUnavailable(TomowireError):
    """The archive's index cannot be used now; the text says why.

    `in_doubt` is set when a commit failed in such a way that it may still come to light after a crash: writing the log worked
    and syncing it did not, or the connection broke while it was awaited. `is_damage` is set when the database makes no sense;
    otherwise it cannot be used now: locked, read-only, no room, no connection. `is_taken` is set when another archive writes to it,
    `is_unreachable` when there was no connection to its server.
    """

    def __init__(
        self,
        message: str,
        *,
        in_doubt: bool = False,
        is_damage: bool = False,
        is_taken: bool = False,
        is_unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.is_damage = is_damage
        self.is_taken = is_taken
        self.is_unreachable = is_unreachable

    def said(self, message: str) -> IndexUnavailable:
        """The same, with another text."""
        return IndexUnavailable(
            message,
            in_doubt=self.in_doubt,
            is_damage=self.is_damage,
            is_taken=self.is_taken,
            is_unreachable=self.is_unreachable,
        )


class StudyProtected(TomowireError):
    """The study, or what is in it, is not deleted: somebody has protected it. The text names it."""


class MemoryShort(TomowireError):
    """A data set is not held in memory: it is larger than what a server may use for that, or others have taken it for too long."""


class StoreFailed(TomowireError):
    """An object could not be kept. `status` is the C-STORE status to answer (PS3.4 B.2.3), the text the error comment."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


class OperationFailed(TomowireError):
    """A DIMSE-N operation or notification could not be performed: a handler raises it to have that answered.

    `status` is that of the response (PS3.7 annex C), `comment` its error comment, of which 64 characters are sent. `error_id` is
    a number of one's own. `offending_elements` are the tags in which the error is; `attribute_identifiers` those that are
    missing or not known (PS3.7 C.4.2, C.5), for the responses that can name them: N-CREATE, N-GET and N-SET.
    """

    def __init__(
        self,
        status: int,
        comment: str | None = None,
        *,
        offending_elements: tuple[int, ...] = (),
        attribute_identifiers: tuple[int, ...] = (),
        error_id: int | None = None,
    ) -> None:
        super().__init__(comment or f"the operation failed with status {status:04X}H")
        self.status = status
        self.comment = comment
        self.offending_elements = offending_elements
        self.attribute_identifiers = attribute_identifiers
        self.error_id = error_id


class TranscodingFailed(TomowireError):
    """An object cannot be had in the transfer syntax that was asked for; the text names both, and says why or what to install."""


class QueryFailed(TomowireError):
    """A query could not be answered. An SCU raises it when the peer says so; a handler raises it to have that answered.

    `status` is that of the final response (PS3.4 C.4.1.1.4), `error_comment` what was said about it, and `offending_elements` are
    the tags that it is about. `lacking` are the unique keys, by keyword, that a peer may want one value each for and that have
    none, or several. The text is `explanation` if there is one.
    """

    def __init__(
        self,
        status: int,
        error_comment: str | None = None,
        offending_elements: tuple[int, ...] = (),
        *,
        explanation: str | None = None,
        lacking: tuple[str, ...] = (),
    ) -> None:
        super().__init__(explanation or error_comment or f"the query failed with status {status:04X}H")
        self.status = status
        self.error_comment = error_comment
        self.offending_elements = offending_elements
        self.lacking = lacking


class NotConfirmed(TomowireError):
    """Answers to a query do not say that they match its keys `keywords`, so what they are about is not retrieved.

    A peer that does not know an optional key answers with everything (PS3.4 C.2.2.1.3). `count` is the number of such answers.
    """

    def __init__(self, message: str, keywords: tuple[str, ...], count: int) -> None:
        super().__init__(message)
        self.keywords = keywords
        self.count = count


class RetrieveFailed(TomowireError):
    """A C-GET or C-MOVE failed. An SCU raises it when the peer says so; a handler raises it to have that answered.

    `status` is that of the final response (PS3.4 C.4.2.1.5, C.4.3.1.4), `error_comment` what was said about it, and
    `offending_elements` are the tags that it is about. `completed`, `failed` and `warning` count the sub-operations; None where
    that is not known. The text is `explanation` if there is one.
    """

    def __init__(
        self,
        status: int,
        error_comment: str | None = None,
        offending_elements: tuple[int, ...] = (),
        *,
        completed: int | None = None,
        failed: int | None = None,
        warning: int | None = None,
        explanation: str | None = None,
    ) -> None:
        super().__init__(explanation or error_comment or f"the retrieval failed with status {status:04X}H")
        self.status = status
        self.error_comment = error_comment
        self.offending_elements = offending_elements
        self.completed = completed
        self.failed = failed
        self.warning = warning


class SubOperationFailed(TomowireError):
    """A sub-operation of a C-GET or C-MOVE failed, that for `sop_instance_uid`; None for `count` that the peer does not name."""

    def __init__(self, sop_instance_uid: str | None, count: int = 1) -> None:
        one = f"{count} objects" if count > 1 else "an object"
        super().__init__(f"{sop_instance_uid or one + ' the peer does not name'}: not transferred")
        self.sop_instance_uid = sop_instance_uid
        self.count = count
