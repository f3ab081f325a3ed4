"""The tables of the index database that are not about objects: jobs, the audit trail, users, which studies are protected, and which
files of objects that were deleted are still to be removed.

They are in the same database so that a transaction can hold both. No file says what is in them: `db reindex` keeps them.
Times are microseconds since 1970, UTC. This module imports SQLAlchemy.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)

from tomowire.server.index.metadata import KEY, TEXT, metadata

jobs: Final = Table(
    "jobs",
    metadata,
    Column("job_key", KEY, primary_key=True),  # in the order in which they were made
    Column("job_id", TEXT, nullable=False),  # what the outside world calls it
    Column("kind", TEXT, nullable=False),
    Column("node", TEXT, nullable=False),  # the AE title of whom it is about, "" without
    Column("parameters", TEXT, nullable=False),  # a JSON object
    Column("state", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", TEXT, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("not_before", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", TEXT),
    Column("lease_until", BigInteger),
    Column("cancel_requested", Boolean, nullable=False),
    Column("error", TEXT, nullable=False),
    # What its items come to. They are written in one transaction with those, by whom the lease is for.
    Column("items_total", Integer, nullable=False),
    Column("items_done", Integer, nullable=False),  # warnings included
    Column("items_warning", Integer, nullable=False),
    Column("items_failed", Integer, nullable=False),
    Column("bytes_total", BigInteger),
    Column("bytes_done", BigInteger, nullable=False),
    # When the present attempt began, and what was done by then: for the rate.
    Column("resumed_at", BigInteger),
    Column("resumed_items", Integer, nullable=False),
    Column("resumed_bytes", BigInteger, nullable=False),
    Column("result", TEXT, nullable=False),  # JSON, or ""
    UniqueConstraint("job_id"),
    Index(None, "state", "not_before"),
)

job_items: Final = Table(
    "job_items",
    metadata,
    Column("job_key", KEY, ForeignKey("jobs.job_key", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("uid", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("status", Integer),  # of the response that settled it
    Column("comment", TEXT, nullable=False),
    Index(None, "job_key", "state", "position"),
)

audit_events: Final = Table(
    "audit_events",
    metadata,
    Column("event_key", KEY, primary_key=True),  # 1, 2, 3, ...: a gap is a loss
    Column("recorded_at", BigInteger, nullable=False),
    Column("event", TEXT, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("actor", TEXT, nullable=False),
    Column("source", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),  # the DICOM audit message, XML (PS3.15 A.5.1)
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index(None, "recorded_at"),
    Index(None, "event"),
)

AUDIT_STAYS: Final = {
    "sqlite": tuple(
        f"CREATE TRIGGER audit_events_no_{what} BEFORE {what.upper()} ON audit_events"
        " BEGIN SELECT RAISE(ABORT, 'audit events are only added'); END"
        for what in ("update", "delete")
    ),
    "postgresql": (
        """CREATE FUNCTION audit_events_stay() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit events are only added'; END $$""",
        """CREATE TRIGGER audit_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION audit_events_stay()""",
    ),
}
"""By dialect, what keeps a mistake from changing the trail. Who wants to can take it away: the chain of hashes is for that."""

users: Final = Table(
    "users",
    metadata,
    Column("user_name", TEXT, primary_key=True),
    Column("password_hash", TEXT, nullable=False),  # "" : cannot log in by password
    Column("role", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("token_id", TEXT, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False),
    Column("user_name", TEXT, ForeignKey("users.user_name", ondelete="CASCADE"), nullable=False),
    Column("description", TEXT, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    UniqueConstraint("token_hash"),
    Index(None, "user_name"),
)

protected_studies: Final = Table(
    "protected_studies",
    metadata,
    Column("study_instance_uid", TEXT, primary_key=True),
    Column("protected_at", BigInteger, nullable=False),
    Column("protected_by", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False),
)

removals: Final = Table(
    "removals",
    metadata,
    Column("removal_key", KEY, primary_key=True),
    Column("study_instance_uid", TEXT, nullable=False),  # with the others, the file's name: see `server.files`
    Column("series_instance_uid", TEXT, nullable=False),
    Column("sop_instance_uid", TEXT, nullable=False),
    Column("generation", Integer, nullable=False),
    Index(None, "sop_instance_uid"),
)
