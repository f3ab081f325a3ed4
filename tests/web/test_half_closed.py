"""A client that has sent all it has to say closes its sending side and reads on, as `nc -N` does."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from pathlib import Path

import pytest

from support.certificates import Authority
from support.filled import fill
from support.network import LOOPBACK
from support.objects import Sample
from support.web import Web, web
from tomowire.web import protocol

ON_EVERY_LOOP = True


@pytest.fixture(params=[protocol.MOST_IN_A_TURN, 7], autouse=True)
def in_turns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come is looked through piece by piece: the end of it may come before all is."""
    monkeypatch.setattr(protocol, "MOST_IN_A_TURN", request.param)


async def answers(running: Web, *requests: str, host: str = "localhost", apart: bool = False) -> bytes:
    """What comes until the server closes the connection, when the sending side is closed behind the requests."""
    reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port)
    try:
        async with asyncio.timeout(30):
            for request in requests:
                writer.write(request.replace("\n", f"\nHost: {host}\n", 1).replace("\n", "\r\n").encode())
                await writer.drain()
            writer.write_eof()
            return await reader.read()
    finally:
        writer.close()


def bodies(answer: bytes) -> list[bytes]:
    """Of answers that have a length."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = int(
            next(line.split()[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        )
        found.append(rest[:length])
        answer = rest[length:]
    return found


async def test_it_gets_its_answer(tmp_path: Path) -> None:
    async with web(tmp_path, users=False) as running:
        [studies] = bodies(await answers(running, "GET /api/studies HTTP/1.1\n\n"))
        assert studies == (await running.nobody.get("/api/studies")).content
        body = json.dumps({"host": "127.0.0.1", "port": 104})
        put = f"PUT /api/nodes/CT1 HTTP/1.1\nContent-Type: application/json\nContent-Length: {len(body)}\n\n{body}"
        [node] = bodies(await answers(running, put))
        assert json.loads(node)["ae_title"] == "CT1"
        export = await answers(running, "GET /api/audit/export?format=xml HTTP/1.0\n\n")
        assert export.startswith(b"HTTP/1.1 200 ")
        assert export.rstrip().endswith(b"</AuditMessages>")


async def test_what_is_pipelined_is_all_answered(tmp_path: Path) -> None:
    sample = Sample(1, size=3 << 20)
    await fill(tmp_path, [sample])
    async with web(tmp_path, users=False, filled=False) as running:
        file = f"GET /api/instances/{sample.uid}/file HTTP/1.1\n\n"
        found = bodies(await answers(running, file, "GET /healthz HTTP/1.1\n\n", file))
        assert [len(each) for each in found[:2]] == [len(found[2]), len(b'{"status":"alive"}')]
        assert len(found[0]) > 3 << 20


async def test_a_body_without_its_end_is_said_to_be_none(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        put = "PUT /api/nodes/CT1 HTTP/1.1\nContent-Type: application/json\n"
        for begun in (f"{put}Content-Length: 9\n\n{{", f"{put}Transfer-Encoding: chunked\n\n9\n{{"):
            [alive, refused] = bodies(await answers(running, "GET /healthz HTTP/1.1\n\n", begun))
            assert json.loads(alive) == {"status": "alive"}
            problem = json.loads(refused)
            assert problem["status"] == 400
            assert "peer closed connection without sending complete message body" in problem["detail"]
        assert not running.archive.nodes


async def test_a_header_without_its_end_is_said_to_be_none(tmp_path: Path) -> None:
    """What most who write a request by hand forget is the empty line."""
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await answers(running, "GET /healthz HTTP/1.1\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert "before the empty line that ends the header" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
        reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port)
        writer.write_eof()
        async with asyncio.timeout(20):
            assert await reader.read() == b"", "who has asked for nothing gets nothing"
        writer.close()


async def test_who_follows_the_log_gets_what_there_is(tmp_path: Path) -> None:
    """It may as well have gone away: nobody can tell before something is sent, and places are few."""
    async with web(tmp_path, users=False, filled=False) as running:
        logging.getLogger("tomowire.test").error("the last line")
        answer = await answers(running, "GET /api/logs/stream?level=error HTTP/1.1\n\n")
        assert b"the last line" in answer
        assert answer.endswith(b"0\r\n\r\n"), "it has an end"


async def test_who_asks_and_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    sample = Sample(1, size=30 << 20)
    await fill(tmp_path, [sample])
    async with web(tmp_path, users=False, filled=False) as running:
        for path in (f"/api/instances/{sample.uid}/file", "/api/studies", "/api/logs/stream", "/api/audit/export"):
            with socket.create_connection((LOOPBACK, running.http.port)) as gone:
                gone.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert running.http._connections is not None
        connections = running.http._connections._open
        async with asyncio.timeout(20):
            while len(connections) > 1:
                await running.nobody.get("/healthz")


async def test_over_tls_the_connection_ends(tmp_path: Path) -> None:
    """asyncio's TLS has no half-closed connections: but what is answered before is all sent, and nothing stays open."""
    authority = Authority(tmp_path)
    identity = authority.sign()
    async with web(tmp_path / "data", filled=False, users=False, **identity.options) as running:
        context = ssl.create_default_context(cafile=authority.file)
        reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port, ssl=context)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            assert await reader.readuntil(b"}")
            writer.close()
            await writer.wait_closed()


async def test_many_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    """More than is looked through in a turn: the end has come when the first are answered."""
    async with web(tmp_path, users=False, filled=False) as running:
        found = bodies(await answers(running, *["GET /healthz HTTP/1.1\n\n"] * 500))
        assert found == [b'{"status":"alive"}'] * 500
