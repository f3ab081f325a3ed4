"""A PostgreSQL server of the tests' own: run by an ordinary user, on the loopback address, gone with the tests.

It is started when a test first asks for it, in each process of pytest that has such a test.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from support.filesystems import ram_disk
from support.network import LOOPBACK, free_port
from support.requirements import missing
from tomowire.server.index import postgres_versions

USER = "tomowire"
PASSWORD = "of-the-tests"
_ORDINARY_USERS = ("postgres", "nobody")
"""Of whom one runs the server if the tests are run by root, whom it refuses."""

_TEMPLATE = "template_index"
_ROOM = 4 << 30
"""Bytes that a RAM disk must have free, for one of several servers: much more than it takes."""

# Nothing is to survive a power cut, and not many connections are needed.
_SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": 60,
    "max_wal_size": "128MB",
    "max_wal_senders": 0,
    "shared_buffers": "32MB",
    "wal_level": "minimal",
}
# The server ends when its standard input does, even if the tests are killed.
_GUARD = '"$@" & server=$!; read -r _; kill -QUIT $server; wait $server'


def postgres_programs() -> Path:
    """The folder with `initdb` and `postgres`, of the newest version that is installed."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if candidates:
        return candidates[-1].parent
    found = shutil.which("postgres")
    if found is None:
        missing("PostgreSQL is not installed (apt-get install postgresql)")
    return Path(found).resolve().parent


class Cluster:
    """A server; its databases are given out by number."""

    def __init__(self, port: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.folder = folder
        self._process = process
        self._numbers = itertools.count(1)
        self._has_template = False

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """The URL of one of its databases; `port` is that of a proxy before it."""
        return f"postgresql://{USER}:{PASSWORD}@{LOOPBACK}:{port or self.port}/{database}"

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def create(self, *, empty: bool = False) -> str:
        """A new database, with an index of which nothing is known or, if `empty`, without tables; gives its name."""
        if not empty and not self._has_template:
            self._create(_TEMPLATE, "template0")
            postgres_versions.upgrade(self.url(_TEMPLATE))
            self._has_template = True
        name = f"test_{next(self._numbers)}"
        self._create(name, "template0" if empty else _TEMPLATE)
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """End the server at once, as a power cut does. `running` starts it again."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _create(self, name: str, template: str) -> None:
        # A collation in which "a" is before "B" and punctuation counts little: what an operator may have.
        locale = " LOCALE_PROVIDER icu ICU_LOCALE 'en-US'" if template == "template0" else ""
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8' STRATEGY file_copy{locale}")


@contextmanager
def cluster(**settings: object) -> Iterator[Cluster]:
    """Make and start a server, and stop it at the end of the block."""
    programs = postgres_programs()
    # Each database is a thousand files.
    folder = Path(tempfile.mkdtemp(prefix="tomowire-postgres-", dir=ram_disk(free=_ROOM)))
    try:
        identity = _identity(folder)
        _initialize(programs, folder, identity)
        with running(programs, folder, free_port(), **settings) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(programs: Path, folder: Path, port: int, **settings: object) -> Iterator[Cluster]:
    """Start the server whose data is in `folder`, and stop it at the end of the block."""
    options = [f"-c{name}={value}" for name, value in (_SETTINGS | settings).items()]
    command = [programs / "postgres", "-D", folder / "data", "-k", folder, "-h", LOOPBACK, "-p", port, *options]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            **_identity(folder),
        )
    found = Cluster(port, folder, process)
    try:
        _wait_until_ready(found, process)
        yield found
    finally:
        found.stop()


def _initialize(programs: Path, folder: Path, identity: dict[str, Any]) -> None:
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    command = [programs / "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", password]
    options = ["--no-sync", "--no-instructions", "--locale=C.UTF-8", "--encoding=UTF8"]
    done = subprocess.run([*command, *options], capture_output=True, check=False, text=True, cwd=folder, **identity)
    if done.returncode:
        raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")


def _identity(folder: Path) -> dict[str, Any]:
    """How `subprocess` becomes the user who is to run the server; the folder is made that user's."""
    if os.geteuid() != 0:
        return {}
    user = next(user for name in _ORDINARY_USERS if (user := _user(name)) is not None)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _wait_until_ready(found: Cluster, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(found.url(), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            log = (found.folder / "log").read_text(errors="replace")
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log}") from error
        time.sleep(0.03)
