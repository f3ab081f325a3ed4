"""Which environment variables are part of a configuration. Commands ask before they import what reads it."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "TOMOWIRE_"
BETWEEN: Final = "__"
"""Stands between section and key."""

SECTIONS: Final = frozenset(
    {
        "dicom",
        "storage",
        "index",
        "nodes",
        "knowndestinations",
        "nodes_tls",
        "callers",
        "http",
        "quota",
        "audit",
        "jobs",
        "logs",
    }
)
"""What may be said as a whole, as `TOMOWIRE_CALLERS`. Links of containers make `TOMOWIRE_PORT` and the like, which are not ours."""


def is_configuration(name: str) -> bool:
    """Whether a variable is part of a configuration, a key or a section; there are others that begin with the same word."""
    rest = name.removeprefix(PREFIX)
    return rest != name and (BETWEEN in rest or rest.lower() in SECTIONS)
