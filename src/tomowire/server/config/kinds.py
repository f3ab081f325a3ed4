"""What a key may hold. A kind stands in the annotation of a model's field: it reads what was written, or says why not.

A reader gets what TOML and JSON have (text, numbers, true and false, sections, lists) and raises `ValueError` with a sentence that
goes on from the name of the key: "is a whole number from 1 to 65535, and not 'abc'".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from math import isfinite
from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tomowire.aio.address import check_ae_title
from tomowire.errors import UsageError
from tomowire.server.address_ranges import read_range
from tomowire.server.config.problems import may_hold_password, shown
from tomowire.server.index.index_url import require_url
from tomowire.wire.value import value

_SIZE_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) *([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_TIME_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) *(s|min|h|d)?", re.IGNORECASE | re.ASCII)

_DIGITS_AND_DOTS: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
"""No host has such a name: RFC 1123 2.1."""


@value()
class Kind:
    """`name` is for the documentation. Of an environment variable a kind with `is_text` takes the text as it stands."""

    name: str
    read: Callable[[Any], Any]
    is_text: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


def whole(least: int, most: int) -> Kind:
    """A whole number."""
    words = f"a whole number from {least} to {most}"

    def read(given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
            hint = " (without quotes)" if isinstance(given, str) and given.strip().isdecimal() else ""
            raise ValueError(f"must be {words}{hint}, and not {shown(given)}")
        return given

    return Kind(words, read)


def flag() -> Kind:
    """True or false."""

    def read(given: Any) -> bool:
        if not isinstance(given, bool):
            raise ValueError(f"must be true or false (without quotes), and not {shown(given)}")
        return given

    return Kind("true or false", read)


def seconds(least: float = 0.0) -> Kind:
    """A time; more than none, unless `least` says how much."""
    limit = f"at least {least:g} s" if least else "more than 0"
    words = "a time, in seconds or with a unit"

    def read(given: Any) -> float:
        found = _quantity(given, _TIME, _TIME_UNITS, "s")
        if found is None or not isfinite(found) or found < least or not found:
            raise ValueError(f"must be {words} (s, min, h, d), {limit}, and not {shown(given)}")
        return found

    return Kind(words, read)


def size(least: int) -> Kind:
    """A number of bytes. Units are powers of 1024, as they are for the options."""
    words = "a size, in bytes or with a unit"

    def read(given: Any) -> int:
        found = _quantity(given, _SIZE, _SIZE_UNITS, "")
        if found is None or found >= 1 << 63 or isinstance(given, float):
            raise ValueError(f"must be {words} (kB, MB, GB, TB), and not {shown(given)}")
        if found < least:
            raise ValueError(f"is too little: {least} bytes are the least")
        return int(found)

    return Kind(words, read)


def text(what: str = "text") -> Kind:
    """Text that is not empty."""
    return Kind(what, lambda given: _plain_text(given, what), is_text=True)


def ae_title() -> Kind:
    """PS3.5 6.2, VR AE."""

    def read(given: Any) -> str:
        try:
            return check_ae_title(given if isinstance(given, str) and given.isprintable() else "")
        except UsageError:
            raise ValueError(
                f"must be an AE title, 1 to 16 characters of ASCII without backslash, and not {shown(given)}"
            ) from None

    return Kind("an AE title", read, is_text=True)


def database_url() -> Kind:
    """It may hold a password: no error quotes it."""
    words = "the URL of a PostgreSQL database, postgresql://user@host/database"

    def read(given: Any) -> str:
        try:
            if not isinstance(given, str) or not given.isprintable():
                raise UsageError(words)
            require_url(given)
        except UsageError:
            raise ValueError(f"must be {words}") from None
        return given

    return Kind(words, read, is_text=True)


def host() -> Kind:
    """A name or an address; no port and no URL."""
    words = "a host name or an address"

    def read(given: Any) -> str:
        found = _plain_text(given, words).strip()
        if not found or any(each in found for each in " /@[],") or found.count(":") == 1:
            raise ValueError(f"must be {words} without a port, and not {shown(given)}")
        if _DIGITS_AND_DOTS.fullmatch(found) and not _is_address(found):
            raise ValueError(f"must be {words}, and {shown(given)} is none of four numbers from 0 to 255")
        return found

    return Kind(words, read, is_text=True)


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def path(what: str = "the path of a file") -> Kind:
    """A path; the file need not be there. `~` is the home folder."""

    def read(given: Any) -> Path:
        if isinstance(given, Path):  # of an option
            return given
        found = _plain_text(given, what)
        if "://" in found:
            raise ValueError(f"must be {what} and no URL, and not {shown(given)}")
        try:
            return Path(found).expanduser()
        except RuntimeError:
            raise ValueError(f"names a home folder that is not known: {shown(given)}") from None

    return Kind(what, read, is_text=True)


def addresses() -> Kind:
    """An address, or a range of them: `10.1.0.0/16`."""
    words = "an address or a range of addresses, as in 192.0.2.7 or 10.1.0.0/16"

    def read(given: Any) -> str:
        found = _plain_text(given, words).strip()
        try:
            read_range(found)
        except UsageError as error:
            why = f": {error}" if not may_hold_password(found) else f", and not {shown(found)}"
            raise ValueError(f"must be an address or a range of addresses{why}") from None
        return found

    return Kind(words, read, is_text=True)


def certificate() -> Kind:
    """What a certificate must have, as rules for callers know it."""
    words = "`sha256:` and a fingerprint, or `CN:`, `DNS:`, `IP:`, `email:`, `URI:` and a name in the certificate"

    def read(given: Any) -> str:
        from tomowire.aio.tls_titles import read_certificate_key  # needed by few

        found = _plain_text(given, words)
        try:
            read_certificate_key(found)
        except UsageError as error:
            why = str(error) if not may_hold_password(found) else shown(found)
            raise ValueError(f"is no name of a certificate: {why}") from None
        return found

    return Kind(words, read, is_text=True)


def choice(*words: str) -> Kind:
    """One of several words."""
    listed = ", ".join(words)

    def read(given: Any) -> str:
        if not isinstance(given, str) or given not in words:
            raise ValueError(f"must be one of {listed}, and not {shown(given)}")
        return given

    return Kind(" or ".join(f"`{each}`" for each in words), read, is_text=True)


def _plain_text(given: Any, what: str) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"must be {what}, and not {shown(given)}")
    if not given.isprintable():
        raise ValueError(f"must be {what}, and holds a character that cannot be printed: {shown(given)}")
    return given


def _quantity(given: Any, form: re.Pattern[str], units: dict[str, Any], usual: str) -> float | int | None:
    """A number, or one with a unit."""
    if isinstance(given, bool):
        return None
    if isinstance(given, int | float):
        try:
            float(given)
        except OverflowError:
            return None
        return given
    match = form.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is None:
        return None
    number, unit = match[1], units[(match[2] or usual).lower()]
    found: float | int = float(number) * unit if "." in number else int(number) * unit
    return found
