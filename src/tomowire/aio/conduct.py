"""How a server treats those who connect to it, as it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.aio.arguments import function, seconds, whole
from tomowire.aio.malformed import check_malformed
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tomowire.aio.arguments import Check
    from tomowire.aio.association import Association
    from tomowire.aio.malformed import Malformed


@value(kw_only=True)
class Conduct:
    """How a server treats those who connect, by the names of `listen`. Times are in seconds."""

    artim_timeout: float
    idle_timeout: float | None
    shutdown_grace: float
    malformed: Malformed
    maximum_waiting_per_address: int | None
    on_established: Callable[[Association], object] | None
    on_ended: Callable[[Association], object] | None
    on_rejected: Callable[[Association], object] | None
    on_tls_failed: Callable[[str, str], object] | None


ALLOWED: Final[Mapping[str, Check]] = {
    "artim_timeout": seconds(),
    "idle_timeout": seconds(or_none=True),
    "shutdown_grace": seconds(or_zero=True),
    "malformed": check_malformed,
    "maximum_waiting_per_address": whole(1, or_none=True),
    "on_established": function("the Association"),
    "on_ended": function("the Association"),
    "on_rejected": function("the Association"),
    "on_tls_failed": function("the address of a peer, and why", may_be_async=False),
}
"""What may be said of `Conduct`."""
