"""The SCP of C-MOVE (PS3.4 C.4.2)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomowire.aio.address import PeerAddress

_NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


@value()
class Destination:
    """Where the objects of a C-MOVE go."""

    address: PeerAddress
    associations: int = 1
    """How many are used at once."""
    aet: str | None = None
    """The AE title that calls; that which the C-MOVE called, if None."""
    options: Mapping[str, Any] = _NO_OPTIONS
    """What `associate` takes besides."""
