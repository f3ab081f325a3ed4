"""The programs in the documentation: where each stands, and how it is made to run beside what a test has started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.requirements import REPOSITORY

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_PRINTS: Final = re.compile(r"\n\n<!-- prints -->\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ARCHIVE: Final = re.compile(r"\b(?:ARCHIVE|TOMOWIRE)@localhost:11112\b")
_OWN: Final = re.compile(r"@(?:localhost|127\.0\.0\.1):11113\b")
_LINES: Final = r"(?:.*\n)*"
_LISTENS: Final = re.compile(r'(listen\(\s*"127\.0\.0\.1",\s*)11113\b')
_HAS_TESTS: Final = re.compile(r"^(?:async )?def test_", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is that of its first line in the page, `prints` what the page says that it prints."""

    page: Path
    line: int
    language: str
    text: str
    prints: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    def program(self, archive: str, own_port: int) -> str:
        """The text with addresses that are there: of the archive, and of what the program itself listens on."""
        text = _ARCHIVE.sub(archive, self.text)
        if _LISTENS.search(text):
            text = _LISTENS.sub(rf"\g<1>{own_port}", text)
            text = _OWN.sub(f"@127.0.0.1:{own_port}", text)
        return text

    @property
    def has_tests(self) -> bool:
        """Whether it is a file of tests, to be run with pytest."""
        return _HAS_TESTS.search(self.text) is not None


def pages() -> list[Path]:
    """All pages with programs in them."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(language: str, page: Path) -> Iterator[Block]:
    """The blocks of one language in a page."""
    whole = page.read_text()
    for fence in _FENCE.finditer(whole):
        if fence["language"] == language:
            prints = _PRINTS.match(whole, fence.end())
            text = re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
            line = whole.count("\n", 0, fence.start("text")) + 1
            yield Block(page, line, language, text, prints[1] if prints else None)


def all_blocks(language: str) -> list[Block]:
    """Those of all pages."""
    return [block for page in pages() for block in blocks(language, page)]


def matches(printed: str, expected: str) -> bool:
    """Whether `printed` is what the page says, in which `...` stands for anything in a line, and alone for any lines."""
    lines = [
        _LINES if line == "..." else f"{'.*'.join(map(re.escape, line.split('...')))}\n"
        for line in expected.splitlines()
    ]
    return re.fullmatch("".join(lines), printed) is not None
