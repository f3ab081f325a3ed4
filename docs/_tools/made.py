"""Parts of pages that are made whenever the site is built.

A page names what is made from the code with a comment, `<!-- made from the code: statuses -->`; `MAKERS` says what each is made
by. It is Markdown, or in it reStructuredText for what only that can say. `<!-- pages: storing, send -->` becomes a line of links to
the pages of these names, wherever in docs/ they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

from automaton import action_table, state_table, transition_table
from command_line import every_program, program, programs
from names import LEVELS, entries
from statuses import statuses

logger: Final = getLogger(__name__)

MAKERS: Final[Mapping[str, Callable[[], str]]] = {
    "programs": every_program,
    **{f"program {name}": partial(program, name) for name in programs()},
    "statuses": statuses,
    "states": state_table,
    "transitions": transition_table,
    "actions": action_table,
    **{f"names: {level}": partial(entries, level) for level in (*LEVELS, "errors", "values")},
}
_DOCS: Final = Path(__file__).parents[1]
_PAGES: Final = re.compile(r"^<!-- pages: (.+) -->$", re.MULTILINE)
_MARK: Final = re.compile(r"^<!-- made from the code: (.+) -->$", re.MULTILINE)


def with_made_parts(text: str, page: str) -> str:
    """The page with its parts in place. One that nothing makes is a warning, and so the end of a strict build."""

    def part(mark: re.Match[str]) -> str:
        if maker := MAKERS.get(mark[1]):
            return maker()
        logger.warning("nothing makes %r; there are %s", mark[1], ", ".join(MAKERS), location=page)
        return ""

    return _PAGES.sub(lambda mark: _links(mark[1].split(", ")), _MARK.sub(part, text))


def _links(names: Sequence[str]) -> str:
    """Where there is more: a page in the reference, in the guides, or above them. One that is not there (yet) is left out."""
    places = (f"{folder}{name}.md" for name in names for folder in ("reference/", "how-to/", ""))
    links = [f"[{_title(_DOCS / place)}](/{place})" for place in places if (_DOCS / place).is_file()]
    return f"More: {', '.join(links)}." if links else ""


def _title(page: Path) -> str:
    return page.read_text().partition("\n")[0].removeprefix("# ")


def _read(_app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = with_made_parts(source[0], page)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
