"""Rewrites what is drawn from the code and kept in docs/: pictures, and the tables between marks in a page.

    scripts/docs --update

A test compares what is there with what this makes. (What is only shown in the site is made when that is built: `made.py`.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from automaton import state_diagram
from configuration import configuration_keys
from layers import layer_diagram, way_in
from rest import rest_api
from sop_classes import association_parameters, identity, query_retrieve_table, storage_table, transfer_syntax_table

DOCS: Final = Path(__file__).parents[1]
_PICTURES: Final[Mapping[str, Callable[[], str]]] = {
    "images/states.svg": state_diagram,
    "images/layers.svg": layer_diagram,
    "images/way-in.svg": way_in,
}
_PAGES: Final = ("conformance.md", "reference/configuration.md", "reference/rest-api.md")
_TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "storage SOP classes": storage_table,
    "query/retrieve SOP classes": query_retrieve_table,
    "transfer syntaxes": transfer_syntax_table,
    "implementation": identity,
    "association parameters": association_parameters,
    "configuration keys": configuration_keys,
    "REST API": rest_api,
}
_PART: Final = re.compile(r"(<!-- drawn from the code: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def generated() -> dict[str, str]:
    """What each file, named from docs/, should hold. Raises `KeyError` for a mark that nothing belongs to."""
    files = {name: draw() for name, draw in _PICTURES.items()}
    for page in _PAGES:
        text = (DOCS / page).read_text()
        files[page] = _PART.sub(lambda part: f"{part[1]}\n{_TABLES[part[2]]()}\n\n{part[3]}", text)
    return files


def outdated() -> list[str]:
    """The files that do not hold what they should."""
    return [name for name, text in generated().items() if not _is_there(name, text)]


def _is_there(name: str, text: str) -> bool:
    file = DOCS / name
    return file.is_file() and file.read_text() == text


def main() -> None:
    """Write those that are outdated, and name them."""
    for name in outdated():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(generated()[name])
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
