"""A request of ours that is under way, and the responses that come for it."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import deque
from typing import TYPE_CHECKING

from tomowire.errors import AssociationError

if TYPE_CHECKING:
    from tomowire.aio.operations import Operations
    from tomowire.aio.streams import DataStream
    from tomowire.wire.messages import Request, Response


class Operation:
    """One request of ours, for the time of an `async with`.

    Entering it waits until the negotiated window has room for one more (PS3.7 D.3.3.3). Then the request is to be sent, and
    `next_response` gives the responses as they come. Leaving it before the final response has come, by cancellation for instance,
    passes over what still comes; the association can be used further.

    When the association ends while it is under way, what was told to the operation is raised in place of the `AssociationError`
    that the caller happened to meet: `OperationTimeout`, for one.
    """

    __slots__ = (
        "_operations",
        "_responses",
        "_taken",
        "_waiter",
        "abandoned",
        "admitted",
        "answered",
        "error",
        "name",
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
        self.admitted = False
        """Whether it has a place in the window."""
        self.sent = False
        """Whether sending the request has begun."""
        self.answered = False
        """Whether the final response has come."""
        self.abandoned = False
        """Whether nobody waits for the response any more."""
        self._operations = operations
        self._responses: deque[tuple[Response, DataStream | None]] = deque()
        self._taken: DataStream | None = None
        self._waiter: Future[None] | None = None

    async def __aenter__(self) -> Operation:
        self._operations.add(self)
        try:
            while not self.admitted:
                await self._wait()
        except BaseException:
            self._operations.leave(self)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._operations.leave(self)
        if isinstance(error, AssociationError) and self.error is not None and self.error is not error:
            raise self.error.with_traceback(None) from None

    async def next_response(self) -> tuple[Response, DataStream | None]:
        """The next response, with its data set if it has one; that can be read until the next response is asked for.

        Raises what ended the association, `PeerMisbehaved`, or `OperationTimeout`.
        """
        self._give_back()
        self.touched = get_running_loop().time()
        while not self._responses:
            await self._wait()
        response, self._taken = self._responses.popleft()
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
        """Whether responses have come that nobody has taken yet."""
        return bool(self._responses)

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

    def fail(self, error: Exception) -> None:
        """No further response will come. Those that have come can still be taken; the first reason counts."""
        if self.error is None:
            self.error = error
            self._wake()

    def close(self) -> None:
        """Give back the memory of all responses."""
        self._give_back()
        while self._responses:
            _, data = self._responses.popleft()
            if data is not None:
                data.close()

    def _give_back(self) -> None:
        if self._taken is not None:
            self._taken.close()
            self._taken = None

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
