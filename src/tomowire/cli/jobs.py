"""`tomowire jobs`: what an archive works on beside its associations; it need not be running."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from tomowire.cli.configured import is_configured, settings_options
from tomowire.cli.options import json_option
from tomowire.cli.running import ExitCode, complain, run, set_up_logging
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tomowire.server.jobs.jobs import Jobs
    from tomowire.server.jobs.model import Job, JobItem
    from tomowire.server.settings import Settings

_STATES: Final = ("making", "waiting", "running", "done", "failed", "cancelled")
_KINDS: Final = ("send", "retrieve", "query", "delete", "reindex")
_PAGE: Final = 1000
_ADDRESS: Final = re.compile(r"(.+)@[^@]+:\d+")
"""Of a peer; an AE title could look so, and none does."""

_id_argument = click.argument("job_id", metavar="JOB")


@click.group
def command() -> None:
    """Look at an archive's jobs, make them, retry and cancel them.

    They are in the index: this works whether the archive runs or not. Only an archive that runs works on them.
    """


@command.command("list")
@settings_options
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only these; may be repeated.")
@click.option("--kind", "kinds", type=click.Choice(_KINDS), multiple=True, help="Only these; may be repeated.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show at most so many.")
@json_option
def list_(settings: Settings, states: tuple[str, ...], kinds: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show jobs, those made last first."""

    async def work(jobs: Jobs) -> int:
        from tomowire.cli.jobs_table import print_table

        found = [_left(settings, job) for job in await jobs.list(state=states, kind=kinds, limit=limit)]
        if as_json:
            click.echo(json.dumps({"jobs": [job.as_dict() for job in found]}))
        else:
            print_table(found)
        return ExitCode.OK

    _with_jobs(settings, work)


@command.command
@settings_options
@_id_argument
@click.option("--items", is_flag=True, help="Name each object too, or what else the job is about.")
@json_option
def show(settings: Settings, job_id: str, items: bool, as_json: bool) -> None:
    """Show one job, and what has failed of it, once for each reason. With --json the answers to a query too."""

    async def work(jobs: Jobs) -> int:
        from tomowire.cli.jobs_table import as_text, item_line, lines_by_reason

        job = _left(settings, await _found(jobs, job_id))
        rows = _items(jobs, job.job_id, None if items else "failed")
        if as_json:
            click.echo(
                json.dumps({**job.as_dict(), "result": job.result, "items": [_row(each) async for each in rows]})
            )
        else:
            click.echo(as_text(job))
            if items:
                async for each in rows:
                    click.echo(item_line(each))
            else:
                for line in await lines_by_reason(rows):
                    click.echo(line)
        return ExitCode.OK

    _with_jobs(settings, work)


@command.command
@settings_options
@_id_argument
@json_option
def retry(settings: Settings, job_id: str, as_json: bool) -> None:
    """Try again what has failed or was cancelled, as far as it was not acknowledged; what waits is tried now."""

    async def work(jobs: Jobs) -> int:
        before = await _found(jobs, job_id)
        after = await jobs.retry(before.job_id)
        assert after is not None
        if after.state not in ("waiting", "running"):
            complain(f"job {after.job_id} is {after.state}: there is nothing to try again")
        return _told(settings, after, as_json=as_json, ok=after.state in ("waiting", "running"))

    _with_jobs(settings, work)


@command.command
@settings_options
@_id_argument
@json_option
def cancel(settings: Settings, job_id: str, as_json: bool) -> None:
    """Cancel a job. An archive that works on it finishes the object that it is sending, and stops."""

    async def work(jobs: Jobs) -> int:
        before = await _found(jobs, job_id)
        after = await jobs.cancel(before.job_id)
        assert after is not None
        is_too_late = before.is_over and before.state != "cancelled"
        if is_too_late:
            complain(f"job {after.job_id} is {after.state} already")
        return _told(settings, after, as_json=as_json, ok=not is_too_late)

    _with_jobs(settings, work)


@command.command
@settings_options
@click.argument("node")
@click.option("--patient-id", "patients", multiple=True, help="All of a patient; may be repeated.")
@click.option("--study-uid", "studies", multiple=True, help="A study; may be repeated.")
@click.option("--series-uid", "series", multiple=True, help="A series; may be repeated.")
@click.option("--instance-uid", "instances", multiple=True, help="One object; may be repeated.")
@json_option
def send(
    settings: Settings,
    node: str,
    patients: tuple[str, ...],
    studies: tuple[str, ...],
    series: tuple[str, ...],
    instances: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a job that sends what the archive has of these to NODE, the name or the AE title of a node in its configuration."""
    given = {"PATIENT": patients, "STUDY": studies, "SERIES": series, "IMAGE": instances}
    named = {level: uids for level, uids in given.items() if uids}
    if len(named) != 1:
        raise click.UsageError(
            "say what to send: --patient-id, --study-uid, --series-uid or --instance-uid, one of them"
        )
    [(level, uids)] = named.items()

    if not _is_configured() and (title := _ADDRESS.match(node)):
        raise click.UsageError(f"NODE is named without its address, which the archive knows: {title[1]}")

    async def work(jobs: Jobs) -> int:
        from tomowire.server.audit.teller import person

        job = await jobs.send(level, uids, node, by=person().name)
        if not _is_configured():
            complain(
                f"without --config it is not known here whether the archive has a node {node}: if not, the job fails"
            )
        return _told(settings, job, as_json=as_json)

    _with_jobs(settings, work)


def _with_jobs(settings: Settings, work: Callable[[Jobs], Awaitable[int]]) -> None:
    set_up_logging(0)

    async def run_it() -> int:
        from tomowire.server.jobs.opening import open_jobs

        with open_jobs(settings, knows_nodes=_is_configured()) as jobs:
            return await work(jobs)

    run(run_it())


def _is_configured() -> bool:
    return is_configured(click.get_current_context().params.get("config"))


async def _found(jobs: Jobs, job_id: str) -> Job:
    if (job := await jobs.get(job_id)) is None:
        raise UsageError(f"there is no job {job_id}")
    return job


def _left(settings: Settings, job: Job) -> Job:
    """The job, which is left as soon as its archive was killed: where the index is in the data directory no other can have it."""
    from tomowire.server.jobs.bell import is_forsaken

    if job.state == "running" and settings.index_url is None and is_forsaken(settings.data_dir):
        return replace(job, is_left=True)
    return job


async def _items(jobs: Jobs, job_id: str, state: str | None) -> AsyncIterator[JobItem]:
    after = -1
    while page := await jobs.items(job_id, state=state, after=after, limit=_PAGE):
        for item in page:
            yield item
        after = page[-1].position


def _row(item: JobItem) -> dict[str, object]:
    return {"uid": item.uid, "state": item.state, "status": item.status, "comment": item.comment}


def _told(settings: Settings, job: Job, *, as_json: bool, ok: bool = True) -> int:
    """Say what has become of the job, and have an archive that runs look at it."""
    from tomowire.server.jobs.bell import ring

    is_running = ring(settings.data_dir)
    if as_json:
        click.echo(json.dumps(job.as_dict()))
    else:
        click.echo(job.job_id)
    if not is_running and not job.is_over:
        complain("no archive runs on this data directory now: the job waits for one")
    return ExitCode.OK if ok else ExitCode.FAILED
