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
_MARKUP: Final = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")
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
    """What stands between empty lines, or between fences."""
    gathered: list[str] = []
    is_fenced = False
    for line in [*lines, ""]:
        if is_fence := line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        if (line.strip() or is_fenced) and not is_fence:
            gathered.append(f"    {line}" if is_fenced else line)
        elif gathered:
            yield gathered
            gathered = []


def _is_literal(block: Sequence[str]) -> bool:
    return all(line.startswith("    ") for line in block) or block[0].startswith(">>> ")


def _literal(block: Sequence[str]) -> list[str]:
    return ["::", "", *(line if line.startswith("    ") else f"    {line}" for line in block)]


def _line(line: str) -> str:
    """One line: a star outside of code is no markup; code that is more than a name is literal, a name may be a link."""
    rest = line.lstrip()
    head = match.group() if (match := _ITEM.match(rest)) else ""
    pieces = enumerate(_CODE.split(rest[len(head) :]))
    indent = line[: len(line) - len(rest)]
    return indent + head + "".join(_code(piece) if odd % 2 else _text(piece) for odd, piece in pieces)


def _code(piece: str) -> str:
    return piece if piece.startswith("``") or _REFERENCE.fullmatch(piece) else f"`{piece}`"


def _text(piece: str) -> str:
    """A colon twice at the end announces what is literal; that is said anew where it begins."""
    return _MARKUP.sub(r"\\\1", piece[:-1] if piece.endswith("::") else piece)


def _convert(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
