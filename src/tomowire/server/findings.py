"""What `tomowire db check` and `tomowire db reindex` may find."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from tomowire.wire.value import value

Progress = Callable[[int, int | None], None]
"""Called now and then with the number of objects that were looked at, and the number there are if that is known."""


class FindingKind(Enum):
    """What is wrong."""

    INDEX_DAMAGED = "index damaged"
    """SQLite cannot make sense of its file: `db reindex`."""

    LONELY_ROW = "lonely row"
    """A row of the index without a parent or without children: `db reindex`."""

    FILE_MISSING = "file missing"
    """The index has an object, the disk has not; `db reindex` says it of the old index."""

    UNREADABLE = "unreadable"
    """The file cannot be read, or is no DICOM file any more."""

    SIZE_DIFFERS = "size differs"
    CONTENT_DIFFERS = "content differs"
    """The bytes are not those that were received: the checksum says so. Indexed all the same by `db reindex`."""

    UIDS_DIFFER = "UIDs differ"
    """The file is of another object, SOP class or transfer syntax than its name or the index says."""

    NOT_INDEXED = "not indexed"
    """The disk has an object, the index has not: `db reindex`."""

    FOREIGN_FILE = "foreign file"
    """Something among the objects that the archive did not put there."""

    UNFINISHED = "unfinished"
    """Left by a process that was killed before it answered Success; harmless, and gone with the next start."""

    AUDIT_BROKEN = "audit trail broken"
    """An event of the audit trail was changed, removed, put in or moved, or what tells its end is gone."""

    DUPLICATE = "duplicate"
    """Found by `db reindex`: another file holds the same SOP instance, and that one is indexed."""


@value()
class Finding:
    """Something that is not as it should be."""

    kind: FindingKind
    path: str
    """Relative to the data directory."""

    explanation: str
