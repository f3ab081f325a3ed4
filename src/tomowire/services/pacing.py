"""A cap on the bytes per second that are sent, for all associations together.

The theory is that of a token bucket: so many bytes per second run into it, up to what a tenth of a second brings, and nothing is
sent that has not run into it before. So the average never exceeds the rate, and what a busy machine was too late for is made up
for. Who asks first is served first; pieces are small enough that nobody waits long for the others.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import UsageError
from tomowire.services.reading import even

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tomowire.aio.association import Association
    from tomowire.aio.operation import Operation
    from tomowire.aio.outbox import MessageSender
    from tomowire.wire.command_set import Message
    from tomowire.wire.messages import Request

_DEPTH: Final = 0.1
_PIECE: Final = 0.05
"""Seconds that one piece may take."""
_SMALLEST_PIECE: Final = 64


class Bucket:
    """What may be sent at a rate of `rate` bytes per second. It has no clock: times are in seconds, of any one."""

    def __init__(self, rate: float) -> None:
        given: Any = rate  # whatever a caller makes of it
        if not isinstance(given, int | float) or isinstance(given, bool) or not given > 0:
            raise UsageError(f"bandwidth is a number of bytes per second, more than 0: not {given!r}")
        self.rate = rate
        self.depth = max(rate * _DEPTH, 2 * _SMALLEST_PIECE)
        """Bytes that can be saved up."""
        self._level = 0.0
        self._at: float | None = None

    def delay(self, now: float, amount: int) -> float:
        """Seconds until `amount` bytes, or as many as can be saved up, are there; 0 if they are."""
        self._run(now)
        lacking = min(amount, self.depth) - self._level
        return max(lacking / self.rate, 0.0)

    def take(self, now: float, amount: int) -> None:
        """Take `amount` bytes, also such as are not there yet: who comes next waits for them."""
        self._run(now)
        self._level -= amount

    def _run(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._level + (now - self._at) * self.rate, self.depth)
        self._at = now


class Pacer:
    """`await pacer.wait(n)` before `n` bytes are sent: all who use it together send no more than `rate` bytes per second.

    Whoever is cancelled while waiting has taken nothing.
    """

    def __init__(self, rate: float) -> None:
        self._bucket = Bucket(rate)
        self._turn = asyncio.Lock()  # first come, first served
        self.piece: Final = max(int(rate * _PIECE), _SMALLEST_PIECE) // 2 * 2
        """Bytes that are sent at once at most; an even number (PS3.8 E.1)."""

    async def wait(self, amount: int) -> None:
        """Wait until `amount` bytes may be sent."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            delay = self._bucket.delay(loop.time(), amount)
            if delay > 0:
                await asyncio.sleep(delay)
            self._bucket.take(loop.time(), amount)


class PacedAssociation:
    """An association on which data sets are sent no faster than `pacer` allows; for one object at a time, otherwise the same."""

    def __init__(self, association: Association, pacer: Pacer) -> None:
        self._association = association
        self._pacer = pacer
        self._operation: Operation | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._association, name)

    def operation(self, request: Request, *, name: str, timeout: float | None) -> Operation:
        self._operation = self._association.operation(request, name=name, timeout=timeout)
        return self._operation

    async def send(self, context_id: int, message: Message, data: bytes | memoryview | None = None) -> None:
        if data is None:
            await self._association.send(context_id, message)
            return
        async with self.sending(context_id, message, self._operation) as sender:
            await sender.write(memoryview(even(data)), last=True)

    def sending(self, context_id: int, message: Message, operation: Operation | None = None) -> PacedSender:
        return PacedSender(self._association.sending(context_id, message, operation), self._pacer, operation)


class PacedSender:
    """A `MessageSender` that waits before each piece; that nothing moves meanwhile is not the peer's fault."""

    def __init__(self, sender: MessageSender, pacer: Pacer, operation: Operation | None) -> None:
        self._sender = sender
        self._pacer = pacer
        self._operation = operation

    async def __aenter__(self) -> PacedSender:
        await self._sender.__aenter__()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self._sender.__aexit__(kind, error, traceback)

    async def write(self, data: memoryview, *, last: bool) -> None:
        """Send a piece, in smaller ones if it takes long."""
        for start in range(0, max(len(data), 1), self._pacer.piece):
            part = data[start : start + self._pacer.piece]
            with _not_timed(self._operation):
                await self._pacer.wait(len(part))
            await self._sender.write(part, last=last and start + len(part) == len(data))


@contextmanager
def _not_timed(operation: Operation | None) -> Iterator[None]:
    """Within it `operation` does not become late."""
    if operation is None or operation.timeout is None:
        yield
        return
    loop, often = asyncio.get_running_loop(), operation.timeout / 4
    timer: asyncio.TimerHandle

    def touch() -> None:
        nonlocal timer
        operation.touched = loop.time()
        timer = loop.call_later(often, touch)

    timer = loop.call_later(often, touch)
    try:
        yield
    finally:
        timer.cancel()
