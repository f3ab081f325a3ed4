"""An index that goes back to what it was a while ago: a standby took over that was behind, or somebody restored a copy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from support.places import index_url_of

if TYPE_CHECKING:
    from support.postgres import Cluster


class Standby:
    """Has what the index of `root` has now; `take_over` makes it that index. Nobody may be using it now."""

    def __init__(self, root: Path, postgres: Cluster) -> None:
        self._root = root
        self._postgres = postgres
        url = index_url_of(root)
        self._database = url.rpartition("/")[2] if url is not None else None
        if self._database is None:
            shutil.copyfile(root / "index.sqlite", root.with_name("standby.sqlite"))
        else:
            postgres.execute(f"CREATE DATABASE {self._database}_standby TEMPLATE {self._database}")

    def take_over(self) -> None:
        """Whoever is connected loses the connection."""
        if self._database is None:
            for path in self._root.glob("index.sqlite*"):
                path.unlink()
            shutil.move(self._root.with_name("standby.sqlite"), self._root / "index.sqlite")
        else:
            self._postgres.drop(self._database)
            self._postgres.execute(f"ALTER DATABASE {self._database}_standby RENAME TO {self._database}")
