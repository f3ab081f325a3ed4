"""Studies that stay: neither a quota nor a person deletes a study that is protected; whoever wants to ends its protection first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.records import Records

_PAGE: Final = 100


@value()
class ProtectedStudy:
    """A study that is not to be deleted. It need not be in the archive, or not yet."""

    study_instance_uid: str
    protected_at: int
    """Microseconds since 1970, UTC."""

    protected_by: str
    reason: str


class Protection:
    """Which studies are protected: rows of `protected_studies`, which are read in the transaction that would delete.

    Raises `IndexUnavailable`.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def protect(self, study_instance_uid: str, *, by: str = "", reason: str = "") -> ProtectedStudy:
        """Protect a study from now on; the first one who did so is remembered if it is protected already."""
        return await self._records.write(lambda connection: _protect(connection, study_instance_uid, by, reason))

    async def protect_stored(self, study_instance_uid: str, *, by: str = "", reason: str = "") -> ProtectedStudy | None:
        """The same for a study that the archive holds; None if it holds none, or one that is being deleted at this moment."""

        def work(connection: Connection) -> ProtectedStudy | None:
            from sqlalchemy import select

            from tomowire.server.index.schema import studies

            # Whoever deletes it has locked its row, or waits for this transaction and finds it protected.
            stored = select(studies.c.study_key).where(studies.c.study_instance_uid == study_instance_uid)
            if connection.execute(stored.with_for_update(read=True)).first() is None:
                return None
            return _protect(connection, study_instance_uid, by, reason)

        return await self._records.write(work)

    async def unprotect(self, study_instance_uid: str) -> bool:
        """End the protection of a study; False if it had none."""

        def work(connection: Connection) -> bool:
            from sqlalchemy import delete

            from tomowire.server.index.administration import protected_studies as table

            return bool(
                connection.execute(delete(table).where(table.c.study_instance_uid == study_instance_uid)).rowcount
            )

        return await self._records.write(work)

    async def find(self, study_instance_uid: str) -> ProtectedStudy | None:
        """Whether a study is protected, and since when."""
        return await self._records.read(lambda connection: _find(connection, study_instance_uid))

    async def list(self, *, after: str = "", limit: int = _PAGE) -> list[ProtectedStudy]:
        """Up to `limit` of the protected studies whose UIDs come after `after`, in the order of those."""

        def work(connection: Connection) -> list[ProtectedStudy]:
            from sqlalchemy import select

            from tomowire.server.index.administration import protected_studies as table

            uid = table.c.study_instance_uid
            rows = connection.execute(select(table).where(uid > after).order_by(uid).limit(limit))
            return [_protected(row) for row in rows]

        return await self._records.read(work)


def _protect(connection: Connection, study_instance_uid: str, by: str, reason: str) -> ProtectedStudy:
    from sqlalchemy import insert

    from tomowire.server.index.administration import protected_studies

    found = _find(connection, study_instance_uid)
    if found is not None:
        return found
    made = ProtectedStudy(study_instance_uid, time.time_ns() // 1000, by, reason)
    connection.execute(insert(protected_studies), _values(made))
    return made


def _find(connection: Connection, study_instance_uid: str) -> ProtectedStudy | None:
    from sqlalchemy import select

    from tomowire.server.index.administration import protected_studies as table

    row = connection.execute(select(table).where(table.c.study_instance_uid == study_instance_uid)).one_or_none()
    return None if row is None else _protected(row)


def _protected(row: Any) -> ProtectedStudy:
    return ProtectedStudy(row.study_instance_uid, row.protected_at, row.protected_by, row.reason)


def _values(study: ProtectedStudy) -> dict[str, Any]:
    return {
        "study_instance_uid": study.study_instance_uid,
        "protected_at": study.protected_at,
        "protected_by": study.protected_by,
        "reason": study.reason,
    }
