"""Jobs for people."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from tomowire.cli.running import printable

if TYPE_CHECKING:
    from tomowire.server.jobs.model import Job, JobItem

_TITLES: Final = ("Job", "Kind", "Node", "About", "State", "Done", "Failed", "Left", "Made", "Error")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_SHOWN: Final = 5
_LEVELS: Final = {"PATIENT": "patient", "STUDY": "study", "SERIES": "series", "IMAGE": "object"}
_MICROSECONDS: Final = 1_000_000


def print_table(jobs: Sequence[Job]) -> None:
    """One line for each job; nothing without one."""
    rows = [_TITLES, *map(_row, jobs)]
    if len(rows) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def as_text(job: Job) -> str:
    """All that there is to say of one job, in lines."""
    progress = job.progress
    size = _size(progress.bytes_done)
    if progress.bytes_total is not None:
        size += f" of {_size(progress.bytes_total)}"
    if progress.bytes_per_second is not None:
        size += f", {_size(progress.bytes_per_second)}/s"
    facts = {
        "job": job.job_id,
        "kind": f"{job.kind} to {job.node}" if job.kind == "send" else f"{job.kind} {job.node}".rstrip(),
        "about": _about(job, _SHOWN),
        "state": f"{_state(job)}{', to be cancelled' if job.cancel_requested and not job.is_over else ''}",
        "done": f"{progress.done} of {progress.total}, {progress.warnings} with a warning, {progress.failed} failed",
        "bytes": size,
        "time left": "" if progress.seconds_left is None else _seconds(progress.seconds_left),
        "made": f"{_moment(job.created_at)} by {job.created_by}",
        "next attempt": _moment(job.not_before) if job.state == "waiting" and job.attempts else "",
        "ended": _moment(job.finished_at) if job.finished_at is not None else "",
        "error": job.error,
    }
    return "\n".join(f"{name + ':':13} {printable(text)}" for name, text in facts.items() if text)


def item_line(item: JobItem, more: int = 0) -> str:
    """What has become of one item, and of so many others."""
    others = f" and {more} more" if more else ""
    status = "" if item.status is None else f"{item.status:04X}H"
    reason = " ".join(filter(None, (status, item.comment)))
    return printable(f"{item.state:8} {item.uid}{others}{': ' if reason else ''}{reason}")


async def lines_by_reason(items: AsyncIterable[JobItem]) -> list[str]:
    """A line for those of which the same has become, with the first of them. What a reason is about makes it no other."""
    firsts: dict[tuple[str, int | None, str], JobItem] = {}
    counts = Counter[tuple[str, int | None, str]]()
    async for item in items:
        comment = _without(item.uid, item.comment)
        reason = (item.state, item.status, comment)
        firsts.setdefault(reason, replace(item, comment=comment))
        counts[reason] += 1
    return [item_line(item, counts[reason] - 1) for reason, item in firsts.items()]


def _without(uid: str, comment: str) -> str:
    """The comment with "it" for the item's own UID, which may be the beginning of another's."""
    if uid not in comment:
        return comment
    return re.sub(rf"(?<![0-9.]){re.escape(uid)}(?!\.?[0-9])", "it", comment)


def _row(job: Job) -> tuple[str, ...]:
    progress = job.progress
    left = "" if progress.seconds_left is None else _seconds(progress.seconds_left)
    counts = (f"{progress.done}/{progress.total}", str(progress.failed or ""))
    texts = (
        job.job_id,
        job.kind,
        job.node,
        _about(job, 1),
        "interrupted" if job.is_left else job.state,
        *counts,
        left,
        _moment(job.created_at),
        job.error,
    )
    return tuple(map(printable, texts))


def _state(job: Job) -> str:
    return "was running when its archive ended; it goes on when one runs" if job.is_left else job.state


def _about(job: Job, most: int) -> str:
    """What it is to be done to, up to `most` by their ids; of a job that an older release has made that is not known."""
    asked = job.asked
    uids = asked.get("uids")
    if not uids:
        return ""
    # Of those that were asked for only the first are kept, and what is sent is counted in objects.
    total = len(uids) if job.kind == "send" else max(job.progress.total, len(uids))
    more = f" and {total - most} more" if total > most else ""
    return f"{_LEVELS.get(asked.get('level', ''), '')} {', '.join(uids[:most])}{more}".lstrip()


def _moment(microseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(microseconds / _MICROSECONDS))


def _seconds(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}"


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"
