"""Who works on a job: leases. Functions of a connection in a transaction, for both backends.

A claim is one conditional UPDATE of a row that no other transaction has (`FOR UPDATE SKIP LOCKED` on PostgreSQL; SQLite lets one
write at a time). Each claim has a token of its own, and whatever is written about the job later is written only if the row still
has that token: who has lost the lease, and does not know it yet, changes nothing any more.

This module imports SQLAlchemy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, func, or_, select, true, update

from tomowire.server.index.administration import job_items, jobs
from tomowire.server.jobs.claim import Claim, Settled
from tomowire.server.jobs.model import ItemState, Job, JobState
from tomowire.server.jobs.table import MICROSECONDS, job_at, now

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

_LONGEST_TEXT: Final = 1000
_LOOKED_UP_AT_ONCE: Final = 500
_LOST_MAKER: Final = "whoever made this job ended before all of it was written down: nothing was done; make it again"


def claim(connection: Connection, token: str, *, lease: float, full: Collection[str] = ()) -> Claim | None:
    """The job that has been due for longest, for `lease` seconds; none for a node that is `full`. None if there is none."""
    moment = now(connection)
    due = and_(_is_due(moment), _has_place(full))
    first = select(jobs.c.job_key).where(due).order_by(jobs.c.not_before, jobs.c.job_key).limit(1)
    key = connection.execute(first.with_for_update(skip_locked=True)).scalar_one_or_none()
    if key is None:
        return None
    values = {
        "state": JobState.RUNNING.value,
        "lease_owner": token,
        "lease_until": moment + int(lease * MICROSECONDS),
        "started_at": func.coalesce(jobs.c.started_at, moment),
        "resumed_at": moment,
        "resumed_items": jobs.c.items_done + jobs.c.items_failed,
        "resumed_bytes": jobs.c.bytes_done,
        "attempts": jobs.c.attempts + 1,
    }
    if not connection.execute(update(jobs).where(jobs.c.job_key == key, _is_due(moment)).values(values)).rowcount:
        return None
    return Claim(key, token, job_at(connection, key))


def _is_due(moment: int) -> ColumnElement[bool]:
    waits = and_(jobs.c.state == JobState.WAITING.value, jobs.c.not_before <= moment)
    return or_(waits, and_(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until < moment))


def _has_place(full: Collection[str]) -> ColumnElement[bool]:
    return jobs.c.node.not_in(list(full)) if full else true()


def next_deadline(connection: Connection, *, full: Collection[str] = ()) -> float | None:
    """Seconds until a job is due whose node is not `full`, or a lease ends that somebody has; None if there is neither."""
    moment = now(connection)
    waits = select(func.min(jobs.c.not_before)).where(jobs.c.state == JobState.WAITING.value, _has_place(full))
    leased = jobs.c.state.in_([JobState.RUNNING.value, JobState.MAKING.value])
    ends = select(func.min(jobs.c.lease_until)).where(leased)
    times = [each for each in (connection.execute(query).scalar_one() for query in (waits, ends)) if each is not None]
    return max((min(times) - moment) / MICROSECONDS, 0.0) if times else None


def end_unmade(connection: Connection) -> None:
    """Give up what nobody makes any more."""
    moment = now(connection)
    is_left = and_(jobs.c.state == JobState.MAKING.value, jobs.c.lease_until < moment)
    values = {"state": JobState.FAILED.value, "error": _LOST_MAKER, "finished_at": moment, "lease_owner": None}
    connection.execute(update(jobs).where(is_left).values(values))


def free(connection: Connection, owner: str) -> int:
    """End the leases of a process that is no more, whose tokens begin with `owner`; how many."""
    mine = and_(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_owner.startswith(owner, autoescape=True))
    return connection.execute(update(jobs).where(mine).values(lease_until=0)).rowcount


def renew(connection: Connection, claim: Claim, *, lease: float) -> bool | None:
    """Keep the job for `lease` seconds more; whether somebody wants it cancelled. None if it is not ours any more."""
    until = now(connection) + int(lease * MICROSECONDS)
    if not connection.execute(update(jobs).where(_is(claim)).values(lease_until=until)).rowcount:
        return None
    return bool(connection.execute(select(jobs.c.cancel_requested).where(_is(claim))).scalar_one())


def settle(connection: Connection, claim: Claim, settled: Sequence[Settled], size: int = 0) -> bool:
    """Write down what has become of items that were waiting, and that `size` bytes more have come.

    What is written already counts once: whoever lost the connection does not know whether its transaction was committed. False if
    the job is not ours any more, and then nothing is written.
    """
    if not connection.execute(update(jobs).where(_is(claim)).values(lease_owner=claim.token)).rowcount:
        return False
    waiting = _waiting_among(connection, claim.job_key, [each.position for each in settled])
    new = [each for each in settled if each.position in waiting]
    done = [each for each in new if each.state in (ItemState.DONE, ItemState.WARNING)]
    values: dict[str, Any] = {
        "items_done": jobs.c.items_done + len(done),
        "items_warning": jobs.c.items_warning + sum(each.state is ItemState.WARNING for each in done),
        "items_failed": jobs.c.items_failed + sum(each.state is ItemState.FAILED for each in new),
        "bytes_done": jobs.c.bytes_done + size + sum(each.size for each in done),
    }
    if done:  # it gets on: what failed before does not count against it
        values["attempts"] = 1
    connection.execute(update(jobs).where(_is(claim)).values(values))
    if new:
        _write_items(connection, claim.job_key, new)
    return True


def _waiting_among(connection: Connection, job_key: int, positions: Sequence[int]) -> set[int]:
    """Those of the items that nothing is written of yet."""
    found: set[int] = set()
    for start in range(0, len(positions), _LOOKED_UP_AT_ONCE):
        some = positions[start : start + _LOOKED_UP_AT_ONCE]
        these = and_(job_items.c.job_key == job_key, job_items.c.position.in_(some))
        waiting = select(job_items.c.position).where(these, job_items.c.state == ItemState.WAITING.value)
        found.update(connection.execute(waiting).scalars())
    return found


def _write_items(connection: Connection, job_key: int, settled: Sequence[Settled]) -> None:
    one = and_(job_items.c.job_key == job_key, job_items.c.position == bindparam("at"))
    change = (
        update(job_items)
        .where(one)
        .values(state=bindparam("new_state"), status=bindparam("new_status"), comment=bindparam("new_comment"))
    )
    rows = [
        {
            "at": each.position,
            "new_state": each.state.value,
            "new_status": each.status,
            "new_comment": _clean(each.comment),
        }
        for each in sorted(settled, key=lambda each: each.position)
    ]
    connection.execute(change, rows)


def release(
    connection: Connection,
    claim: Claim,
    state: JobState,
    *,
    error: str = "",
    wait: float = 0.0,
    result: Any = None,
    counts: bool = True,
) -> Job | None:
    """Let go of a job: it is over, or WAITING again for `wait` seconds. `counts=False`: this was no attempt of its own.

    None if it is not ours any more, and then nothing is written.
    """
    moment = now(connection)
    is_over = state is not JobState.WAITING
    values: dict[str, Any] = {
        "state": state.value,
        "error": _clean(error),
        "lease_owner": None,
        "lease_until": None,
        "not_before": moment + int(wait * MICROSECONDS),
        "finished_at": moment if is_over else None,
    }
    if result is not None:
        values["result"] = json.dumps(result)
    if not counts:
        values["attempts"] = jobs.c.attempts - 1
    if not connection.execute(update(jobs).where(_is(claim)).values(values)).rowcount:
        return None
    return job_at(connection, claim.job_key)


def fail_rest(connection: Connection, claim: Claim, comment: str) -> bool:
    """What still waits has failed for good; False if the job is not ours any more."""
    comment = _clean(comment)
    mine = and_(job_items.c.job_key == claim.job_key, job_items.c.state == ItemState.WAITING.value)
    if not connection.execute(update(jobs).where(_is(claim)).values(error=comment)).rowcount:
        return False
    bare = and_(mine, job_items.c.comment == "")
    connection.execute(update(job_items).where(bare).values(comment=comment))
    count = connection.execute(update(job_items).where(mine).values(state=ItemState.FAILED.value)).rowcount
    connection.execute(update(jobs).where(_is(claim)).values(items_failed=jobs.c.items_failed + count))
    return True


def cancel(connection: Connection, job_id: str) -> Job | None:
    """Cancel a job that waits, or ask whoever works on it to stop; what is over stays as it is. None if there is none."""
    moment = now(connection)
    this = jobs.c.job_id == job_id
    waits = and_(this, jobs.c.state.in_([JobState.WAITING.value, JobState.MAKING.value]))
    over = {"state": JobState.CANCELLED.value, "cancel_requested": True, "finished_at": moment, "lease_owner": None}
    if not connection.execute(update(jobs).where(waits).values(over)).rowcount:
        running = and_(this, jobs.c.state == JobState.RUNNING.value)
        connection.execute(update(jobs).where(running).values(cancel_requested=True))
    return _job(connection, job_id)


def retry(connection: Connection, job_id: str) -> Job | None:
    """Begin a job again that has failed or was cancelled, with what was not acknowledged; one that waits for its next attempt is
    tried now. What runs or is done stays as it is. None if there is none."""
    key = connection.execute(select(jobs.c.job_key).where(jobs.c.job_id == job_id)).scalar_one_or_none()
    if key is None:
        return None
    this = jobs.c.job_key == key
    again = {
        "state": JobState.WAITING.value,
        "not_before": now(connection),
        "attempts": 0,
        "cancel_requested": False,
        "error": "",
        "finished_at": None,
    }
    ended = and_(this, jobs.c.state.in_([JobState.FAILED.value, JobState.CANCELLED.value]), jobs.c.items_total > 0)
    waits = and_(this, jobs.c.state == JobState.WAITING.value)
    if connection.execute(update(jobs).where(ended).values(again | {"items_failed": 0})).rowcount:
        failed = and_(job_items.c.job_key == key, job_items.c.state == ItemState.FAILED.value)
        values = {"state": ItemState.WAITING.value, "status": None, "comment": ""}
        connection.execute(update(job_items).where(failed).values(values))
    else:
        connection.execute(update(jobs).where(waits).values(not_before=again["not_before"], attempts=0))
    return job_at(connection, key)


def hurry(connection: Connection, node: str) -> int:
    """Jobs of a node that wait for their next attempt are tried now: something is known to have changed. How many."""
    waits = and_(jobs.c.state == JobState.WAITING.value, jobs.c.node == node)
    return connection.execute(update(jobs).where(waits).values(not_before=now(connection))).rowcount


def _clean(text: str) -> str:
    """What a peer or an error says, as any database takes it."""
    return text[:_LONGEST_TEXT].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _is(claim: Claim) -> ColumnElement[bool]:
    """Whether the job is still ours."""
    return and_(
        jobs.c.job_key == claim.job_key, jobs.c.lease_owner == claim.token, jobs.c.state == JobState.RUNNING.value
    )


def _job(connection: Connection, job_id: str) -> Job | None:
    key = connection.execute(select(jobs.c.job_key).where(jobs.c.job_id == job_id)).scalar_one_or_none()
    return None if key is None else job_at(connection, key)
