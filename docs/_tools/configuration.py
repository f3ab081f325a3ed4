"""Every key of a configuration, as a table for each section: of the models, which are what a file is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tomowire.server.config.models import Section
from tomowire.server.config.schema import place_of, sections
from tomowire.server.config.shown import as_toml

_TIMES: Final = ((86400, "d"), (3600, "h"), (60, "min"))
_SIZES: Final = ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"))


def configuration_keys() -> str:
    """A heading, the text and a table of keys for each section."""
    return "\n\n".join(part for path, section in sections() for part in _section(path, section))


def _section(path: tuple[str | int, ...], section: type[Section]) -> list[str]:
    name = ".".join(str(each) for each in path if each != 0)
    title = f"[[{name}]]" if 0 in path else f"[{name}]"
    text = " ".join((section.__doc__ or "").split())  # one line, as the tables are
    rows = [
        _row(key, field)
        for key, field in section.model_fields.items()
        if place_of(field.annotation, field).section is None
    ]
    head = ["| key | holds | default | example | what it does | reload |", "|---|---|---|---|---|---|"]
    return [f"## `{title}`", text, "\n".join([*head, *rows])]


def _row(key: str, field: FieldInfo) -> str:
    place = place_of(field.annotation, field)
    holds = place.kind.name if place.kind is not None else f"list: {place_of(place.element).kind.name}"  # type: ignore[union-attr]
    default = "has to be said" if field.default is PydanticUndefined else _code(_plain(field.default, holds))
    extra: Any = field.json_schema_extra
    cells = [
        f"`{key}`",
        holds,
        default,
        _code(_plain(field.examples[0], holds) if field.examples and field.examples[0] != field.default else None),
        field.description or "",
        "yes" if extra["reload"] else "restart",
    ]
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"


def _plain(given: Any, holds: str) -> Any:
    """As a person would write it."""
    if isinstance(given, tuple):
        return list(given)
    if isinstance(given, Path):
        return str(given)
    units = _TIMES if holds.startswith("a time") else _SIZES if holds.startswith("a size") else ()
    for size, unit in units:
        if isinstance(given, int | float) and given >= size and given % size == 0:
            return f"{int(given // size)} {unit}"
    return given


def _code(given: Any) -> str:
    if given is None:
        return ""
    return f"`{as_toml({'x': given}).partition(' = ')[2].strip()}`"
