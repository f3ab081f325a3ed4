"""That the index has another schema than before, as an event: a Security Alert, Software Configuration (PS3.15 A.5.3.11)."""

from __future__ import annotations

from tomowire.server.audit.events import Change, ConfigurationChanged, Party


def event_of(before: str | None, after: str | None, by: Party | None) -> ConfigurationChanged:
    """The event; `before` is None for an index that was not there, `by` for an archive that has started."""
    was = f"brought from schema {before} to {after}" if before is not None else f"made, with schema {after}"
    return ConfigurationChanged(by=by, change=Change.SOFTWARE, what=f"the index was {was}")
