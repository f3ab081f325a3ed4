"""The URL of an index: what it may be, and what of it may be shown."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tomowire.errors import UsageError

_SCHEMES: Final = ("postgresql", "postgres")
_EXAMPLE: Final = "postgresql://USER@HOST:PORT/DATABASE"


def require_url(url: str) -> None:
    """Raises `UsageError` if `url` is not one of PostgreSQL; what it says is not repeated, as a password may be in it."""
    scheme, mark, _ = url.partition("://")
    if not mark or scheme.lower() not in _SCHEMES:
        raise UsageError(f"the index URL is not one of PostgreSQL: it looks like {_EXAMPLE}")
    try:
        urlsplit(url)
    except ValueError as error:
        raise UsageError(f"the index URL cannot be understood: it looks like {_EXAMPLE}") from error


def shown(url: str) -> str:
    """`url` as it may be logged and shown: without password and options."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].partition("#")[0]
    user, at, host = place.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}"


def without_password(text: str, url: str) -> str:
    """`text` without the password of `url`, in case that whoever wrote it has repeated it."""
    for password in _passwords(url):
        text = text.replace(password, "***")
    return text


def parameters_of(url: str) -> dict[str, str | int]:
    """What libpq reads from the URL, by keyword. Raises `UsageError`."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    require_url(url)
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error as error:  # its text may have the password
        raise UsageError(f"the index URL {shown(url)} cannot be understood") from error
    return {name: value for name, value in found.items() if value is not None}


def _passwords(url: str) -> set[str]:
    rest = url.partition("://")[2]
    place, _, query = rest.partition("?")
    user, at, _ = place.rpartition("@")
    raw = user.partition(":")[2] if at else ""
    found = {raw, unquote(raw)}
    found |= {value for name, value in parse_qsl(query) if name in ("password", "sslpassword")}
    return {password for password in found if password}
