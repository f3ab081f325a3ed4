"""Each exit code, from a real process, with what it says: what happened, whose fault it is, what to do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.network import LOOPBACK, free_port
from support.objects import SECONDARY_CAPTURE, Sample
from support.programs import start, tomowire
from tomowire import Status, Storage, Verification, listen
from tomowire.server.archive import ArchiveStorage
from tomowire.server.backup_folder import BackupFolder
from tomowire.server.files import DataDirectory
from tomowire.wire.part10 import FileMeta, encode_file_meta
from tomowire.wire.pdu import AAbort, AAssociateRJ, encode_pdu


def write_sample(folder: Path, number: int = 1) -> Path:
    sample = Sample(number)
    path = folder / f"{number:04}.dcm"
    path.write_bytes(sample.header + sample.data_set)
    return path


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """Something that answers whatever it is sent with the same bytes, and closes; gives its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        with contextlib.suppress(OSError):
            writer.write_eof()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A socket that takes connections and never says anything."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.setblocking(False)
        yield listener


def peer_at(listener: socket.socket) -> str:
    return f"ANY@{LOOPBACK}:{listener.getsockname()[1]}"


async def test_0_all_well_warnings_included(tmp_path: Path) -> None:
    async def coerce(request: object) -> Status:
        return Status(0xB000)

    path = write_sample(tmp_path)
    async with listen(LOOPBACK, 0, services=[Verification(), Storage(coerce)]) as server:
        peer = f"ANY@{LOOPBACK}:{server.port}"
        echoed = await tomowire("echo", peer)
        sent = await tomowire("send", peer, path)
    assert (echoed.code, echoed.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(peer)} answered in \d+\.\d ms\n", echoed.stdout)
    assert (sent.code, sent.stdout) == (0, "")
    assert f"{path}: the peer answered B000H (coercion of data elements" in sent.stderr


