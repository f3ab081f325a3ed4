"""The site that is made of the documentation."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.requirements import REPOSITORY
from support.subprocesses import python_environment

DOCS = REPOSITORY / "docs"


def build_site(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build pages as `scripts/docs` does, with the options that stand there."""
    pytest.importorskip("furo")
    script = (REPOSITORY / "scripts" / "docs").read_text()
    options = re.search(r"-m sphinx (.*) --doctree-dir", script)
    assert options is not None
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *shlex.split(options[1]), "--doctree-dir", site / ".doctrees", docs, site],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
