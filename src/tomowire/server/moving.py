"""An index that is made again may come to another place than the old one: from the data directory to PostgreSQL, or back.

What the old one knows and no file says is left behind then, but for protected studies, which a quota would delete. So whoever
makes an index elsewhere has to say that this is meant.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.belonging import Belonging, archive_id_of, belonging, marks_of
from tomowire.server.files import OBJECTS
from tomowire.server.findings import Finding, FindingKind
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.location import location_of
from tomowire.server.index.reader import Statement
from tomowire.server.index.statements import OF_ITS_TIME, OF_ITS_TIME_SINCE
from tomowire.server.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from tomowire.server.files import DataDirectory

_PROTECTED: Final = Statement(
    "SELECT study_instance_uid, protected_at, protected_by, reason FROM protected_studies ORDER BY study_instance_uid",
    {},
)


def _any_of(tables: Iterable[str]) -> Statement:
    return Statement(f"SELECT {' OR '.join(f'EXISTS (SELECT 1 FROM {table})' for table in tables)}", {})


_HAS_RECORDS: Final = _any_of(OF_ITS_TIME)
_HAS_ANYTHING: Final = _any_of((*OF_ITS_TIME, "audit_events"))
"""Protection alone is what a move leaves that was killed before its end."""


def index_in_use(directory: DataDirectory, backend: IndexBackend, *, move: bool) -> IndexBackend:
    """The index to be replaced, as far as it can be reached: `backend`, which the new one is for, or that in the directory.

    Raises `UsageError` if the new one comes to another place, and nobody has said `move`, or another archive has its index there;
    `IndexUnavailable` and `UsageError` if one of them could say what it is another time, or to a later tomowire; `OSError`.
    """
    there = location_of(directory.root)
    if backend.place is None:
        if there is not None and not move:
            raise UsageError(_moves(there, backend.name))
        return backend
    if there == backend.place or _is_marked(directory, backend):
        return backend
    inside = backend_for(None, directory.root, wherever=True)
    is_inside = there is None and _may_be_of_the_files(directory, inside)
    if there is not None or is_inside:
        if not move:
            raise UsageError(_moves(there or inside.name, backend.place))
        _require_nothing(backend)
    else:
        _require_none_of_others(directory, backend)
    return inside if is_inside else backend


def require_not_elsewhere(directory: DataDirectory, backend: IndexBackend) -> None:
    """Raises `UsageError` if the archive has its index in another place than `backend`, which has nothing; `IndexUnavailable`.

    An archive that began there would have none of its objects; and where their disk is not mounted, nothing else would tell.
    """
    there = location_of(directory.root)
    if there is None and backend.place is not None:
        inside = backend_for(None, directory.root, wherever=True)
        there = None if inside.is_empty() else inside.name
    if there in (None, backend.place) or _has_objects_or_mark(directory, backend):
        return
    raise UsageError(
        f"the index of the archive in {directory.root} is at {there}, and this one has nothing: is it the right one? 'tomowire db "
        "reindex --move' makes the index in another place from the files"
    )


def _has_objects_or_mark(directory: DataDirectory, backend: IndexBackend) -> bool:
    if backend.is_empty():
        return False
    with backend.open_reader(older=True) as reader:
        return bool(reader.page(size=1)) or archive_id_of(reader) in marks_of(directory)


def _moves(there: str, place: str) -> str:
    return (
        f"the index of this archive is at {there}, and the new one would be at {place}: was --index-url or --config left out? If "
        "the index is to be moved, say so with --move: users, tokens, jobs and the audit trail stay behind ('tomowire backup' and "
        "'tomowire restore' move them too)"
    )


def _is_marked(directory: DataDirectory, backend: IndexBackend) -> bool:
    """Whether there is an index, and the files are marked as its own."""
    if backend.is_empty():
        return False
    with backend.open_reader(older=True) as reader:
        return archive_id_of(reader) in marks_of(directory)


def _may_be_of_the_files(directory: DataDirectory, inside: IndexBackend) -> bool:
    """Whether there is an index, and the files are not marked as those of another. Of a damaged one nobody can tell."""
    if inside.is_empty():
        return False
    inside.require_no_newer()
    try:
        if inside.version() is None:  # killed at its very first start
            return False
        with inside.open_reader(older=True) as reader:
            marks = marks_of(directory)
            return not marks or archive_id_of(reader) in marks
    except (IndexUnavailable, UsageError) as error:
        _require_damage(error)
        return True


def _require_nothing(backend: IndexBackend) -> None:
    """Raises `UsageError` if there is more than the tables in the place that an index is moved to.

    Files that it shares with this archive do not make it this one's: two archives may have been sent the same objects. And an audit
    trail is not gone on with after one that was kept elsewhere since.
    """
    schema = backend.version()
    if schema is None:
        return
    with backend.open_reader(older=True) as reader:
        if not reader.page(size=1) and (schema < OF_ITS_TIME_SINCE or not reader.rows(_HAS_ANYTHING)[0][0]):
            return
    raise UsageError(
        f"{backend.name} holds an index already, of another archive or of this one's past: name an empty database to move the "
        "index to"
    )


def _require_none_of_others(directory: DataDirectory, backend: IndexBackend) -> None:
    """Raises `UsageError` if the index that is to be written over is that of another archive."""
    schema = backend.version()
    if schema is None:
        return
    open_reader = partial(backend.open_reader, older=True)
    with open_reader() as reader:
        found = belonging(directory, archive_id_of(reader), open_reader)
        if found is Belonging.FOREIGN or found is Belonging.ABSENT:
            what = f"is of other files than those below {directory.root / OBJECTS}"
        elif schema >= OF_ITS_TIME_SINCE and not reader.page(size=1) and reader.rows(_HAS_RECORDS)[0][0]:
            what = "has users or jobs, and no objects"
        else:
            return
    raise UsageError(
        f"the index {backend.name} {what}: is it that of another archive, or is the disk not mounted? For an index of these "
        "files name an empty database"
    )


def _require_damage(error: IndexUnavailable | UsageError) -> None:
    """Raises an error that is of this moment; not that of a database which is damaged, or none of tomowire's, and stays so."""
    if isinstance(error, IndexUnavailable) and not error.is_damage:
        raise error


def keep_protection(old: IndexBackend, new: IndexBackend) -> Iterator[Finding]:
    """Protect in `new`, which has its tables, what is protected in `old`; gives what could not be kept.

    Raises `IndexUnavailable` if one of them can do so another time.
    """
    from sqlalchemy import insert, select

    from tomowire.server.index.administration import protected_studies

    try:
        with old.open_reader() as reader:
            rows = list(reader.rows(_PROTECTED))
    except (IndexUnavailable, UsageError) as error:
        _require_damage(error)
        yield Finding(
            FindingKind.INDEX_DAMAGED, old.short_name, f"which studies are protected could not be kept: {error}"
        )
        return

    def protect(connection: Connection) -> None:
        known = set(connection.scalars(select(protected_studies.c.study_instance_uid)))
        names = ("study_instance_uid", "protected_at", "protected_by", "reason")
        fresh = [dict(zip(names, row, strict=True)) for row in rows if row[0] not in known]
        if fresh:
            connection.execute(insert(protected_studies), fresh)

    with closing(Records(new.engine)) as records:
        records.write_now(protect)
