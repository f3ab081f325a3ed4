"""A request of ours that is under way, and the responses that come for it."""

from __future__ import annotations

from asyncio import Future, current_task, get_running_loop
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.copied import Copied
from tomowire.errors import AssociationError, UsageError

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable

    from tomowire.aio.operations import Operations
    from tomowire.aio.streams import DataStream
    from tomowire.wire.messages import Request, Response


MOST_COPIED: Final = 64 << 20
"""Bytes of unread responses to one request that are held while the one who should read them waits for another."""
MOST_UNREAD: Final = 8192
"""Responses to one request that may wait to be taken, besides those that were copied: then nothing more is read from the peer.

Most have a data set, whose memory runs out before; but a peer may send as many without one as it likes.
"""
_OVERHEAD: Final = 512
"""What an unread response takes besides its data set."""

on_behalf_of: Final[ContextVar[Task[Any] | None]] = ContextVar("on_behalf_of", default=None)
"""The task that waits for this one meanwhile, where an operation is run in a task of its own."""


class Operation:
    """One request of ours, for the time of an `async with`.

    Entering it waits until the negotiated window has room for one more (PS3.7 D.3.3.3). Then the request is to be sent, and
    `next_response` gives the responses as they come. Leaving it before the final response has come, by cancellation for instance,
    passes over what still comes; the association can be used further.

    When the association ends while it is under way, what was told to the operation is raised in place of the `AssociationError`
    that the caller happened to meet: `OperationTimeout`, for one.

    A caller who waits for this one, and has not read all responses to another on the same association, does not hold itself up:
    what has come for the other is copied, up to 64 MiB; `UsageError` is raised when there is more.
    """

    __slots__ = (
        "_caller",
        "_copied",
        "_copied_bytes",
        "_operations",
        "_responses",
        "_taken",
        "_waiter",
        "abandoned",
        "admitted",
        "answered",
        "error",
        "holds_up_peer",
        "name",
        "on_failed",
        "request",
        "sent",
        "timeout",
        "touched",
    )

    def __init__(self, operations: Operations, request: Request, name: str, timeout: float | None) -> None:
        self.request = request
        self.name = name
        """What it is called in errors, such as "C-ECHO"."""
        self.timeout = timeout
        """The seconds in which something must move once the request is sent; None for ever."""
        self.touched = 0.0
        """When something last moved for this operation, in the loop's time."""
        self.error: Exception | None = None
        """Why no further response will come."""
        self.on_failed: Callable[[], object] | None = None
        """Called when there is such an `error`, for who waits for something else meanwhile."""
        self.admitted = False
        """Whether it has a place in the window."""
        self.sent = False
        """Whether sending the request has begun."""
        self.answered = False
        """Whether the final response has come."""
        self.abandoned = False
        """Whether nobody waits for the response any more."""
        self.holds_up_peer = False
        """Whether nothing is read from the peer until responses to this have been taken."""
        self._operations = operations
        self._responses: deque[tuple[Response, DataStream | Copied | None]] = deque()
        self._taken: DataStream | Copied | None = None
        self._caller: Task[Any] | None = None
        self._copied = 0  # of the responses, from the left
        self._copied_bytes = 0
        self._waiter: Future[None] | None = None

    async def __aenter__(self) -> Operation:
        self._operations.add(self)
        try:
            while not self.admitted:
                await self._read_ahead_for_caller()
                if not self.admitted:
                    await self._wait()
        except BaseException:
            self._operations.leave(self)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._operations.leave(self)
        if isinstance(error, AssociationError) and self.error is not None and self.error is not error:
            raise self.error.with_traceback(None) from None

    async def next_response(self) -> tuple[Response, DataStream | Copied | None]:
        """The next response, with its data set if it has one; that can be read until the next response is asked for.

        Raises what ended the association, `PeerMisbehaved`, or `OperationTimeout`.
        """
        self._give_back()
        self.touched = get_running_loop().time()
        # Also before one that is there: its data set may not find room otherwise.
        await self._read_ahead_for_caller()
        while not self._responses:
            await self._wait()
            await self._read_ahead_for_caller()
        response, self._taken = self._responses.popleft()
        if self._copied:
            self._copied -= 1
            self._copied_bytes -= _size(self._taken)
        if self.holds_up_peer:
            self._let_peer_go_on()
        return response, self._taken

    async def only_response(self) -> Response:
        """The response of an operation that has just one, without a data set. Raises as `next_response` does."""
        response, _ = await self.next_response()
        return response

    @property
    def is_outstanding(self) -> bool:
        """Whether the request has been sent and its final response can still come."""
        return self.sent and not self.answered and self.error is None

    @property
    def has_responses(self) -> bool:
        """Whether responses have come that nobody has taken yet: it is not for the peer to go on."""
        return len(self._responses) > (0 if self.answered else self._copied)

    @property
    def is_crowded(self) -> bool:
        """Whether so many responses wait to be taken that there must not be more."""
        return len(self._responses) - self._copied >= MOST_UNREAD

    # For `Operations`

    def admit(self) -> None:
        """There is a place in the window."""
        self.admitted = True
        self._wake()

    def deliver(self, response: Response, data: DataStream | None, now: float) -> None:
        """A response has come at `now`."""
        self.touched = now
        self._responses.append((response, data))
        self._wake()
        self._operations.wake_waiting_caller(self)

    def is_called_by_same(self, other: Operation) -> bool:
        """Whether the same task was last seen to wait for both."""
        return self._caller is other._caller

    @property
    def is_waited_for(self) -> bool:
        """Whether its caller waits for it at this moment."""
        return self._waiter is not None

    async def copy_responses(self, name: str) -> None:
        """Copy what has come and is unread, because the caller waits for `name`. Raises `UsageError` when that is too much."""
        while self._copied < len(self._responses):
            response, data = self._responses[self._copied]
            if isinstance(data, Copied) or data is None:
                kept = data
            else:
                kept = Copied(data)
                self._responses[self._copied] = response, kept
            if kept is not None:
                await kept.fill(MOST_COPIED)
            self._copied += 1
            self._copied_bytes += _size(kept)
            if self.holds_up_peer:
                self._let_peer_go_on()
            if self._copied_bytes > MOST_COPIED:
                raise UsageError(
                    f"{name} was asked for while more than {MOST_COPIED >> 20} MiB of responses to {self.name} are unread, on the"
                    " same association: read those first, or use another association"
                )

    def wake(self) -> None:
        """Look again at what it waits for."""
        self._wake()

    def fail(self, error: Exception) -> None:
        """No further response will come. Those that have come can still be taken; the first reason counts."""
        if self.error is None:
            self.error = error
            self._wake()
            if self.on_failed is not None:
                self.on_failed()

    def close(self) -> None:
        """Give back the memory of all responses."""
        self._give_back()
        self._copied = self._copied_bytes = 0
        while self._responses:
            _, data = self._responses.popleft()
            if data is not None:
                data.close()
        if self.holds_up_peer:
            self._let_peer_go_on()

    def _let_peer_go_on(self) -> None:
        """When half of what waited has been taken."""
        if len(self._responses) - self._copied <= MOST_UNREAD // 2:
            self._operations.on_taken(self)

    def _give_back(self) -> None:
        if self._taken is not None:
            self._taken.close()
            self._taken = None

    async def _read_ahead_for_caller(self) -> None:
        """Let nothing that the caller has not read of other operations stand in the way of this one."""
        self._caller = on_behalf_of.get() or current_task()
        try:
            for other in self._operations.unread_by_caller_of(self):
                await other.copy_responses(self.name)
        except AssociationError as error:
            raise (self.error or error).with_traceback(None) from None

    async def _wait(self) -> None:
        if self.error is not None:
            raise self.error.with_traceback(None)
        self._waiter = get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size(data: DataStream | Copied | None) -> int:
    return _OVERHEAD + (len(data) if isinstance(data, Copied) else 0)
