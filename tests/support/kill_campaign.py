"""An archive killed with SIGKILL at random moments while four senders run, again and again.

    PYTHONPATH=src:tests python -m support.kill_campaign --rounds 50 [--postgres]

Each round sends new objects, and those that were not acknowledged before; kills the archive in the middle of it; starts it again;
and looks: every object that got Success is in the index, its file can be read and holds what was sent; whatever else is there
is whole; nothing unfinished is left; `db check` finds nothing. In some rounds the new start is killed as well.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from support.dcmtk import NO_DELAY, read_answers, write_profile
from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE, Sample
from support.places import databases, index_url_of
from support.postgres import cluster
from support.programs import Program, command_line, start
from support.requirements import system_program
from support.standstill import BrokenPromise
from support.stored import contents, findings
from support.subprocesses import python_environment
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN

SECONDS = 60.0
# Sizes of objects in bytes, with weights: some wait in memory for their batch, some have a part file, some come in several chunks.
SIZES = {4_000: 80, 70_000: 14, 300_000: 5, 2_500_000: 1}
# How long after the first acknowledgement the kill comes, at most.
SPREAD = 0.5


class CampaignFailed(BrokenPromise):
    """The archive has not kept its promise."""


@dataclass
class Sender:
    """One of the four: its files, and what it was told Success for."""

    name: str
    folder: Path
    associations: int = 1
    """0 for DCMTK's `storescu`, which sends the files of one round."""

    def command(self, port: int, new: Path, profile: Path) -> Sequence[str]:
        if self.associations:
            peer = f"TOMOWIRE@{LOOPBACK}:{port}"
            options = ("--resume", self.record, "-j", self.associations, "--quiet")
            return command_line("send", peer, self.folder, *options)
        storescu = system_program("storescu", package="dcmtk")
        command = (storescu, "-v", "-nh", "-xf", profile, "All", "+sd", "-aec", "TOMOWIRE", LOOPBACK, port, new)
        return [str(part) for part in command]

    @property
    def record(self) -> Path:
        return self.folder.with_suffix(".done")

    def acknowledged(self, output: bytes) -> set[str]:
        """SOP Instance UIDs with Success, of all rounds or of this one."""
        if self.associations:
            lines = self.record.read_bytes().splitlines() if self.record.exists() else []
            return {json.loads(line)[3] for line in lines if line.endswith(b"]")}
        answers = read_answers(output)
        return {Path(path).stem for path, answer in answers.items() if answer == "Success"}


