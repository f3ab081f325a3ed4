"""How an association ended, as a value and as a line in the log."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from tomowire.errors import AssociationAborted, AssociationReleased
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.errors import AssociationError

logger = logging.getLogger("tomowire.association")


class Ending(StrEnum):
    """In which of four ways an association can end."""

    RELEASED = "released"
    ABORTED = "aborted"
    LOST = "lost"
    """The connection broke, or was closed without a word."""
    TIMED_OUT = "timed out"
    """This side aborted it, because the peer did not do in time what was its turn to do."""


@value()
class AssociationEnd:
    """How an association ended, and what went over it until then."""

    how: Ending
    by_peer: bool
    """Whether it was the peer that released or aborted it, or lost the connection."""
    text: str
    """The same in words."""
    source: int | None
    """Of an A-ABORT, as `reason` (PS3.8 Table 9-26); else None."""
    reason: int | None
    seconds: float
    """Since it was established."""
    messages_received: int
    """Each with the whole of its data set."""
    messages_sent: int
    bytes_received: int
    """On the connection, headers included; with TLS after decryption."""


def end_of(
    error: AssociationError,
    *,
    released_by_peer: bool,
    timed_out: bool,
    seconds: float,
    messages_received: int,
    messages_sent: int,
    bytes_received: int,
) -> AssociationEnd:
    """The end that `error` tells of."""
    by_peer, source, reason = True, None, None
    if isinstance(error, AssociationReleased):
        how, by_peer = Ending.RELEASED, released_by_peer
    elif isinstance(error, AssociationAborted):
        how = Ending.TIMED_OUT if timed_out else Ending.ABORTED
        by_peer, source, reason = error.by_peer, error.source, error.reason
    else:
        how = Ending.LOST
    return AssociationEnd(
        how, by_peer, str(error), source, reason, seconds, messages_received, messages_sent, bytes_received
    )


def log_end(title: str, error: AssociationError, *, was_established: bool, was_asked_for: bool) -> None:
    """A warning where a peer's association broke; what this side did itself, and who never asked for one, is less than that."""
    if not was_established or was_asked_for:
        # Port scanners and health checks connect and go; and a requestor hears it by an exception.
        logger.info("%s: %s", title, error)
    elif isinstance(error, AssociationReleased):
        logger.info("%s: released", title)
    else:
        logger.warning("%s: %s", title, error)
