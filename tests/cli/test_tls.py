"""TLS on the command line."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.certificates import Authority, Identity
from support.network import LOOPBACK, free_port
from support.programs import Program, run_tomowire, serving, start


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def peer(program: Program) -> str:
    return f"TOMOWIRE@{LOOPBACK}:{program.port}"


def showing(identity: Identity) -> tuple[object, ...]:
    return "--tls-cert", identity.certificate, "--tls-key", identity.key


def test_objects_are_sent_found_and_retrieved_over_tls(tmp_path: Path, authority: Authority, shared_data: Path) -> None:
    trust = ("--tls-ca", authority.file)
    with serving("serve", "--data-dir", tmp_path / "data", *showing(authority.sign())) as archive:
        assert "TOMOWIRE on 127.0.0.1" in archive.stderr.text
        assert ", TLS" in archive.stderr.text
        archive.stderr.wait_for("--tls")
        sent = run_tomowire("send", peer(archive), shared_data / "synthetic-dcmtk", "--json", *trust)
        assert sent.returncode == 0, sent.stderr
        found = run_tomowire("query", peer(archive), "--format", "json", *trust)
        assert json.loads(found.stdout)
        got = run_tomowire("retrieve", peer(archive), "--modality", "CT", "-o", tmp_path / "got", *trust)
        assert got.returncode == 0, got.stderr
    assert [each for each in (tmp_path / "got").rglob("*") if each.is_file()]


def test_both_sides_show_certificates(tmp_path: Path, authority: Authority) -> None:
    options = (*showing(authority.sign()), "--tls-ca", authority.file)
    with serving("listen", "-o", tmp_path / "received", *options) as listener:
        mine = (*showing(authority.sign("client")), "--tls-ca", authority.file)
        assert run_tomowire("echo", peer(listener), *mine).returncode == 0
        refused = run_tomowire("echo", peer(listener), "--tls-ca", authority.file)
    assert refused.returncode == 3
    assert "the peer wants a certificate of this side, and was shown none (--tls-cert)" in refused.stderr
    assert "the caller has shown no certificate, and one is required" in listener.stderr.text
    assert "Traceback" not in listener.stderr.text


def test_a_certificate_of_the_caller_can_be_left_to_it(tmp_path: Path, authority: Authority) -> None:
    options = (*showing(authority.sign()), "--tls-ca", authority.file, "--tls-client-auth", "optional")
    with serving("listen", "-o", tmp_path / "received", *options) as listener:
        assert run_tomowire("echo", peer(listener), "--tls-ca", authority.file).returncode == 0


def test_whom_to_trust_and_by_which_name(tmp_path: Path, authority: Authority) -> None:
    with serving("listen", "-o", tmp_path / "received", *showing(authority.sign("archive.example.org"))) as listener:
        unknown = run_tomowire("echo", peer(listener), "--tls")
        other = run_tomowire("echo", peer(listener), "--tls-ca", authority.file, "--json")
        name = ("--tls-server-name", "archive.example.org")
        assert run_tomowire("echo", peer(listener), "--tls-ca", authority.file, *name).returncode == 0
        blind = run_tomowire("echo", peer(listener), "--tls-insecure")
    assert (unknown.returncode, other.returncode, blind.returncode) == (3, 3, 0)
    assert "to trust it, name its authority (--tls-ca)" in unknown.stderr
    assert "--tls-server-name" in json.loads(other.stdout)["error"]
    assert "warning: --tls-insecure: the peer's certificate is not verified" in blind.stderr


def test_one_side_only_speaks_tls(tmp_path: Path, authority: Authority) -> None:
    with serving("listen", "-o", tmp_path / "plain") as plain:
        tried = run_tomowire("echo", peer(plain), "--tls")
    assert (tried.returncode, "speaks DICOM without TLS" in tried.stderr) == (3, True)
    with serving("listen", "-o", tmp_path / "tls", *showing(authority.sign())) as tls:
        refused = run_tomowire("echo", peer(tls))
    assert refused.returncode == 3
    assert "the other side speaks TLS, and this connection is without (--tls)" in refused.stderr
    assert "speaks DICOM without TLS" in tls.stderr.text


def test_a_profile_is_chosen_by_name(tmp_path: Path, authority: Authority) -> None:
    options = (*showing(authority.sign(rsa=True)), "--tls-profile", "bcp195-rfc8996-modified")
    with serving("listen", "-o", tmp_path / "received", *options) as listener:
        mine = ("--tls-ca", authority.file, "--tls-profile", "bcp195-nd")
        assert run_tomowire("echo", peer(listener), *mine).returncode == 0
    unknown = run_tomowire("echo", "ANY@localhost", "--tls-profile", "ssl3")
    assert unknown.returncode == 2
    assert "'bcp195-rfc8996'" in unknown.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tls-key", "KEY"], "--tls-key needs --tls-cert"),
        (["--tls-insecure", "--tls-ca", "CERT"], "--tls-ca has no use with it"),
        (["--tls-ca", "missing.pem"], "does not exist"),
        (["--tls-cert", "CERT", "--tls-key", "OTHER"], "the key is not that of the certificate"),
    ],
)
def test_what_a_caller_cannot_ask_for(authority: Authority, options: list[str], said: str) -> None:
    identity, other = authority.sign(), authority.sign()
    files = {"KEY": identity.key, "CERT": identity.certificate, "OTHER": other.key}
    done = run_tomowire("echo", f"ANY@{LOOPBACK}:1", *(files.get(each, each) for each in options))
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tls-ca", "CERT"], "TLS needs a certificate: --tls-cert"),
        (["--tls-profile", "bcp195"], "TLS needs a certificate: --tls-cert"),
        (["--tls-cert", "CERT", "--tls-client-auth", "require"], "--tls-client-auth require needs --tls-ca"),
        (["--tls-cert", "CERT", "--tls-key", "OTHER"], "the key is not that of the certificate"),
    ],
)
def test_what_a_listener_cannot_ask_for(tmp_path: Path, authority: Authority, options: list[str], said: str) -> None:
    files = {"CERT": authority.sign().certificate, "OTHER": authority.sign().key}
    arguments = [files.get(each, each) for each in options]
    done = run_tomowire("listen", "-o", tmp_path / "received", "--port", "0", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("command", ["listen", "serve"])
def test_sighup_has_new_certificates_read_and_broken_ones_refused(
    tmp_path: Path, authority: Authority, stranger: Authority, command: str
) -> None:
    identity = authority.sign()
    where = {"listen": "-o", "serve": "--data-dir"}[command]
    with serving(command, where, tmp_path / "data", *showing(identity)) as program:
        old, new = ("--tls-ca", authority.file), ("--tls-ca", stranger.file)
        assert run_tomowire("echo", peer(program), *old).returncode == 0
        identity.replace_by(stranger.sign())
        program.process.send_signal(signal.SIGHUP)
        program.stderr.wait_for("the TLS certificates have been read again")
        assert run_tomowire("echo", peer(program), *new).returncode == 0
        assert run_tomowire("echo", peer(program), *old).returncode == 3
        identity.key.write_text("hello")
        program.process.send_signal(signal.SIGHUP)
        program.stderr.wait_for("the TLS certificates of before remain in use: the certificate .* cannot be used")
        assert run_tomowire("echo", peer(program), *new).returncode == 0
        assert program.end() == 0


# C-MOVE, where the objects go over a connection of their own


@contextmanager
def on_port(port: int, *arguments: object) -> Iterator[Program]:
    """`serving`, on this port."""
    program = start([*arguments, "--port", port])
    try:
        program.wait_until_listening()
        yield program
    finally:
        program.end()


def retrieve_by_move(archive: Program, port: int, folder: Path, *options: object) -> CompletedProcess[str]:
    where = ("--method", "move", "--aet", "DEST", "--bind", LOOPBACK, "--port", port, "-o", folder, "--modality", "CT")
    return run_tomowire("retrieve", peer(archive), *where, *options)


@pytest.fixture
def sent(shared_data: Path) -> Path:
    return shared_data / "synthetic-dcmtk"


def test_what_a_move_brings_comes_over_tls_and_both_sides_show_certificates(
    tmp_path: Path, authority: Authority, sent: Path
) -> None:
    port = free_port()
    trust = ("--tls-ca", authority.file)
    mine = (*showing(authority.sign(LOOPBACK)), *trust)
    serve = (
        "--data-dir",
        tmp_path / "data",
        "--node",
        f"DEST@{LOOPBACK}:{port},tls",
        *showing(authority.sign()),
        *trust,
    )
    with serving("serve", *serve) as archive:
        assert run_tomowire("send", peer(archive), sent, *mine).returncode == 0
        got = retrieve_by_move(archive, port, tmp_path / "got", *mine, "--receive-tls")
        assert got.returncode == 0, got.stderr
        assert [each for each in (tmp_path / "got").rglob("*") if each.is_file()]
        plain = retrieve_by_move(archive, port, tmp_path / "plain", *mine)
    assert plain.returncode == 1
    assert "the objects come without TLS, as long as there is no --receive-tls" in plain.stderr


def test_a_node_may_have_tls_where_the_archive_has_none_and_another_name_in_its_certificate(
    tmp_path: Path, authority: Authority, stranger: Authority, sent: Path
) -> None:
    port = free_port()
    serve = ("--data-dir", tmp_path / "data", "--node", f"DEST@{LOOPBACK}:{port},tls-name=dest.example.org")
    mine = ("--node-tls-ca", authority.file)
    listening = ("-o", tmp_path / "moved", "--aet", "DEST", *showing(authority.sign("dest.example.org")))
    with serving("serve", *serve, *mine) as archive:
        assert run_tomowire("send", peer(archive), sent).returncode == 0
        with on_port(port, "listen", *listening):
            moved = run_tomowire("move", peer(archive), "--dest", "DEST", "--modality", "CT")
            assert moved.returncode == 0, moved.stderr
        assert [each for each in (tmp_path / "moved").rglob("*") if each.is_file()]
        with on_port(
            port, "listen", "-o", tmp_path / "other", "--aet", "DEST", *showing(stranger.sign("dest.example.org"))
        ):
            refused = run_tomowire("move", peer(archive), "--dest", "DEST", "--modality", "CT")
        assert refused.returncode == 1
        archive.stderr.wait_for("the peer's certificate is signed by an authority that is not trusted here")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--receive-tls", "--method", "move", "--tls"], "--receive-tls needs a certificate: --tls-cert"),
        (["--receive-tls", "--tls-cert", "CERT", "--tls-key", "KEY"], "--receive-tls is for --method move"),
        (["--method", "move", "--tls-client-auth", "none"], "--tls-client-auth is for --receive-tls"),
    ],
)
def test_what_a_retrieval_cannot_ask_for(tmp_path: Path, authority: Authority, options: list[str], said: str) -> None:
    identity = authority.sign()
    files = {"KEY": identity.key, "CERT": identity.certificate}
    command = ["retrieve", f"ANY@{LOOPBACK}:1", "-o", tmp_path, "--study-uid", "1.2"]
    done = run_tomowire(*command, *(files.get(each, each) for each in options))
    assert done.returncode == 2
    assert said in done.stderr


def test_certificates_for_nodes_are_looked_at_before_the_archive_begins(tmp_path: Path, authority: Authority) -> None:
    identity = authority.sign()
    where = ("--data-dir", tmp_path / "data", "--port", "0")
    unused = run_tomowire("serve", *where, "--node-tls-ca", authority.file, "--node", "DEST@localhost:1")
    assert (unused.returncode, "are for a --node with ',tls'" in unused.stderr) == (2, True)
    node = ("--node", "DEST@localhost:1,tls")
    alone = run_tomowire("serve", *where, *node, "--node-tls-key", identity.key)
    assert (alone.returncode, "--node-tls-key needs --node-tls-cert" in alone.stderr) == (2, True)
    named = run_tomowire("serve", *where, "--node", "DEST@localhost:1,tls-name=.example.org")
    assert (named.returncode, "is no host name that a certificate can be for" in named.stderr) == (2, True)
    (tmp_path / "broken.pem").write_text("hello")
    broken = run_tomowire("serve", *where, *node, "--node-tls-ca", tmp_path / "broken.pem")
    assert (broken.returncode, "broken.pem cannot be used" in broken.stderr) == (2, True)
