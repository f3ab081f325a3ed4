"""What queries need: person names as they are matched, sizes and times in the index by series, and on PostgreSQL a function and
trigrams."""

from __future__ import annotations

import logging
from typing import Final

import sqlalchemy as sa
from alembic import op

from tomowire.server.index.statements import normalized_names

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

logger: Final = logging.getLogger("tomowire.server.index.migrations")

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NAMES: Final = {
    ("patients", "patient_key"): ("other_patient_names",),
    ("studies", "study_key"): (
        "referring_physician_name",
        "physicians_of_record",
        "name_of_physicians_reading_study",
    ),
    ("series", "series_key"): ("performing_physician_name", "operators_name"),
}
_ROWS: Final = 1000

# The twin of `moments.date_time_within`.
_DATE_TIME_WITHIN: Final = r"""
CREATE OR REPLACE FUNCTION tomowire_date_time_within(
    stored text, zone text, begins bigint, begins_offset bigint, ends bigint, ends_offset bigint
) RETURNS integer LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $function$
DECLARE
    part text[] := regexp_match(stored, '^([0-9]{4})([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?'
        '(?:[.]([0-9]{1,6}))?([+-](?:0[0-9]|1[0-4])[0-5][0-9])?$');
    offset_text text;
    own_offset bigint;
    moment bigint;
    first_of_month date;
BEGIN
    IF part IS NULL OR part[7] IS NOT NULL AND part[6] IS NULL OR part[1] = '0000'
        OR coalesce(part[2], '01') NOT BETWEEN '01' AND '12' OR coalesce(part[3], '01') = '00'
        OR part[4] > '23' OR part[5] > '59' THEN
        RETURN 0;
    END IF;
    first_of_month := make_date(part[1]::int, coalesce(part[2], '01')::int, 1);
    IF part[3]::int > extract(day FROM first_of_month + interval '1 month' - interval '1 day') THEN
        RETURN 0;
    END IF;
    moment := (first_of_month - date '0001-01-01' + coalesce(part[3], '01')::int - 1) * 86400000000::bigint
        + coalesce(part[4], '0')::bigint * 3600000000 + coalesce(part[5], '0')::bigint * 60000000
        + least(coalesce(part[6], '0')::bigint, 59) * 1000000 + rpad(coalesce(part[7], ''), 6, '0')::bigint;
    offset_text := coalesce(part[8], zone);
    IF offset_text ~ '^[+-](?:0[0-9]|1[0-4])[0-5][0-9]$' THEN
        own_offset := (substr(offset_text, 2, 2)::bigint * 60 + substr(offset_text, 4, 2)::bigint) * 60000000;
        IF substr(offset_text, 1, 1) = '-' THEN
            own_offset := -own_offset;
        END IF;
    END IF;
    IF begins - coalesce(begins_offset - own_offset, 0) > moment
        OR ends - coalesce(ends_offset - own_offset, 0) < moment THEN
        RETURN 0;
    END IF;
    RETURN 1;
END
$function$
"""

_TRIGRAMS: Final = "ix_patients_patient_name_trigrams"


def upgrade() -> None:
    for (table, key), names in _NAMES.items():
        for name in names:
            op.add_column(table, sa.Column(f"{name}_normalized", _TEXT, nullable=False, server_default=""))
        _normalize(table, key, names)
    op.drop_index(op.f("ix_instances_series_key"), table_name="instances")
    op.create_index(
        op.f("ix_instances_series_key_received_at_data_set_size"),
        "instances",
        ["series_key", "received_at", "data_set_size"],
        unique=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.get_bind().exec_driver_sql(_DATE_TIME_WITHIN)
        _index_trigrams()


def _normalize(table: str, key: str, names: tuple[str, ...]) -> None:
    rows = sa.table(
        table, sa.column(key), *(sa.column(name) for each in names for name in (each, f"{each}_normalized"))
    )
    given = [rows.c[name] for name in names]
    some = sa.or_(*(each != "" for each in given))
    update = (
        sa.update(rows)
        .where(rows.c[key] == sa.bindparam("row_key"))
        .values({f"{name}_normalized": sa.bindparam(f"{name}_new") for name in names})
    )
    connection, last = op.get_bind(), 0
    page = (
        sa.select(rows.c[key], *given)
        .where(some, rows.c[key] > sa.bindparam("last"))
        .order_by(rows.c[key])
        .limit(_ROWS)
    )
    while found := connection.execute(page, {"last": last}).fetchall():
        connection.execute(
            update,
            [
                {"row_key": row[0]}
                | {f"{name}_new": normalized_names(text) for name, text in zip(names, row[1:], strict=True)}
                for row in found
            ],
        )
        last = found[-1][0]


def _index_trigrams() -> None:
    """For what is looked for in the middle of a name. A database may be one where this program has no right to it."""
    connection = op.get_bind()
    try:
        with connection.begin_nested():
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
            schema = connection.scalar(
                sa.text(
                    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
                    " WHERE extname = 'pg_trgm'"
                )
            )
            connection.execute(
                sa.text(
                    f"CREATE INDEX {_TRIGRAMS} ON patients USING gin (patient_name_normalized {schema}.gin_trgm_ops)"
                )
            )
    except sa.exc.DBAPIError as error:
        logger.warning(
            "names will be searched without trigrams (%s): a query for *mith* looks at every patient. Whoever may, runs"
            ' "CREATE EXTENSION pg_trgm; CREATE INDEX %s ON patients USING gin (patient_name_normalized gin_trgm_ops)"',
            str(error.orig).partition("\n")[0],
            _TRIGRAMS,
        )
