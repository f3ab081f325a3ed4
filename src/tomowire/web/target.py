"""What a request is about: its target, which may be written in several ways (RFC 9112 3.2), in the one that all else knows.

uvicorn takes whatever comes before the `?` for a path. That may be a whole URI, and once it is decoded a `%2F`, which belongs to a
name, could not be told from the slashes between the names (RFC 3986 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, unquote_to_bytes

from tomowire.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Scope

SLASH: Final = "\udc2f"
"""Stands in a path for a slash that belongs to a name. It is half a character: no text that is decoded has it."""

_ABSOLUTE: Final = re.compile(rb"(?i:(https?)://)([^/@#]+)(/.*)?", re.DOTALL)


def in_origin_form(scope: Scope) -> Scope:
    """The request with a target that is a path, decoded but for `SLASH`. Raises `Problem` for what is no target."""
    raw = scope["raw_path"]
    if not raw.startswith(b"/") and (raw, scope["method"]) != (b"*", "OPTIONS"):
        scope = _from_absolute(scope)
        raw = scope["raw_path"]
    if b"%" not in raw and b"%" not in scope["query_string"]:
        return scope
    try:
        unquote_to_bytes(raw).decode()
        unquote_to_bytes(scope["query_string"]).decode()
    except UnicodeDecodeError:
        # With a character in the place of what cannot be read it would be another question.
        raise Problem(400, "the address is no text in UTF-8: see what is behind its %") from None
    return {**scope, "path": _decoded(raw)}


def names(path_params: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a path that are names, with their slashes."""
    return {name: part.replace(SLASH, "/") for name, part in path_params.items()}


def _from_absolute(scope: Scope) -> Scope:
    """RFC 9112 3.2.2: the host is the one in the target, whatever `Host` says. Who is asked may be behind it."""
    match = _ABSOLUTE.fullmatch(scope["raw_path"])
    if match is None:
        raise Problem(
            400, "what is asked for is to be a path that begins with /, or an address such as http://host/path"
        )
    scheme, host, path = match[1].decode().lower(), match[2], match[3] or b"/"
    if scheme != scope["scheme"]:  # RFC 9110 7.4
        raise Problem(421, f"the address is one for {scheme}, and the connection one of {scope['scheme']}")
    headers = [(b"host", host), *((name, value) for name, value in scope["headers"] if name != b"host")]
    return {**scope, "raw_path": path, "path": _decoded(path), "headers": headers}


def _decoded(raw: bytes) -> str:
    return "/".join(unquote(part).replace("/", SLASH) for part in raw.decode("ascii").split("/"))
