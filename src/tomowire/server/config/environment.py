"""Configuration in environment variables: `TOMOWIRE_DICOM__PORT=104`, `TOMOWIRE_NODES__VIEWER__HOST=viewer`.

Names are those of the file in capitals, with two underscores between section and key. Numbers, true and false are written as in the
file; lists of words with commas between them, or as in TOML; sections as in TOML.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tomowire.server.config.problems import Origin, Path, Problem, nearest
from tomowire.server.config.reading import Layer
from tomowire.server.config.schema import Place, place_at
from tomowire.server.variables import BETWEEN, PREFIX, is_configuration

CONFIG: Final = "TOMOWIRE_CONFIG"
"""The name of the variable that names the file."""

_FLAGS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def read_environment(
    environment: Mapping[str, str], names: Mapping[str, str] | None = None
) -> tuple[Layer, list[Problem]]:
    """What the variables say, and those of them which nothing belongs to. `names` are the nodes that the file has, by their names
    in capitals."""
    tree: dict[str, Any] = {}
    origins: dict[Path, Origin] = {}
    problems: list[Problem] = []
    for variable in sorted(each for each in environment if is_configuration(each)):
        parts = variable.removeprefix(PREFIX).split(BETWEEN)
        path = _path(parts, names or {})
        place = place_at(path) if path is not None else None
        if path is None or place is None:
            problems.append(Problem(Origin(variable), None, "belongs to no key", _nearest(parts)))
        elif not _put(tree, path, given := _read(environment[variable], place)):
            problems.append(Problem(Origin(variable), None, "does not go together with another variable"))
        else:
            origins |= dict.fromkeys(_paths(given, path), Origin(variable))
    return Layer(tree, origins), problems


def _path(parts: list[str], names: Mapping[str, str]) -> Path | None:
    path: Path = ()
    for part in parts:
        place = place_at(path)
        if place is None or not part:
            return None
        if place.table is not None:
            path = (*path, names.get(part.upper(), part))
        else:
            path = (*path, next((each for each in place.keys if each.upper() == part.upper()), part))
    return path


def _nearest(parts: list[str]) -> str | None:
    """The name of a variable that may have been meant."""
    meant: list[str] = []
    path: Path = ()
    for part in parts:
        place = place_at(path)
        if place is None:
            return None
        found = part if place.table is not None else nearest(part, place.keys)
        if found is None:
            return None
        meant.append(found.upper() if place.table is None else part)
        path = (*path, found)
    return PREFIX + BETWEEN.join(meant)


def _put(tree: dict[str, Any], path: Path, given: Any) -> bool:
    """Whether there was room for it: a section cannot be said in one and in several variables."""
    for part in path[:-1]:
        below: Any = tree.setdefault(str(part), {})
        if not isinstance(below, dict):
            return False
        tree = below
    if str(path[-1]) in tree:
        return False
    tree[str(path[-1])] = given
    return True


def _paths(given: Any, path: Path) -> Iterator[Path]:
    """This path, and those of all that a variable says below it."""
    yield path
    if isinstance(given, dict):
        for name, each in given.items():
            yield from _paths(each, (*path, name))
    elif isinstance(given, list):
        for number, each in enumerate(given):
            yield from _paths(each, (*path, number))


def _read(text: str, place: Place) -> Any:
    """What a variable holds, as a file would have it; what cannot be read is left to the key to refuse."""
    if place.kind is not None:
        if place.kind.is_text:
            return text
        if place.kind.name == "true or false":
            return _FLAGS.get(text.strip().lower(), text)
        return _number(text.strip())
    if place.element is not None and not text.lstrip().startswith("["):
        return [each.strip() for each in text.split(",") if each.strip()]
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text) if text.isascii() and "_" not in text else text
        except ValueError:
            continue
    return text
