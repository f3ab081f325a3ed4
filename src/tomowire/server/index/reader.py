"""The reading side of an index, whatever database it is in: what is asked of it, and what comes back.

This module imports neither a database driver nor SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, Self

from tomowire.server.files import ObjectName
from tomowire.server.index.rows import IndexedObject
from tomowire.wire.value import value

Row = tuple[Any, ...]

Dialect = Literal["sqlite", "postgresql"]
"""How statements for an index are written."""

PAGE = 1000
"""Objects in a page."""


@value()
class Counts:
    """How many rows there are at each level."""

    patients: int
    studies: int
    series: int
    instances: int


@value()
class Statistics:
    """What the archive holds."""

    counts: Counts
    data_set_bytes: int
    """All data sets together, without the headers of the files."""


@value()
class Statement:
    """A statement that gives rows, in the dialect of the index, and what stands for its named parameters."""

    sql: str
    parameters: Mapping[str, Any]


class IndexReader(Protocol):
    """One connection to an index that only reads, for one thread at a time, but for `interrupt`.

    Raises `IndexUnavailable` for whatever the database says it cannot do.
    """

    @property
    def stops_at_once(self) -> bool:
        """Whether `stop` and `close` ask nobody, so that an event loop may call them."""

    @property
    def is_usable(self) -> bool:
        """Whether another question may be asked; otherwise it is to be closed. Asks nobody."""

    def start(self, statement: Statement) -> None:
        """Begin to work on `statement`: `read` gives its rows. The index is seen as it is now, until `stop`."""

    def read(self, size: int) -> list[Row]:
        """Up to `size` of the rows to come; fewer only at the end."""

    def stop(self) -> None:
        """Let go of what `start` began. Never raises."""

    def interrupt(self) -> None:
        """End what another thread is waiting for, with `IndexUnavailable` there. Does not wait, and may be repeated: what has not
        begun cannot be interrupted."""

    def rows(self, statement: Statement) -> list[Row]:
        """All rows of a statement that has few."""

    def instance(self, sop_instance_uid: str) -> IndexedObject | None:
        """The object with this UID."""

    def find_objects(self, sop_instance_uids: Sequence[str]) -> dict[str, IndexedObject]:
        """Those of the objects that are indexed now, by SOP Instance UID."""

    def is_to_be_removed(self, name: ObjectName) -> bool:
        """Whether this is the file of an object that was deleted or replaced, which has not been removed yet."""

    def page(self, after: int = 0, size: int = PAGE) -> list[IndexedObject]:
        """Up to `size` objects whose `instance_id` is greater than `after`, in the order of those."""

    def objects(self) -> Iterator[IndexedObject]:
        """All objects, a page at a time: no transaction is held open meanwhile, and what comes later is included."""

    def counts(self) -> Counts:
        """Rows at each level. Takes a walk over an index of each table: a second or so for ten million instances."""

    def statistics(self) -> Statistics:
        """Counts, and bytes. Walks over all instances."""

    def close(self) -> None:
        """Close the connection. Never raises."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ReaderSource(Protocol):
    """Where readers come from: an `IndexBackend`, as far as `IndexReaders` is concerned."""

    @property
    def dialect(self) -> Dialect:
        """How the statements are to be written."""

    def open_reader(self) -> IndexReader:
        """A new connection. Raises `UsageError` if the index is not of this program's version, `IndexUnavailable`."""
