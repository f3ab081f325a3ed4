"""How long a peer may take for what: one value for all that a requestor waits for."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from tomowire.aio.connect import DEFAULT_ASSOCIATION_TIMEOUT, DEFAULT_CONNECT_TIMEOUT
from tomowire.aio.leaving import DEFAULT_RELEASE_TIMEOUT
from tomowire.protocol.upper_layer import DEFAULT_ARTIM
from tomowire.services.find import DEFAULT_CANCEL_GRACE, DEFAULT_FIND_TIMEOUT
from tomowire.services.retrieving import DEFAULT_RETRIEVE_TIMEOUT
from tomowire.services.storage import DEFAULT_STORE_TIMEOUT
from tomowire.services.verification import DEFAULT_ECHO_TIMEOUT
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping


class Unset(Enum):
    """What stands where nothing was said: None says "for ever"."""

    UNSET = "the default"


UNSET: Final = Unset.UNSET
Seconds: TypeAlias = float | Literal[Unset.UNSET] | None
"""A time-out that may be left to the client; None is no limit."""


@value()
class Timeouts:
    """Times in seconds; None, where it is allowed, is no limit."""

    connect: float = DEFAULT_CONNECT_TIMEOUT
    """For the TCP connection, TLS included."""
    association: float = DEFAULT_ASSOCIATION_TIMEOUT
    """For the answer to the association request."""
    release: float = DEFAULT_RELEASE_TIMEOUT
    """For the answer to the release request."""
    artim: float = DEFAULT_ARTIM
    """For the peer to close the connection after an abort or a rejection (PS3.8 9.1.5)."""
    echo: float | None = DEFAULT_ECHO_TIMEOUT
    """For the answer to a C-ECHO."""
    store: float = DEFAULT_STORE_TIMEOUT
    """Without progress in a C-STORE: no byte of it out, no response in."""
    find: float | None = DEFAULT_FIND_TIMEOUT
    """To the next response to a C-FIND."""
    retrieve: float | None = DEFAULT_RETRIEVE_TIMEOUT
    """To the next response to a C-MOVE; without a byte from the peer in a C-GET."""
    grace: float = DEFAULT_CANCEL_GRACE
    """For the peer to stop after a C-CANCEL; then the association is aborted."""

    @property
    def for_association(self) -> Mapping[str, Any]:
        """Those that are for `associate`, by its names."""
        return {
            "connect_timeout": self.connect,
            "association_timeout": self.association,
            "release_timeout": self.release,
            "artim_timeout": self.artim,
        }


def chosen(of_call: Seconds, of_client: float | None) -> float | None:
    """What was said for a call counts, and otherwise what was said for the client."""
    return of_client if isinstance(of_call, Unset) else of_call
