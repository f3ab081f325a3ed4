"""`tomowire config`, and peers by the names of nodes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from support.certificates import Authority
from support.network import LOOPBACK
from support.programs import run_tomowire, serving
from tomowire.server.config.schema import known_keys
from tomowire.server.variables import SECTIONS

WRONG = '[dicom]\nprot = 104\n[http]\nbind = "0.0.0.0"\n'
SECRET = "S3CRET"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tomowire.toml"


def test_check_says_what_is_wrong_and_where(file: Path) -> None:
    file.write_text(WRONG)
    done = run_tomowire("config", "check", file)
    assert done.returncode == 2
    assert done.stdout == f"{file}:2: dicom.prot is no key that is known; did you mean 'port'?\n"
    assert done.stderr == f"tomowire: {file}: 1 mistake\n"


def test_check_as_json(file: Path) -> None:
    file.write_text(WRONG)
    done = run_tomowire("config", "check", "--json", TOMOWIRE_CONFIG=str(file))
    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "ok": False,
        "problems": [
            {
                "severity": "error",
                "source": str(file),
                "line": 2,
                "column": None,
                "key": "dicom.prot",
                "text": "is no key that is known",
                "nearest": "port",
            }
        ],
    }


def test_warnings_are_no_mistakes(file: Path) -> None:
    file.write_text('[http]\nbind = "0.0.0.0"\n')
    done = run_tomowire("config", "check", file)
    assert done.returncode == 0
    assert done.stdout.startswith(f"warning: {file}:2: http.bind is 0.0.0.0, open to the network without TLS")
    assert done.stderr == f"tomowire: {file}: no mistakes, 1 warning\n"


def test_the_environment_alone_is_a_configuration() -> None:
    done = run_tomowire("config", "check", TOMOWIRE_DICOM__PORT="x")
    assert done.returncode == 2
    assert "TOMOWIRE_DICOM__PORT: dicom.port must be a whole number" in done.stdout
    assert run_tomowire("config", "check").returncode == 0


@pytest.mark.parametrize("section", sorted(known_keys(())))
def test_a_section_alone_is_one_too(section: str, tmp_path: Path) -> None:
    """A command that looks only then whether its configuration is right reads it."""
    done = run_tomowire("db", "check", cwd=tmp_path, **{f"TOMOWIRE_{section.upper()}": "x"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"tomowire: TOMOWIRE_{section.upper()}: {section}")


def test_sections_are_known_before_they_can_be_read() -> None:
    assert {section.lower() for section in known_keys(())} == SECTIONS


def test_a_file_that_is_not_there(file: Path) -> None:
    done = run_tomowire("config", "check", file)
    assert (done.returncode, done.stdout) == (
        2,
        f"{file}: the file cannot be read: No such file or directory\n",
    )


def test_what_steers_a_terminal_is_not_printed_as_it_is(file: Path) -> None:
    file.write_text('"\\u001b[31m" = 1\n')
    done = run_tomowire("config", "check", file)
    assert "\x1b" not in done.stdout
    assert r"\x1b[31m" in done.stdout


def test_show_prints_what_is_in_force_and_where_it_was_said_without_secrets(file: Path) -> None:
    file.write_text(
        f'[dicom]\nport = 104\n[storage]\ndata_dir = "d"\n[index]\nurl = "postgresql://me:{SECRET}@db/x"\n'
        '[nodes.V]\nhost = "h"\nport = 1\n'
    )
    done = run_tomowire("config", "show", file, TOMOWIRE_DICOM__AE_TITLE="ARCHIVE")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert f"port = 104  # {file}:2" in lines
    assert 'ae_title = "ARCHIVE"  # TOMOWIRE_DICOM__AE_TITLE' in lines
    assert 'bind = "127.0.0.1"  # default' in lines
    assert SECRET not in done.stdout + done.stderr
    as_json = json.loads(run_tomowire("config", "show", file, "--json", TOMOWIRE_DICOM__AE_TITLE="ARCHIVE").stdout)
    assert as_json == tomllib.loads(done.stdout)
    # What is shown is a configuration, and comes to the same.
    file.write_text(done.stdout)
    assert json.loads(run_tomowire("config", "show", file, "--json").stdout) == as_json
    file.write_text("[dicom]\nprot = 1\n")
    assert run_tomowire("config", "show", file).returncode == 2


def test_show_names_the_variable_that_says_a_whole_section(file: Path) -> None:
    file.write_text('[[callers]]\nae_title = "MR1"\naddresses = ["192.0.2.7"]\n[nodes.V]\nhost = "h"\nport = 1\n')
    done = run_tomowire(
        "config",
        "show",
        file,
        TOMOWIRE_CALLERS='[{ae_title = "CT1", may = ["echo"]}]',
        TOMOWIRE_NODES='{W = {host = "w", port = 104}}',
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^\[+(.*?)\]+\n((?:.+\n)*)", done.stdout, re.MULTILINE)
    sections = {title: lines.splitlines() for title, lines in found}
    assert 'ae_title = "CT1"  # TOMOWIRE_CALLERS' in sections["callers"]
    assert 'may = ["echo"]  # TOMOWIRE_CALLERS' in sections["callers"]
    assert "addresses = []  # default" in sections["callers"], "of the file is nothing left"
    assert "port = 104  # TOMOWIRE_NODES" in sections["nodes.W"]
    assert f"port = 1  # {file}:6" in sections["nodes.V"]
    assert "tls = false  # default" in sections["nodes.W"]


def test_a_peer_may_be_a_node(file: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.sign()
    tls = ("--tls-cert", identity.certificate, "--tls-key", identity.key)
    with serving("serve", "--data-dir", tmp_path / "data", "--aet", "ARCHIVE", *tls) as archive:
        file.write_text(
            f'[nodes.main]\nae_title = "ARCHIVE"\nhost = "{LOOPBACK}"\nport = {archive.port}\ntls = true\n'
            f'[nodes_tls]\nauthorities = "{authority.file.name}"\n'
        )
        assert run_tomowire("echo", "main", "--config", file).returncode == 0
        done = run_tomowire("query", "main", "--format", "json", TOMOWIRE_CONFIG=str(file))
        assert (done.returncode, done.stdout.strip()) == (0, "[]")
        # Options are over it.
        assert run_tomowire("echo", "main", "--config", file, "--called-aet", "OTHER").returncode == 4
        assert run_tomowire("echo", "main", "--config", file, "--tls-insecure").returncode == 0
        assert run_tomowire("echo", "main", "--config", file, "--tls").returncode == 3


def test_a_name_that_nobody_has(file: Path) -> None:
    file.write_text('[nodes.main]\nhost = "h"\nport = 1\n')
    done = run_tomowire("echo", "mian", "--config", file)
    assert done.returncode == 2
    assert f"no node is named 'mian' in {file}: did you mean 'main'?" in done.stderr
    here = {"TOMOWIRE_NODES__main__HOST": LOOPBACK, "TOMOWIRE_NODES__main__PORT": "1"}
    assert run_tomowire("echo", "main", **here).returncode == 3
    done = run_tomowire("echo", "main")
    assert done.returncode == 2
    assert "or is the name of a node in a configuration (--config, $TOMOWIRE_CONFIG)" in done.stderr
    file.write_text("[nodes.main]\nhost = 5\n")
    done = run_tomowire("echo", "main", "--config", file)
    assert done.returncode == 2
    assert f"{file}:1: nodes.main.port is missing" in done.stderr
