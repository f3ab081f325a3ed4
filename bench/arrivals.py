"""What a receiver holds after a run, looked up in its files and, where it has one, in its index."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Arrived:
    """How many objects, and how many bytes they take."""

    objects: int
    bytes: int


def in_folder(folder: Path) -> Arrived:
    """Every file is an object."""
    sizes = [os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names]
    return Arrived(len(sizes), sum(sizes))


def in_tomowire(data_dir: Path) -> Arrived:
    """Objects that are both a file and a row of the index."""
    files = in_folder(data_dir / "objects")
    return Arrived(min(files.objects, _count(data_dir / "index.sqlite", "instances")), files.bytes)


def in_orthanc(data_dir: Path) -> Arrived:
    """Instances of the index (4 is Orthanc's number for that level); the bytes are those of all attachments."""
    instances = _count(data_dir / "index", "Resources WHERE resourceType = 4")
    return Arrived(instances, in_folder(data_dir / "storage").bytes)


def _count(database: Path, table: str) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        connection.close()
