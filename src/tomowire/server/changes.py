"""What differs between two settings, by the keys of the configuration, and what of it a running archive takes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Final

from tomowire.server.hidden import is_the_same
from tomowire.server.settings import Settings
from tomowire.wire.value import value

_TAKEN: Final = {
    "aliases": "dicom.aliases",
    "allow_unknown_callers": "dicom.allow_unknown_callers",
    "allowed_callers": "callers",
    "callers": "callers",
    "nodes": "nodes",
    "node_tls": "nodes_tls",
    "tls": "dicom.tls",
    "quota": "quota",
    "audit": "audit",
}
_NOT_TAKEN: Final = {
    "data_dir": "storage.data_dir",
    "duplicates": "storage.duplicates",
    "index_url": "index.url",
    "http": "http",
    "jobs": "jobs",
}
_WHO_MAY_CALL: Final = ("callers", "allowed_callers", "allow_unknown_callers")
_LOGS: Final = "logs"


@value()
class Reconfigured:
    """What became of new settings, by keys: those `changed` are in force, those in `needs_restart` are not before one."""

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What of it needs a look, in words: the log has it already."""

    def __str__(self) -> str:
        changed = f"changed: {', '.join(self.changed)}" if self.changed else "nothing has changed"
        if not self.needs_restart:
            return changed
        return f"{changed}; needs a restart: {', '.join(self.needs_restart)}"


def compare(before: Settings, after: Settings) -> tuple[Settings, Reconfigured]:
    """The settings that an archive with `before` has when it takes of `after` what it can, and the account of that."""
    changed: set[str] = set()
    waits: set[str] = set()
    kept: dict[str, Any] = {}
    for name in (each.name for each in fields(Settings)):
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name == "index_url" and is_the_same(new, old):
            kept[name] = old
            continue
        if name == _LOGS:
            kept[name] = replace(new, format=old.format)
            changed |= {"logs.level"} if old.level != new.level else set()
            waits |= {"logs.format"} if old.format != new.format else set()
        elif name in _TAKEN and not (
            name == "tls" and None in (old, new)
        ):  # with or without: another port, so to speak
            changed.add(_TAKEN[name])
        else:
            kept[name] = old
            waits.add(_TAKEN.get(name) or _NOT_TAKEN.get(name) or f"dicom.{name}")
    if before.tls is None and "tls" in kept and any(each.certificate is not None for each in after.callers):
        # Nobody can show a certificate before there is TLS: until then those of before may call, and nobody else.
        kept |= {name: getattr(before, name) for name in _WHO_MAY_CALL}
        waiting = {_TAKEN[name] for name in _WHO_MAY_CALL} & changed
        changed, waits = changed - waiting, waits | waiting
    return replace(after, **kept), Reconfigured(tuple(sorted(changed)), tuple(sorted(waits)))
