"""docs/benchmarks.md: prose written by hand, and between markers what the benchmark has written."""

from __future__ import annotations

import re
from pathlib import Path


def replace_section(document: Path, name: str, text: str) -> None:
    """Put `text` where the document has the markers of `name`; at its end, with markers, where it has none."""
    old = document.read_text(encoding="utf-8") if document.exists() else "# Benchmarks\n"
    begin, end = f"<!-- bench: {name} -->", f"<!-- end: {name} -->"
    section = f"{begin}\n\n{text}\n\n{end}"
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: section, old, flags=re.DOTALL)
    document.write_text(new if count else f"{old}\n{section}\n", encoding="utf-8")
