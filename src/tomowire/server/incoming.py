"""What the way in is made of: an object as it arrives, as it is about to be stored, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.index.attributes import InstanceRecord

Buffers = tuple[bytes | memoryview, ...]


@value()
class Incoming:
    """What is known about an object before its data set arrives: the command set and the association it comes by."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    is_file: bool = False
    """Whether a file says all that, and no association."""


class DuplicatePolicy(Enum):
    """What to do with an object whose SOP Instance UID is stored already, with other content.

    The standard leaves it to the SCP. An object with the same content and the same transfer syntax is a Success in all three,
    and is not written again.
    """

    KEEP = "keep"
    """The first stays. The answer is Success: senders repeat what fails, and there is nothing that they could do about it."""

    REPLACE = "replace"
    """The new one takes the place of the first, in one step."""

    REJECT = "reject"
    """The first stays; the answer is 0111H, duplicate SOP instance (PS3.7 Annex C)."""


class Outcome(Enum):
    """Why an object is in the archive."""

    STORED = "stored"
    REPLACED = "replaced"
    IDENTICAL = "identical"
    KEPT_FIRST = "kept first"


@value()
class Stored:
    """The object is in the archive, and stays there through a power cut."""

    sop_instance_uid: str
    outcome: Outcome
    path: str
    """Of the file, relative to the data directory."""

    study_instance_uid: str
    """Of the study in which it is."""

    @property
    def is_new(self) -> bool:
        """Whether something was written; otherwise the archive had the object."""
        return self.outcome in (Outcome.STORED, Outcome.REPLACED)


@dataclass(frozen=True, slots=True, eq=False)
class NewObject:
    """An object that is received whole, checked, and ready to be made durable and indexed.

    Its bytes are either in memory (`header` and `data_set`, borrowed until the batch is over) or in a part file that is durable.
    """

    record: InstanceRecord
    received_from: str
    """The AE title of the sender."""

    header_size: int
    """Bytes before the data set in the file: preamble and file meta information."""

    data_set_size: int
    header: bytes = b""
    data_set: Buffers = ()
    part: Path | None = None
    checksum: bytes = b""
    """Of the data set as received; worked out with the batch for an object in memory."""
