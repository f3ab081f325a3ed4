"""Where a peer is, and how it is written: `AET@host:port`, or `pacs://host:port`."""

from __future__ import annotations

from typing import Any, Final

from tomowire.errors import UsageError
from tomowire.wire.value import value

ANY_SCP: Final = "ANY-SCP"
"""The called AE title where none is given."""

_SCHEME: Final = "pacs://"
DEFAULT_PORT: Final = 11112
_FORMS: Final = "a peer is written AET@host:port or pacs://host:port"


def check_ae_title(title: str) -> str:
    """An AE title without its outer spaces. Raises `UsageError` for what PS3.5 6.2 (VR AE) does not allow."""
    given: Any = title  # whatever a caller makes of it
    stripped = given.strip(" ") if isinstance(given, str) else ""
    if not 1 <= len(stripped) <= 16 or not all(" " <= character <= "~" and character != "\\" for character in stripped):
        raise UsageError(
            f"{title!r} is not an AE title: 1 to 16 characters of ASCII without backslash and control characters"
        )
    return stripped


@value()
class PeerAddress:
    """A peer's AE title, host name or address, and TCP port."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def of(cls, peer: str | PeerAddress) -> PeerAddress:
        """`peer`, read if it is text. Raises `UsageError` for what is wrong, or neither of the two."""
        if isinstance(peer, str):
            return cls.parse(peer)
        if not isinstance(peer, cls):
            raise UsageError(f"a peer is AET@host:port or a PeerAddress, and not a {type(peer).__name__}")
        return peer

    @classmethod
    def parse(cls, text: str, *, called_ae_title: str | None = None) -> PeerAddress:
        """Read one of the two forms; `called_ae_title` overrides the AE title. IPv6 addresses stand in brackets.

        The port may be left out: 11112. Raises `UsageError` that says what is wrong.
        """
        if text.startswith(_SCHEME):
            title, location = ANY_SCP, text.removeprefix(_SCHEME).rstrip("/")
        else:
            title, at, location = text.rpartition("@")
            if not at:
                raise UsageError(f"{text!r} has no AE title: {_FORMS}")
        host, port = _host_and_port(location, text)
        return cls(check_ae_title(called_ae_title or title), host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


def _host_and_port(location: str, text: str) -> tuple[str, int]:
    if location.startswith("["):
        host, bracket, rest = location[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"{text!r}: the brackets of an IPv6 address do not match; {_FORMS}")
        port_text = rest[1:]
    else:
        host, _, port_text = location.partition(":")
        if ":" in port_text:
            raise UsageError(f"{text!r}: write an IPv6 address in brackets, [::1]:104; {_FORMS}")
    if not host:
        raise UsageError(f"{text!r} names no host; {_FORMS}")
    if not port_text:
        return host, DEFAULT_PORT
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) <= 0xFFFF):
        raise UsageError(f"{text!r}: {port_text!r} is not a TCP port (1 to 65535)")
    return host, int(port_text)
