"""The tables of jobs: making, reading and ending them. Functions of a connection in a transaction, for both backends.

This module imports SQLAlchemy: it is imported in the threads of `Records`, when there is something to do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, func, insert, select, text, update

from tomowire.server.index.administration import job_items, jobs
from tomowire.server.jobs.model import OVER, ItemState, Job, JobItem, JobKind, JobState, Progress, QueueFigures

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

    from tomowire.server.jobs.request import NewJob

MICROSECONDS: Final = 1_000_000
_OVER: Final = [state.value for state in OVER]
_WITHOUT_RESULT: Final = [column for column in jobs.c if column is not jobs.c.result]


def now(connection: Connection) -> int:
    """The time by which leases and waits are counted. That of a database server: the clocks of its clients may differ."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(text("SELECT extract(epoch FROM clock_timestamp()) * 1000000")).scalar_one())
    return time.time_ns() // 1000


def make(connection: Connection, job_id: str, new: NewJob, *, lease: float) -> int:
    """A job about nothing yet; gives its key. Whoever makes it has `lease` seconds to `add_items`, and again."""
    moment = now(connection)
    values = {
        "job_id": job_id,
        "kind": new.kind.value,
        "node": new.node,
        "parameters": json.dumps(dict(new.parameters)),
        "state": JobState.MAKING.value,
        "created_at": moment,
        "created_by": new.by,
        "not_before": moment,
        "attempts": 0,
        "lease_owner": job_id,
        "lease_until": moment + int(lease * MICROSECONDS),
        "cancel_requested": False,
        "error": "",
        "items_total": 0,
        "items_done": 0,
        "items_warning": 0,
        "items_failed": 0,
        "bytes_total": None,
        "bytes_done": 0,
        "resumed_items": 0,
        "resumed_bytes": 0,
        "result": "",
    }
    made = connection.execute(insert(jobs).values(values))
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def add_items(connection: Connection, job_key: int, first: int, uids: Sequence[str], *, lease: float) -> bool:
    """What a job is about, from position `first` on; whether it is still being made."""
    until = now(connection) + int(lease * MICROSECONDS)
    is_made = (jobs.c.job_key == job_key) & (jobs.c.state == JobState.MAKING.value)
    if not connection.execute(update(jobs).where(is_made).values(lease_until=until)).rowcount:
        return False
    rows = [
        {"job_key": job_key, "position": position, "uid": uid, "state": ItemState.WAITING.value, "comment": ""}
        for position, uid in enumerate(uids, first)
    ]
    connection.execute(insert(job_items), rows)
    return True


def begin(
    connection: Connection, job_key: int, *, total: int, size: int | None, parameters: Mapping[str, Any]
) -> Job | None:
    """The job is made: it waits for its turn from now on. None if somebody has given it up meanwhile."""
    is_made = (jobs.c.job_key == job_key) & (jobs.c.state == JobState.MAKING.value)
    values = {
        "state": JobState.WAITING.value,
        "not_before": now(connection),
        "lease_owner": None,
        "lease_until": None,
        "items_total": total,
        "bytes_total": size,
        "parameters": json.dumps(dict(parameters)),
    }
    changed = connection.execute(update(jobs).where(is_made).values(values)).rowcount
    return job_at(connection, job_key) if changed else None


def forget_unmade(connection: Connection, job_id: str) -> None:
    """Remove a job, unless it was begun."""
    was_cancelled = (jobs.c.state == JobState.CANCELLED.value) & (jobs.c.items_total == 0)
    unmade = (jobs.c.job_id == job_id) & ((jobs.c.state == JobState.MAKING.value) | was_cancelled)
    for key in connection.execute(select(jobs.c.job_key).where(unmade)).scalars().all():
        forget(connection, key)


def forget(connection: Connection, job_key: int) -> None:
    """Remove a job with its items."""
    connection.execute(delete(job_items).where(job_items.c.job_key == job_key))
    connection.execute(delete(jobs).where(jobs.c.job_key == job_key))


def forget_finished(connection: Connection, before: float, *, most: int) -> int:
    """Remove up to `most` items of jobs that have been over for `before` seconds, and such jobs without items; how many rows.

    A job may have a hundred thousand items, and others want to write meanwhile: it is to be called until there is nothing left.
    """
    limit = now(connection) - int(before * MICROSECONDS)
    is_old = and_(jobs.c.state.in_(_OVER), jobs.c.finished_at < limit)
    count = 0
    for key in connection.execute(select(jobs.c.job_key).where(is_old).limit(most)).scalars().all():
        if count >= most:
            break
        count += _forget_some(connection, and_(jobs.c.job_key == key, is_old), key, most - count)
    return count


def _forget_some(connection: Connection, is_job: ColumnElement[bool], key: int, most: int) -> int:
    """Remove up to `most` items of a job, and the job itself if that were all; how many rows."""
    # Without items that count nobody begins it again. Somebody may have done so just now.
    if not connection.execute(update(jobs).where(is_job).values(items_total=0)).rowcount:
        return 0
    mine = job_items.c.job_key == key
    some = select(job_items.c.position).where(mine).order_by(job_items.c.position).limit(most)
    gone = connection.execute(delete(job_items).where(mine, job_items.c.position.in_(some))).rowcount
    if gone == most:
        return gone
    connection.execute(delete(jobs).where(jobs.c.job_key == key))
    return gone + 1


