"""The schema is brought up to date on both databases: by several programs at once, by one that is killed, and never half."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from support.former_index import make_former
from support.postgres import Cluster
from support.subprocesses import python_environment
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.index import administration, postgres_versions, schema, versions
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.index.metadata import metadata

assert {schema.instances.metadata, administration.jobs.metadata} == {metadata}  # their tables are declared

UPGRADE = """
import sys
from pathlib import Path
from tomowire.server.index import postgres_versions, versions
place, migrations = sys.argv[1], Path(sys.argv[2])
if place.startswith("postgresql:"):
    postgres_versions.upgrade(place, migrations=migrations)
else:
    versions.upgrade(Path(place), migrations=migrations)
"""


@pytest.fixture
def place(request: pytest.FixtureRequest, index_url: str | None, tmp_path: Path) -> str:
    """Where the index is, and is current."""
    with closing(backend_for(index_url, tmp_path).open_writer()):
        return index_url or str(tmp_path / "index.sqlite")


def upgrade(place: str, migrations: Path = versions.MIGRATIONS) -> tuple[str | None, str | None]:
    if place.startswith("postgresql:"):
        return postgres_versions.upgrade(place, migrations=migrations)
    return versions.upgrade(Path(place), migrations=migrations)


def upgrading(place: str, migrations: Path = versions.MIGRATIONS) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", UPGRADE, place, str(migrations)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=python_environment())


def migrations_with(folder: Path, body: str) -> Path:
    """All migrations, and one more that does `body`."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((versions.MIGRATIONS / "env.py").read_text())
    for each in (versions.MIGRATIONS / "versions").glob("v*.py"):
        (folder / "versions" / each.name).write_text(each.read_text())
    (folder / "versions" / "v9999_more.py").write_text(
        "import time\nfrom pathlib import Path\nfrom alembic import op\n"
        f'revision = "0000more"\ndown_revision = "{versions.CURRENT}"\n'
        f"def upgrade():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    return folder


def tables(place: str, tmp_path: Path) -> set[str]:
    engine = backend_for(place if "://" in place else None, tmp_path).engine()
    try:
        with engine.connect() as connection:
            return set(engine.dialect.get_table_names(connection))
    finally:
        engine.dispose()


def test_the_migrations_make_what_the_tables_declare(backend: IndexBackend) -> None:
    backend.open_writer().close()
    engine = backend.engine()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": _is_declared})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def _is_declared(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
    """Trigrams are an index of PostgreSQL's own, which is there if the extension is."""
    return not (kind == "index" and name is not None and name.endswith("_trigrams"))


def test_text_is_compared_by_code_points(postgres_url: str) -> None:
    """The test database's own collation is another one: "a" < "B" there."""
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 'a' < 'B'").fetchone() == (True,)
        found = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
        )
        assert found.fetchall() == []


def test_programs_that_start_at_once_take_turns(empty_postgres_url: str, tmp_path: Path) -> None:
    programs = [upgrading(empty_postgres_url) for _ in range(2)]
    assert [(program.communicate(timeout=60)[1], program.returncode) for program in programs] == [("", 0)] * 2
    assert upgrade(empty_postgres_url) == (versions.CURRENT, versions.CURRENT)
    with psycopg.connect(empty_postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM archive").fetchone() == (1,)


def test_a_program_that_is_killed_in_the_middle_leaves_what_was(place: str, tmp_path: Path) -> None:
    before = tables(place, tmp_path)
    marker = tmp_path / "half-way"
    slow = f'op.execute("CREATE TABLE half (a integer)")\nPath({str(marker)!r}).touch()\ntime.sleep(60)'
    program = upgrading(place, migrations_with(tmp_path / "slow", slow))
    _wait_for(marker.exists)
    program.kill()
    program.communicate()
    assert tables(place, tmp_path) == before
    whole = 'op.execute("CREATE TABLE half (a integer)")\nop.execute("CREATE TABLE other (a integer)")'
    assert upgrade(place, migrations_with(tmp_path / "whole", whole)) == (versions.CURRENT, "0000more")
    assert tables(place, tmp_path) == before | {"half", "other"}


def test_a_migration_that_fails_leaves_what_was(place: str, tmp_path: Path) -> None:
    before = tables(place, tmp_path)
    broken = 'op.execute("CREATE TABLE half (a integer)")\nop.execute("CREATE TABLE no such thing")'
    with pytest.raises(IndexUnavailable, match=r"is as it was: .*syntax error"):
        upgrade(place, migrations_with(tmp_path / "broken", broken))
    assert tables(place, tmp_path) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "schema 9999"),
        ("DROP TABLE instances", "no index of tomowire"),
        ("DELETE FROM archive", "does not say what it is of"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(postgres_url: str, tmp_path: Path, change: str, said: str) -> None:
    backend = backend_for(postgres_url, tmp_path)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(change.encode())
    for use in (backend.open_writer, backend.open_reader, backend.upgrade):
        with pytest.raises(UsageError, match=said):
            use()


def test_of_programs_that_upgrade_at_once_one_is_told(empty_postgres_url: str, tmp_path: Path) -> None:
    """Both have found the old schema, and wait for their turn; the second finds done what the first did."""
    make_former("0002", tmp_path / "data", empty_postgres_url)
    told: list[tuple[str | None, str | None]] = []
    on_upgrade = SimpleNamespace(
        upgraded=lambda connection, before, after: told.append((before, after)), committed=lambda: told.append(("", ""))
    )

    def work() -> None:
        postgres_versions.upgrade(empty_postgres_url, on_upgrade=on_upgrade)

    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database"
        " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
    )
    with ThreadPoolExecutor(2) as threads, psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (postgres_versions._MIGRATING,))
        both = [threads.submit(work) for _ in range(2)]
        deadline = time.monotonic() + 60
        while connection.execute(waiting).fetchone() != (2,):
            assert time.monotonic() < deadline
        connection.execute("SELECT pg_advisory_unlock(%s)", (postgres_versions._MIGRATING,))
        for each in both:
            each.result(60)
    assert told == [("0002", versions.CURRENT), ("", "")]


def test_another_programs_database_is_left_alone(empty_postgres_url: str, tmp_path: Path) -> None:
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute("CREATE TABLE letters (a text)")
    with pytest.raises(UsageError, match="no index of tomowire"):
        backend_for(empty_postgres_url, tmp_path).open_writer()
    assert tables(empty_postgres_url, tmp_path) == {"letters"}


def test_a_database_that_cannot_hold_every_text_is_refused(postgres: Cluster, tmp_path: Path) -> None:
    postgres.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with pytest.raises(UsageError, match=r"LATIN1.*UTF8"):
            backend_for(postgres.url("latin"), tmp_path).open_writer()
    finally:
        postgres.drop("latin")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
