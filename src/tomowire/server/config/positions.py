"""On which line each key stands, of a text that is known to be TOML or JSON: their parsers do not say.

Of a path that is not found its longest beginning is; no text can make this fail.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Final

from tomowire.server.config.problems import Path

Lines = dict[Path, int]
"""Lines from 1."""

_TOML: Final = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)"
    r'|(?P<string>"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}" + r'|"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*')"
    r"|(?P<mark>[][{}=,])|(?P<bare>[^][{}=,\s#\"']+)|(?P<other>.)",
    re.DOTALL,
)
_JSON: Final = re.compile(
    r'(?P<space>[ \t\r]+)|(?P<newline>\n)|(?P<string>"(?:\\.|[^"\\])*")|(?P<mark>[][{}:,])|(?P<bare>[^][{}:,\s"]+)|(?P<other>.)',
    re.DOTALL,
)


class _End(Exception):
    """There are no more tokens."""


class _Tokens:
    """The tokens of a text, without spaces and comments."""

    def __init__(self, form: re.Pattern[str], text: str, *, newlines: bool) -> None:
        self._found = self._scan(form, text, newlines=newlines)
        self.line = 1
        self.kind, self.text = "", ""
        self._next: tuple[str, str, int] | None = None

    def step(self) -> str:
        """Go to the next token and give its text. Raises `_End`."""
        try:
            self.kind, self.text, self.line = next(self._found)
        except StopIteration:
            raise _End from None
        return self.text

    def _scan(self, form: re.Pattern[str], text: str, *, newlines: bool) -> Iterator[tuple[str, str, int]]:
        line = 1
        for match in form.finditer(text):
            kind = match.lastgroup or "other"
            if kind != "space" and (newlines or kind != "newline"):
                yield kind, match[0], line
            line += match[0].count("\n")


def json_lines(text: str) -> tuple[Lines, list[Path]]:
    """Where the keys are, and those that stand in their section a second time."""
    reader = _Json(_Tokens(_JSON, text, newlines=False))
    try:
        reader.tokens.step()
        reader.read(())
    except (_End, RecursionError):
        pass
    return reader.lines, reader.twice


class _Json:
    def __init__(self, tokens: _Tokens) -> None:
        self.tokens = tokens
        self.lines: Lines = {}
        self.twice: list[Path] = []

    def read(self, path: Path) -> None:
        """The value that begins at this token."""
        tokens = self.tokens
        self.lines.setdefault(path, tokens.line)
        if tokens.text == "{":
            while tokens.step() != "}":
                if tokens.kind == "string":
                    self._member(path)
        elif tokens.text == "[":
            number = 0
            while tokens.step() != "]":
                if tokens.text != ",":
                    self.read((*path, number))
                    number += 1

    def _member(self, path: Path) -> None:
        below = (*path, _unquoted_json(self.tokens.text))
        if below in self.lines:
            self.twice.append(below)
        self.lines[below] = self.tokens.line
        self.tokens.step()  # the colon
        self.tokens.step()
        self.read(below)


def toml_lines(text: str) -> Lines:
    """Where the keys and the titles of sections are."""
    reader = _Toml(_Tokens(_TOML, text, newlines=True))
    try:
        reader.read()
    except (_End, RecursionError):
        pass
    return reader.lines


class _Toml:
    def __init__(self, tokens: _Tokens) -> None:
        self.tokens = tokens
        self.lines: Lines = {}
        self._counts: dict[Path, int] = {}  # of the sections in [[lists]]

    def read(self) -> None:
        """All statements."""
        base: Path = ()
        while True:
            self.tokens.step()
            if self.tokens.text == "[":
                base = self._title()
            elif self.tokens.kind in ("bare", "string"):
                self._assignment(base)

    def _title(self) -> Path:
        line, is_list = self.tokens.line, self.tokens.step() == "["
        if is_list:
            self.tokens.step()
        names = self._names("]")
        if is_list:
            self.tokens.step()
        path: Path = ()
        for name in names[:-1]:
            path = self._last_of((*path, name))
        path = (*path, *names[-1:])
        if is_list:
            self._counts[path] = self._counts.get(path, -1) + 1
            self.lines.setdefault(path, line)
            path = (*path, self._counts[path])
        self._note(path, line)
        return path

    def _last_of(self, path: Path) -> Path:
        return (*path, self._counts[path]) if path in self._counts else path

    def _names(self, end: str) -> list[str]:
        """The parts of a dotted key, from this token on to `end`."""
        names = []
        while self.tokens.text != end:
            if self.tokens.kind == "string":
                names.append(_unquoted_toml(self.tokens.text))
            elif self.tokens.kind == "bare":
                names += [each for each in self.tokens.text.split(".") if each]
            self.tokens.step()
        return names

    def _assignment(self, base: Path) -> None:
        line = self.tokens.line
        path = (*base, *self._names("="))
        self._note(path, line, after=len(base))
        self.tokens.step()
        self._value(path)

    def _note(self, path: Path, line: int, after: int = 0) -> None:
        for length in range(after + 1, len(path)):
            self.lines.setdefault(path[:length], line)
        self.lines[path] = line

    def _value(self, path: Path) -> None:
        """The value that begins at this token."""
        tokens = self.tokens
        if tokens.text == "[":
            number = 0
            while tokens.step() != "]":
                if tokens.kind != "newline" and tokens.text != ",":
                    self.lines[(*path, number)] = tokens.line
                    self._value((*path, number))
                    number += 1
        elif tokens.text == "{":
            while tokens.step() != "}":
                if tokens.kind in ("bare", "string"):
                    self._assignment(path)


def _unquoted_json(token: str) -> str:
    try:
        found: str = json.loads(token, strict=False)
    except ValueError:
        return token
    return found


def _unquoted_toml(token: str) -> str:
    try:
        found: str = tomllib.loads(f"key = {token}")["key"]
    except ValueError:
        return token
    return found
