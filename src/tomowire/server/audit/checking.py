"""What `tomowire db check` looks for in the audit trail. A reader of the index will do for it, and SQLAlchemy is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import UsageError
from tomowire.server.audit.anchor import ANCHOR, read_anchor, write_anchor
from tomowire.server.audit.trail import BEFORE_ALL, Entry, problems
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.index.paging import each_of_pages
from tomowire.server.index.reader import Statement

if TYPE_CHECKING:
    from tomowire.server.index.reader import IndexReader

_PAGE: Final = 1000
_ENTRIES: Final = (
    "SELECT event_key, recorded_at, event, outcome, actor, source, message, previous_hash, hash"
    " FROM audit_events WHERE event_key > {after} ORDER BY event_key {order} LIMIT {limit}"
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


def begin_anew(reader: IndexReader, root: Path) -> Iterator[Finding]:
    """After the index was made again: what was lost of the trail with the old one is said, and the trail goes on behind it.

    The anchor of the trail that was lost stays beside the new one, as `audit.anchor.lost-NUMBER`: it is what the archive's last
    event was, and with the messages at a syslog server all that tells of them.
    """
    try:
        anchor = read_anchor(root)
    except UsageError as error:
        yield Finding(FindingKind.AUDIT_BROKEN, ANCHOR, str(error))
        return
    last = next(iter(_page(reader, BEFORE_ALL, 1, newest_first=True)), None)
    number = last.number if last is not None else 0
    if anchor is None or anchor[0] <= number:
        return
    kept = f"{ANCHOR}.lost-{anchor[0]}"
    (root / ANCHOR).rename(root / kept)
    if last is not None:
        write_anchor(root, last.number, last.hash)
    lost = f"events {number + 1} to {anchor[0]} went with the old index: the trail goes on without them"
    yield Finding(FindingKind.AUDIT_BROKEN, kept, lost)


def _entries(reader: IndexReader) -> Iterator[Entry]:
    return each_of_pages(lambda after: _page(reader, after, _PAGE), lambda each: each.number, BEFORE_ALL)


def _page(reader: IndexReader, after: int, limit: int, *, newest_first: bool = False) -> list[Entry]:
    # Words and whole numbers of our own: the two databases write parameters differently.
    order = "DESC" if newest_first else "ASC"
    rows = reader.rows(Statement(_ENTRIES.format(after=int(after), limit=int(limit), order=order), {}))
    return [Entry(*row) for row in rows]
