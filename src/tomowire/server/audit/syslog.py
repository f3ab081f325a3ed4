"""Audit messages to a syslog server (PS3.15 A.6, A.7): RFC 5424, over UDP (RFC 5426) or TLS (RFC 5425).

Syslog acknowledges nothing: a message counts as sent when the system has taken it. While the server cannot be reached messages
wait, as many as there is room for; then the oldest go, and are counted. Nobody waits for any of this, and all of them are in the
audit trail.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, Self

from tomowire.server.audit.messages import date_time
from tomowire.server.audit.syslog_ways import TlsWay, UdpWay

if TYPE_CHECKING:
    from tomowire.server.audit.trail import Entry
    from tomowire.server.settings import AuditSettings

logger: Final = logging.getLogger("tomowire.audit")

ROOM: Final = 8 * 1024 * 1024
"""Bytes of messages that may wait."""

_FACILITY: Final = 10
"""Security and authorization messages."""
_NOTICE: Final = 5
_WARNING: Final = 4
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_CLOSING: Final = 2.0
_BETWEEN_COMPLAINTS: Final = 60.0
"""All in seconds."""


class Way(Protocol):
    """A connection to the server, once there is one. All raise `OSError`."""

    limit: int
    """The most bytes of one message."""

    async def connect(self) -> None:
        """Does nothing if it is connected. Raises `UsageError` for files of TLS that cannot be used."""

    async def send(self, message: bytes) -> None:
        """Hand one message to the system."""

    async def close(self) -> None:
        """Let go of the connection."""


class Syslog:
    """`async with Syslog.to(settings) as syslog`; `syslog.send(entry)` never waits."""

    def __init__(self, way: Way, where: str, *, room: int = ROOM, first_wait: float = _FIRST_WAIT) -> None:
        self._way = way
        self._where = where
        self._room = room
        self._first_wait = first_wait
        self._host = _printable(socket.gethostname())
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes] = deque()
        self._used = 0
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._complained_at = -_BETWEEN_COMPLAINTS
        self._is_down = False
        self._is_sending = False
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.lost = 0

    @classmethod
    def to(cls, settings: AuditSettings) -> Self:
        """The server that the settings name."""
        assert settings.syslog_host is not None
        host, port = settings.syslog_host, settings.syslog_port
        way: Way = TlsWay.to(settings) if settings.syslog_tls else UdpWay(host, port)
        return cls(way, f"{host}:{port}")

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def send(self, entry: Entry) -> None:
        """Have the message of an entry of the trail sent."""
        message = frame(entry, self._host)
        if len(message) > self._way.limit:
            self._lose(1, f"a message of {len(message)} bytes is too long for UDP")
            return
        self._queue.append(message)
        self._used += len(message)
        oldest = 1 if self._is_sending else 0  # what is being sent may arrive, so it is not lost
        while self._used > self._room and len(self._queue) > oldest:
            self._used -= len(self._queue[oldest])
            del self._queue[oldest]
            self._lose(1, "it takes them too slowly, or not at all")
        self._empty.clear()
        self._news.set()

    async def __aenter__(self) -> Self:
        self._task = self._loop.create_task(self._run(), name="syslog")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what is waiting, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0 if self._is_down else _CLOSING):
                await self._empty.wait()
        if self._queue:
            self._lose(len(self._queue), "they had not been sent at the end")
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._way.close()

    async def _run(self) -> None:
        wait = self._first_wait
        while True:
            await self._news.wait()
            try:
                await self._way.connect()
                wait = self._first_wait
                await self._send_all()
            except Exception as error:  # a name that no host can have is no `OSError`
                await self._way.close()
                self._complain(error)
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))
                wait = min(2 * wait, _LONGEST_WAIT)

    async def _send_all(self) -> None:
        """Send until nothing is left. What fails is still there then."""
        while self._queue:
            self._is_sending = True
            try:
                await self._way.send(self._queue[0])
            finally:
                self._is_sending = False
            self._used -= len(self._queue.popleft())
            self.sent += 1
            if self._is_down:
                self._is_down = False
                logger.warning("audit messages go to the syslog server %s again", self._where)
        self._news.clear()
        self._empty.set()

    def _complain(self, error: Exception) -> None:
        if not self._is_down:
            self._is_down = True
            text = str(error) or type(error).__name__
            logger.error("audit messages do not get to the syslog server %s, and wait: %s", self._where, text)

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        now = self._loop.time()
        if now - self._complained_at >= _BETWEEN_COMPLAINTS:
            self._complained_at = now
            logger.error("audit messages for the syslog server %s are lost, %d so far: %s", self._where, self.lost, why)


def frame(entry: Entry, host: str) -> bytes:
    """The SYSLOG-MSG of RFC 5424 for an entry of the trail; the message is UTF-8, and says so by a byte order mark (6.4)."""
    severity = _NOTICE if entry.outcome == 0 else _WARNING
    header = (
        f"<{_FACILITY * 8 + severity}>1 {date_time(entry.recorded_at)} {host} tomowire {os.getpid()} DICOM+RFC3881 - "
    )
    return header.encode("ascii") + b"\xef\xbb\xbf" + entry.message.encode()


def _printable(name: str) -> str:
    """A HOSTNAME of RFC 5424: printable ASCII, and "-" for nothing."""
    return "".join(each if "!" <= each <= "~" else "?" for each in name)[:255] or "-"
