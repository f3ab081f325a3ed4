"""What all tables of the index database share: how their constraints are named, and the type of their keys."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Integer, MetaData

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata: Final = MetaData(naming_convention=_NAMES)

# SQLite gives out its own row numbers, of 64 bits, only for a column whose type is spelled INTEGER.
KEY: Final = Integer().with_variant(BigInteger(), "postgresql")
