"""What `serve` and `listen` do before they begin."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.subprocesses import python_environment

resource = pytest.importorskip("resource")

SCRIPT = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from tomowire.cli.receiving import allow_many_files
allow_many_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64)
"""


def test_the_limit_of_open_files_is_raised() -> None:
    """An association takes a descriptor, and so does each object while it is written: the usual 1024 are soon gone."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "True"
