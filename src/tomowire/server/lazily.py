"""Modules that import SQLAlchemy, named where they must not be imported yet."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazily:
    """A module that is imported when something of it is first used: in a thread of `Records`, that is, and not in the event loop.

    if TYPE_CHECKING:
        from tomowire.server.jobs import table
    else:
        table = Lazily("tomowire.server.jobs.table")
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
