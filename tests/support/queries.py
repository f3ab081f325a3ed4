"""An index made of data sets, and asked by identifiers: what lies between is that of the archive."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from support.data_sets import EXPLICIT
from tomowire.server.index.connect import connect_reader
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.functions import prepare
from tomowire.server.index.keys import Keys, parse_keys
from tomowire.server.index.rows import NewRow
from tomowire.server.index.scanner import scan
from tomowire.server.index.select import Selected, select_for
from tomowire.server.index.sqlite_writer import SqliteWriter
from tomowire.services.models import Model

Attributes = Mapping[int, tuple[str, Any]]
"""Tag -> VR and value: text (encoded in UTF-8), bytes as they are, or for a sequence a list of items."""

ROOT = "1.2.826.0.1.3680043.10.1234"
PATIENT_ID, STUDY_UID, SERIES_UID, SOP_INSTANCE_UID = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018
LEVEL = 0x00080052


def encode(attributes: Attributes) -> bytes:
    """A data set in Explicit VR Little Endian, its elements in the order of their tags."""
    return b"".join(_element(tag, *attributes[tag]) for tag in sorted(attributes))


def _element(tag: int, vr: str, content: Any) -> bytes:
    if vr == "SQ":
        return EXPLICIT.sequence(tag, *(EXPLICIT.item(encode(item)) for item in content))
    raw = content.encode("utf-8") if isinstance(content, str) else content
    return EXPLICIT.element(tag, vr, raw + (b"\0" if vr == "UI" else b" ") * (len(raw) % 2))


def identifier(level: str | None, keys: Attributes = {}) -> bytes:  # noqa: B006 - never changed
    """What a C-FIND request carries; no level at all if it is None."""
    return encode(dict(keys) | ({} if level is None else {LEVEL: ("CS", level)}))


def keys_of(level: str, keys: Attributes, model: Model = Model.STUDY_ROOT, *, relational: bool = False) -> Keys:
    """The same, read."""
    return parse_keys(identifier(level, keys), EXPLICIT.transfer_syntax, model, relational=relational)


class QueriedIndex:
    """Open as long as the context of `queried_index`."""

    def __init__(self, writer: SqliteWriter, connection: sqlite3.Connection) -> None:
        self._writer = writer
        self._connection = connection
        self._count = 0

    def add(self, attributes: Attributes = {}) -> None:  # noqa: B006 - never changed
        """An object with these attributes; of its own patient, study and series, numbered from 1, but for what they say."""
        self._count += 1
        number = self._count
        usual: Attributes = {
            0x00080005: ("CS", "ISO_IR 192"),
            0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.7"),
            SOP_INSTANCE_UID: ("UI", f"{ROOT}.3.{number}"),
            PATIENT_ID: ("LO", f"P{number}"),
            STUDY_UID: ("UI", f"{ROOT}.1.{number}"),
            SERIES_UID: ("UI", f"{ROOT}.2.{number}"),
        }
        record = instance_record(scan(EXPLICIT.transfer_syntax, [encode({**usual, **attributes})]))
        self._writer.insert(number, [NewRow(record, 0, 340, 1000, bytes(16), 0, "MODALITY")])

    def ask(self, keys: Keys) -> list[dict[int, Any]]:
        """The rows for these keys, as tag -> value."""
        selected = select_for(keys)
        tags = [tag for tag, _ in selected.columns]
        return [dict(zip(tags, row, strict=True)) for row in self.rows(selected)]

    def rows(self, selected: Selected) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return self._connection.execute(selected.sql, selected.parameters).fetchall()

    def plan(self, selected: Selected) -> str:
        """How SQLite goes about it."""
        rows = self._connection.execute(f"EXPLAIN QUERY PLAN {selected.sql}", selected.parameters)
        return "\n".join(row[3] for row in rows)

    def find(self, level: str, keys: Attributes, model: Model = Model.STUDY_ROOT) -> list[dict[int, Any]]:
        """What an identifier with these keys finds."""
        return self.ask(keys_of(level, keys, model))

    def numbers(self, level: str, keys: Attributes, model: Model = Model.STUDY_ROOT) -> list[int]:
        """Which of the objects, by their number, an identifier with these keys finds at IMAGE level, or which of the studies."""
        tag, prefix = (SOP_INSTANCE_UID, f"{ROOT}.3.") if level == "IMAGE" else (STUDY_UID, f"{ROOT}.1.")
        found = self.find(level, {tag: ("UI", ""), **keys}, model)
        return sorted(int(row[tag].removeprefix(prefix)) for row in found)


@contextmanager
def queried_index(folder: Path, objects: Sequence[Attributes] = ()) -> Iterator[QueriedIndex]:
    """An index in `folder` of these objects."""
    path = folder / "index.sqlite"
    with closing(SqliteWriter.open(path, fsync=False)) as writer, closing(connect_reader(path)) as connection:
        prepare(connection)
        index = QueriedIndex(writer, connection)
        for attributes in objects:
            index.add(attributes)
        yield index
