"""`tomowire serve` as a process: how it begins, who may call, how it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import LOOPBACK
from support.objects import SECONDARY_CAPTURE, Sample
from support.programs import command_line, messages, run_tomowire, serving
from support.raw_peer import Closed, RawPeer, associate_rq, message_pdus, store_rq
from support.stored import contents, files_below
from support.subprocesses import python_environment
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP

STORAGE = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))


def write_sample(folder: Path, sample: Sample) -> Path:
    path = folder / f"{sample.uid}.dcm"
    path.write_bytes(sample.header + sample.data_set)
    return path


def test_what_it_suggests_to_try_works(tmp_path: Path) -> None:
    sample = Sample(1)
    folder = tmp_path / "FOLDER"
    folder.mkdir()
    write_sample(folder, sample)
    with serving("serve", "--data-dir", tmp_path / "data", cwd=tmp_path) as archive:
        archive.stderr.wait_for("end with Ctrl-C")
        greeting = messages(archive.stderr.text)
        assert str(tmp_path / "data") in greeting
        suggested = [line.split() for line in greeting.splitlines() if re.search(r" (echo|send|query) TOMOWIRE@", line)]
        assert len(suggested) == 3
        for command in suggested:
            arguments = command[command.index("tomowire") + 1 :]
            done = subprocess.run(
                command_line(*arguments), cwd=tmp_path, env=python_environment(), capture_output=True, check=False
            )
            assert done.returncode == 0, shlex.join(command)
        assert archive.process.stdout is not None
        assert archive.stdout.text == ""
    assert contents(tmp_path / "data") == {sample.uid: sample.data_set}


def test_what_it_suggests_works_also_where_not_everybody_may_call(tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data", "--allow", "STORESCU") as archive:
        archive.stderr.wait_for("end with Ctrl-C")
        (command,) = re.findall(r"tomowire (echo .*)", messages(archive.stderr.text))
        assert command.endswith(" --aet STORESCU")
        assert run_tomowire(*command.split()).returncode == 0


def test_its_default_data_directory_is_where_it_was_started(tmp_path: Path) -> None:
    with serving("serve", cwd=tmp_path):
        assert (tmp_path / "tomowire-data" / "index.sqlite").exists()


def test_an_occupied_port(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as occupant:
        port = occupant.getsockname()[1]
        done = run_tomowire("serve", "--data-dir", tmp_path / "data", "--port", port)
    assert done.returncode == 3
    assert messages(done.stderr) == (
        f"tomowire: cannot listen on {LOOPBACK}, port {port}: Address already in use; "
        "another program listens there: stop it, or take another port with --port"
    )
    assert not (tmp_path / "data").exists()


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    done = run_tomowire("serve", "--data-dir", tmp_path / "data", "--bind", "192.0.2.1", "--allow", "FRIEND")
    assert done.returncode == 3
    assert "this machine has no such address: see --bind" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_directory_in_use(tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        done = run_tomowire("serve", "--data-dir", tmp_path / "data", "--port", "0")
        assert run_tomowire("echo", f"TOMOWIRE@{LOOPBACK}:{archive.port}").returncode == 0
    assert done.returncode == 75
    assert f"is in use by another process (PID {archive.process.pid})" in done.stderr
    with serving("serve", "--data-dir", tmp_path / "data"):  # the lock ends with the process
        pass


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_tomowire("serve", "--data-dir", tmp_path / "file" / "data", "--port", "0")
    assert done.returncode == 1
    assert messages(done.stderr) == f"tomowire: {tmp_path / 'file' / 'data'}: Not a directory"


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_it_is_not_open_to_the_network_unless_a_person_says_so(bind: str, tmp_path: Path) -> None:
    done = run_tomowire("serve", "--data-dir", tmp_path / "data", "--bind", bind)
    assert done.returncode == 2
    assert (
        "name peers with --node or AE titles with --allow, or let in everyone with --allow-unknown-callers"
        in done.stderr
    )
    assert not (tmp_path / "data").exists()


def test_only_those_who_are_allowed_may_call(tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data", "--allow", "FRIEND", "--aet", "ARCHIVE") as archive:

        def code(called: str, calling: str) -> int:
            return run_tomowire("echo", f"{called}@{LOOPBACK}:{archive.port}", "--aet", calling).returncode

        assert code("ARCHIVE", "FRIEND") == 0
        assert code("ARCHIVE", "STRANGER") == 4
        assert code("TOMOWIRE", "FRIEND") == 4


@pytest.mark.parametrize("who", [["--bind", "0.0.0.0"], ["--allow", "FRIEND"]])
def test_nodes_may_call_from_their_hosts(who: list[str], tmp_path: Path) -> None:
    """One whose host nobody knows could be anybody. 192.0.2.0/24 is nobody's (RFC 5737), nor is .invalid (RFC 2606)."""
    hosts = {"VIEWER": "localhost", "AWAY": "192.0.2.1", "LOST": "nowhere.invalid"}
    nodes = [argument for title, host in hosts.items() for argument in ("--node", f"{title}@{host}:104")]
    with serving("serve", "--data-dir", tmp_path / "data", *nodes, *who) as archive:

        def code(calling: str) -> int:
            return run_tomowire("echo", f"TOMOWIRE@{LOOPBACK}:{archive.port}", "--aet", calling).returncode

        assert code("VIEWER") == 0
        assert code("LOST") == 4
        assert code("AWAY") == 4
        assert code("STRANGER") == 4
        assert code("FRIEND") == (0 if "FRIEND" in who else 4)
        archive.stderr.wait_for("end with Ctrl-C")
        assert archive.end() == 0
    log = archive.stderr.text
    assert "the host nowhere.invalid of node LOST is not found: the node is not let in before it is" in log
    assert "'AWAY' calls from 127.0.0.1, and is a node at 192.0.2.1 (--allow AWAY lets it in from anywhere)" in log
    assert ("try, in another terminal" in log) == ("FRIEND" in who)


