"""What migration 0003 does to an index that is there, and where the database does not let it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from support.objects import Sample
from support.postgres import PASSWORD, Cluster
from support.queries import queried_index
from tomowire.server.index import versions
from tomowire.server.index.backend import backend_for
from tomowire.server.index.rows import NewRow
from tomowire.server.index.sqlite_writer import SqliteWriter

UTF_8 = {0x00080005: ("CS", "ISO_IR 192")}
NAMED = UTF_8 | {
    0x00081060: ("PN", "Müller^Jörg\\Doe^Jane"),
    0x00080090: ("PN", "ÖZTÜRK^Ayşe"),
    0x00081070: ("PN", "山田^太郎"),
    0x00101001: ("PN", "Alias^A"),
}
ADDED = {
    f"{name}_normalized"
    for name in (
        "other_patient_names",
        "referring_physician_name",
        "physicians_of_record",
        "name_of_physicians_reading_study",
        "performing_physician_name",
        "operators_name",
    )
}
TABLES = ("patients", "studies", "series", "instances")


def rows(path: Path) -> dict[str, list[dict[str, object]]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in TABLES}


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The migrations before this one."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((versions.MIGRATIONS / "env.py").read_text())
    for each in (versions.MIGRATIONS / "versions").glob("v000[12]*.py"):
        (folder / "versions" / each.name).write_text(each.read_text())
    return folder


def test_names_that_were_there_before_are_found_as_those_that_come(tmp_path: Path, former: Path) -> None:
    new, old = tmp_path / "new.sqlite", tmp_path / "old.sqlite"
    with closing(SqliteWriter.open(new, fsync=False)) as writer:
        samples = [Sample(1, overrides=NAMED), Sample(2, 2, 2, "P2"), Sample(3, 3, 3, "P3", overrides=NAMED)]
        writer.insert(1, [NewRow(each.record, 0, 300, 1000, b"", 5, "M") for each in samples])
    versions.upgrade(old, migrations=former)
    columns = {table: [name for name in each[0] if name not in ADDED] for table, each in rows(new).items()}
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("ATTACH ? AS new", (str(new),))
        for table, names in columns.items():
            listed = ", ".join(names)
            connection.execute(f"INSERT INTO {table} ({listed}) SELECT {listed} FROM new.{table}")
        connection.commit()
    assert versions.upgrade(old) == ("0002", versions.CURRENT)
    assert rows(old) == rows(new)
    assert rows(old)["studies"][0]["name_of_physicians_reading_study_normalized"] == "muller jorg^doe jane"


@pytest.fixture
def restricted_url(postgres: Cluster) -> Iterator[str]:
    """A database in which this program may make tables, and no extension: as many a managed one."""
    name = postgres.create(empty=True)
    with psycopg.connect(postgres.url(name), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'".encode())
        connection.execute("GRANT ALL ON SCHEMA public TO guest")
    yield postgres.url(name).replace("//tomowire:", "//guest:")
    postgres.drop(name)
    postgres.execute("DROP ROLE guest")


def test_without_the_right_to_extensions_it_goes_on_and_says_so(
    restricted_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = backend_for(restricted_url, "/nowhere")
    with caplog.at_level(logging.WARNING):
        backend.upgrade()
    assert "CREATE EXTENSION pg_trgm" in caplog.text
    assert PASSWORD not in caplog.text
    smiths = [{0x00100010: ("PN", name)} for name in ("Smith^A", "Goldsmith", "Jones")]
    with queried_index(backend, smiths) as index:
        assert index.numbers("STUDY", {0x00100010: ("PN", "*mith*")}) == [1, 2]
    with psycopg.connect(make_conninfo(restricted_url)) as connection:
        found = connection.execute("SELECT 1 FROM pg_indexes WHERE indexname = 'ix_patients_patient_name_trigrams'")
        assert found.fetchone() is None
