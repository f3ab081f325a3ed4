"""How long a job waits before it is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.server.settings import JobSettings


def wait_before(attempt: int, settings: JobSettings) -> float:
    """Seconds after `attempt` attempts in a row that brought nothing: "full jitter", anything up to a bound that doubles each time.

    Of many jobs that failed at the same moment, since a node went down, not all come back at the same moment.
    """
    from random import uniform  # needed seldom, and not cheap to import

    bound = settings.first_wait * 2.0 ** min(attempt - 1, 62)
    return uniform(0.0, min(bound, settings.longest_wait))
