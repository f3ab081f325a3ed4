"""What every command does around its work: how errors look, and that nothing foreign steers the terminal."""

from __future__ import annotations

import asyncio
import io
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.network import LOOPBACK
from support.objects import Sample
from support.programs import command_line, run_on_a_terminal, run_tomowire, serving, tomowire
from support.raw_peer import RawPeer, command_pdu, raw_acceptor
from support.subprocesses import python_environment
from tomowire import Verification, listen
from tomowire.cli.running import printable, set_up_logging
from tomowire.wire.messages import CStoreRSP

# ECMA-48: C0, DEL, C1.
CONTROLS = [*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0))]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
async def test_a_closed_standard_stream_is_no_place_for_a_socket(closed: str) -> None:
    """As a service manager may start it: what is opened first would get the number of standard output."""
    async with listen(LOOPBACK, 0, services=[Verification()]) as server:
        command = shlex.join(command_line("echo", f"ANY@{LOOPBACK}:{server.port}", "--json"))
        shell = await asyncio.create_subprocess_shell(
            f"{command} {closed}",
            env=python_environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await asyncio.wait_for(shell.communicate(), 30)
    assert (shell.returncode, stderr) == (0, b"")
    assert bool(stdout) == (">&-" not in closed.split())


@given(st.text(st.one_of(st.sampled_from(CONTROLS), st.characters())))
def test_what_is_printable_holds_no_control_character(text: str) -> None:
    assert not set(printable(text)) & set(CONTROLS)
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r", r"two\x0alines\x0d"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("Müller^Zoë 山田", "Müller^Zoë 山田"),
        (b"\x9b\xff".decode(errors="surrogateescape"), "\\x9b\udcff"),
    ],
)
def test_how_control_characters_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


async def test_what_a_peer_and_a_file_name_say_does_not_steer_the_terminal(tmp_path: Path) -> None:
    async def refuse(peer: RawPeer) -> None:
        await peer.accept()
        message = await peer.read_message()
        answer = CStoreRSP(message_id_being_responded_to=1, status=0xA900, error_comment="<[2J<]0;owned>")
        await peer.send(command_pdu(message.context_id, answer).replace(b"<", b"\x1b").replace(b">", b"\x07"))
        await peer.answer_release()

    sample = Sample(1)
    (tmp_path / "\x1b[31mred.dcm").write_bytes(sample.header + sample.data_set)
    (tmp_path / "\x9bnote.txt").write_text("no image")
    async with raw_acceptor(refuse) as port:
        done = await tomowire("send", f"ANY@{LOOPBACK}:{port}", tmp_path, "-vv")
    assert done.code == 1
    assert r"\x1b[31mred.dcm: the peer answered A900H" in done.stderr
    assert r"\x1b[2J\x1b]0;owned\x07" in done.stderr
    assert r"\x9bnote.txt: skipped: " in done.stderr
    assert not set(done.stderr) & (set(CONTROLS) - {"\n"})


def test_a_dry_run_shows_names_on_a_terminal_and_gives_them_as_they_are_to_a_program(tmp_path: Path) -> None:
    sample = Sample(1)
    (tmp_path / "\x1b[31m.dcm").write_bytes(sample.header + sample.data_set)
    arguments = ["send", "ANY@localhost", tmp_path, "--dry-run"]
    assert rb"\x1b[31m.dcm" in run_on_a_terminal(arguments)
    assert run_tomowire(*arguments).stdout == f"{tmp_path}/\x1b[31m.dcm\n"


def test_log_lines_hold_no_control_characters_and_a_traceback_keeps_its_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    set_up_logging(0)
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        logging.root.error("from %s", "\x1b[2J\nforged", exc_info=True)
    lines = written.getvalue().splitlines()
    assert lines[0].endswith(r"from \x1b[2J\x0aforged")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: \x1b[31m"


def test_a_traceback_tells_of_the_fault_and_not_of_a_missing_extra() -> None:
    program = (
        "import sys; sys.modules['uvloop'] = None\n"
        "from tomowire.cli.running import run\n"
        "async def work() -> int: raise AssertionError('a defect')\n"
        "run(work())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=python_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "AssertionError: a defect" in done.stderr
    assert "uvloop" not in done.stderr
    assert "During handling of the above exception" not in done.stderr


def test_no_library_speaks_of_what_is_in_an_object(tmp_path: Path) -> None:
    """`ISO-IR 100` should be `ISO_IR 100` (PS3.3 C.12.1.1.2): pydicom warns of such, and may quote what it cannot read."""
    wrong = {0x00080005: ("CS", "ISO-IR 100"), 0x00100010: ("PN", "Müller^Zoë"), 0x00200013: ("IS", "1e")}
    (tmp_path / "send").mkdir()
    for sample in (Sample(1, overrides=wrong), Sample(2, overrides=wrong)):
        (tmp_path / "send" / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    with serving("serve", "--data-dir", tmp_path / "data", "-vv") as archive:
        peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        sent = run_tomowire("send", peer, tmp_path / "send")
        name = ["--name", "{patient_id}/{study_date}/{sop_instance_uid}.dcm"]
        keys = ["--study-uid", Sample(1).study_uid]
        retrieved = run_tomowire("retrieve", peer, "-o", tmp_path / "out", *keys, *name)
        found = run_tomowire("query", peer, *keys)
    for done in (sent, retrieved, found):
        assert done.returncode == 0, done.stderr
    assert "2 retrieved" in retrieved.stderr
    for text in (sent.stderr, retrieved.stderr, archive.stderr.text):
        assert "pydicom" not in text
        assert "Warning" not in text
        assert "ller" not in text


@pytest.mark.parametrize("is_loaded", [False, True])
def test_pydicom_is_not_heard_whenever_it_is_imported(is_loaded: bool) -> None:
    script = (
        f"if {is_loaded}: import pydicom.charset\n"
        "from tomowire.cli.running import set_up_logging\n"
        "set_up_logging(2)\n"
        "import logging, pydicom.charset\n"
        "print(pydicom.charset.convert_encodings(['ISO-IR 100', 'Doe^Jane']))\n"
        "logging.getLogger('pydicom').warning('Doe^Jane')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=python_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr == ""
