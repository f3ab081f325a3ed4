"""From files and the environment to layers: what was said, and where."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final, NoReturn

from tomowire.errors import ConfigurationInvalid
from tomowire.server.config.positions import Lines, json_lines, toml_lines
from tomowire.server.config.problems import Origin, Path, Problem, dotted
from tomowire.wire.value import value

MOST_BYTES: Final = 1 << 20
MOST_DEPTH: Final = 12
_DIGITS: Final = re.compile(r"\d{4300}")
_NO_NUMBERS: Final = re.compile(r"[\s:,\[]-?(NaN|Infinity)|\d{4300}")
_MOST_DOTS: Final = 1000
"""In a line: Python's parser takes the square of their number for a key."""


@value()
class Layer:
    """A `tree` of sections, and where each path in it was said. A path without an origin has that of the longest one above it."""

    tree: Mapping[str, Any]
    origins: Mapping[Path, Origin]


def read_file(file: FilePath) -> Layer:
    """What a file holds: JSON if its name ends in `.json`, otherwise TOML. Raises `ConfigurationInvalid`."""
    source = str(file)
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a name with NUL in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _refuse(Origin(source), f"the file cannot be read: {reason}")
    return read_text(data, source, is_json=file.suffix.lower() == ".json")


def read_text(data: bytes, source: str, *, is_json: bool) -> Layer:
    """What `data` says, which came from `source`.

    Raises `ConfigurationInvalid`: one problem, with line and column where they are known.
    """
    if len(data) > MOST_BYTES:
        _refuse(Origin(source), f"the file is larger than {MOST_BYTES >> 20} MB: no configuration of an archive")
    text = _decoded(data, source)
    is_json = is_json or text.lstrip()[:1] == "{"  # no TOML begins so
    tree = _parsed_json(text, source) if is_json else _parsed_toml(text, source)
    if not isinstance(tree, dict):
        _refuse(Origin(source, 1), "the file holds no sections: JSON begins with { and ends with }")
    if _depth(tree) > MOST_DEPTH:
        _refuse(Origin(source), f"sections are nested more than {MOST_DEPTH} deep")
    lines = _lines_of_json(text, source) if is_json else toml_lines(text)
    return Layer(
        _without_nulls(tree), {(): Origin(source)} | {path: Origin(source, line) for path, line in lines.items()}
    )


def _decoded(data: bytes, source: str) -> str:
    """As the editors of Windows write it too."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        _refuse(
            Origin(source, line, column), f"this is no UTF-8 text: the byte {data[error.start]:02x}H cannot stand here"
        )


def _parsed_toml(text: str, source: str) -> Any:
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            _refuse(Origin(source, number), f"a line has more than {_MOST_DOTS} dots: break the list in several lines")
    try:
        return tomllib.loads(text)
    except RecursionError:
        _refuse(Origin(source), f"sections are nested more than {MOST_DEPTH} deep")
    except ValueError as error:
        why, row, column = _toml_error(str(error), text)
        row = row or _line_of(_DIGITS, text)
        _refuse(Origin(source, row, column), f"this is no TOML: {why}")


def _toml_error(said: str, text: str) -> tuple[str, int | None, int | None]:
    """tomllib has the place in its sentence: `Expected '=' after a key (at line 1, column 3)`."""
    sentence, found, place = said.rpartition(" (at ")
    if not found:
        return _plain(said), None, None
    words = place.removesuffix(")").replace(",", "").split()
    if words[:1] == ["line"]:
        return _plain(sentence), int(words[1]), int(words[3])
    lines = text.split("\n")
    return f"{_plain(sentence)}, and the file ends", len(lines), len(lines[-1]) + 1


def _parsed_json(text: str, source: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        _refuse(Origin(source), f"sections are nested more than {MOST_DEPTH} deep")
    except json.JSONDecodeError as error:
        _refuse(Origin(source, error.lineno, error.colno), f"this is no JSON: {_plain(error.msg)}")
    except ValueError as error:  # a constant, or a number with thousands of digits
        _refuse(Origin(source, _line_of(_NO_NUMBERS, text)), f"this is no JSON: {_plain(str(error))}")


def _line_of(what: re.Pattern[str], text: str) -> int | None:
    """Where the parsers do not say: more likely than not there."""
    found = what.search(text)
    return text.count("\n", 0, found.end()) + 1 if found is not None else None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"there is no number {name}")


def _plain(said: str) -> str:
    """Without a capital at the beginning; what Python says of its limits is nothing to a person."""
    if said.startswith("Exceeds the limit"):
        return "it holds a number with thousands of digits"
    return said if said[1:2].isupper() else said[:1].lower() + said[1:]


def _lines_of_json(text: str, source: str) -> Lines:
    lines, twice = json_lines(text)
    if twice:
        raise ConfigurationInvalid(
            [Problem(Origin(source, lines[path]), dotted(path), "stands here a second time") for path in twice]
        )
    return lines


def _depth(tree: object) -> int:
    """Without recursion: it is what has to be kept out."""
    depth, level = 0, [tree]
    while level and depth <= MOST_DEPTH:
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        depth, level = depth + 1, below
    return depth


def _without_nulls(tree: Any) -> Any:
    """JSON's null is a key that was not said."""
    if isinstance(tree, dict):
        return {name: _without_nulls(each) for name, each in tree.items() if each is not None}
    if isinstance(tree, list):
        return [_without_nulls(each) for each in tree]
    return tree


def _refuse(origin: Origin, text: str) -> NoReturn:
    raise ConfigurationInvalid([Problem(origin, None, text)])