def test_nodes_that_are_allowed_may_call_from_anywhere(tmp_path: Path) -> None:
    node = ["--node", "AWAY@192.0.2.1:104", "--allow", "AWAY"]
    with serving("serve", "--data-dir", tmp_path / "data", *node) as archive:
        assert run_tomowire("echo", f"TOMOWIRE@{LOOPBACK}:{archive.port}", "--aet", "AWAY").returncode == 0


def test_nodes_alone_shut_nobody_out_of_the_loopback_address(tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data", "--node", "AWAY@192.0.2.1:104") as archive:
        for title in ("AWAY", "STRANGER"):
            assert run_tomowire("echo", f"TOMOWIRE@{LOOPBACK}:{archive.port}", "--aet", title).returncode == 0


@pytest.mark.parametrize(
    ("policy", "code", "kept"), [("keep", 0, "first"), ("replace", 0, "second"), ("reject", 1, "first")]
)
def test_duplicates(policy: str, code: int, kept: str, tmp_path: Path) -> None:
    first, second = Sample(1, content="first"), Sample(1, content="second")
    with serving("serve", "--data-dir", tmp_path / "data", "--duplicates", policy) as archive:
        peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        path = write_sample(tmp_path, first)
        assert run_tomowire("send", peer, path).returncode == 0
        assert run_tomowire("send", peer, path).returncode == 0  # identical: a success in all of them
        write_sample(tmp_path, second)
        assert run_tomowire("send", peer, path).returncode == code
    expected = {"first": first, "second": second}[kept]
    assert contents(tmp_path / "data") == {first.uid: expected.data_set}


@pytest.mark.parametrize("verbose", ["-v", "-vv"])
def test_the_log_says_how_many_objects_came_and_with_vv_which(verbose: str, tmp_path: Path) -> None:
    """By their UIDs: no name and no patient ID is in it."""
    small, large = Sample(1, patient_id="SECRET"), Sample(2, patient_id="SECRET", size=1 << 18)
    bad = Sample(3, overrides={0x0020000D: ("UI", "no UID")})
    paths = [write_sample(tmp_path, sample) for sample in (small, large, bad)]
    with serving("serve", "--data-dir", tmp_path / "data", verbose) as archive:
        peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
        assert run_tomowire("send", peer, *paths, "--aet", "MODALITY").returncode == 1
        assert run_tomowire("send", peer, paths[0], "--aet", "AGAIN").returncode == 0
        assert run_tomowire("echo", peer, "--aet", "ECHOER").returncode == 0
        assert archive.end() == 0
    log = archive.stderr.text
    lines = [json.loads(line) for line in log.splitlines()]  # the log is read by a program
    text = "".join(f"{line['level']} {line['logger']}: {line['message']}\n" for line in lines)
    ends = re.findall(r"info tomowire\.archive: (\w+) -> TOMOWIRE \(127\.0\.0\.1:\d+\): ended, (.*)\n", text)
    assert ends == [
        ("MODALITY", "2 objects stored, 1 refused"),
        ("AGAIN", "0 objects stored, 1 there before"),
        ("ECHOER", "0 objects stored"),
    ]
    objects = re.findall(r"debug tomowire\.server\.ingest: (\w+) \(127\.0\.0\.1:\d+\): (\w+) (.*)\n", text)
    assert {line["calling"] for line in lines if line["logger"] == "tomowire.archive"} == {
        "MODALITY",
        "AGAIN",
        "ECHOER",
    }
    assert all(re.fullmatch(r"\d+\.\d+", line["request"]) for line in lines if "ingest" in line["logger"])
    each = [("AGAIN", "identical", small.uid), ("MODALITY", "stored", small.uid), ("MODALITY", "stored", large.uid)]
    assert sorted(objects) == (each if verbose == "-vv" else [])
    assert not re.search("SECRET|Doe", log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        began = time.monotonic()
        assert archive.end(number) == 0
        assert time.monotonic() - began < 15
    assert "Traceback" not in archive.stderr.text


async def begin_object(peer: RawPeer, sample: Sample) -> bytes:
    """Associate and send the first half of an object; gives the rest."""
    await peer.associate(associate_rq(STORAGE, called="TOMOWIRE"))
    request = store_rq(instance=sample.uid, sop_class=SECONDARY_CAPTURE)
    pdus = message_pdus(1, request, sample.data_set, fragment=len(sample.data_set) // 20)
    await peer.send(pdus[: len(pdus) // 2])
    return pdus[len(pdus) // 2 :]


def wait_until_refused(port: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except ConnectionRefusedError:
            return
        except (TimeoutError, ConnectionResetError):
            continue  # the queue of the closing port was full, or was given up with this one in it
    raise TimeoutError(f"port {port} is still open")


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where the system has such a place: a busy disk could use up all the time that there is at the end."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("size", [64, 3_000_000])
async def test_at_the_end_an_object_under_way_may_finish(size: int, quick_folder: Path) -> None:
    sample = Sample(1, size=size)
    with serving("serve", "--data-dir", quick_folder / "data") as archive:
        async with await RawPeer.connect(archive.port) as peer:
            rest = await begin_object(peer, sample)
            archive.process.send_signal(signal.SIGTERM)
            archive.stderr.wait_for("shutting down")
            wait_until_refused(archive.port)  # nobody else gets in
            await peer.send(rest)
            response = (await peer.read_message()).command
            assert isinstance(response, CStoreRSP)
            assert response.status == 0
            await peer.release()
        assert archive.process.wait(20) == 0
    assert contents(quick_folder / "data") == {sample.uid: sample.data_set}


async def test_at_the_end_one_who_does_not_finish_is_cut_off(tmp_path: Path) -> None:
    sample = Sample(1, size=3_000_000)
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        async with await RawPeer.connect(archive.port) as peer:
            await begin_object(peer, sample)
            began = time.monotonic()
            archive.process.send_signal(signal.SIGTERM)
            assert (await peer.expect_abort()).source in (0, 2)
            with pytest.raises(Closed):
                await peer.read_pdu()
        assert archive.process.wait(20) == 0
        assert time.monotonic() - began < 9  # `docker stop` waits for ten seconds
    assert contents(tmp_path / "data") == {}
    assert files_below(tmp_path / "data") == set()
    assert not list((tmp_path / "data" / "incoming").glob("*.part"))
    assert "Traceback" not in archive.stderr.text


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    sample = Sample(1)
    with serving("serve", "--data-dir", tmp_path / "data") as archive:
        async with await RawPeer.connect(archive.port) as peer:
            await begin_object(peer, sample)
            archive.process.send_signal(signal.SIGINT)
            archive.stderr.wait_for("once more to end at once")
            began = time.monotonic()
            archive.process.send_signal(signal.SIGINT)
            assert archive.process.wait(10) == -signal.SIGINT  # 130 to a shell
            assert time.monotonic() - began < 4.5  # the grace is five
    assert run_tomowire("db", "check", "--data-dir", tmp_path / "data").returncode == 0
