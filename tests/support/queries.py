"""An index made of data sets, and asked by identifiers: what lies between is that of the archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from support.data_sets import EXPLICIT
from tomowire.server.index.backend import IndexBackend
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.keys import Keys, parse_keys
from tomowire.server.index.reader import Dialect, IndexReader, Statement
from tomowire.server.index.rows import IndexWriter, NewRow
from tomowire.server.index.scanner import scan
from tomowire.server.index.select import Selected, select_for
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

    def __init__(self, writer: IndexWriter, reader: IndexReader, dialect: Dialect) -> None:
        self._writer = writer
        self.reader = reader
        self.dialect = dialect
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
        selected = self.select(keys)
        tags = [tag for tag, _ in selected.columns]
        return [dict(zip(tags, row, strict=True)) for row in self.rows(selected)]

    def select(self, keys: Keys, *, relational: bool = False) -> Selected:
        """The statement for these keys."""
        return select_for(keys, self.dialect, relational=relational)

    def rows(self, selected: Selected) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return self.reader.rows(selected.statement)

    def plan(self, selected: Selected) -> str:
        """How the database goes about it."""
        return plan(self.reader, self.dialect, selected.statement)

    def find(self, level: str, keys: Attributes, model: Model = Model.STUDY_ROOT) -> list[dict[int, Any]]:
        """What an identifier with these keys finds."""
        return self.ask(keys_of(level, keys, model))

    def numbers(self, level: str, keys: Attributes, model: Model = Model.STUDY_ROOT) -> list[int]:
        """Which of the objects, by their number, an identifier with these keys finds at IMAGE level, or which of the studies."""
        tag, prefix = (SOP_INSTANCE_UID, f"{ROOT}.3.") if level == "IMAGE" else (STUDY_UID, f"{ROOT}.1.")
        found = self.find(level, {tag: ("UI", ""), **keys}, model)
        return sorted(int(row[tag].removeprefix(prefix)) for row in found)


def plan(reader: IndexReader, dialect: Dialect, statement: Statement) -> str:
    """How the database goes about a statement, a line for each step."""
    explain = "EXPLAIN QUERY PLAN" if dialect == "sqlite" else "EXPLAIN"
    return "\n".join(row[-1] for row in reader.rows(Statement(f"{explain} {statement.sql}", statement.parameters)))


@contextmanager
def queried_index(backend: IndexBackend, objects: Sequence[Attributes] = ()) -> Iterator[QueriedIndex]:
    """An index of these objects."""
    with closing(backend.open_writer()) as writer, closing(backend.open_reader()) as reader:
        index = QueriedIndex(writer, reader, backend.dialect)
        for attributes in objects:
            index.add(attributes)
        yield index
