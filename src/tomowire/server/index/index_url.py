"""The URL of an index: what it may be, and what of it may be shown."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tomowire.errors import UsageError

_SCHEMES: Final = ("postgresql", "postgres")
_EXAMPLE: Final = "postgresql://USER@HOST:PORT/DATABASE"
_ENCODED: Final = "in a password @ is written %40, / is %2F, % is %25, a space is %20"
_UNKNOWN_OPTION: Final = re.compile(r'invalid URI query parameter: "(\w{1,40})"')


def require_url(url: str) -> None:
    """Raises `UsageError` if `url` is not one of PostgreSQL; what it says is not repeated, as a password may be in it."""
    scheme, mark, _ = url.partition("://")
    if not mark or scheme.lower() not in _SCHEMES:
        raise UsageError(f"the index URL is not one of PostgreSQL: it looks like {_EXAMPLE}")
    try:
        urlsplit(url)
    except ValueError as error:
        raise UsageError(f"the index URL cannot be understood: it looks like {_EXAMPLE}") from error


def _require_encoded(url: str) -> None:
    """Raises `UsageError` if libpq may take a part of the password for a host, which it would ask for by name, and repeat.

    To libpq the first `@` ends the password, if no `/` is before it. (`@` in an option, and none before it, is as it says.)
    """
    authority, _, path = url.partition("://")[2].partition("/")
    if "@" in authority:  # then there is a user, and maybe a password
        if url.count("@") > 1:
            raise UsageError(f"the index URL has more than one @: {_ENCODED}")
    elif "@" in path.partition("?")[0]:
        raise UsageError(f"the index URL has a / before its @: {_ENCODED}")


def credentials(url: str) -> tuple[str, str]:
    """What stands before the `@`, and what comes after it, without the scheme.

    For libpq all up to an `@` before the first `/` is user and password: `#` and `?` may be in it. A password with a `/` is a
    mistake, and secret all the same.
    """
    rest = url.partition("://")[2]
    before, at, _ = rest.partition("/")[0].rpartition("@")
    if not at:
        before, at, _ = rest.partition("?")[0].rpartition("@")
    return before, rest[len(before) + len(at) :]


def shown(url: str) -> str:
    """`url` as it may be logged and shown: without password and options."""
    before, place = credentials(url)
    user = before.partition(":")[0]
    return f"{url.partition('://')[0]}://{user}{'@' if user else ''}{place.partition('?')[0]}"


def without_password(text: str, url: str) -> str:
    """`text` without the password of `url`, in case that whoever wrote it has repeated it."""
    for password in _passwords(url):
        text = text.replace(password, "***")
    return text


def parameters_of(url: str) -> dict[str, str | int]:
    """What libpq reads from the URL, by keyword. Raises `UsageError`, also if the driver is not installed."""
    require_url(url)
    _require_encoded(url)
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:  # psycopg without libpq is one, too
        how = 'pip install "tomowire[postgres]" brings it'
        raise UsageError(f"an index in PostgreSQL needs psycopg, which cannot be used: {error}; {how}") from error
    try:
        found = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error as error:  # its text may have the password
        unknown = None if "@" in url and _may_be_password(url) else _UNKNOWN_OPTION.search(str(error))
        why = f"it has an option that libpq does not know, {unknown[1]!r}" if unknown else _ENCODED
        raise UsageError(f"{_named(url)} cannot be understood: {why}") from error
    for port in str(found.get("port", "")).split(","):
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            why = "; if that is of a password, a host is missing: USER:PASSWORD@HOST" if _may_be_password(url) else ""
            raise UsageError(f"{_named(url)} has a port that is not a number from 1 to 65535{why}")
    return found


def place_of(url: str) -> str:
    """Which database it is, HOST:PORT/DATABASE, with what libpq takes from the environment. Raises `UsageError`."""
    found = parameters_of(url)
    from psycopg.pq import Conninfo

    assumed = {each.keyword.decode(): (each.val or b"").decode("utf-8", "replace") for each in Conninfo.get_defaults()}
    host = found.get("host") or found.get("hostaddr") or assumed.get("host") or assumed.get("hostaddr") or "localhost"
    database = found.get("dbname") or assumed.get("dbname") or found.get("user") or assumed.get("user")
    if "service" in found:  # what it says is in a file
        return f"service {found['service']}"
    return f"{host}:{found.get('port') or assumed.get('port')}/{database}"


def _may_be_password(url: str) -> bool:
    """Whether anything of a URL that is wrong may be a password: the `@` that should end it is missing, or taken for a part of an
    option."""
    return "@" not in url.partition("://")[2].partition("/")[0]


def _named(url: str) -> str:
    return "the index URL" if _may_be_password(url) else f"the index URL {shown(url)}"


def _passwords(url: str) -> set[str]:
    before, place = credentials(url)
    raw = before.partition(":")[2]
    found = {raw, unquote(raw)}
    found |= {value for name, value in parse_qsl(place.partition("?")[2]) if name in ("password", "sslpassword")}
    return {password for password in found if password}
