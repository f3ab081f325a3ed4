"""Alembic's environment: runs in the transaction that `tomowire.server.index.versions` has begun."""

from __future__ import annotations

from alembic import context

from tomowire.server.index import administration, schema  # noqa: F401 - they declare the tables
from tomowire.server.index.metadata import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    version_table_schema=context.config.attributes.get("schema"),
)
context.run_migrations()
