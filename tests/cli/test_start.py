"""What a command costs before it does anything: nobody waits for what he does not use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.files import write_file
from support.programs import run_tomowire
from support.subprocesses import python_environment

HEAVY = {"alembic", "numpy", "pydantic", "pydicom", "rich", "sqlalchemy", "sqlite3"}


# Of tomowire itself: what only some who use a command have a use for.
FOR_SOME = (
    "tomowire.aio.tls",
    "tomowire.aio.tls_acceptor",
    "tomowire.aio.tls_certificate",
    "tomowire.aio.tls_context",
    "tomowire.aio.tls_handshake",
    "tomowire.aio.tls_reasons",
    "tomowire.aio.tls_titles",
    "tomowire.services.compressing",
    "tomowire.services.dataset_source",
    "tomowire.services.image_codecs",
    "tomowire.services.peer",
    "tomowire.services.transcoding",
    "tomowire.testing",
)


def imported_by(*arguments: str) -> set[str]:
    """The names of all modules that a command imports, as Python reports them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tomowire", *arguments],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    modules = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, flags=re.MULTILINE)
    assert "tomowire.cli.main" in modules
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("echo", "--help"),
        ("echo", "ANY@127.0.0.1:1"),
        ("send", "--help"),
        ("send", "ANY@127.0.0.1:1", "/dev/null"),
        ("query", "--help"),
        ("retrieve", "--help"),
        ("move", "--help"),
        ("listen", "--help"),
        ("serve", "--help"),
        ("db", "--help"),
        ("config", "--help"),
        ("config", "check", "--help"),
    ],
)
def test_quick_commands_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert {module.partition(".")[0] for module in imported_by(*arguments)} & HEAVY == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("echo", "ANY@127.0.0.1:1"),
        ("send", "ANY@127.0.0.1:1", "{folder}"),
        ("listen", "-o", "{folder}", "--bind", "203.0.113.1"),  # an address for documentation: nobody has it
        ("serve", "--data-dir", "{folder}", "--bind", "203.0.113.1", "--allow", "ANY"),
    ],
)
def test_what_is_not_used_is_not_imported(arguments: tuple[str, ...], tmp_path: Path) -> None:
    write_file(tmp_path)
    assert imported_by(*(each.format(folder=tmp_path) for each in arguments)) & set(FOR_SOME) == set()


def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    program = "import tomowire.cli.main as m; m._COMMANDS['echo'] = 'interrupted'; m.main(['echo', 'A@localhost'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=python_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tomowire: interrupted\n")


def test_the_library_writes_no_log_where_nobody_asked_for_one() -> None:
    program = "import logging, tomowire; logging.getLogger('tomowire.association').warning('broken')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=python_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["echo", "send", "query", "retrieve", "move", "listen", "serve", "db"])
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


@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("db", "check"), ("db", "reindex")], ids=" ".join)
def test_without_the_extra_the_archive_says_what_to_install(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "data" / "objects").mkdir(parents=True)
    for package in ("alembic", "sqlalchemy", "xxhash"):
        absent = f"raise ModuleNotFoundError('No module named {package}', name={package!r})"
        (tmp_path / f"{package}.py").write_text(absent)
    path = os.pathsep.join([str(tmp_path), python_environment()["PYTHONPATH"]])
    done = run_tomowire(*arguments, "--data-dir", tmp_path / "data", PYTHONPATH=path)
    assert re.fullmatch(r"tomowire: the archive needs \w+, which is not installed: .*\n", done.stderr)
    assert 'pip install "tomowire[server]"' in done.stderr
    assert done.returncode == 1
