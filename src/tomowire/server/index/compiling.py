"""From SQLAlchemy's statements to those that a reader takes. Imports SQLAlchemy only when it is called."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tomowire.server.index.reader import Dialect, Statement

if TYPE_CHECKING:
    from sqlalchemy import Select


def compiled(statement: Select[Any], dialect: Dialect) -> Statement:
    """The statement in the words of that database, with named parameters as its driver takes them."""
    found = statement.compile(dialect=_dialect(dialect))
    return Statement(str(found), found.params)


@cache
def _dialect(dialect: Dialect) -> Any:
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite  # not `sqlite.base`: see `lazily`

        return sqlite.base.SQLiteDialect(paramstyle="named")
    from sqlalchemy.dialects import postgresql

    make: Any = postgresql.psycopg.PGDialect_psycopg  # SQLAlchemy does not say its types
    return make()
