"""Peers to test one's own code against: faulty ones, on either side of an association, and an archive that keeps what it gets.

They work with any test framework, since they need none: `async with FaultyPeer.resets() as peer:` in asynchronous code, `with` in
any other. For pytest there are fixtures of the same: `faulty_peer`, `faulty_sender`, `archive`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tomowire.testing.archive import Archive
    from tomowire.testing.behaviour import Behaviour, Talk
    from tomowire.testing.faulty_peer import FaultyPeer
    from tomowire.testing.faulty_sender import FaultySender
    from tomowire.testing.leaks import no_leaks
    from tomowire.testing.refusing import Rejection
    from tomowire.testing.requesting import Outcome

__all__ = ["Archive", "Behaviour", "FaultyPeer", "FaultySender", "Outcome", "Rejection", "Talk", "no_leaks"]

# Imported when first asked for: pytest imports this package whenever tomowire is installed, and most tests do not need it.
_HOME: Final = {
    "Archive": "tomowire.testing.archive",
    "Behaviour": "tomowire.testing.behaviour",
    "FaultyPeer": "tomowire.testing.faulty_peer",
    "FaultySender": "tomowire.testing.faulty_sender",
    "Outcome": "tomowire.testing.requesting",
    "Rejection": "tomowire.testing.refusing",
    "Talk": "tomowire.testing.behaviour",
    "no_leaks": "tomowire.testing.leaks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
