"""An index that is made again may come to another place than the old one: from the data directory to PostgreSQL, or back.

What the old one knows and no file says is left behind then, but for protected studies, which a quota would delete. So whoever
makes an index elsewhere has to say that this is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.belonging import archive_id_of, marks_of
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.location import location_of
from tomowire.server.index.reader import Statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tomowire.server.files import DataDirectory

_PROTECTED: Final = Statement(
    "SELECT study_instance_uid, protected_at, protected_by, reason FROM protected_studies ORDER BY study_instance_uid",
    {},
)


def index_in_use(directory: DataDirectory, backend: IndexBackend, *, move: bool) -> IndexBackend:
    """The index to be replaced, as far as it can be reached: `backend`, which the new one is for, or that in the directory.

    Raises `UsageError` if the new one comes to another place, and nobody has said `move`; `OSError`.
    """
    if backend.place is not None and _is_of_the_files(directory, backend, there_is_no_mark=False):
        return backend
    inside = backend_for(None, directory.root, wherever=True)
    there = location_of(directory.root)
    if backend.place is None:
        if there is not None and not move:
            raise UsageError(_moves(there, backend.name))
        return backend
    if there is not None:
        if there != backend.place and not move:
            raise UsageError(_moves(there, backend.place))
        return backend
    if not _is_of_the_files(directory, inside, there_is_no_mark=True):
        return backend
    if not move:
        raise UsageError(_moves(inside.name, backend.place))
    return inside


def _moves(there: str, place: str) -> str:
    return (
        f"the index of this archive is at {there}, and the new one would be at {place}: was --index-url or --config left out? If "
        "the index is to be moved, say so with --move: users, tokens, jobs and the audit trail stay behind ('tomowire backup' and "
        "'tomowire restore' move them too)"
    )


def _is_of_the_files(directory: DataDirectory, backend: IndexBackend, *, there_is_no_mark: bool) -> bool:
    """Whether there is an index, and the files are marked as its own; `there_is_no_mark` is the answer when nothing is marked."""
    try:
        if backend.is_empty():
            return False
        with backend.open_reader(older=True) as reader:
            marks = marks_of(directory)
            return archive_id_of(reader) in marks if marks else there_is_no_mark
    except (IndexUnavailable, UsageError):  # whoever needs it will say so
        return False


def keep_protection(old: IndexBackend, new: IndexBackend) -> Iterator[Finding]:
    """Protect in `new`, which has its tables, what is protected in `old`; gives what could not be kept."""
    from sqlalchemy import insert, select

    from tomowire.server.index.administration import protected_studies

    try:
        with old.open_reader() as reader:
            rows = list(reader.rows(_PROTECTED))
    except (IndexUnavailable, UsageError) as error:
        yield Finding(
            FindingKind.INDEX_DAMAGED, old.short_name, f"which studies are protected could not be kept: {error}"
        )
        return
    engine = new.engine()
    try:
        with engine.begin() as connection:
            known = set(connection.scalars(select(protected_studies.c.study_instance_uid)))
            names = ("study_instance_uid", "protected_at", "protected_by", "reason")
            fresh = [dict(zip(names, row, strict=True)) for row in rows if row[0] not in known]
            if fresh:
                connection.execute(insert(protected_studies), fresh)
    finally:
        engine.dispose()
