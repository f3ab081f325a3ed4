"""The tables of the conformance statement: SOP classes, transfer syntaxes, and how the implementation names itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tomowire import uids
from tomowire.services.models import Model


def storage_table() -> str:
    """All that the Storage SCP takes."""
    return _named(uids.STORAGE_SOP_CLASSES, "SOP class")


def transfer_syntax_table() -> str:
    """All that the Storage SCP takes an object in."""
    return _named(uids.TRANSFER_SYNTAXES, "transfer syntax")


def query_retrieve_table() -> str:
    """The information models, each with its three services."""
    rows = [(model, service, getattr(model, service)) for model in Model for service in ("find", "move", "get")]
    return _table(("SOP class", "UID"), ((f"{uids.name_of(uid)}", uid) for _, _, uid in rows))


def identity() -> str:
    """PS3.7 D.3.3.2."""
    return _table(
        ("", "value"),
        (
            ("Implementation Class UID", uids.IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", uids.IMPLEMENTATION_VERSION_NAME),
            ("Application Context Name", uids.APPLICATION_CONTEXT),
        ),
    )


def _named(table: Mapping[str, str], heading: str) -> str:
    return _table((heading, "UID"), ((name, uid) for uid, name in table.items()))


def _table(heading: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"| {' | '.join(heading)} |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows)])
