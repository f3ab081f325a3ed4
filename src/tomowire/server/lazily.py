"""Modules that import SQLAlchemy, named where they must not be imported yet.

Several threads may be the first to import it, at the same time. A thread that begins with `sqlalchemy.exc` holds that module and
waits for the package; one that imports the package waits for that module. Python ends this by giving one of them a module that is
half imported, and what it does with it fails until the process ends. So whoever may be the first imports the package before what is
in it: `from sqlalchemy import exc`, and not `from sqlalchemy.exc import ...`. The same holds for pydicom.
"""

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
