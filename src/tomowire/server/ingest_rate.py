"""How much has come lately, as the index has it: nothing is counted while objects are stored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.records import Records

_MOST: Final = 20_000
"""Instances that are looked at. Of an archive that gets more than this the last ones are enough for a rate."""


@value()
class IngestRate:
    """What came in the last `seconds`. (Of a busy archive they are fewer than were asked for.)"""

    seconds: float
    instances: int
    data_set_bytes: int

    @property
    def instances_per_second(self) -> float:
        return self.instances / self.seconds

    @property
    def bytes_per_second(self) -> float:
        return self.data_set_bytes / self.seconds


async def ingest_rate(records: Records, *seconds: float) -> tuple[IngestRate, ...]:
    """For each of the spans the rate of what came in it and is still there. Raises `IndexUnavailable`."""
    return await records.read(lambda connection: tuple(_rates(connection, seconds, time.time())))


def _rates(connection: Connection, spans: tuple[float, ...], now: float) -> list[IngestRate]:
    from sqlalchemy import select

    from tomowire.server.index.schema import instances

    # By the key, which has an index, and not by the time, which has none: keys are given in the order of storing.
    last = (
        select(instances.c.received_at, instances.c.data_set_size)
        .order_by(instances.c.instance_key.desc())
        .limit(_MOST)
    )
    rows = [(now - received_at / 1e6, size) for received_at, size in connection.execute(last)]
    covered = max((age for age, _ in rows), default=0.0) if len(rows) == _MOST else float("inf")
    return [_rate(rows, max(min(span, covered), 0.001)) for span in spans]


def _rate(rows: list[tuple[float, int]], span: float) -> IngestRate:
    sizes = [size for age, size in rows if age <= span]
    return IngestRate(span, len(sizes), sum(sizes))
