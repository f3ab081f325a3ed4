"""At the start: what a process that was killed, or a power cut, left half-done is undone.

The part files go: none of them is stored. Of the files that the journal names, those that the index does not know go too: files of
a batch that was not committed, or that a committed one superseded. That is at most one batch; the store is not searched.
"""

from __future__ import annotations

import logging
from typing import Final

from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.index.rows import IndexWriter
from tomowire.server.journal import Intent, read_journal
from tomowire.server.removal import removing

logger: Final = logging.getLogger(__name__)


def recover(directory: DataDirectory, index: IndexWriter) -> int:
    """Undo what was not finished; gives the number of files removed. To be called before anything is stored.

    May be killed and called again. Raises `OSError` and `IndexUnavailable`; then the archive is not to be used.
    """
    removed = 0
    for part in directory.parts():
        part.unlink()
        removed += 1
    intent = read_journal(directory.journal_path)
    if intent is not None and _belongs_to(intent, index):
        removed += _remove_unknown(intent, directory, index)
    if removed:
        logger.info("removed %d files of objects that were not stored when the archive was stopped", removed)
    return removed


def _belongs_to(intent: Intent, index: IndexWriter) -> bool:
    """Whether the index is the one that the journal was written for, as it was then.

    Somebody may have put an older copy of the index in its place, or a new one. It knows nothing of the files that the journal
    names, and they may have been stored long ago: then nothing is removed.
    """
    if intent.archive_id == index.archive_id and intent.batch - index.last_batch in (0, 1):
        return True
    logger.warning(
        "the journal is not of this index: no file is removed. 'tomowire db check' finds what is not indexed"
    )
    return False


def _remove_unknown(intent: Intent, directory: DataDirectory, index: IndexWriter) -> int:
    unknown = []
    for path in intent.paths:
        name = ObjectName.parse(path)
        if name is None or not (directory.root / path).exists():
            continue
        known = index.find([name.sop_instance_uid]).get(name.sop_instance_uid)
        if known is None or known.name != name:
            unknown.append(name)
    if unknown:
        with removing(directory, index) as remover:
            remover.supersede(unknown)
    return len(unknown)
