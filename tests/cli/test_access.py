"""Who may do what, as a person says it to `tomowire serve`: with options alone, and with a configuration below them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.network import LOOPBACK
from support.programs import run_tomowire, serving
from support.subprocesses import python_environment

CONFIGURATION = """
[dicom]
aliases = ["PACS"]

[[callers]]
ae_title = "QUERIES"
addresses = ["127.0.0.0/8"]
may = ["query"]

[[callers]]
ae_title = "ELSEWHERE"
addresses = ["192.0.2.0/24"]

[nodes.VIEWER]
host = "127.0.0.1"
port = 104
"""


def test_who_may_call_may_be_said_by_one_variable_alone(tmp_path: Path) -> None:
    environment = {**python_environment(), "TOMOWIRE_CALLERS": '[{ae_title = "CT1"}]'}
    with serving("serve", "--no-http", "--data-dir", tmp_path / "data", env=environment) as archive:
        address = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        assert run_tomowire("echo", address, "--aet", "CT1").returncode == 0
        assert run_tomowire("echo", address, "--aet", "OTHER").returncode == 4


@pytest.mark.parametrize("is_configured", [False, True])
def test_what_each_may(is_configured: bool, tmp_path: Path) -> None:
    """A node that is named by an option is no more than the option says, whatever the file says of one of its name."""
    options: list[object] = ["--data-dir", tmp_path / "data", "--node", f"VIEWER@{LOOPBACK}:104,may=query"]
    if is_configured:
        (tmp_path / "archive.toml").write_text(CONFIGURATION)
        options += ["--config", tmp_path / "archive.toml"]
    else:
        options += ["--allow", "QUERIES"]
    with serving("serve", "--no-http", *options) as archive:

        def code(command: str, calling: str, called: str = "TOMOWIRE") -> int:
            return run_tomowire(command, f"{called}@{LOOPBACK}:{archive.port}", "--aet", calling).returncode

        assert code("query", "VIEWER") == 0
        assert code("echo", "VIEWER") == 5
        assert code("query", "QUERIES") == 0
        assert code("echo", "QUERIES") == (5 if is_configured else 0)
        assert code("query", "ELSEWHERE") == 4
        assert code("query", "QUERIES", "PACS") == (0 if is_configured else 4)
        assert archive.end() == 0
    if is_configured:
        assert "'ELSEWHERE' is let in from 192.0.2.0/24, and calls from 127.0.0.1" in archive.stderr.text
