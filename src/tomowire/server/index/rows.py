"""What goes into the index with an object, and what comes back: the same for every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tomowire.server.files import ObjectName
    from tomowire.server.index.attributes import InstanceRecord
    from tomowire.server.index.deleting import Deleted, Doomed, Removal
    from tomowire.server.index.hangup import Hangup


@value()
class IndexedObject:
    """An object that the index knows, as far as files are concerned."""

    instance_id: int
    name: ObjectName
    sop_class_uid: str
    transfer_syntax_uid: str
    header_size: int
    """Bytes before the data set in the file."""

    data_set_size: int
    checksum: bytes
    """Of the data set as received."""

    received_at: int
    """Microseconds since 1970, UTC."""


@value()
class NewRow:
    """An object to be indexed. Its file is durable."""

    record: InstanceRecord
    generation: int
    header_size: int
    data_set_size: int
    checksum: bytes
    received_at: int
    """Microseconds since 1970, UTC."""

    received_from: str
    """The AE title of the sender."""

    replaces: IndexedObject | None = None


class IndexWriter(Protocol):
    """The one writer of an index; to be used by one thread at a time."""

    @property
    def archive_id(self) -> str:
        """Names this index; a rebuilt one gets another."""

    @property
    def last_batch(self) -> int:
        """The number given with the last batch that was committed."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether another system keeps the index: it may lose commits that it has told of (a failover to a standby)."""

    def find(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        """Those of the objects that are indexed, by SOP Instance UID."""

    def insert(self, batch: int, rows: Sequence[NewRow]) -> None:
        """Index all of `rows`, or none of them: durable on return. Rows that `replaces` names go in the same step."""

    on_lost: Callable[[], None]
    """Called when the index was lost in the middle of something; in the thread that uses this, and it must not raise."""

    @property
    def hangup(self) -> Hangup | None:
        """Tells of a loss while nothing is asked; None if the index cannot be lost in this way."""

    def require_writable(self) -> None:
        """Raises `IndexUnavailable` if nothing could be stored now. What was lost is taken again."""

    def close(self) -> None:
        """Let go of the index."""

    def delete(self, doomed: Doomed) -> list[Deleted]:
        """Delete the rows of all of it, and those above them that this leaves empty, or none: durable on return.

        The names of their files are among the `removals` from then on. Gives what went, for each study; nothing if there was
        nothing. Raises `StudyProtected`. `last_batch` stays as it is.
        """

    def delete_lonely(self) -> None:
        """Delete rows without a row above them, and what is below those, and rows without one below them."""

    def removals(self, after: int, limit: int) -> list[Removal]:
        """Up to `limit` of the files that are still to be removed, with keys greater than `after`, in the order of those."""

    def defer(self, names: Sequence[ObjectName]) -> None:
        """Add files to the `removals`."""

    def forget(self, removals: Sequence[Removal]) -> None:
        """These files are gone from the disk."""
