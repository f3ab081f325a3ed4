"""A PostgreSQL server of the benchmark's own: run by an ordinary user, on the loopback address, its data where the rest is.

It has its defaults: 128 MB of shared buffers, fsync with each commit.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from processes import LOOPBACK, ProgramFailed, free_port

_USER: Final = "tomowire"
_RAM_DISK: Final = Path("/dev/shm")
_ORDINARY_USERS: Final = ("postgres", "nobody")
"""Of whom one runs the server if the benchmark is run by root, whom it refuses."""


class PostgresServer:
    """Databases for one archive each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        """The URL of a database that is empty."""
        name = f"archive_{next(self._numbers)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
        return self._url(name)

    def analyze(self, url: str) -> None:
        """What autovacuum does some minutes after many rows have come."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def _url(self, name: str) -> str:
        return f"postgresql://{_USER}@{LOOPBACK}:{self._port}/{name}"


@contextmanager
def postgres_server(work_dir: Path) -> Iterator[PostgresServer]:
    """Make one, start it, and stop it at the end of the block."""
    folder, port = _folder(work_dir), free_port()
    identity = _identity(folder)
    programs, data = postgres_programs(), folder / "data"
    _run(
        [programs / "initdb", "-D", data, "-U", _USER, "-A", "trust", "--no-instructions", "--locale=C.UTF-8"], identity
    )
    control: list[str | Path] = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    _run([*control, "-o", f"-k {folder} -h {LOOPBACK} -p {port}", "start"], identity)
    try:
        yield PostgresServer(port)
    finally:
        _run([*control, "-m", "fast", "stop"], identity)
        shutil.rmtree(folder)


def objects_in(url: str) -> int:
    """How many instances an index has."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM instances").fetchone()
    assert row is not None  # an aggregate has one row
    return int(row[0])


def postgres_programs() -> Path:
    """The folder of the newest version that Debian has put there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise ProgramFailed("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


def _folder(work_dir: Path) -> Path:
    """A new folder there, or elsewhere on a RAM disk if only root gets there, who is not to run the server."""
    if os.geteuid() != 0:
        return Path(tempfile.mkdtemp(prefix="postgres-", dir=work_dir))
    work_dir.chmod(0o711)  # a temporary folder is its owner's alone
    is_open = all(each.stat().st_mode & 0o001 for each in (work_dir, *work_dir.parents))
    place = work_dir if is_open else _RAM_DISK if _RAM_DISK.is_dir() else None
    return Path(tempfile.mkdtemp(prefix="tomowire-bench-postgres-", dir=place))


def _identity(folder: Path) -> dict[str, Any]:
    """How `subprocess` becomes the user who is to run the server; the folder is made that user's."""
    if os.geteuid() != 0:
        return {}
    names = {each.pw_name: each for each in pwd.getpwall()}
    user = next(names[name] for name in _ORDINARY_USERS if name in names)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


def _run(command: list[str | Path], identity: dict[str, Any]) -> None:
    # Output to a file: the server would hold a pipe open.
    with Path(os.devnull).open("wb") as nothing:
        done = subprocess.run(command, stdout=nothing, stderr=nothing, cwd="/", check=False, **identity)
    if done.returncode:
        raise ProgramFailed(f"{' '.join(map(str, command))}\nended with exit code {done.returncode}")
