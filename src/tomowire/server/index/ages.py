"""How much the index says that there is, and which studies are the oldest. SQLAlchemy is imported when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import Connection, Exists

_MOST: Final = 1000
"""Studies that are listed at a time."""


@value()
class Usage:
    """The bytes of all files, as of the instance with the greatest key that was there."""

    bytes: int
    last_key: int

    def less(self, size: int) -> Usage:
        """After the deletion of `size` bytes."""
        return Usage(max(self.bytes - size, 0), self.last_key)


@value()
class OldStudy:
    """A study that may be deleted."""

    study_instance_uid: str
    last_received: int
    """When its last object came: microseconds since 1970, UTC."""

    bytes: int


@value()
class Held:
    """Bytes of all files, and those of protected studies among them."""

    bytes: int
    protected: int


def grown(connection: Connection, usage: Usage | None) -> Usage:
    """What there is now. With `usage`, what came since is added to it, and what was replaced counts twice: a guess from above."""
    from sqlalchemy import func, select

    from tomowire.server.index.schema import instances

    after = usage.last_key if usage is not None else 0
    key = instances.c.instance_key
    size = func.sum(instances.c.header_size + instances.c.data_set_size)
    more, last = connection.execute(
        select(func.coalesce(size, 0), func.coalesce(func.max(key), after)).where(key > after)
    ).one()
    return Usage(int(more) + (usage.bytes if usage is not None else 0), max(last, after))


def oldest_studies(connection: Connection, limit: int = _MOST) -> tuple[Usage, list[OldStudy]]:
    """What there is, exactly, and up to `limit` studies that are not protected, the oldest first. Walks over all instances."""
    from sqlalchemy import func, select

    from tomowire.server.index.schema import instances, series, studies

    last = func.max(instances.c.received_at).label("last_received")
    size = func.sum(instances.c.header_size + instances.c.data_set_size)
    rows = connection.execute(
        select(studies.c.study_instance_uid, last, size)
        .select_from(instances)
        .join(series, series.c.series_key == instances.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .where(~_is_protected())
        .group_by(studies.c.study_key, studies.c.study_instance_uid)
        .order_by(last, studies.c.study_instance_uid)
        .limit(limit)
    ).all()
    return grown(connection, None), [OldStudy(uid, newest, int(total)) for uid, newest, total in rows]


def held(connection: Connection) -> Held:
    """What there is, exactly. Walks over all instances."""
    return Held(grown(connection, None).bytes, protected_bytes(connection))


def protected_bytes(connection: Connection) -> int:
    """What protected studies hold. Walks over their instances."""
    from sqlalchemy import func, select

    from tomowire.server.index.administration import protected_studies
    from tomowire.server.index.schema import instances, series, studies

    size = func.sum(instances.c.header_size + instances.c.data_set_size)
    found = connection.execute(
        select(func.coalesce(size, 0))
        .select_from(protected_studies)
        .join(studies, studies.c.study_instance_uid == protected_studies.c.study_instance_uid)
        .join(series, series.c.study_key == studies.c.study_key)
        .join(instances, instances.c.series_key == series.c.series_key)
    ).scalar_one()
    return int(found)


def protections(connection: Connection) -> tuple[int, int]:
    """Something that is another one when other studies are protected."""
    from sqlalchemy import func, select

    from tomowire.server.index.administration import protected_studies

    count, last = connection.execute(
        select(func.count(), func.coalesce(func.max(protected_studies.c.protected_at), 0))
    ).one()
    return int(count), int(last)


def too_old(connection: Connection, before: int) -> int:
    """How many studies that are not protected got their last object `before` that: microseconds since 1970. Walks over all
    instances."""
    from sqlalchemy import func, select

    from tomowire.server.index.schema import instances, series, studies

    old = (
        select(studies.c.study_key)
        .select_from(instances)
        .join(series, series.c.series_key == instances.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .where(~_is_protected())
        .group_by(studies.c.study_key)
        .having(func.max(instances.c.received_at) < before)
        .subquery()
    )
    return int(connection.execute(select(func.count()).select_from(old)).scalar_one())


def _is_protected() -> Exists:
    from sqlalchemy import select

    from tomowire.server.index.administration import protected_studies
    from tomowire.server.index.schema import studies

    return (
        select(protected_studies.c.study_instance_uid)
        .where(protected_studies.c.study_instance_uid == studies.c.study_instance_uid)
        .exists()
    )
