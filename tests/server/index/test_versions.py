"""One schema, however a database came to it: made new, migrated, or as SQLAlchemy's tables have it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from support.subprocesses import python_environment
from tomowire.errors import IndexUnavailable, UsageError
from tomowire.server.index import ddl, schema, statements, versions
from tomowire.server.index.attributes import LEVELS
from tomowire.server.index.connect import connect_writer
from tomowire.server.index.metadata import metadata
from tomowire.server.index.sqlite_writer import SqliteWriter


@pytest.fixture
def migrated(tmp_path: Path) -> Path:
    path = tmp_path / "migrated.sqlite"
    assert versions.upgrade(path) == (None, versions.CURRENT)
    return path


@pytest.fixture
def created(tmp_path: Path) -> Path:
    path = tmp_path / "created.sqlite"
    SqliteWriter.open(path).close()
    return path


def structure(path: Path) -> dict[str, object]:
    """Columns, indexes and foreign keys of all tables, by name."""
    found: dict[str, object] = {}
    with closing(sqlite3.connect(path)) as connection:
        objects = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_auto%'")
        for kind, name in objects.fetchall():
            pragmas = ("table_info", "foreign_key_list", "index_list") if kind == "table" else ("index_xinfo",)
            for pragma in pragmas:
                rows = connection.execute(f"PRAGMA {pragma}({name})").fetchall()
                # The numbers that indexes get depend on the order of creation.
                found[f"{pragma} {name}"] = sorted(row[1:] if pragma == "index_list" else row for row in rows)
    return found


def test_a_new_index_is_what_the_migrations_make(created: Path, migrated: Path) -> None:
    assert structure(created) == structure(migrated)
    assert len(structure(created)) > 20


def test_the_migrations_make_what_the_tables_declare(migrated: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_shortcut_is_written_from_the_tables() -> None:
    file = Path(schema.__file__).with_name("schema.sql")
    assert file.read_text() == ddl.sqlite_ddl(), "python -m tomowire.server.index.ddl > (that file)"


def test_the_version_is_that_of_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(versions.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == versions.CURRENT


def test_every_attribute_of_a_record_is_a_column_that_is_filled() -> None:
    tables = (schema.patients, schema.studies, schema.series, schema.instances)
    inserts = (
        statements.INSERT_PATIENT,
        statements.INSERT_STUDY,
        statements.INSERT_SERIES,
        statements.INSERT_INSTANCE,
    )
    for level, table, insert in zip(LEVELS, tables, inserts, strict=True):
        columns = {column.name for column in table.columns}
        assert {field.name for field in fields(level)} <= columns
        named = insert[insert.index("(") + 1 : insert.index(")")].split(", ")
        # All columns but the row's own key, which the database gives.
        assert {*named, table.primary_key.columns[0].name} == columns
        assert len(named) == len(set(named)) == insert.count("?")


def test_a_migration_that_fails_leaves_the_database_as_it_was(created: Path, tmp_path: Path) -> None:
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    (migrations / "env.py").write_text((versions.MIGRATIONS / "env.py").read_text())
    for each in (versions.MIGRATIONS / "versions").glob("v*.py"):
        (migrations / "versions" / each.name).write_text(each.read_text())
    (migrations / "versions" / "v9999_broken.py").write_text(
        f'from alembic import op\nrevision = "9999"\ndown_revision = "{versions.CURRENT}"\n'
        'def upgrade():\n    op.execute("CREATE TABLE half (a)")\n    op.execute("DROP TABLE patients")\n'
        '    op.execute("CREATE TABLE no such thing")\n'
    )
    before = structure(created)
    with pytest.raises(Exception, match="syntax error"):
        versions.upgrade(created, migrations=migrations)
    assert structure(created) == before
    with closing(sqlite3.connect(created)) as connection:
        assert versions.schema_version(connection) == versions.CURRENT


def test_an_index_of_a_newer_program_is_refused(created: Path) -> None:
    with closing(sqlite3.connect(created)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    for use in (SqliteWriter.open, versions.upgrade):
        with pytest.raises(UsageError, match="schema 9999"):
            use(created)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE letters (a)")
    with pytest.raises(UsageError, match="not an index"):
        SqliteWriter.open(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("letters",)]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(IndexUnavailable, match="not a database"):
        SqliteWriter.open(path)


def test_two_indexes_have_two_names(created: Path, migrated: Path) -> None:
    writers = [SqliteWriter.open(path) for path in (created, migrated)]
    names = {writer.archive_id for writer in writers}
    for writer in writers:
        writer.close()
    assert len(names) == 2
    assert all(len(name) == 32 for name in names)


def test_a_start_takes_neither_sqlalchemy_nor_alembic(created: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom tomowire.server.archive import ArchiveStorage\n"
        "from tomowire.server.index.sqlite_writer import SqliteWriter\n"
        "for path in sys.argv[1:]:\n    SqliteWriter.open(Path(path)).close()\n"
        "print(sorted({'sqlalchemy', 'alembic', 'pydicom', 'numpy'} & set(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", script, str(created), str(tmp_path / "new.sqlite")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=python_environment())
    assert done.stdout == "[]\n"


@pytest.fixture
def connection(created: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect_writer(created)) as opened:
        yield opened


def test_commits_reach_the_disk(connection: sqlite3.Connection) -> None:
    # https://www.sqlite.org/pragma.html#pragma_synchronous: FULL is 2; with WAL only FULL syncs at every commit.
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