class Campaign:
    """The archive in `folder`, its senders, and what is known of all objects ever sent."""

    def __init__(self, folder: Path, *, seed: int, objects: int) -> None:
        self._random = random.Random(seed)
        self._objects = objects
        self._data_dir = folder / "data"
        self._serve = ["serve", "--data-dir", self._data_dir, "--port", "0"]
        if (url := index_url_of(self._data_dir)) is not None:
            self._serve += ["--index-url", url]
        self._profile = write_profile(
            folder / "scu.cfg", [(SECONDARY_CAPTURE, EXPLICIT_VR_LITTLE_ENDIAN)], together=True
        )
        self._senders = [
            Sender("send", folder / "first"),
            Sender("send", folder / "second"),
            Sender("send -j 3", folder / "third", associations=3),
            Sender("storescu", folder / "fourth", associations=0),
        ]
        self._sent: dict[str, bytes] = {}
        self._acknowledged: set[str] = set()
        self._archive: Program | None = None
        self.verified = 0

    def close(self) -> None:
        if self._archive is not None and self._archive.end() != 0:
            raise CampaignFailed(f"the archive did not end in order:\n{self._archive.stderr.text[-2000:]}")

    def run_round(self, number: int) -> str:
        """Send, kill, start again, look; gives a line that says what happened."""
        archive = self._archive or self._start()
        news = [self._write_objects(sender, number) for sender in self._senders]
        sizes = {sender.record: _size(sender.record) for sender in self._senders}
        with self._sending(archive.port, news) as running:
            delay = self._wait_for_a_bad_moment(running, sizes)
            archive.process.kill()
            archive.process.wait()
            self._archive = None
            outputs = [process.communicate(timeout=SECONDS)[0] for process in running]
        before = set(self._acknowledged)
        for sender, output in zip(self._senders, outputs, strict=True):
            self._acknowledged |= sender.acknowledged(output)
        new = self._acknowledged - before
        cut_short = self._unfinished()
        killed_again = self._restart(number)
        self._look()
        self._parse(new)
        return (
            f"round {number:3}: killed {delay * 1000:4.0f} ms after the first Success{killed_again}; "
            f"{len(new):4} new Successes, {cut_short:2} part files, "
            f"{self.verified:6} objects there and whole"
        )

    def _start(self) -> Program:
        archive = start(self._serve)
        try:
            archive.wait_until_listening()
        except BaseException:
            archive.process.kill()
            raise
        return archive

    def _restart(self, number: int) -> str:
        said = ""
        if number % 4 == 3:  # kill the recovery as well
            archive = start(self._serve)
            time.sleep(self._random.uniform(0.05, 0.4))
            archive.process.kill()
            archive.process.wait()
            said = " and once more while it started"
        self._archive = self._start()
        return said

    def _write_objects(self, sender: Sender, number: int) -> Path:
        """New objects for one sender; gives the folder with only those."""
        new = sender.folder / f"{number:04}"
        new.mkdir(parents=True)
        which = self._senders.index(sender)
        for count in range(self._objects):
            size = self._random.choices([*SIZES], [*SIZES.values()])[0]
            sample = Sample(
                number * 100_000 + which * 10_000 + count, series=count % 5, study=number * 10 + which, size=size
            )
            data_set = sample.data_set[:-16] + self._random.randbytes(16)
            (new / f"{sample.uid}.dcm").write_bytes(sample.header + data_set)
            self._sent[sample.uid] = data_set
        return new

    @contextmanager
    def _sending(self, port: int, news: Sequence[Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
        running = [
            subprocess.Popen(
                sender.command(port, new, self._profile),
                env={**python_environment(), **NO_DELAY},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for sender, new in zip(self._senders, news, strict=True)
        ]
        try:
            yield running
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def _wait_for_a_bad_moment(self, running: Sequence[subprocess.Popen[bytes]], sizes: Mapping[Path, int]) -> float:
        """A random time after the first acknowledgement, with which a record outgrows its size of before; gives it, in seconds."""
        deadline = time.monotonic() + SECONDS
        ended = False
        while all(_size(record) == size for record, size in sizes.items()):
            if ended or time.monotonic() > deadline:
                raise TimeoutError("nothing was acknowledged")
            # Looked at before the records: what they wrote last is there then.
            ended = all(process.poll() is not None for process in running)
            time.sleep(0.001)
        delay = self._random.uniform(0, SPREAD)
        time.sleep(delay)
        return delay

    def _unfinished(self) -> int:
        return len(list((self._data_dir / "incoming").glob("*.part")))

    def _look(self) -> None:
        """Compare what is there with what was sent and acknowledged: the index, the files, and what `db check` says."""
        stored = contents(self._data_dir)
        lost = self._acknowledged - stored.keys()
        if lost:
            raise CampaignFailed(f"{len(lost)} objects that got Success are not there: {sorted(lost)[:5]}")
        wrong = [uid for uid, data_set in stored.items() if self._sent.get(uid) != data_set]
        if wrong:
            raise CampaignFailed(f"{len(wrong)} objects are not what was sent: {sorted(wrong)[:5]}")
        if self._unfinished():
            raise CampaignFailed("unfinished objects are left after the start")
        if found := findings(self._data_dir):
            raise CampaignFailed(f"db check: {found[:5]}")
        self.verified = len(stored)

    def _parse(self, uids: set[str]) -> None:
        """pydicom reads the files of these objects."""
        parsed = set()
        for path in (self._data_dir / "objects").rglob("*.dcm"):
            if path.stem in uids:
                data_set = dcmread(path)
                if data_set.SOPInstanceUID != path.stem or not data_set.PixelData:
                    raise CampaignFailed(f"{path} holds {data_set.SOPInstanceUID}")
                parsed.add(path.stem)
        if parsed != uids:
            raise CampaignFailed(f"no file for {sorted(uids - parsed)[:5]}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def run(folder: Path, *, rounds: int, seed: int, objects: int) -> Iterator[str]:
    """Do it; gives a line for each round. Raises `CampaignFailed`."""
    campaign = Campaign(folder, seed=seed, objects=objects)
    try:
        for number in range(rounds):
            yield campaign.run_round(number)
    finally:
        campaign.close()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--objects", type=int, default=150, help="new objects for each sender in each round")
    parser.add_argument(
        "--postgres", action="store_true", help="with the index in a PostgreSQL server, which goes on running"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}")
    began = time.monotonic()
    with ExitStack() as stack:
        if arguments.postgres:
            stack.enter_context(databases(stack.enter_context(cluster())))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            for line in run(Path(folder), rounds=arguments.rounds, seed=arguments.seed, objects=arguments.objects):
                say(line)
        except CampaignFailed as failure:
            say(f"FAILED: {failure}")
            return 1
    say(f"{arguments.rounds} kills in {time.monotonic() - began:.0f} s: nothing that got Success was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