async def test_1_some_operation_failed(tmp_path: Path) -> None:
    async def refuse(request: object) -> Status:
        return Status(0xA700)

    path = write_sample(tmp_path)
    async with listen(LOOPBACK, 0, services=[Storage(refuse)]) as server:
        sent = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", path, "--retries", "0")
    assert sent.code == 1
    assert f"{path}: the peer answered A700H (refused: out of resources)" in sent.stderr
    assert "0 stored" in sent.stderr
    assert "1 failed" in sent.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["echo"], "Missing argument 'PEER'"),
        (
            ["echo", "localhost:104"],
            "'localhost:104' has no AE title: a peer is written AET@host:port or pacs://host:port",
        ),
        (["echo", "A@localhost:99999"], "'99999' is not a TCP port (1 to 65535)"),
        (["echo", "A@::1:104"], "write an IPv6 address in brackets"),
        (["echo", "AN_AE_TITLE_OF_18@localhost"], "is not an AE title: 1 to 16 characters"),
        (["echo", "A@localhost", "--timeout", "0"], "0"),
        (["echo", "localhost", "104"], "'localhost' has no AE title: a peer is written AET@host:port"),
        (["echo", "pacs://A@localhost"], "mixes two forms: write A@localhost, without pacs://"),
        (["echo", "dicom://A@localhost"], "a peer is written AET@host:port or pacs://host:port"),
        (["echo", "A@localhost", "--timeout", "nan"], "'nan' is not a number"),
        (["echo", "A@localhost", "--connect-timeout", "NaN"], "'NaN' is not a number"),
        (["send", "A@localhost"], "Missing argument 'PATH...'"),
        (["listen"], "Missing option '-o'"),
        (["listen", "-o", "x", "--name", "{name}"], "unknown field {name}; known are sop_instance_uid,"),
        (["listen", "-o", "x", "--name", "{sop_instance_uid!r}"], "write it without ':' and '!'"),
        (["listen", "-o", "x", "--name", "{sop_instance_uid}/{instance_number:04d}"], "write it without ':' and '!'"),
        (["listen", "-o", "x", "--name", "../{sop_instance_uid}"], "is not a path below the folder"),
        (["listen", "-o", "x", "--name", ".{patient_id}/{sop_instance_uid}"], "makes hidden files"),
        (["listen", "-o", "x", "--name", "all.dcm"], "all objects would get the same name"),
        (
            ["serve", "--bind", "0.0.0.0"],
            "name peers with --node or AE titles with --allow, or let in everyone with --allow-unknown-callers",
        ),
        (["serve", "--allow", "A", "--allow-unknown-callers"], "leave one of them out"),
        (["retrieve", "A@localhost", "-o", "x", "--study-uid", "1.2", "--port", "104"], "are for --method move"),
        (["retrieve", "A@localhost", "-o", "x", "--study-uid", "1.2", "--bind", "127.0.0.1"], "are for --method move"),
        (["db", "check", "--data-dir", "nowhere"], "is not the data directory of an archive"),
        (["db", "reindex", "--data-dir", "nowhere"], "is not the data directory of an archive"),
        (["db", "upgrade", "--data-dir", "nowhere"], "is not the data directory of an archive"),
        (["find"], "No such command 'find'"),
    ],
)
async def test_2_usage(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = await tomowire(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_3_cannot_connect(tmp_path: Path) -> None:
    port = free_port()
    echoed = await tomowire("echo", f"ANY@{LOOPBACK}:{port}")
    assert echoed.code == 3
    assert echoed.stderr == (
        f"tomowire: cannot connect to ANY@{LOOPBACK}:{port}: refused; nothing listens there: check host and port, and whether the"
        " peer runs\n"
    )
    sent = await tomowire("send", f"ANY@{LOOPBACK}:{port}", write_sample(tmp_path))
    assert sent.code == 3
    nowhere = await tomowire("echo", "ANY@no-such-host.invalid:104")
    assert nowhere.code == 3
    assert "the host name cannot be resolved" in nowhere.stderr


async def test_4_association_rejected_or_aborted(tmp_path: Path) -> None:
    async with listen(LOOPBACK, 0, services=[Verification()], aet="RIGHT") as server:
        echoed = await tomowire("echo", f"WRONG@{LOOPBACK}:{server.port}")
        sent = await tomowire("send", f"WRONG@{LOOPBACK}:{server.port}", write_sample(tmp_path))
    for done in (echoed, sent):
        assert done.code == 4
        assert (
            "called AE title not recognized (result 1, source 1, reason 7); check the AE title of the peer"
            in done.stderr
        )
        assert done.stderr.count("\n") <= 2, "the log does not say it once more"
        assert "it does not answer to 'WRONG'" in done.stderr
    async with answering(encode_pdu(AAbort(source=2, reason=6))) as port:
        aborted = await tomowire("echo", f"ANY@{LOOPBACK}:{port}")
    assert aborted.code == 4
    assert "the peer aborted the association" in aborted.stderr
    assert "(source 2, reason 6)" in aborted.stderr
    async with answering(encode_pdu(AAssociateRJ(result=2, source=3, reason=2))) as port:
        busy = await tomowire("echo", f"ANY@{LOOPBACK}:{port}")
    assert busy.code == 4
    assert "try again later" in busy.stderr
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        foreign = await tomowire("echo", f"ANY@{LOOPBACK}:{port}")
    assert foreign.code == 4


async def test_5_no_accepted_presentation_context(tmp_path: Path) -> None:
    async with listen(LOOPBACK, 0, services=[Verification()]) as server:
        sent = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", write_sample(tmp_path))
    assert sent.code == 5
    assert "no presentation context for Secondary Capture Image Storage" in sent.stderr
    assert "the peer does not support this SOP class" in sent.stderr

    async def keep(request: object) -> Status:
        return Status(0)

    only_implicit = Storage(keep, transfer_syntaxes={"1.2.840.10008.1.2"})
    async with listen(LOOPBACK, 0, services=[only_implicit]) as server:
        sent = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", write_sample(tmp_path))
        echoed = await tomowire("echo", f"ANY@{LOOPBACK}:{server.port}")
    assert (sent.code, echoed.code) == (5, 5)
    assert "Explicit VR Little Endian" in sent.stderr
    assert "enable it there" not in sent.stderr, "what is not compressed cannot be decompressed"
    compressed = tmp_path / "compressed.dcm"
    compressed.write_bytes(encode_file_meta(FileMeta(SECONDARY_CAPTURE, "1.2.3", "1.2.840.10008.1.2.4.90")))
    async with listen(LOOPBACK, 0, services=[only_implicit]) as server:
        sent = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", compressed)
    assert sent.code == 5
    assert "enable it there, or decompress the file before it is sent" in sent.stderr


async def test_6_timeout(silent: socket.socket, tmp_path: Path) -> None:
    peer = peer_at(silent)
    echoed = await tomowire("echo", peer, "--association-timeout", "0.1")
    assert echoed.code == 6
    assert echoed.stderr == (
        f"tomowire: {peer} did not answer the association request within 0.1 s; is it a DICOM"
        " server? If it is, allow it more time\n"
    )
    sent = await tomowire("send", peer, write_sample(tmp_path), "--association-timeout", "0.1")
    assert sent.code == 6


async def test_6_a_peer_that_stops_answering(tmp_path: Path) -> None:
    async def think(request: object) -> Status:
        await asyncio.sleep(3600)
        return Status(0)

    async with listen(LOOPBACK, 0, services=[Storage(think)], shutdown_grace=0) as server:
        sent = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", write_sample(tmp_path), "--timeout", "0.1")
    assert sent.code == 6
    assert "nothing moved for 0.1 s" in sent.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--port", "0", "--no-http", "--data-dir", "{data}"],
        ["db", "check", "--repair", "--data-dir", "{data}"],
        ["db", "reindex", "--data-dir", "{data}"],
        ["db", "upgrade", "--data-dir", "{data}"],
        ["import", "{files}", "--data-dir", "{data}"],
        ["backup", "{backups}", "--data-dir", "{other}"],
        ["backup", "{backups}", "--verify"],
    ],
)
async def test_75_in_use_now(arguments: list[str], tmp_path: Path) -> None:
    """sysexits.h: EX_TEMPFAIL, the user is invited to try again."""
    places = {name: tmp_path / name for name in ("data", "files", "backups", "other")}
    places["files"].mkdir()
    write_sample(places["files"])
    imported = await tomowire("import", places["files"], "--data-dir", places["other"])
    assert imported.code == 0, imported.stderr
    with DataDirectory.open(places["data"]), BackupFolder.open(places["backups"], create=True):
        done = await tomowire(*(each.format_map(places) for each in arguments))
    assert (done.code, done.stdout) == (75, "")
    assert "in use by another process" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--port", "0", "--no-http", "--data-dir", "{data}"],
        ["db", "check", "--data-dir", "{data}"],
        ["db", "check", "--repair", "--data-dir", "{data}"],
        ["db", "reindex", "--data-dir", "{data}"],
        ["db", "upgrade", "--data-dir", "{data}"],
        ["import", "{files}", "--data-dir", "{data}"],
        ["backup", "{backups}", "--data-dir", "{data}"],
        ["restore", "{backups}", "--data-dir", "{other}"],
        ["jobs", "list", "--data-dir", "{data}"],
        ["user", "list", "--data-dir", "{data}"],
    ],
    ids=lambda arguments: "-".join(each for each in arguments[:3] if each[0] != "{"),
)
async def test_3_the_server_of_the_index_is_away(arguments: list[str], tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("data", "files", "backups", "other")}
    places["files"].mkdir()
    write_sample(places["files"])
    assert (await tomowire("import", places["files"], "--data-dir", places["data"])).code == 0
    assert (await tomowire("backup", places["backups"], "--data-dir", places["data"])).code == 0
    url = f"postgresql://tomowire@{LOOPBACK}:{free_port()}/index"
    done = await tomowire(*(each.format_map(places) for each in arguments), "--index-url", url)
    assert (done.code, done.stdout) == (3, ""), done.stderr
    assert "refused" in done.stderr


