"""A process that stores objects, and is killed while it does, or has its disk fail: at any step that is asked for.

`CrashServer` (in `support.crashes`) talks to it: a line of JSON in, one out. For each job it forks, so that nothing but the disk
remembers what happened. What a job imports is imported here before the next: a job takes some ten milliseconds. Run as a script.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from support.objects import Sample
from tomowire.errors import StoreFailed
from tomowire.server.batch import BatchWriter
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import DuplicatePolicy, NewObject, Stored
from tomowire.server.index import sqlite_writer
from tomowire.server.index.backend import backend_for
from tomowire.server.index.deleting import Doomed
from tomowire.server.recovery import recover
from tomowire.server.reindex import reindex
from tomowire.server.restore import restore
from tomowire.services.models import Level

STEPS = (
    "open",
    "write",
    "writev",
    "pwrite",
    "fsync",
    "fdatasync",
    "close",
    "link",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "replace",
)

LAZILY_IMPORTED = ("alembic", "psycopg", "pydicom", "sqlalchemy", "tomowire")

ENDED, STOPPED_BY_ERROR, NOT_FORESEEN = range(3)


class Disk:
    """Counts the steps that reach the disk, and knows what of them a power cut would undo."""

    def __init__(self, step: int, event: str, *, links: bool = True) -> None:
        """At `step`, counted from 1, `event` happens: "kill", "power cut" or "error". `links`: whether there are hard links."""
        self.steps = 0
        self._fatal = step
        self._event = event
        self._volatile_data: set[str] = set()
        self._volatile_names: set[str] = set()
        self._real = {name: getattr(os, name) for name in STEPS}
        if not links:
            self._real["link"] = no_links
        for name in STEPS:
            setattr(os, name, self._counted(name, self._real[name]))
        connect = sqlite_writer.connect_writer

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(lambda statement: self._step("sql", (statement,)))
            return connection

        sqlite_writer.connect_writer = traced

    def watch_postgres(self) -> None:
        """Each exchange with the server is a step."""
        from tomowire.server.index.postgres_connect import Connection

        wait = Connection.wait

        def counted(*arguments: Any, **options: Any) -> Any:
            self._step("sql", arguments)
            return wait(*arguments, **options)

        Connection.wait = counted  # type: ignore[method-assign]

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self._step(name, arguments)
            before = self._before(name, arguments)
            result = real(*arguments, **options)
            self._after(name, arguments, options, result, before)
            return result

        return step

    def _step(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.steps += 1
        if self.steps == self._fatal:
            if name == "writev" and arguments[1]:  # in the middle of it
                self._real["writev"](arguments[0], [memoryview(arguments[1][0])[:100]])
            if self._event == "error":
                if name == "sql":  # a callback cannot make SQLite fail
                    return
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._event == "power cut":
                self._lose_what_is_volatile()
            os.kill(os.getpid(), signal.SIGKILL)

    def _before(self, name: str, arguments: tuple[Any, ...]) -> str | None:
        return _path_of(arguments[0]) if name in {"close", "fsync", "fdatasync", "write", "writev", "pwrite"} else None

    def _after(
        self, name: str, arguments: tuple[Any, ...], options: dict[str, Any], result: Any, before: str | None
    ) -> None:
        if name == "mkdir":
            self._volatile_names.add(os.path.abspath(arguments[0]))
        elif name == "open" and arguments[1] & os.O_CREAT and (path := _path_of(result)) is not None:
            self._volatile_names.add(path)
        elif name in {"link", "rename"}:
            folder = _path_of(options["dst_dir_fd"])
            self._volatile_names.add(f"{folder}/{arguments[1]}")
        elif name in {"write", "writev", "pwrite"} and before is not None:
            self._volatile_data.add(before)
        elif name in {"fsync", "fdatasync"} and before is not None:
            self._volatile_data.discard(before)
            self._volatile_names = {path for path in self._volatile_names if os.path.dirname(path) != before}

    def _lose_what_is_volatile(self) -> None:
        for path in self._volatile_data:
            if os.path.exists(path):
                os.truncate(path, 0)
        for path in self._volatile_names:
            if os.path.isdir(path):
                subprocess.run(["rm", "-r", path], check=True)
            elif os.path.exists(path):
                self._real["unlink"](path)


def no_links(*arguments: Any, **options: Any) -> None:
    """What `os.link` says on a FAT file system."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _path_of(descriptor: int) -> str | None:
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    return path if path.startswith("/") and not path.endswith("(deleted)") else None


def run(job: dict[str, Any], tell: Callable[[Any], None]) -> None:
    """Open the archive as a start does, and store the batches; what became of each is told as soon as it is known.

    Without batches the index is rebuilt instead, or a backup is restored.
    """
    disk = Disk(job["step"], job["event"], links=job["links"])
    if job["index_url"] is not None:
        disk.watch_postgres()
    if "restored_from" in job:
        backend = backend_for(job["index_url"], job["root"])
        restore(Path(job["restored_from"]), Path(job["root"]), backend, threads=1)
    elif job["batches"] is None:
        reindex(Path(job["root"]), index_url=job["index_url"], threads=1, move=job.get("move", False))
    else:
        with DataDirectory.open(Path(job["root"])) as directory:
            store(directory, job, tell)
    tell({"steps": disk.steps, "modules": [name for name in sys.modules if name.startswith(LAZILY_IMPORTED)]})


def store(directory: DataDirectory, job: dict[str, Any], tell: Callable[[Any], None]) -> None:
    backend = backend_for(job["index_url"], directory.root)
    backend.settle(directory)
    with closing(backend.open_writer()) as index:
        recover(directory, index)
        with closing(BatchWriter(directory, index, policy=DuplicatePolicy(job["policy"]))) as writer:
            for batch in job["batches"]:
                objects = [received(Sample(**fields), directory, large=large) for fields, large in batch]
                results = iter(writer.write([new for new in objects if new is not None]))
                for new in objects:
                    result = None if new is None else next(results)
                    tell({"outcome": outcome_of(result)})
                    if new is not None and new.part is not None:
                        new.part.unlink(missing_ok=True)
            for study in job.get("deleted", ()):
                writer.removing.delete(Doomed(Level.STUDY, study))
                tell({"outcome": "deleted"})
            if job.get("sweeps"):
                writer.removing.sweep_all()


def outcome_of(result: Stored | StoreFailed | None) -> str:
    """The outcome's name, or the status as four hexadecimal digits."""
    match result:
        case Stored():
            return result.outcome.value
        case StoreFailed():
            return f"{result.status:04X}"
        case None:
            return "A700"


def received(sample: Sample, directory: DataDirectory, *, large: bool) -> NewObject | None:
    """None: the part file could not be written."""
    if not large:
        return sample.new_object()
    try:
        return sample.new_part(directory)
    except OSError:
        return None


def answer(job: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    write = os.write  # not the one that is counted
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = ENDED
        try:
            run(job, lambda told: write(writer, json.dumps(told).encode() + b"\n"))
        except OSError:  # the one that was asked for
            status = STOPPED_BY_ERROR
        except BaseException:
            traceback.print_exc()
            status = NOT_FORESEEN
        os._exit(status)
    os.close(writer)
    with open(reader) as answers:
        told = [json.loads(line) for line in answers]
    _, status = os.waitpid(child, 0)
    for name in told[-1].pop("modules", ()) if told else ():
        with suppress(ImportError):  # a migration, which Alembic loads by its path
            importlib.import_module(name)
    return {"told": told, "killed": os.WIFSIGNALED(status), "status": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    logging.disable()  # most of what is tried here is worth a warning
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
