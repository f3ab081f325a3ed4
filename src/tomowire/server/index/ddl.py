"""The statements that make a new SQLite index, written from the tables. This module's output is `schema.sql`:

`python -m tomowire.server.index.ddl > src/tomowire/server/index/schema.sql`
"""

from __future__ import annotations

import sys

from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.schema import CreateIndex, CreateTable

from tomowire.server.index import administration, schema  # noqa: F401 - it declares tables
from tomowire.server.index.metadata import metadata


def sqlite_ddl() -> str:
    """The statements that make an empty SQLite database what all migrations together make of it, but for Alembic's own table."""
    dialect = SQLiteDialect()
    statements: list[str] = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements.extend(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes)
    statements.extend(administration.AUDIT_STAYS["sqlite"])
    lines = (line.rstrip() for line in ";\n".join(statement.strip() for statement in statements).splitlines())
    return "-- Generated: python -m tomowire.server.index.ddl\n" + "\n".join(lines) + ";\n"


if __name__ == "__main__":
    sys.stdout.write(sqlite_ddl())