async def test_75_the_index_of_another_archive_that_runs(postgres_url: str, tmp_path: Path) -> None:
    async with ArchiveStorage(tmp_path / "first", index_url=postgres_url):
        arguments = ["serve", "--data-dir", tmp_path / "second", "--port", "0", "--no-http"]
        done = await tomowire(*arguments, TOMOWIRE_INDEX__URL=postgres_url)
    assert done.code == 75
    assert "another archive uses the index" in done.stderr


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["echo", "send"])
async def test_130_interrupted(
    silent: socket.socket, tmp_path: Path, command: str, number: signal.Signals, expected: int
) -> None:
    paths = [write_sample(tmp_path)] if command == "send" else []
    program = await asyncio.to_thread(start, [command, peer_at(silent), *paths, "--json"])
    connection, _ = await asyncio.get_running_loop().sock_accept(silent)
    code = await asyncio.to_thread(program.end, number)
    connection.close()
    assert code == expected
    assert program.stderr.text == "tomowire: interrupted\n"


@pytest.mark.parametrize(
    ("peer", "options", "called"),
    [
        ("pacs://127.0.0.1:{port}", [], "ANY-SCP"),
        ("pacs://127.0.0.1:{port}", ["--called-aet", "ARCHIVE"], "ARCHIVE"),
        ("ARCHIVE@127.0.0.1:{port}", [], "ARCHIVE"),
        ("WRONG@127.0.0.1:{port}", ["--called-aet", "ARCHIVE"], "ARCHIVE"),
        ("AN ARCHIVE@localhost:{port}", ["--aet", "MODALITY 1"], "AN ARCHIVE"),
    ],
)
async def test_how_a_peer_is_written(peer: str, options: list[str], called: str) -> None:
    async with listen(LOOPBACK, 0, services=[Verification()], aet=called) as server:
        done = await tomowire("echo", peer.format(port=server.port), *options, "--json")
        other = await tomowire("echo", f"OTHER@{LOOPBACK}:{server.port}", "--json")
    assert done.code == 0, done.stderr
    assert done.json["peer"].startswith(f"{called}@")
    assert (other.code, other.json["ok"], other.json["echoes"]) == (4, False, [])
    assert "called AE title not recognized" in other.json["error"]
