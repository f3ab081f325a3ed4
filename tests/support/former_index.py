"""An index as an earlier version of this program has left it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sqlalchemy import MetaData, create_engine, delete, insert, select

from tomowire.server.index import postgres_versions, versions
from tomowire.server.index.backend import backend_for


def make_former(schema: str, data: Path, index_url: str | None) -> None:
    """A data directory without objects; its index, in an empty database or a file in `data`, has the schema `schema`."""
    (data / "objects").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        migrations = Path(folder)
        (migrations / "versions").mkdir()
        shutil.copy(versions.MIGRATIONS / "env.py", migrations)
        for each in (versions.MIGRATIONS / "versions").glob("v*.py"):
            if each.name[1:5] <= schema:
                shutil.copy(each, migrations / "versions")
        if index_url is not None:
            postgres_versions.upgrade(index_url, migrations=migrations)
        else:
            versions.upgrade(data / "index.sqlite", migrations=migrations)


def fill_former(data: Path, index_url: str | None, current: Path) -> None:
    """Put what the SQLite index `current` says of objects into the index of `data`, as far as its schema has a place for it."""
    source, target = create_engine(f"sqlite:///{current}"), backend_for(index_url, data).engine()
    with source.connect() as former, target.begin() as into:
        (tables := MetaData()).reflect(into)
        (known := MetaData()).reflect(former)
        into.execute(delete(tables.tables["archive"]))
        for name in ("archive", "patients", "studies", "series", "instances"):
            columns = [column for column in known.tables[name].columns if column.name in tables.tables[name].columns]
            rows = [dict(row) for row in former.execute(select(*columns)).mappings()]
            into.execute(insert(tables.tables[name]), rows)
    source.dispose()
    target.dispose()
