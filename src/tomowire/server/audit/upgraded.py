"""That the index has another schema than before: a Security Alert, Software Configuration (PS3.15 A.5.3.11).

The event is written in the transaction that changes the schema: there is no upgrade without it, whatever becomes of the process
afterwards. Schema 0001 had no trail; by then there is one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tomowire.server.audit.events import Change, ConfigurationChanged, Party
from tomowire.server.audit.noting import Addition

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tomowire.server.settings import Settings


class UpgradeNoted:
    """The `on_upgrade` of the index of an archive. `by` is None for the archive itself, when it starts.

    An index that was not there before is an event for who asks for an upgrade, and not for who begins an archive.
    """

    def __init__(self, settings: Settings, by: Party | None, *, new_too: bool = False) -> None:
        self._addition = Addition(settings)
        self._is_wanted = settings.audit.enabled
        self._by = by
        self._new_too = new_too

    def upgraded(self, connection: Connection, before: str | None, after: str | None) -> None:
        """Write the event. Raises what SQLAlchemy does."""
        if not self._is_wanted or (before is None and not self._new_too):
            return
        was = f"brought from schema {before} to {after}" if before is not None else f"made, with schema {after}"
        event = ConfigurationChanged(by=self._by, change=Change.SOFTWARE, what=f"the index was {was}")
        self._addition.add(connection, [(time.time_ns() // 1000, event)])

    def committed(self) -> None:
        """In a thread without an event loop."""
        asyncio.run(self._addition.settle())
