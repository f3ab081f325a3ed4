"""What all tables of the index database share: how their constraints are named, and the types of their keys and of text."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Integer, MetaData, Text

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata: Final = MetaData(naming_convention=_NAMES)

# SQLite gives out its own row numbers, of 64 bits, only for a column whose type is spelled INTEGER.
KEY: Final = Integer().with_variant(BigInteger(), "postgresql")

# Text is compared by its code points, as SQLite compares it, whatever the locale of the database is: ranges of dates, prefixes and
# the order of answers are the same on both, and an index serves them.
TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")
