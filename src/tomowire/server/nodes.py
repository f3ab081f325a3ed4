"""The peers that the archive knows by name: where a C-MOVE may send objects to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.errors import UsageError
from tomowire.server.rights import OF_NODES, Right, rights
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.aio.tls import TlsClient

MOST_ASSOCIATIONS: Final = 16

_FORM: Final = "a node is written AET@host:port, and may have ,associations=4, ,tls or ,tls-name=NAME and ,may=echo+store behind it"
_ASSOCIATIONS: Final = "associations="
_TLS: Final = "tls"
_TLS_NAME: Final = "tls-name="
_MAY: Final = "may="
_AND: Final = "+"

_KEYS: Final = {
    "(ssl=)": "(tls)",
    "(server_hostname=)": "(tls_name)",
    "(authorities=)": "(nodes_tls.authorities)",
    "(certificate=)": "(nodes_tls.certificate)",
}


@value()
class Node:
    """A peer. `associations` is how many of ours it takes at once. With `tls` it is called over TLS; its certificate must then
    be for `tls_name`, or for `host` if that is None. `may` is what it may do when it calls, and whether others may have
    objects sent to it. `name` is what a configuration calls it, where that is not its AE title."""

    ae_title: str
    host: str
    port: int
    associations: int = 1
    tls: bool = False
    tls_name: str | None = None
    may: frozenset[Right] = OF_NODES
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read `AET@host:port`, and what is behind it: `,associations=N`, `,tls`, `,tls-name=NAME` (which implies `,tls`),
        `,may=echo+store`.

        Raises `UsageError` that says what is wrong.
        """
        title, at, location = text.rpartition("@")
        if not at:
            raise UsageError(f"{text!r} has no AE title: {_FORM}")
        location, *options = location.split(",")  # an AE title may have one
        address = PeerAddress.parse(f"{title}@{location}")
        given: dict[str, Any] = {}
        for option in options:
            read = _read_option(option, text)
            if given.keys() & read.keys() - {_TLS}:
                raise UsageError(f"{text!r}: {option!r} is said twice")
            given |= read
        return cls(address.ae_title, address.host, address.port, **given)

    @property
    def address(self) -> PeerAddress:
        """What an association is opened to."""
        return PeerAddress(self.ae_title, self.host, self.port)

    def way(self, tls: TlsClient) -> TlsClient | None:
        """How it is called, where nodes with TLS are called by `tls`; None: without TLS."""
        if not self.tls:
            return None
        return tls if self.tls_name is None else replace(tls, server_hostname=self.tls_name)

    def __str__(self) -> str:
        options = [f"{_ASSOCIATIONS}{self.associations}"] if self.associations > 1 else []
        if self.tls:
            options.append(_TLS if self.tls_name is None else f"{_TLS_NAME}{self.tls_name}")
        if self.may != OF_NODES:
            options.append(f"{_MAY}{_AND.join(right for right in Right if right in self.may)}")
        return ",".join([str(self.address), *options])


def nodes_by_title(nodes: Iterable[Node]) -> Mapping[str, Node]:
    """The nodes by their AE titles, which PS3.8 9.3.2 compares without outer spaces and with upper and lower case as they are.

    Raises `UsageError` for two that have the same one, and for what is none.
    """
    found: dict[str, Node] = {}
    for node in nodes:
        title = check_ae_title(node.ae_title)
        other = found.setdefault(title, node)
        if replace(other, name=node.name) != node:
            raise UsageError(f"two nodes are named {title}: {other} and {node}")
    return found


def with_keys(text: str) -> str:
    """What an error about a node says, with keys of the configuration where the library names its arguments."""
    for argument, key in _KEYS.items():
        text = text.replace(argument, key)
    return text


def find_node(nodes: Iterable[Node], called: str) -> Node | None:
    """The node that somebody calls by its name or by its AE title; None if there is none.

    Raises `UsageError` for what is the name of one node and the AE title of another: nobody is to guess where objects go.
    """
    meant = [node for node in nodes if called in (node.name, node.ae_title)]
    if len(meant) > 1:
        ways = " or ".join(sorted({each for node in meant for each in (node.name, node.ae_title)} - {called, ""}))
        raise UsageError(f"{called} is the name of one node and the AE title of another: say {ways}")
    return meant[0] if meant else None


def _read_option(option: str, text: str) -> dict[str, Any]:
    if option == _TLS:
        return {"tls": True}
    if option.startswith(_TLS_NAME) and (name := option.removeprefix(_TLS_NAME)):
        return {"tls": True, "tls_name": name}
    if option.startswith(_MAY):
        names = option.removeprefix(_MAY)
        return {"may": rights(names.split(_AND) if names else ())}
    number = option.removeprefix(_ASSOCIATIONS)
    if number == option or not (number.isascii() and number.isdigit()):
        raise UsageError(f"{text!r}: {option!r} is not understood; {_FORM}")
    if not 1 <= int(number) <= MOST_ASSOCIATIONS:
        raise UsageError(f"{text!r}: 1 to {MOST_ASSOCIATIONS} associations can be opened at once")
    return {"associations": int(number)}
