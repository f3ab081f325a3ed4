"""The tables of the conformance statement: SOP classes, transfer syntaxes, how the implementation names itself, its limits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tomowire import associate, listen, uids
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


def association_parameters() -> str:
    """The defaults of both sides."""
    length, window = _default(associate, "maximum_length"), _default(associate, "window")
    assert (length, window) == (_default(listen, "maximum_length"), _default(listen, "window"))
    idle = _default(listen, "idle_timeout")
    outstanding = (
        f"proposed and accepted up to {window}, in both directions; results may come in another order than the requests"
    )
    return _table(
        ("parameter", "value, all settable in the library"),
        (
            ("maximum PDU length received", f"{length} bytes; longer P-DATA-TF PDUs are refused"),
            ("asynchronous operations window", outstanding),
            ("time-out of the connection", f"{_default(associate, 'connect_timeout'):g} s"),
            ("time-out of the association request", f"{_default(associate, 'association_timeout'):g} s"),
            ("ARTIM", f"{_default(listen, 'artim_timeout'):g} s"),
            (
                "idle associations (acceptor)",
                f"aborted after {idle:g} s in which neither 16 KiB nor a whole message came",
            ),
            (
                "associations at once (acceptor)",
                f"{_default(listen, 'maximum_associations')}; one more is rejected with 2/3/2",
            ),
        ),
    )


def _default(function: Callable[..., Any], argument: str) -> Any:
    return inspect.signature(function).parameters[argument].default


def _named(table: Mapping[str, str], heading: str) -> str:
    return _table((heading, "UID"), ((name, uid) for uid, name in table.items()))


def _table(heading: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"| {' | '.join(heading)} |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows)])
