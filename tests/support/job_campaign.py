"""An archive that is stopped and killed at random moments in the middle of a send-to job, again and again.

    PYTHONPATH=src:tests python -m support.job_campaign --rounds 10

The archive is a real `tomowire serve`, the destination a real `storescp` (or `--destination listen`: `tomowire listen`) that goes
on all the time. After each end, by SIGTERM or SIGKILL, what the job says of each object is compared with what the destination has:
nothing that it has not. At the end it has all of them, and the job says so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from support.dcmtk import NO_DELAY
from support.filled import fill
from support.network import LOOPBACK, free_port, listening_process
from support.objects import Sample
from support.programs import Program, serving, start
from support.requirements import system_program
from support.standstill import BrokenPromise
from tomowire.server.index.backend import backend_for
from tomowire.server.jobs.jobs import Jobs
from tomowire.server.jobs.model import Job, JobItem, JobState
from tomowire.server.records import Records

SECONDS = 120.0
_LOOK_EVERY = 0.005


class CampaignFailed(BrokenPromise):
    """The account of the job is wrong, or objects are missing."""


@dataclass
class Destination:
    """Who takes the objects: a process that writes each to a file before it answers."""

    port: int
    folder: Path

    def has(self) -> set[str]:
        """SOP Instance UIDs of the files; their names are those, with or without something before and after."""
        return {
            _uid_in(path.name) for path in self.folder.rglob("*") if path.is_file() and ".incoming" not in str(path)
        }


def _uid_in(name: str) -> str:
    found = re.search(r"\d[\d.]*\d", name)
    return found[0] if found else name


@contextmanager
def destination(kind: str, folder: Path) -> Iterator[Destination]:
    """`storescp`, or `listen`."""
    files = folder / "received"
    files.mkdir()
    if kind == "listen":
        with serving("listen", "-o", files) as program:
            yield Destination(program.port, files)
        return
    port = free_port()
    command = [system_program("storescp", package="dcmtk"), "-od", files, "--fork", "+B", port]
    with listening_process([str(part) for part in command], port, log=folder / "storescp.log", env=NO_DELAY):
        yield Destination(port, files)


class Campaign:
    """The archive in `folder`, its job, and the destination."""

    def __init__(
        self, folder: Path, place: Destination, *, seed: int, objects: int, rounds: int, index_url: str | None
    ) -> None:
        self._random = random.Random(seed)
        self._data_dir = folder / "data"
        self._index_url = index_url
        self._place = place
        self._rounds = rounds
        self._samples = [Sample(number, series=number % 7, size=2000) for number in range(1, objects + 1)]
        self._archive: Program | None = None
        self._first = self._random.randrange(2)

    async def run(self) -> list[str]:
        """Lines that say what happened, one for each round."""
        await fill(self._data_dir, self._samples, index_url=self._index_url)
        async with Records(backend_for(self._index_url, self._data_dir).engine) as records:
            jobs = Jobs(records)
            job = await jobs.send("STUDY", [self._samples[0].study_uid], "DEST", by="the campaign")
            try:
                lines = [await self._round(jobs, job.job_id, number) for number in range(self._rounds)]
                lines.append(await self._last(jobs, job.job_id))
            finally:
                if self._archive is not None:
                    await asyncio.to_thread(self._archive.end)
        return lines

    async def _round(self, jobs: Jobs, job_id: str, number: int) -> str:
        archive = await self._started()
        part = len(self._samples) * (number + self._random.uniform(0.1, 0.9)) / (self._rounds + 0.5)
        await self._until(jobs, job_id, part)
        kill = (number + self._first) % 2 == 0
        if kill:
            archive.process.kill()
            archive.process.wait()
            archive.end()
        elif (code := await asyncio.to_thread(archive.end, signal.SIGTERM)) not in (0, 143):
            raise CampaignFailed(f"the archive ended with {code}:\n{archive.stderr.text[-2000:]}")
        self._archive = None
        said, has = await self._compare(jobs, job_id)
        how = "SIGKILL" if kill else "SIGTERM"
        return (
            f"round {number + 1:2}: {how} with {said:5} acknowledged in the job's account, {has:5} at the destination"
        )

    async def _last(self, jobs: Jobs, job_id: str) -> str:
        await self._started()
        job = await self._until(jobs, job_id, float("inf"))
        said, has = await self._compare(jobs, job_id)
        if job.state is not JobState.DONE or said != len(self._samples) or job.progress.warnings:
            raise CampaignFailed(f"the job ended as {job}")
        if has != len(self._samples):
            raise CampaignFailed(f"{len(self._samples) - has} objects are not at the destination")
        size = sum(len(sample.data_set) for sample in self._samples)
        if job.progress.bytes_done != size:
            raise CampaignFailed(f"the job counts {job.progress.bytes_done} bytes, and not {size}")
        self._look_into_files()
        return f"the end: {job.state}, {said} acknowledged, {has} at the destination, each once"

    async def _started(self) -> Program:
        node = f"DEST@{LOOPBACK}:{self._place.port}"
        index = ["--index-url", self._index_url] if self._index_url is not None else []
        self._archive = start(
            ["serve", "--data-dir", self._data_dir, *index, "--port", "0", "--no-http", "--node", node]
        )
        await asyncio.to_thread(self._archive.wait_until_listening)
        return self._archive

    async def _until(self, jobs: Jobs, job_id: str, part: float) -> Job:
        """Wait until so many are acknowledged, or the job is over."""
        deadline = time.monotonic() + SECONDS
        while True:
            job = await jobs.get(job_id)
            assert job is not None
            if job.is_over or job.progress.done >= part:
                return job
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job does not get on: {job}")
            await asyncio.sleep(_LOOK_EVERY)

    async def _compare(self, jobs: Jobs, job_id: str) -> tuple[int, int]:
        """What the job says is acknowledged, and what the destination has."""
        job, items = await jobs.get(job_id), await _all_items(jobs, job_id)
        assert job is not None
        said = {item.uid for item in items if item.state in ("done", "warning")}
        has = self._place.has()
        if len(items) != len(self._samples) or {item.uid for item in items} != {each.uid for each in self._samples}:
            raise CampaignFailed("the items of the job are not what it was made with")
        if said - has:
            raise CampaignFailed(f"{len(said - has)} objects are shown as sent that the destination has not")
        if job.progress.done != len(said):
            raise CampaignFailed(f"the job counts {job.progress.done}, and its items are {len(said)}")
        return len(said), len(has)

    def _look_into_files(self) -> None:
        sent = {sample.uid: sample for sample in self._samples}
        for path in self._place.folder.rglob("*"):
            if path.is_file():
                data_set = dcmread(path)
                if data_set.PixelData != sent[data_set.SOPInstanceUID].data_set[-len(data_set.PixelData) :]:
                    raise CampaignFailed(f"{path.name} does not hold what was sent")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _all_items(jobs: Jobs, job_id: str) -> list[JobItem]:
    found: list[JobItem] = []
    while page := await jobs.items(job_id, after=found[-1].position if found else -1, limit=1000):
        found.extend(page)
    return found


def run(
    folder: Path, *, rounds: int, objects: int, seed: int, kind: str = "storescp", index_url: str | None = None
) -> list[str]:
    """Do it; gives a line for each round. Raises `CampaignFailed`."""
    with destination(kind, folder) as place:
        campaign = Campaign(folder, place, seed=seed, objects=objects, rounds=rounds, index_url=index_url)
        return asyncio.run(campaign.run())


def _postgres_url(stack: ExitStack) -> str:
    from support.postgres import cluster

    server = stack.enter_context(cluster())
    return server.url(server.create())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--destination", choices=("storescp", "listen"), default="storescp")
    parser.add_argument("--postgres", action="store_true", help="the index is in a PostgreSQL server of its own")
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}")
    began = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = _postgres_url(stack) if arguments.postgres else None
        try:
            for line in run(
                Path(folder),
                rounds=arguments.rounds,
                objects=arguments.objects,
                seed=arguments.seed,
                kind=arguments.destination,
                index_url=url,
            ):
                say(line)
        except CampaignFailed as failure:
            say(f"FAILED: {failure}")
            return 1
    say(
        f"{arguments.rounds} ends in {time.monotonic() - began:.0f} s: what was shown as sent was there, and all was sent"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
