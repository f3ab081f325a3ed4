"""What `tomowire db check` looks for in the audit trail. A reader of the index will do for it, and SQLAlchemy is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import UsageError
from tomowire.server.audit.anchor import ANCHOR, read_anchor
from tomowire.server.audit.trail import Entry, problems
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.index.reader import Statement

if TYPE_CHECKING:
    from tomowire.server.index.reader import IndexReader

_PAGE: Final = 1000
_ENTRIES: Final = (
    "SELECT event_key, recorded_at, event, outcome, actor, source, message, previous_hash, hash"
    " FROM audit_events WHERE event_key > {after} ORDER BY event_key LIMIT {limit}"
)


def check_audit(reader: IndexReader, root: Path) -> Iterator[Finding]:
    """What is wrong with the audit trail of the archive in `root`: what was changed, taken out, put in, moved or cut off."""
    anchor: tuple[int, bytes] | None = None
    try:
        anchor = read_anchor(root)  # before the trail: it is never ahead of it
    except UsageError as error:
        yield Finding(FindingKind.AUDIT_BROKEN, ANCHOR, str(error))
    else:
        if anchor is None and _page(reader, 0, 1):
            text = "the file is missing: whether events are missing at the end cannot be told"
            yield Finding(FindingKind.AUDIT_BROKEN, ANCHOR, text)
    for problem in problems(_entries(reader), anchor):
        yield Finding(FindingKind.AUDIT_BROKEN, "", problem)


def _entries(reader: IndexReader) -> Iterator[Entry]:
    page = _page(reader, 0, _PAGE)
    while page:
        yield from page
        page = _page(reader, page[-1].number, _PAGE)


def _page(reader: IndexReader, after: int, limit: int) -> list[Entry]:
    # Whole numbers of our own: the two databases write parameters differently.
    rows = reader.rows(Statement(_ENTRIES.format(after=int(after), limit=int(limit)), {}))
    return [Entry(*row) for row in rows]
