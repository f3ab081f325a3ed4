"""Audit messages to a syslog server: what is on the wire, and what happens when the server is not there."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.network import LOOPBACK, free_port
from tomowire.server.audit.audit import Audit
from tomowire.server.audit.events import Login, Party
from tomowire.server.audit.syslog import Syslog, frame
from tomowire.server.audit.syslog_ways import TlsWay, UdpWay
from tomowire.server.audit.teller import Teller
from tomowire.server.audit.trail import START, Entry
from tomowire.server.index.backend import backend_for
from tomowire.server.records import Records
from tomowire.server.settings import AuditSettings

# RFC 5424, section 6; the time stamp is the one of RFC 3339 that it allows.
FRAME = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>[\x21-\x7e]{1,255})"
    rb" (?P<app>[\x21-\x7e]{1,48}) (?P<process>[\x21-\x7e]{1,128}) (?P<kind>[\x21-\x7e]{1,32}) - \xef\xbb\xbf(?P<xml>.*)",
    re.DOTALL,
)


def entry(number: int = 1, *, outcome: int = 0, size: int = 0) -> Entry:
    message = f"<AuditMessage>{number}\u00fc{'x' * size}</AuditMessage>"
    return Entry(number, 1_700_000_000_123_456, "login", outcome, "alice", "", message, START, bytes(32))


class Server:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.news = asyncio.Condition()
        self.connections: list[asyncio.StreamWriter] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def came(self, count: int) -> list[bytes]:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: len(self.messages) >= count)
        return self.messages

    def numbers(self) -> list[int]:
        return [int(re.search(rb"<AuditMessage>(\d+)", message)[1]) for message in self.messages]  # type: ignore[index]

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """RFC 5425 4.3: MSG-LEN SP SYSLOG-MSG."""
        self.connections.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                length = await reader.readuntil(b" ")
                await self.keep(await reader.readexactly(int(length)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def keep(self, message: bytes) -> None:
        async with self.news:
            self.messages.append(message)
            self.news.notify_all()

    async def drop(self) -> None:
        for writer in self.connections:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
        self.connections.clear()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        task = asyncio.ensure_future(self._server.keep(data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


@asynccontextmanager
async def over_udp(port: int = 0) -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Datagrams(server), local_addr=(LOOPBACK, port))
    yield server, transport.get_extra_info("sockname")[1]
    transport.close()
    await protocol.closed.wait()


@asynccontextmanager
async def over_tls(context: ssl.SSLContext, port: int = 0) -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    listening = await asyncio.start_server(server.take, LOOPBACK, port, ssl=context)
    yield server, listening.sockets[0].getsockname()[1]
    listening.close()
    await server.drop()
    if server.tasks:
        await asyncio.wait(server.tasks)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    identity = authority.sign(LOOPBACK)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(identity.certificate, identity.key)
    return made


def settings(port: int, **more: Any) -> AuditSettings:
    return AuditSettings(syslog_host=LOOPBACK, syslog_port=port, **more)


# What is on the wire


@pytest.mark.parametrize(("outcome", "pri"), [(0, b"85"), (4, b"84"), (12, b"84")])
def test_a_message_is_as_rfc_5424_has_it(outcome: int, pri: bytes) -> None:
    """PS3.15 A.6: facility 10, severity 5, or 4 for a warning; 10 * 8 + 5 = 85."""
    found = FRAME.fullmatch(frame(entry(outcome=outcome), "archive.example.org"))
    assert found is not None
    assert found["pri"] == pri
    assert found["time"] == b"2023-11-14T22:13:20.123456Z"
    assert (found["host"], found["app"], found["kind"]) == (b"archive.example.org", b"tomowire", b"DICOM+RFC3881")
    assert found["xml"].decode() == "<AuditMessage>1\u00fc</AuditMessage>"


async def test_over_udp_each_message_is_a_datagram() -> None:
    async with over_udp() as (server, port), Syslog.to(settings(port)) as syslog:
        for number in range(1, 6):
            syslog.send(entry(number))
        assert all(FRAME.fullmatch(message) for message in await server.came(5))
        assert server.numbers() == [1, 2, 3, 4, 5]
        assert (syslog.sent, syslog.waiting, syslog.lost) == (5, 0, 0)


async def test_over_tls_messages_follow_each_other_with_their_lengths(
    context: ssl.SSLContext, authority: Authority
) -> None:
    async with over_tls(context) as (server, port):
        wanted = settings(port, syslog_tls=True, syslog_authorities=authority.file)
        async with Syslog.to(wanted) as syslog:
            for number in range(1, 51):
                syslog.send(entry(number, size=number * 100))
            assert all(FRAME.fullmatch(message) for message in await server.came(50))
        assert server.numbers() == list(range(1, 51))
        assert len(server.connections) == 1


async def test_a_server_that_wants_a_certificate_gets_it(context: ssl.SSLContext, authority: Authority) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    own = authority.sign("archive.example.org")
    async with over_tls(context) as (server, port):
        wanted = settings(
            port,
            syslog_tls=True,
            syslog_authorities=authority.file,
            syslog_certificate=own.certificate,
            syslog_key=own.key,
        )
        async with Syslog.to(wanted) as syslog:
            syslog.send(entry())
            assert len(await server.came(1)) == 1


# What goes wrong


async def test_a_server_of_another_authority_gets_nothing(
    context: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path, "other")
    async with over_tls(context) as (server, port):
        wanted = settings(port, syslog_tls=True, syslog_authorities=other.file)
        async with Syslog(TlsWay.to(wanted), "there", first_wait=0.01) as syslog:
            syslog.send(entry())
            await until(lambda: "do not get to the syslog server there" in caplog.text)
        assert server.messages == []
        assert syslog.lost == 1


async def test_what_waits_is_sent_when_the_server_comes(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with Syslog(UdpWay(LOOPBACK, port), "there", first_wait=0.02) as syslog:
        for number in range(1, 4):
            syslog.send(entry(number))
        await until(lambda: "do not get to the syslog server there, and wait" in caplog.text)
        async with over_udp(port) as (server, _):
            await server.came(3)
            assert server.numbers() == [1, 2, 3]
            await until(lambda: "go to the syslog server there again" in caplog.text)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "once, and not each time"


async def test_a_connection_that_the_server_closes_is_opened_again(
    context: ssl.SSLContext, authority: Authority
) -> None:
    async with over_tls(context) as (server, port):
        wanted = settings(port, syslog_tls=True, syslog_authorities=authority.file)
        async with Syslog(TlsWay.to(wanted), "there", first_wait=0.01) as syslog:
            syslog.send(entry(1))
            await server.came(1)
            await server.drop()
            await asyncio.sleep(0.05)
            syslog.send(entry(2))
            await server.came(2)
            assert server.numbers() == [1, 2]


async def test_there_is_room_for_so_many_and_the_oldest_go(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with Syslog(UdpWay(LOOPBACK, port), "there", room=20_000, first_wait=5) as syslog:
        syslog.send(entry(0))
        await until(lambda: "do not get to" in caplog.text)
        for number in range(1, 101):
            syslog.send(entry(number, size=1000))
        assert syslog.waiting < 20
        assert syslog.lost + syslog.waiting == 101
        assert syslog._queue[-1].endswith(b"x</AuditMessage>")
        assert b"<AuditMessage>100" in syslog._queue[-1]
    lines = [record.getMessage() for record in caplog.records if "are lost" in record.getMessage()]
    assert len(lines) == 1
    assert syslog.lost == 101


async def test_a_message_that_fits_no_datagram_is_lost_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with over_udp() as (server, port), Syslog.to(settings(port)) as syslog:
        syslog.send(entry(1, size=70_000))
        syslog.send(entry(2))
        await server.came(1)
        assert server.numbers() == [2]
        assert syslog.lost == 1
    assert "is too long for UDP" in caplog.text


async def test_a_server_that_takes_nothing_holds_nobody_up(context: ssl.SSLContext, authority: Authority) -> None:
    """Its TCP connection is accepted by the kernel, and nobody shakes hands."""
    with socket.create_server((LOOPBACK, 0)) as silent:
        wanted = settings(silent.getsockname()[1], syslog_tls=True, syslog_authorities=authority.file)
        loop = asyncio.get_running_loop()
        async with Syslog.to(wanted) as syslog:
            begun = loop.time()
            for number in range(1000):
                syslog.send(entry(number))
            assert loop.time() - begun < 5
            syslog._is_down = True  # the end does not wait for it then
    assert syslog.lost == 1000


async def test_a_server_with_the_certificate_of_another_host_gets_nothing(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 5425 5.2: the name, or the address, that the configuration has."""
    identity = authority.sign("audit.elsewhere.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    async with over_tls(context) as (server, port):
        wanted = settings(port, syslog_tls=True, syslog_authorities=authority.file)
        async with Syslog(TlsWay.to(wanted), "there", first_wait=0.01) as syslog:
            syslog.send(entry())
            await until(lambda: "do not get to the syslog server there" in caplog.text)
        assert (server.messages, syslog.sent, syslog.lost) == ([], 0, 1)


async def test_a_server_that_stops_reading_makes_nothing_grow(context: ssl.SSLContext, authority: Authority) -> None:
    """It takes the first message, and then nothing of what comes, on a connection that stays open."""
    took, leave = asyncio.Event(), asyncio.Event()

    async def take_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"</AuditMessage>")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        took.set()
        await leave.wait()
        writer.transport.abort()

    listening = await asyncio.start_server(take_one, LOOPBACK, 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    wanted = settings(port, syslog_tls=True, syslog_authorities=authority.file)
    way, room = TlsWay.to(wanted), 1_000_000
    loop = asyncio.get_running_loop()
    async with Syslog(way, "there", room=room) as syslog:
        syslog.send(entry())
        async with asyncio.timeout(20):
            await took.wait()
        longest = 0.0
        for number in range(3000):  # 30 MB
            begun = loop.time()
            syslog.send(entry(number, size=10_000))
            longest = max(longest, loop.time() - begun)
            if number % 10 == 0:
                await asyncio.sleep(0)
        assert longest < 1, "who records does not wait"
        assert syslog.sent + syslog.waiting + syslog.lost == 3001
        assert sum(map(len, syslog._queue)) <= room
        assert syslog.lost > 1000
        assert way._writer is not None
        assert way._writer.transport.get_write_buffer_size() < 100_000
        syslog._is_down = True  # the end does not wait for it then
        leave.set()
    listening.close()
    await listening.wait_closed()


async def test_a_name_that_is_not_known_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Syslog(UdpWay("no-such-host.invalid", 514), "there", first_wait=0.01) as syslog:
        syslog.send(entry())
        await until(lambda: "do not get to the syslog server there" in caplog.text)


# With the trail


async def test_what_is_in_the_trail_is_sent_and_settings_can_change(tmp_path: Path) -> None:
    backend = backend_for(None, tmp_path, fsync=False)
    backend.open_writer().close()
    async with over_udp() as (first, port), over_udp() as (second, other_port), Records(backend.engine) as records:
        teller = Teller("TOMOWIRE@archive")
        options: dict[str, Any] = {"first_write": 0, "interval": 0}
        async with Audit(records, tmp_path, teller, settings=settings(port), **options) as audit:
            audit.record(Login(user=Party("alice", "192.0.2.1")))
            await first.came(1)
            await audit.apply(settings(other_port))
            audit.record(Login(user=Party("bob", "192.0.2.1")))
            await second.came(1)
            entries = await audit.list()
            assert audit.syslog is not None
            await audit.apply(AuditSettings())
            assert audit.syslog is None
        sent = [FRAME.fullmatch(message) for message in (*first.messages, *second.messages)]
        assert [each["xml"].decode() for each in sent if each is not None] == [entry.message for entry in entries]


async def test_what_is_recorded_while_a_server_is_left_goes_to_the_next(tmp_path: Path, authority: Authority) -> None:
    backend = backend_for(None, tmp_path, fsync=False)
    backend.open_writer().close()
    async with over_udp() as (server, port), Records(backend.engine) as records:
        with socket.create_server((LOOPBACK, 0)) as silent:
            first = settings(silent.getsockname()[1], syslog_tls=True, syslog_authorities=authority.file)
            options: dict[str, Any] = {"first_write": 0, "interval": 0}
            async with Audit(records, tmp_path, Teller("TOMOWIRE@archive"), settings=first, **options) as audit:
                audit.record(Login(user=Party("alice", "192.0.2.1")))
                assert await audit.flush(20)
                leaving = asyncio.create_task(audit.apply(settings(port)))  # which waits some time for the silent one
                await asyncio.sleep(0)
                audit.record(Login(user=Party("bob", "192.0.2.1")))
                assert await audit.flush(20)
                assert not leaving.done()
                [message] = await server.came(1)
                assert b"bob" in message
                await leaving


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110 - what the log says sets no event
            await asyncio.sleep(0.01)