def job_at(connection: Connection, job_key: int) -> Job:
    """One job that exists, by its key."""
    row = connection.execute(select(*_WITHOUT_RESULT).where(jobs.c.job_key == job_key)).one()
    return job_of(row, now(connection))


def get(connection: Connection, job_id: str) -> Job | None:
    """One job with its result, by its id."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()
    if row is None:
        return None
    return job_of(row, now(connection), result=json.loads(row.result) if row.result else None)


def page(
    connection: Connection, states: Sequence[str], kinds: Sequence[str], after: str | None, limit: int
) -> list[Job]:
    """Jobs, those made last first; after the one with the id `after`."""
    query = select(*_WITHOUT_RESULT).order_by(jobs.c.job_key.desc()).limit(limit)
    if states:
        query = query.where(jobs.c.state.in_(states))
    if kinds:
        query = query.where(jobs.c.kind.in_(kinds))
    if after is not None:
        query = query.where(jobs.c.job_key < select(jobs.c.job_key).where(jobs.c.job_id == after).scalar_subquery())
    moment = now(connection)
    return [job_of(row, moment) for row in connection.execute(query)]


def items(connection: Connection, job_id: str, states: Sequence[str], after: int, limit: int) -> list[JobItem]:
    """Items of a job, in their order, whose position is greater than `after`."""
    key = select(jobs.c.job_key).where(jobs.c.job_id == job_id).scalar_subquery()
    return _items(connection, key, states, after, limit)


def reasons_of_failures(connection: Connection, job_key: int, most: int) -> list[tuple[int | None, str]]:
    """The different statuses and comments of the items of a job that have failed, up to `most`."""
    columns = job_items.c
    failed = (columns.job_key == job_key) & (columns.state == ItemState.FAILED.value)
    rows = connection.execute(select(columns.status, columns.comment).distinct().where(failed).limit(most))
    return [(row.status, row.comment) for row in rows]


def waiting_items(connection: Connection, job_key: int, after: int, limit: int) -> list[JobItem]:
    """Those items of a job that are not done yet."""
    return _items(connection, job_key, [ItemState.WAITING.value], after, limit)


def _items(connection: Connection, key: Any, states: Sequence[str], after: int, limit: int) -> list[JobItem]:
    columns = job_items.c
    query = select(columns.position, columns.uid, columns.state, columns.status, columns.comment)
    query = query.where(columns.job_key == key, columns.position > after)
    if states:
        query = query.where(columns.state.in_(states))
    rows = connection.execute(query.order_by(columns.position).limit(limit))
    return [JobItem(row.position, row.uid, ItemState(row.state), row.status, row.comment) for row in rows]


def figures(connection: Connection) -> QueueFigures:
    """How long the queue is."""
    moment = now(connection)
    states = select(jobs.c.state, func.count().label("number")).where(jobs.c.state.not_in(_OVER)).group_by(jobs.c.state)
    counted = {row.state: row.number for row in connection.execute(states)}
    due = (jobs.c.state == JobState.WAITING.value) & (jobs.c.not_before <= moment)
    oldest = connection.execute(select(func.min(jobs.c.not_before)).where(due)).scalar_one()
    return QueueFigures(
        counted.get(JobState.WAITING.value, 0) + counted.get(JobState.MAKING.value, 0),
        counted.get(JobState.RUNNING.value, 0),
        0.0 if oldest is None else (moment - oldest) / MICROSECONDS,
    )


def job_of(row: Row[Any], moment: int, *, result: Any = None) -> Job:
    """The value of a row of `jobs`."""
    return Job(
        job_id=row.job_id,
        kind=JobKind(row.kind),
        state=JobState(row.state),
        node=row.node,
        parameters=json.loads(row.parameters),
        created_at=row.created_at,
        created_by=row.created_by,
        started_at=row.started_at,
        finished_at=row.finished_at,
        not_before=row.not_before,
        attempts=row.attempts,
        cancel_requested=row.cancel_requested,
        error=row.error,
        progress=_progress(row, moment),
        is_left=row.state == JobState.RUNNING.value and row.lease_until is not None and row.lease_until < moment,
        result=result,
    )


def _progress(row: Row[Any], moment: int) -> Progress:
    rate, left = None, None
    if row.state == JobState.RUNNING.value and row.resumed_at is not None and moment > row.resumed_at:
        seconds = (moment - row.resumed_at) / MICROSECONDS
        settled = row.items_done + row.items_failed - row.resumed_items
        rate = (row.bytes_done - row.resumed_bytes) / seconds
        remaining = row.items_total - row.items_done - row.items_failed
        left = remaining * seconds / settled if settled > 0 else None
    return Progress(
        row.items_total,
        row.items_done,
        row.items_warning,
        row.items_failed,
        row.bytes_done,
        row.bytes_total,
        rate,
        left,
    )
