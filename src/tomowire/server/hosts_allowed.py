"""Whether an HTTP request was meant for this server, by its `Host` and `Origin`.

A page from elsewhere can have a browser send requests to a server on its own machine. It names the host that it thinks it is on
(DNS rebinding) or the origin of the page (a request across sites), and neither is ours.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from tomowire.server.access_settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def host_allowed(host: str | None, *, bind: str, names: Iterable[str] = ()) -> bool:
    """Whether a server that listens on `bind` may be called by this `Host` header; `names` are those a person has given it.

    An address is no name that somebody else could have taken over: any may be used for a server that listens on all of them. The
    port does not count: there may be a proxy before it.
    """
    named = _name(host)
    if named is None:
        return False
    if named in {_plain(name) for name in names}:
        return True
    if is_loopback(bind):
        return is_loopback(named)
    if _is_any(bind):
        return named == "localhost" or _is_address(named)
    return named == _plain(bind)


def origin_allowed(origin: str | None, *, host: str | None, scheme: str) -> bool:
    """Whether a request with this `Origin` comes from a page of the server itself, which was called as `host`.

    Without one it was no page of a browser that asked for a change (Fetch 3.2): None is allowed.
    """
    if origin is None:
        return True
    its_scheme, separator, its_host = origin.partition("://")
    if not separator or its_scheme.lower() not in _DEFAULT_PORTS or host is None:
        return False
    mine = _HOST.fullmatch(host)
    its = _HOST.fullmatch(its_host)
    if mine is None or its is None or its_scheme.lower() != scheme.lower():
        return False
    default = _DEFAULT_PORTS[its_scheme.lower()]
    return (_plain(mine[1]), int(mine[2] or default)) == (_plain(its[1]), int(its[2] or default))


def _name(host: str | None) -> str | None:
    match = _HOST.fullmatch(host) if host is not None else None
    return _plain(match[1]) if match is not None else None


def _plain(name: str) -> str:
    """Host names have no upper and lower case (RFC 4343), and may end with a dot; addresses can be written in many ways."""
    bare = name.strip("[]").lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_any(bind: str) -> bool:
    return bind == "" or (_is_address(bind) and ipaddress.ip_address(bind).is_unspecified)
