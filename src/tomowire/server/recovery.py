"""At the start: what a process that was killed, or a power cut, left half-done is undone.

The part files go: none of them is stored. Of the files that the journal names, those that the index does not know go too, if they
are of a batch that was not committed, or superseded by one that was. That is at most one batch; the store is not searched.

What got Success is never removed here, even when the index does not know it any more: a database that failed over to a standby, or
an older copy of it, is behind its archive. Such files stay where they are, and `db check --repair` indexes them again. Whether the
last batch was committed is noted beside the journal; when that note is not to be trusted (the system was started anew), an index
that another system keeps is not believed either.
"""

from __future__ import annotations

import logging
from typing import Final

from tomowire.server.files import DataDirectory, ObjectName
from tomowire.server.index.rows import IndexedObject, IndexWriter
from tomowire.server.journal import Commitment, Intent, read_commitment, read_journal
from tomowire.server.posix import sync_directory
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
    if intent is not None:
        if _belongs_to(intent, index):
            removed += _remove_unknown(intent, directory, index)
        # An index that loses commits later on must not be asked about it again.
        directory.journal_path.unlink()
        if directory.fsync:
            sync_directory(directory.journal_path.parent)
    if removed:
        logger.info("removed %d files of objects that were not stored when the archive was stopped", removed)
    return removed


def is_superseded(name: ObjectName, known: IndexedObject | None) -> bool:
    """Whether the index has a later file of the same object: `known`, that is what it has."""
    return known is not None and known.name.generation > name.generation


def is_of_index(intent: Intent, archive_id: str, last_batch: int) -> bool:
    """Whether the journal with `intent` was written for the index `archive_id`, as it is now or one batch later."""
    return intent.archive_id == archive_id and intent.batch - last_batch in (0, 1)


def may_be_answered(directory: DataDirectory, intent: Intent, *, is_elsewhere: bool) -> bool:
    """Whether somebody may have got Success for what `intent` names: then it stays, even if the index does not have it.

    After a power cut that is not known; an index in the same directory is believed, one that another system keeps is not.
    """
    commitment = read_commitment(directory.committed_path, intent)
    return commitment is Commitment.COMMITTED or (commitment is Commitment.UNKNOWN and is_elsewhere)


def _belongs_to(intent: Intent, index: IndexWriter) -> bool:
    """Whether the index is the one that the journal was written for, as it was then or one batch before.

    Somebody may have put an older copy of the index in its place, or a new one. It knows nothing of the files that the journal
    names, and they may have been stored long ago: then nothing is removed.
    """
    if is_of_index(intent, index.archive_id, index.last_batch):
        return True
    logger.warning(
        "the journal is not of this index, or the index has lost what was committed (a failover to a standby, an older copy?): "
        "no file is removed. 'tomowire db check' finds what is not indexed, and with --repair indexes it"
    )
    return False


def _remove_unknown(intent: Intent, directory: DataDirectory, index: IndexWriter) -> int:
    """Gives how many are removed."""
    answered = may_be_answered(directory, intent, is_elsewhere=index.is_elsewhere)
    unknown, kept = [], 0
    for path in intent.paths:
        name = ObjectName.parse(path)
        if name is None or not (directory.root / path).exists():
            continue
        known = index.find([name.sop_instance_uid]).get(name.sop_instance_uid)
        if known is not None and known.name == name:
            continue
        if answered and not is_superseded(name, known):
            kept += 1
        else:
            unknown.append(name)
    if unknown:
        with removing(directory, index) as remover:
            remover.supersede(unknown)
    if kept:
        logger.error(
            "the index does not know %d objects that may have got Success: has it lost what was committed (a failover to a "
            "standby, an older copy), or did the power fail while they were stored? Their files are kept; stop the archive and "
            "run 'tomowire db check --repair' to index them",
            kept,
        )
    return len(unknown)
