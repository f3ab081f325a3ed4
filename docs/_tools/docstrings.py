"""Docstrings for Sphinx: they are written to be read where they stand, and say what they mean with little markup.

In them `code` stands in single backticks, a star is a star, and what is indented is to be shown as it is. reStructuredText
would take `Smith*` for the beginning of an emphasis, and a tree of classes for a quotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sphinx.application import Sphinx

_CODE: Final = re.compile(r"(`+[^`]+`+)")
_REFERENCE: Final = re.compile(r"`[A-Za-z_][\w.]*(?:\(\))?`")
_ITEM: Final = re.compile(r"(?:[-*]|\d+\.) ")


def as_restructured_text(lines: Sequence[str]) -> list[str]:
    """The lines of a docstring, without its common indentation, as reStructuredText that looks the same."""
    converted: list[str] = []
    for block in _blocks(lines):
        if converted:
            converted.append("")
        converted += _literal(block) if _is_literal(block) else [_line(each) for each in block]
    return converted


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """What stands between empty lines; indented blocks that follow each other are one."""
    gathered: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            gathered.append(line)
        elif gathered:
            yield gathered
            gathered = []


def _is_literal(block: Sequence[str]) -> bool:
    return all(line.startswith("    ") for line in block)


def _literal(block: Sequence[str]) -> list[str]:
    return ["::", "", *block]


def _line(line: str) -> str:
    """One line: a star outside of code is no markup; code that is more than a name is literal, a name may be a link."""
    head = match.group() if (match := _ITEM.match(line.lstrip())) else ""
    indent = line[: len(line) - len(line.lstrip())]
    rest = line.lstrip()[len(head) :]
    pieces = [
        _code(piece) if odd else _text(piece) for piece, odd in zip(_CODE.split(rest), _alternating(), strict=False)
    ]
    return indent + head + "".join(pieces)


def _alternating() -> Iterator[bool]:
    while True:
        yield False
        yield True


def _code(piece: str) -> str:
    if piece.startswith("``") or _REFERENCE.fullmatch(piece):
        return piece
    return f"`{piece}`"


def _text(piece: str) -> str:
    return re.sub(r"([*|\\])", r"\\\1", re.sub(r"\b_(?=\W|$)|(?<=\w)_(?=\W|$)", r"\\_", piece))


def _convert(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
