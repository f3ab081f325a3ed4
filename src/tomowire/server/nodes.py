"""The peers that the archive knows by name: where a C-MOVE may send objects to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.errors import UsageError
from tomowire.wire.value import value

MOST_ASSOCIATIONS: Final = 16

_FORM: Final = "a node is written AET@host:port, or AET@host:port,associations=4"
_OPTION: Final = "associations="


@value()
class Node:
    """A peer. `associations` is how many of ours it takes at once."""

    ae_title: str
    host: str
    port: int
    associations: int = 1

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read `AET@host:port`, with `,associations=N` if it takes several. Raises `UsageError` that says what is wrong."""
        title, at, location = text.rpartition("@")
        if not at:
            raise UsageError(f"{text!r} has no AE title: {_FORM}")
        location, comma, option = location.partition(",")  # an AE title may have one
        address = PeerAddress.parse(f"{title}@{location}")
        return cls(address.ae_title, address.host, address.port, _associations(option, text) if comma else 1)

    @property
    def address(self) -> PeerAddress:
        """What an association is opened to."""
        return PeerAddress(self.ae_title, self.host, self.port)

    def __str__(self) -> str:
        return f"{self.address},{_OPTION}{self.associations}" if self.associations > 1 else str(self.address)


def nodes_by_title(nodes: Iterable[Node]) -> Mapping[str, Node]:
    """The nodes by their AE titles, which PS3.8 9.3.2 compares without outer spaces and with upper and lower case as they are.

    Raises `UsageError` for two that have the same one, and for what is none.
    """
    found: dict[str, Node] = {}
    for node in nodes:
        title = check_ae_title(node.ae_title)
        other = found.setdefault(title, node)
        if other != node:
            raise UsageError(f"two nodes are named {title}: {other} and {node}")
    return found


def _associations(option: str, text: str) -> int:
    number = option.removeprefix(_OPTION)
    if number == option or not (number.isascii() and number.isdigit()):
        raise UsageError(f"{text!r}: {option!r} is not understood; {_FORM}")
    if not 1 <= int(number) <= MOST_ASSOCIATIONS:
        raise UsageError(f"{text!r}: 1 to {MOST_ASSOCIATIONS} associations can be opened at once")
    return int(number)
