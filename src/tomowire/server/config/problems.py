"""What is wrong with a configuration, as values: where it stands, and what a person can do about it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

from tomowire.wire.value import value

Path = tuple[str | int, ...]
"""The way to a key: names, and positions in lists from 0."""

_MOST_SHOWN: Final = 60


@value()
class Origin:
    """Where something was said: `source` is a file, an environment variable or an option; lines and columns are from 1."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(each) for each in (self.source, self.line, self.column) if each is not None)


@value()
class Problem:
    """One mistake. `text` goes on from `key` (`dicom.port`, `callers[0].may`): "is missing". It is a sentence of its own where the
    key is None. `nearest` is the key that may have been meant. A warning is no mistake, but worth a look."""

    origin: Origin | None
    key: str | None
    text: str
    nearest: str | None = None
    is_warning: bool = False

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest is not None else ""
        sentence = f"{self.text}{hint}" if self.key is None else f"{self.key} {self.text}{hint}"
        return _printable(sentence if self.origin is None else f"{self.origin}: {sentence}")

    def as_json(self) -> dict[str, object]:
        """For `--json` and the API."""
        origin = self.origin
        return {
            "severity": "warning" if self.is_warning else "error",
            "source": origin and origin.source,
            "line": origin and origin.line,
            "column": origin and origin.column,
            "key": self.key,
            "text": self.text,
            "nearest": self.nearest,
        }


def dotted(path: Path) -> str:
    """`dicom.port`, `callers[0].may`; a name that is no plain word is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.isascii() and part.replace("-", "_").isidentifier()
            text += ("." if text else "") + (part if plain else shown(part))
    return text


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` looks most like; upper and lower case and hyphens make no difference."""
    plain = {each.lower().replace("-", "_"): each for each in known}
    found = get_close_matches(name[:_MOST_SHOWN].lower().replace("-", "_"), plain, 1, 0.6)
    return plain[found[0]] if found else None


def kind_of(given: object) -> str:
    """What was said where a section or a list belongs, in a word: what would be in that may be secret."""
    if isinstance(given, dict):
        return "a section"
    if isinstance(given, list | tuple):
        return "a list"
    if given is None:
        return "null"
    if isinstance(given, bool):
        return "true" if given else "false"
    return "text" if isinstance(given, str) else "a number" if isinstance(given, int | float) else "a date or a time"


def shown(given: object) -> str:
    """What was said, short and without what would steer a terminal; of sections and lists only that they are some, and of text with
    a password in it nothing at all: it is the index's URL, at a key that is not its own."""
    if isinstance(given, bool | dict | list | tuple) or given is None:
        return kind_of(given)
    if isinstance(given, str) and may_hold_password(given):
        return "text that may hold a password"
    try:
        text = repr(given)
    except ValueError:  # a whole number with thousands of digits
        return "a number that is far too long"
    return _printable(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def may_hold_password(text: str) -> bool:
    """Whether it looks like the URL of a database, or its parameters (`host=... password=...`)."""
    return ":" in text.rpartition("@")[0] or "passw" in text.lower()


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
