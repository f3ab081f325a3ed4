"""What a command costs before it does anything: nobody waits for what he does not use."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.programs import run_tomowire
from support.subprocesses import python_environment

HEAVY = {"alembic", "numpy", "pydantic", "pydicom", "rich", "sqlalchemy", "sqlite3"}


def imported_by(*arguments: str) -> set[str]:
    """Top-level names of all modules that a command imports, as Python reports them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tomowire", *arguments],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    modules = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, flags=re.MULTILINE)
    assert "tomowire.cli.main" in modules
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("echo", "--help"),
        ("echo", "ANY@127.0.0.1:1"),
        ("send", "--help"),
        ("send", "ANY@127.0.0.1:1", "/dev/null"),
        ("listen", "--help"),
        ("serve", "--help"),
        ("db", "--help"),
    ],
)
def test_quick_commands_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments) & HEAVY == set()


@pytest.mark.parametrize("command", ["echo", "send", "listen", "serve", "db"])
def test_every_command_explains_itself(command: str) -> None:
    overview = run_tomowire("--help")
    assert re.search(rf"^  {command} +\w", overview.stdout, flags=re.MULTILINE)
    done = run_tomowire(command, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: tomowire {command} ")


def test_the_exit_codes_are_in_the_help() -> None:
    text = run_tomowire("--help").stdout
    for code in (0, 1, 2, 3, 4, 5, 6, 130):
        assert re.search(rf" {code}  \w", text)
