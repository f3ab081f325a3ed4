"""A configuration as it can be shown: all keys with what is in force, without secrets; as a tree, or as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from tomowire.server.config import models
from tomowire.server.config.mapping import tree_of
from tomowire.server.config.problems import Path
from tomowire.server.config.schema import place_at
from tomowire.server.hidden import without_password

if TYPE_CHECKING:
    from tomowire.server.settings import Settings

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def shown(configuration: models.Configuration) -> dict[str, Any]:
    """A tree as a file would have it. Keys that have nothing are left out; passwords are `***`."""
    tree = _tree(configuration, ())
    assert isinstance(tree, dict)
    return tree


def shown_settings(settings: Settings) -> dict[str, Any]:
    """The same of the settings of an archive. Nodes go by their AE titles."""
    tree = tree_of(settings)
    if settings.index_url is not None:
        tree["index"]["url"] = without_password(settings.index_url)
    return tree


def reset_keys(before: Settings, after: Settings, said: Mapping[str, Any]) -> list[str]:
    """The keys with which `after` differs from `before` because the tree it was made of, `said`, left them out."""
    return sorted(_left_out(shown_settings(before), shown_settings(after), said))


def as_toml(tree: Mapping[str, Any], said: Callable[[Path], str | None] = lambda path: None) -> str:
    """The tree as TOML; `said` gives a comment for a key."""
    lines: list[str] = []
    _write_section(tree, (), said, lines)
    return "\n".join(lines).strip("\n") + "\n"


def _left_out(before: Mapping[str, Any], after: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    for name, former in before.items():
        now, given = after.get(name), said.get(name, {})
        if isinstance(former, Mapping) and isinstance(now, Mapping) and isinstance(given, Mapping):
            yield from (f"{name}.{below}" for below in _left_out(former, now, given))
        elif name not in said and now != former:
            yield name


def _tree(given: Any, path: Path) -> Any:
    if isinstance(given, models.Section):
        items = {name: _tree(getattr(given, name), (*path, name)) for name in type(given).model_fields}
        return {name: each for name, each in items.items() if each is not None and each != {}}
    if isinstance(given, Mapping):
        return {name: _tree(each, (*path, name)) for name, each in given.items()}
    if isinstance(given, tuple):
        return [_tree(each, (*path, number)) for number, each in enumerate(given)]
    if isinstance(given, FilePath):
        return str(given)
    place = place_at(path)
    extra = place.field.json_schema_extra if place is not None and place.field is not None else None
    is_secret = isinstance(extra, dict) and extra.get("secret")
    return without_password(given) if is_secret and given is not None else given


def _write_section(tree: Mapping[str, Any], path: Path, said: Callable[[Path], str | None], lines: list[str]) -> None:
    for name, given in tree.items():
        if not _is_section(given):
            comment = said((*path, name))
            lines.append(f"{_name(name)} = {_written(given)}" + (f"  # {comment}" if comment else ""))
    for name, given in tree.items():
        below = (*path, name)
        title = ".".join(_name(str(each)) for each in below if isinstance(each, str))
        if isinstance(given, Mapping):
            if not given or any(not _is_section(each) for each in given.values()):
                lines += ["", f"[{title}]"]
            _write_section(given, below, said, lines)
        elif _is_section(given):
            for number, each in enumerate(given):
                lines += ["", f"[[{title}]]"]
                _write_section(each, (*below, number), said, lines)


def _is_section(given: Any) -> bool:
    return isinstance(given, Mapping) or (isinstance(given, list) and any(isinstance(each, Mapping) for each in given))


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _written(given: Any) -> str:
    if isinstance(given, list):
        return f"[{', '.join(map(_written, given))}]"
    if isinstance(given, float) and given.is_integer() and abs(given) < 1e15:
        return str(int(given))
    if isinstance(given, bool | int | float):
        return json.dumps(given)
    return _quoted(given)


def _quoted(text: str) -> str:
    """JSON's form is TOML's, but for one character; and JSON escapes half characters where TOML has the whole."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
