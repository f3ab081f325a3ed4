"""An index as an earlier version of this program has left it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tomowire.server.index import postgres_versions, versions


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
