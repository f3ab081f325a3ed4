"""`tomowire serve` with a configuration: what is over what, SIGHUP, and what becomes of mistakes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from support.certificates import Authority
from support.network import LOOPBACK, free_port
from support.programs import Program, run_on_a_terminal, run_tomowire, serving, start
from support.raw_peer import RawPeer, associate_rq
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tomowire.wire.items import PresentationContextRQ

READ_AGAIN = "the configuration has been read again; "


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "tomowire.toml", '[[callers]]\nae_title = "CT1"\n')


def write(file: Path, text: str, dicom: str = "", http: str = "enabled = false") -> Path:
    file.write_text(
        f'[storage]\ndata_dir = "data"\n[logs]\nformat = "text"\n[http]\n{http}\n[dicom]\nae_title = "ARCHIVE"\n{dicom}\n{text}'
    )
    return file


def echo(program: Program, calling: str, called: str = "ARCHIVE", *options: object) -> int:
    return run_tomowire("echo", f"{called}@{LOOPBACK}:{program.port}", "--aet", calling, *options).returncode


def reload(program: Program, said: str) -> None:
    program.process.send_signal(signal.SIGHUP)
    program.stderr.wait_for(re.escape(said))


def test_the_file_says_and_options_say_more(file: Path) -> None:
    with serving("serve", "--config", file, "--allow", "CT2", cwd=file.parent.parent) as archive:
        assert [echo(archive, title) for title in ("CT1", "CT2", "CT3")] == [0, 0, 4]
        assert echo(archive, "CT1", "TOMOWIRE") == 4
        assert (file.parent / "data" / "index.sqlite").exists()
    with serving("serve", "--config", file, "--aet", "OTHER", "--data-dir", file.parent / "elsewhere") as archive:
        assert echo(archive, "CT1", "OTHER") == 0
        assert (file.parent / "elsewhere" / "index.sqlite").exists()


async def test_sighup_changes_who_may_call_and_drops_nobody(file: Path) -> None:
    context = PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
    with serving("serve", "--config", file) as archive:
        async with await RawPeer.connect(archive.port) as peer:
            await peer.associate(associate_rq(context, called="ARCHIVE", calling="CT1"))
            write(file, '[[callers]]\nae_title = "CT2"\n[nodes.VIEWER]\nhost = "localhost"\nport = 104\n', "port = 1")
            reload(archive, f"{READ_AGAIN}changed: callers, nodes")
            assert [echo(archive, title) for title in ("CT1", "CT2", "VIEWER")] == [4, 0, 0]
            await peer.release()
    # The port is that of the option, whatever the file says.
    assert "restart" not in archive.stderr.text


def test_what_needs_a_restart_is_named(file: Path) -> None:
    with serving("serve", "--config", file) as archive:
        write(file, "", 'ae_title = "X"'.replace("ae_title", "bind").replace('"X"', '"127.0.0.2"'))
        reload(archive, f"{READ_AGAIN}changed: callers; needs a restart: dicom.bind")
        assert echo(archive, "ANYBODY") == 0


MISTAKES = {
    "[dicom": "this is no TOML",
    "[dicom]\nprot = 1\n": "dicom.prot is no key that is known; did you mean 'port'?",
    '[dicom]\nbind = "0.0.0.0"\n': "nobody may call",
    '[[callers]]\nae_title = "CT9"\n[dicom.tls]\ncertificate = "gone.pem"\n': "gone.pem: No such file",
    None: "the file cannot be read",
}


def test_a_mistake_leaves_all_as_it_is_and_says_why(file: Path) -> None:
    with serving("serve", "--config", file) as archive:
        for number, (text, said) in enumerate(MISTAKES.items(), 1):
            if text is None:
                file.unlink()
            else:
                file.write_text(text)
            archive.process.send_signal(signal.SIGHUP)
            archive.stderr.wait_for(f"(?s)(the configuration of before remains in use.*){{{number}}}")
            assert said in archive.stderr.text
        assert [echo(archive, title) for title in ("CT1", "CT9")] == [0, 4]
        write(file, '[[callers]]\nae_title = "CT9"\n')
        reload(archive, READ_AGAIN)
        assert [echo(archive, title) for title in ("CT1", "CT9")] == [4, 0]


def test_sighup_ends_serve_in_no_case(tmp_path: Path) -> None:
    """Nodes with TLS and a port without; nothing to read at all; many at once; and while it begins and ends."""
    authority = Authority(tmp_path)
    node = ("--node", "VIEWER@localhost:104,tls", "--node-tls-ca", authority.file)
    with serving("serve", "--data-dir", tmp_path / "1", *node) as archive:
        reload(archive, "the TLS certificates have been read again")
        assert echo(archive, "ANY", "TOMOWIRE") == 0
        authority.file.write_text("no certificate")
        archive.process.send_signal(signal.SIGHUP)
        assert echo(archive, "ANY", "TOMOWIRE") == 0
    with serving("serve", "--data-dir", tmp_path / "2") as archive:
        for _ in range(20):
            archive.process.send_signal(signal.SIGHUP)
        archive.stderr.wait_for("there is no configuration and no TLS certificate to be read again")
        assert echo(archive, "ANY", "TOMOWIRE") == 0
        archive.process.send_signal(signal.SIGTERM)
        archive.process.send_signal(signal.SIGHUP)
        assert archive.process.wait(20) == 0


def test_all_mistakes_end_the_start(file: Path) -> None:
    write(file, "[nodes.V]\nhost = 5\n[quota]\nage = true\n")
    done = run_tomowire("serve", "--config", file, TOMOWIRE_DICOM__PROT="104")
    assert done.returncode == 2
    assert [line.partition(": ")[2].replace(str(file), "F") for line in done.stderr.splitlines()] == [
        "F:10: nodes.V.port is missing",
        "F:11: nodes.V.host must be a host name or an address, and not 5",
        "F:13: quota.age must be a time, in seconds or with a unit (s, min, h, d), more than 0, and not true",
        "TOMOWIRE_DICOM__PROT: belongs to no key; did you mean 'TOMOWIRE_DICOM__PORT'?",
    ]
    assert not (file.parent / "data").exists()


def test_the_log_is_of_one_kind(file: Path) -> None:
    """What reads lines of JSON gets nothing else: `auto` is JSON where there is no terminal."""
    file.write_text(file.read_text().replace('"text"', '"auto"'))
    with serving("serve", "--config", file, "-v") as archive:
        assert echo(archive, "CT1") == 0
        reload(archive, READ_AGAIN)
    lines = [json.loads(line) for line in archive.stderr.text.splitlines()]
    assert {"tomowire.serve", "tomowire.archive"} <= {line["logger"] for line in lines}


def test_on_a_terminal_it_is_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    said = run_on_a_terminal(["serve", "--data-dir", file / "data", "--port", "0"])
    assert said == f"tomowire: {file / 'data'}: Not a directory\r\n".encode()


def test_what_an_archive_warns_of_at_its_start_is_of_that_kind_too(file: Path) -> None:
    write(file, "", http='port = 0\nbind = "0.0.0.0"')
    file.write_text(file.read_text().replace('"text"', '"json"'))
    with serving("serve", "--config", file) as archive:
        archive.stderr.wait_for("end with Ctrl-C")
        assert archive.end() == 0
    first, *others = (json.loads(line) for line in archive.stderr.text.splitlines())
    assert (first["level"], first["logger"]) == ("warning", "tomowire.serve")
    assert "http.bind is 0.0.0.0, open to the network without TLS" in first["message"]
    assert "tomowire archive, data in" in others[0]["message"]


def test_with_options_alone_too(tmp_path: Path) -> None:
    options = ("--data-dir", tmp_path / "data", "--http-bind", "0.0.0.0", "--http-port", free_port())
    with serving("serve", *options, "-v") as archive:
        assert echo(archive, "CT1", "TOMOWIRE") == 0
        assert archive.end() == 0
    lines = [json.loads(line) for line in archive.stderr.text.splitlines()]
    assert {"tomowire.serve", "tomowire.archive"} <= {line["logger"] for line in lines}
    assert {"info", "warning"} == {line["level"] for line in lines}


def test_a_start_that_fails_is_an_error_in_the_log(file: Path) -> None:
    """Whoever watches the log by its levels sees it."""
    file.write_text(file.read_text().replace('"text"', '"json"'))
    with serving("serve", "--config", file) as archive:
        second = run_tomowire("serve", "--config", file)
        (line,) = (json.loads(line) for line in second.stderr.splitlines())
        assert (line["level"], line["logger"]) == ("error", "tomowire.serve")
        assert "is in use by another process" in line["message"]
        assert archive.end() == 0


def test_http_is_opened_beside_dicom_and_a_port_that_is_taken_ends_only_who_asked_for_it(file: Path) -> None:
    write(file, "", http="port = 0")
    with serving("serve", "--config", file) as archive:
        port = archive.stderr.wait_for(r"  HTTP   http://127\.0\.0\.1:(\d+)")[1]
        write(file, "", http=f"port = {port}")
        wanting = start(["serve", "--config", file, "--data-dir", file.parent / "2", "--port", "0"])
        assert wanting.process.wait(30) == 3
        wanting.stderr.join()
        assert f"cannot listen for HTTP on 127.0.0.1, port {port}" in wanting.stderr.text
        assert archive.end() == 0
