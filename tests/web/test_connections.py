"""Clients that are slow, greedy or hostile: they are let go of, and neither other clients nor DICOM have to wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import h11
import pytest

from support.filled import fill
from support.network import LOOPBACK
from support.objects import ROOT, Sample
from support.web import Web, web
from tomowire import Peer
from tomowire.web import protocol, requests
from tomowire.web.api import logs

QUICK = 5.0


@asynccontextmanager
async def connected(
    running: Web, address: str = LOOPBACK
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """`address` is one's own."""
    reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.close()


async def answers(running: Web, data: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    async with connected(running) as (reader, writer), asyncio.timeout(20):
        writer.write(data)
        with_end = b""
        try:
            while piece := await reader.read(65536):
                with_end += piece
        except ConnectionResetError:
            pass
        return with_end


def request(running: Web, line: str, *headers: str, body: bytes = b"") -> bytes:
    head = [line, f"Host: 127.0.0.1:{running.http.port}", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


async def dicom_is_well(running: Web) -> None:
    async with asyncio.timeout(QUICK), Peer(f"TOMOWIRE@{LOOPBACK}:{running.archive.port}", aet="CT1") as peer:
        await peer.echo()


async def test_headers_that_do_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT", 0.5)
    async with web(tmp_path, users=False, filled=False) as running:
        assert await answers(running, b"") == b""
        assert await answers(running, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-") == b""
        # Nor does it help to send a byte now and then.
        async with connected(running) as (reader, writer), asyncio.timeout(QUICK):
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            reading = asyncio.ensure_future(reader.read())
            while not reading.done():
                writer.write(b"a")
                await asyncio.wait([reading], timeout=0.05)
        # A connection that is kept alive has the same time for its next request.
        async with connected(running) as (reader, writer), asyncio.timeout(QUICK):
            writer.write(request(running, "GET /healthz HTTP/1.1"))
            assert b"200 OK" in await reader.readuntil(b"}")
            writer.write(b"GET /healthz")
            assert await reader.read() == b""


async def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_TIMEOUT", 0.5)
    async with web(tmp_path, users=False, filled=False) as running:
        json_of_10 = ("Content-Type: application/json", "Content-Length: 10")
        answer = await answers(running, request(running, "POST /api/users HTTP/1.1", *json_of_10, body=b"{"))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer


async def test_a_body_that_is_too_long(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        post = "POST /api/users HTTP/1.1"
        for headers, body in (
            (("Content-Length: 1048577",), b""),  # refused by its header
            (("Content-Length: 99999999999999999999",), b""),
            (("Transfer-Encoding: chunked",), b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20)) + b"1\r\n \r\n0\r\n\r\n"),
        ):
            answer = await answers(
                running, request(running, post, "Content-Type: application/json", *headers, body=body)
            )
            assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 ")), headers
            assert b"application/problem+json" in answer
        await dicom_is_well(running)


async def test_what_is_no_http_or_could_be_read_in_two_ways(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        hidden = b"GET /api/configuration HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        post = "POST /api/users HTTP/1.1"
        kind = "Content-Type: application/json"
        hostile = [
            b"\x00\x01\x02\x03\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            b"\x01\x00\x00\x00\x00\xce\x00\x01\x00\x00" + b"ANY-SCP".ljust(198) + b"\r\n\r\n",  # an A-ASSOCIATE-RQ
            b"GET / HTTP/1.1\r\n\r\n",  # no Host
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /%00\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
            request(running, "GET /healthz HTTP/1.1", "X: " + "y" * 100_000),
            request(running, "GET /healthz HTTP/1.1", *(f"X{number}: {'y' * 90}" for number in range(10_000))),
            request(running, f"GET /{'a' * 100_000} HTTP/1.1"),
            request(running, post, kind, "Content-Length: 5", "Content-Length: 6", body=b"{}   " + hidden),
            request(running, post, kind, "Content-Length: +5", body=b"{}   " + hidden),
            request(running, post, kind, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + hidden),
            request(running, post, kind, "Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n" + hidden),
            request(running, post, kind, "Transfer-Encoding : chunked", body=b"0\r\n\r\n" + hidden),
            request(running, post, kind, "Transfer-Encoding: chunked", body=b"-1\r\n\r\n" + hidden),
            request(running, post, kind, "Transfer-Encoding: chunked", body=b"1;\nx\r\n{}\r\n0\r\n\r\n" + hidden),
        ]
        for data in hostile:
            answer = await answers(running, data)
            assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 50")), (data[:80], answer)
            assert answer.count(b"HTTP/1.1 ") <= 1, (data[:80], answer)
            assert b"ae_title" not in answer, "what was hidden in the body is not answered"
            if b"\r\n\r\n" in answer:
                head, _, body = answer.partition(b"\r\n\r\n")
                assert b"application/problem+json" in head.lower(), (data[:80], answer)
                assert json.loads(body)["status"] == int(head.split()[1])
        await dicom_is_well(running)


async def test_a_body_that_is_none_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        put = ("PUT /api/nodes/CT1 HTTP/1.1", "Transfer-Encoding: chunked")
        kind = "Content-Type: application/json"
        for body in (
            b"-1\r\n",
            b"zz\r\n",
            b"1\r\n{}\r\n0\r\n\r\n",
            b"fffffffffffffffffffff\r\n",
            b"1\r\n{" + b"x" * 500_000,
        ):
            answer = await answers(running, request(running, *put, kind, body=body))
            head, _, problem = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 "), (body[:20], answer)
            assert b"connection: close" in head.lower()
            assert "chunk" in json.loads(problem)["detail"]
            # Where the answer did not wait for the body, there is no other.
            async with connected(running) as (reader, writer), asyncio.timeout(20):
                writer.write(request(running, *put))
                refused = await reader.readuntil(b"}")
                assert refused.startswith(b"HTTP/1.1 415 ")
                writer.write(body)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        assert not running.archive.nodes
        await dicom_is_well(running)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_body_where_none_is_wanted_is_one_nonetheless(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What streams its answer listens meanwhile for the end of the connection, and would hear of the body instead."""
    async with web(tmp_path, users=False) as running:
        await running.nobody.put("/api/nodes/CT1", json={"host": "127.0.0.1", "port": 104})
        for line in (
            f"GET /api/instances/{ROOT}.3.1/file",
            "GET /api/audit/export",
            "GET /api/logs/stream",
            "GET /api/status",
            "DELETE /api/nodes/CT1",
        ):
            for header, body, status in (
                ("Transfer-Encoding: chunked", b"zz\r\n", 400),
                ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n1\r\n \r\n" % (1 << 20, b" " * (1 << 20)), 413),
                ("Content-Length: 5", b"x", 408),
            ):
                monkeypatch.setattr(requests, "BODY_TIMEOUT", 0.2 if status == 408 else 30)
                answer = await answers(running, request(running, f"{line} HTTP/1.1", header, body=body))
                assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (line, header, answer[:200])
        assert await running.archive.audit.flush(20)
        whole = request(running, "GET /api/audit/export HTTP/1.1", "Connection: close", "Content-Length: 2", body=b"{}")
        assert b"application-started" in await answers(running, whole)
        assert list(running.archive.nodes) == ["CT1"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_many_small_chunks_keep_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """h11 needs a second for as many as come at once: it gets them in pieces, and others have their turn between them."""
    pieces: list[tuple[int, int]] = []
    receive = h11.Connection.receive_data

    def noted(connection: h11.Connection, data: bytes) -> None:
        if connection.our_role is h11.SERVER:
            pieces.append((id(connection), len(data)))
        receive(connection, data)

    monkeypatch.setattr(h11.Connection, "receive_data", noted)
    async with web(tmp_path, users=False, filled=False) as running:
        chunks = b"".join(b"1\r\n%c\r\n" % each for each in b'{"host":"a","port":104}' + b" " * 60_000)
        put = ("PUT /api/nodes/CT1 HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked")
        behind = request(running, "GET /healthz HTTP/1.1", "Connection: close")
        answer = await answers(running, request(running, *put, body=chunks + b"0\r\n\r\n") + behind)
        assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", answer) == [b"200", b"200"]
        assert set(running.archive.nodes) == {"CT1"}
    assert sum(length for _, length in pieces) > 360_000
    assert max(length for _, length in pieces) <= protocol.MOST_IN_A_TURN


async def test_empty_lines_before_a_request_are_passed_over(tmp_path: Path) -> None:
    """RFC 9112 2.2."""
    async with web(tmp_path, users=False, filled=False) as running, connected(running) as (reader, writer):
        async with asyncio.timeout(20):
            for _ in range(2):
                writer.write(b"\r\n")
                await running.nobody.get("/healthz")
                writer.write(b"\r\n\r\n" + request(running, "GET /healthz HTTP/1.1"))
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")


WRONG = {
    "GET /api/studies?PatientName=Müller HTTP/1.1\r\nHost: x\r\n": (400, "have to be percent-encoded"),
    "GET /a b HTTP/1.1\r\nHost: x\r\n": (400, "have to be percent-encoded"),
    "GET / HTTP/1.1\r\n": (400, "Missing mandatory Host"),
    "GET / HTTP/1.1\r\nHost : x\r\n": (400, "illegal header line"),
    "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n": (400, "bad Content-Length"),
    "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n": (501, "Only Transfer-Encoding: chunked"),
    f"GET / HTTP/1.1\r\nHost: x\r\nX: {'x' * 60_000}": (
        431,
        "the header is too long: with the address it has 49152 bytes",
    ),
}


@pytest.mark.parametrize("wrong", WRONG, ids=[words for _, words in WRONG.values()])
async def test_what_is_no_http_is_said_why(tmp_path: Path, wrong: str) -> None:
    status, words = WRONG[wrong]
    async with web(tmp_path, users=False, filled=False) as running:
        head, _, problem = (await answers(running, wrong.encode() + b"\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode())
    assert json.loads(problem)["status"] == status
    assert words in json.loads(problem)["detail"]
    assert "bytearray" not in json.loads(problem)["detail"]


async def test_requests_behind_each_other_are_answered_in_order(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        three = request(running, "GET /healthz HTTP/1.1") + request(running, "GET /nothing HTTP/1.1")
        answer = await answers(running, three + request(running, "GET /readyz HTTP/1.1", "Connection: close"))
        assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", answer) == [b"200", b"404", b"200"]


async def test_odd_requests_are_no_mistakes_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        for line in (
            "GET * HTTP/1.1",
            "OPTIONS *x HTTP/1.1",
            "CONNECT 127.0.0.1:22 HTTP/1.1",
            "GET //evil.example/api/status HTTP/1.1",
            "GET /api/../api/status HTTP/1.1",
            "GET /api/%2e%2e/status HTTP/1.1",
            "BREW /api/status HTTP/1.1",
            "HEAD /api/nothing HTTP/1.1",
            "TRACE /api/status HTTP/1.1",
            "GET /api HTTP/1.1",
            "GET /api/ HTTP/1.1",
            "GET ? HTTP/1.1",
        ):
            answer = await answers(running, request(running, line, "Connection: close"))
            assert answer.split()[1] in (b"400", b"404", b"405"), (line, answer)
        answer = await answers(running, request(running, "OPTIONS * HTTP/1.1", "Connection: close"))
        assert answer.startswith(b"HTTP/1.1 204 ")
        document = (await running.nobody.get("/api/openapi.json")).json()
        known = {method.upper() for path in document["paths"].values() for method in path}
        (allowed,) = re.findall(rb"(?im)^allow: (.*)\r$", answer)
        assert set(allowed.decode().split(", ")) == known | {"HEAD", "OPTIONS"}
        upgrade = (
            "Connection: Upgrade, close",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: x",
        )
        answer = await answers(running, request(running, "GET /healthz HTTP/1.1", *upgrade))
        assert answer.startswith(b"HTTP/1.1 200 ")
        answer = await answers(running, request(running, "GET /healthz HTTP/2.0"))
        assert answer.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_many_connections_make_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 40)
    async with web(tmp_path, users=False, filled=False) as running:
        idle = [await asyncio.open_connection(LOOPBACK, running.http.port) for _ in range(100)]
        await dicom_is_well(running)
        async with asyncio.timeout(QUICK):
            assert (await running.nobody.get("/readyz")).status_code == 200
        dropped = 0
        for reader, writer in idle:
            if reader.at_eof() or reader.exception() is not None:
                dropped += 1
            writer.close()
        assert dropped >= 60, "those that have waited longest"


async def nobody_is_kept_out(running: Web, caplog: pytest.LogCaptureFixture) -> None:
    """Others hold all connections: whoever comes is answered, and the log has a line for all of them."""
    caplog.clear()
    for _ in range(10):
        answer = await answers(running, request(running, "GET /healthz HTTP/1.1", "Connection: close"))
        assert answer.startswith(b"HTTP/1.1 200 ")
    told = [each.getMessage() for each in caplog.records if "too many HTTP connections" in each.getMessage()]
    assert told == ["too many HTTP connections: 1 dropped, the last of 127.0.0.1"]


async def test_bodies_that_do_not_come_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 20)
    monkeypatch.setattr(protocol, "TELL_INTERVAL", 3600.0)
    monkeypatch.setattr(requests, "BODY_TIMEOUT", 3600.0)
    async with web(tmp_path, users=False, filled=False) as running, AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await stack.enter_async_context(connected(running))
            json_of_10 = ("Content-Type: application/json", "Content-Length: 10", "Expect: 100-continue")
            writer.write(request(running, "POST /api/users HTTP/1.1", *json_of_10))
        await all_are_held(running)
        await nobody_is_kept_out(running, caplog)


async def test_answers_that_are_not_taken_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 20)
    monkeypatch.setattr(protocol, "TELL_INTERVAL", 3600.0)
    monkeypatch.setattr(protocol, "STALL_TIMEOUT", 3600.0)
    sample = Sample(1, size=30 << 20)
    await fill(tmp_path, [sample])
    async with web(tmp_path, users=False, filled=False) as running, AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await stack.enter_async_context(connected(running))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request(running, f"GET /api/instances/{sample.uid}/file HTTP/1.1"))
        await all_are_held(running)
        await nobody_is_kept_out(running, caplog)


async def test_who_asks_without_end_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before one answer is sent there is another request."""
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 20)
    monkeypatch.setattr(protocol, "TELL_INTERVAL", 3600.0)
    monkeypatch.setattr(logs, "MOST_STREAMS", 20)
    async with web(tmp_path, users=False, filled=False) as running, AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await stack.enter_async_context(connected(running))
            writer.write(request(running, "GET /api/logs/stream HTTP/1.1") * 2)
        await all_are_held(running)
        await nobody_is_kept_out(running, caplog)


async def all_are_held(running: Web, count: int = 20) -> None:
    assert running.http._connections is not None
    async with asyncio.timeout(60):
        connections = running.http._connections._open
        while len(connections) < count or any(each.held_since is None for each in connections):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


async def test_who_has_few_connections_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all are waited for, those of others who have more are dropped."""
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 20)
    json_of_2 = ("Content-Type: application/json", "Content-Length: 2")
    async with web(tmp_path, users=False, filled=False) as running, AsyncExitStack() as stack:
        reader, writer = await stack.enter_async_context(connected(running, "127.0.0.2"))
        writer.write(request(running, "POST /api/users HTTP/1.1", *json_of_2))
        await all_are_held(running, 1)
        for _ in range(40):
            _, other = await stack.enter_async_context(connected(running))
            other.write(request(running, "POST /api/users HTTP/1.1", *json_of_2))
        await all_are_held(running)
        writer.write(b"{}")
        async with asyncio.timeout(QUICK):
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")


async def test_who_does_not_take_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALL_TIMEOUT", 0.5)
    sample = Sample(1, size=30 << 20)
    await fill(tmp_path, [sample])
    async with web(tmp_path, users=False, filled=False) as running:
        async with connected(running) as (reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request(running, f"GET /api/instances/{sample.uid}/file HTTP/1.1"))
            await dicom_is_well(running)
            await asyncio.sleep(1.5)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(QUICK):
                taken = b""
                try:
                    while piece := await reader.read(1 << 20):
                        taken += piece
                except ConnectionResetError:
                    pass
            assert len(taken) < 30 << 20, "it was let go of in the middle"
        # One that takes it slowly gets it.
        got = 0
        async with running.nobody.stream("GET", f"/api/instances/{sample.uid}/file") as answer:
            async for piece in answer.aiter_bytes(4 << 20):
                got += len(piece)
                await asyncio.sleep(0.2)
        assert got == int(answer.headers["Content-Length"])
