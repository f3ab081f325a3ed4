"""Jobs, the audit trail, users and their tokens, protected studies, files to be removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_KEY = sa.Integer().with_variant(sa.BigInteger(), "postgresql")

_AUDIT_STAYS = {
    "sqlite": (
        """CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
        BEGIN SELECT RAISE(ABORT, 'audit events are only added'); END""",
        """CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
        BEGIN SELECT RAISE(ABORT, 'audit events are only added'); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION audit_events_stay() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit events are only added'; END $$""",
        """CREATE TRIGGER audit_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION audit_events_stay()""",
    ),
}


def upgrade() -> None:
    _jobs()
    _audit()
    _users()
    _protected_studies()
    _removals()


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_key", _KEY, nullable=False),
        sa.Column("job_id", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("node", _TEXT, nullable=False),
        sa.Column("parameters", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", _TEXT, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("error", _TEXT, nullable=False),
        sa.Column("items_total", sa.Integer(), nullable=False),
        sa.Column("items_done", sa.Integer(), nullable=False),
        sa.Column("items_warning", sa.Integer(), nullable=False),
        sa.Column("items_failed", sa.Integer(), nullable=False),
        sa.Column("bytes_total", sa.BigInteger(), nullable=True),
        sa.Column("bytes_done", sa.BigInteger(), nullable=False),
        sa.Column("resumed_at", sa.BigInteger(), nullable=True),
        sa.Column("resumed_items", sa.Integer(), nullable=False),
        sa.Column("resumed_bytes", sa.BigInteger(), nullable=False),
        sa.Column("result", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("job_key", name=op.f("pk_jobs")),
        sa.UniqueConstraint("job_id", name=op.f("uq_jobs_job_id")),
    )
    op.create_index(op.f("ix_jobs_state_not_before"), "jobs", ["state", "not_before"], unique=False)
    op.create_table(
        "job_items",
        sa.Column("job_key", _KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("uid", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("comment", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["job_key"], ["jobs.job_key"], name=op.f("fk_job_items_job_key"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_key", "position", name=op.f("pk_job_items")),
    )
    op.create_index(
        op.f("ix_job_items_job_key_state_position"), "job_items", ["job_key", "state", "position"], unique=False
    )


def _audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("event_key", _KEY, nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("event", _TEXT, nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("actor", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("message", _TEXT, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_event"), "audit_events", ["event"], unique=False)
    op.create_index(op.f("ix_audit_events_recorded_at"), "audit_events", ["recorded_at"], unique=False)
    for statement in _AUDIT_STAYS[op.get_bind().dialect.name]:
        op.execute(statement)


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("user_name", _TEXT, nullable=False),
        sa.Column("password_hash", _TEXT, nullable=False),
        sa.Column("role", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_name", name=op.f("pk_users")),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", _TEXT, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_name", _TEXT, nullable=False),
        sa.Column("description", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_name"], ["users.user_name"], name=op.f("fk_tokens_user_name"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_tokens_token_hash")),
    )
    op.create_index(op.f("ix_tokens_user_name"), "tokens", ["user_name"], unique=False)


def _protected_studies() -> None:
    op.create_table(
        "protected_studies",
        sa.Column("study_instance_uid", _TEXT, nullable=False),
        sa.Column("protected_at", sa.BigInteger(), nullable=False),
        sa.Column("protected_by", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_protected_studies")),
    )


def _removals() -> None:
    op.create_table(
        "removals",
        sa.Column("removal_key", _KEY, nullable=False),
        sa.Column("study_instance_uid", _TEXT, nullable=False),
        sa.Column("series_instance_uid", _TEXT, nullable=False),
        sa.Column("sop_instance_uid", _TEXT, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("removal_key", name=op.f("pk_removals")),
    )
    op.create_index(op.f("ix_removals_sop_instance_uid"), "removals", ["sop_instance_uid"], unique=False)
