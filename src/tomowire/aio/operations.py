"""All requests of ours on one association: their Message IDs, the negotiated window, and the time they may take."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import deque
from typing import TYPE_CHECKING, Final

from tomowire.aio.operation import MOST_UNREAD, Operation
from tomowire.aio.timing import Alarm
from tomowire.errors import AssociationReleased, OperationTimeout, PeerMisbehaved, UsageError
from tomowire.protocol.status import Status
from tomowire.wire.messages import CFindRQ, CGetRQ, CMoveRQ

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.streams import DataStream
    from tomowire.errors import CommandSetError
    from tomowire.wire.messages import Request, Response

_MESSAGE_IDS: Final = 0xFFFF
_RESPONSE: Final = 0x8000
_SEVERAL_RESPONSES: Final = (CFindRQ, CGetRQ, CMoveRQ)
_UNTAKEN: Final = f"the association was released while {MOST_UNREAD} responses had not been taken"


class Operations:
    """Pairs responses with requests, and lets no more requests be outstanding than were negotiated.

    A request is timed from when it is sent. It is late when nothing has moved for its timeout: no byte of it out, no response in.
    Two things are not held against it: bytes of ours that the peer is still taking from the connection, and responses to requests
    that were sent before, since a peer may serve one after the other. `unsent` gives the number of bytes that wait to be sent,
    `on_late` is told why the association has to end. `on_crowded` is told when so many responses wait to be taken that no more must
    come from the peer, and when they may again.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        *,
        unsent: Callable[[], int],
        on_late: Callable[[str], None],
        on_crowded: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.window = 1
        """How many may be outstanding; 0 for no limit."""
        self._loop = loop
        self._unsent = unsent
        self._on_late = on_late
        self._on_crowded = on_crowded
        self._crowded = 0  # how many operations hold up the peer
        self._is_releasing = False
        self._all: dict[int, Operation] = {}  # by Message ID, in the order in which they came
        self._queue: deque[Operation] = deque()  # those that wait for a place in the window
        self._admitted = 0
        self._with_several: dict[int, Operation] = {}  # those that have many responses, by Message ID
        self._ended: Exception | None = None
        self._last_message_id = 0
        self._unsent_before = 0
        self._alarm = Alarm(loop, self._check)

    def next_message_id(self) -> int:
        """A Message ID that is not in use (1 to 65535)."""
        for _ in range(_MESSAGE_IDS):
            self._last_message_id = self._last_message_id % _MESSAGE_IDS + 1
            if self._last_message_id not in self._all:
                return self._last_message_id
        raise UsageError("all 65535 Message IDs of this association are in use")

    def new(self, request: Request, name: str, timeout: float | None) -> Operation:
        """An operation to be entered with `async with`."""
        return Operation(self, request, name, timeout)

    # From the operations

    def add(self, operation: Operation) -> None:
        """Take up an operation, and admit it when there is room in the window."""
        if self._ended is not None:
            raise self._ended.with_traceback(None)
        message_id = operation.request.message_id
        if message_id in self._all:
            raise UsageError(f"Message ID {message_id} is in use on this association")
        self._all[message_id] = operation
        if isinstance(operation.request, _SEVERAL_RESPONSES):
            self._with_several[message_id] = operation
        self._queue.append(operation)
        self._admit()

    def leave(self, operation: Operation) -> None:
        """Nobody waits for this operation any more."""
        operation.close()
        if operation.sent and not operation.answered:
            # Its Message ID and its place in the window are free when its response has come. It goes on being timed: whoever
            # waits for the place must not wait for ever.
            operation.abandoned = True
        else:
            self._remove(operation)

    def unread_by_caller_of(self, operation: Operation) -> list[Operation]:
        """Other operations with many responses that the same caller has begun to take."""
        return [
            each for each in self._with_several.values() if each is not operation and each.is_called_by_same(operation)
        ]

    def on_taken(self, operation: Operation) -> None:
        """An operation does not hold up the peer any more: its responses have been taken, or copied."""
        operation.holds_up_peer = False
        self._crowded -= 1
        if not self._crowded:
            self._on_crowded(False)

    def wake_waiting_caller(self, delivered: Operation) -> None:
        """A response has come to an operation whose caller may be waiting for another one."""
        if delivered.request.message_id in self._with_several and not delivered.is_waited_for:
            for operation in self._all.values():
                if operation.is_waited_for and operation.is_called_by_same(delivered):
                    operation.wake()

    def _remove(self, operation: Operation) -> None:
        del self._all[operation.request.message_id]
        self._with_several.pop(operation.request.message_id, None)
        if operation.admitted:
            self._give_back_place(operation)
        elif not operation.answered:
            self._queue.remove(operation)

    def _give_back_place(self, operation: Operation) -> None:
        operation.admitted = False
        self._admitted -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and (not self.window or self._admitted < self.window):
            self._admitted += 1
            self._queue.popleft().admit()

    # From the association

    def on_sent(self, message_id: int) -> None:
        """Sending this request has begun: the time runs."""
        operation = self._all.get(message_id)
        if operation is not None:
            operation.sent = True
            operation.touched = now = self._loop.time()
            if operation.timeout is not None:
                self._alarm.look_at(now + operation.timeout)

    def on_progress(self, operation: Operation | None) -> None:
        """A piece of a data set has been given to the connection, or taken from it by the kernel."""
        self._unsent_before = self._unsent()
        if operation is not None:
            operation.touched = self._loop.time()

    def on_response(self, response: Response, data: DataStream | None) -> str | None:
        """Give a response to whom it belongs. Returns what is wrong with it, if it belongs to nobody."""
        operation = self._all.get(response.message_id_being_responded_to)
        problem = _problem(operation, response)
        if operation is None or problem is not None:
            if data is not None:
                data.close()
            if operation is not None and operation.is_outstanding and not Status(response.status).is_pending:
                self._spoil(operation, str(problem))
            return problem
        now = self._loop.time()
        for behind in reversed(self._all.values()):
            if behind is operation:
                break
            behind.touched = now
        operation.answered = not Status(response.status).is_pending
        if operation.answered:  # whoever has asked may be slow to look at it, and even wait for what comes next
            self._give_back_place(operation)
        else:
            self._hold_up_peer_if_crowded(operation)
        if not operation.abandoned and operation.error is None:
            operation.deliver(response, data, now)
            return None
        if data is not None:
            data.close()
        if operation.abandoned and operation.answered:
            self._remove(operation)
        return None

    def _hold_up_peer_if_crowded(self, operation: Operation) -> None:
        if not operation.is_crowded or operation.holds_up_peer:
            return
        if self._is_releasing:
            operation.fail(AssociationReleased(_UNTAKEN))
            return
        operation.holds_up_peer = True
        self._crowded += 1
        self._on_crowded(True)

    def on_release(self) -> None:
        """The answer to a release is asked for: it must not wait behind responses that nobody takes."""
        self._is_releasing = True
        for operation in self._with_several.values():
            if operation.holds_up_peer:
                operation.fail(AssociationReleased(_UNTAKEN))
                self.on_taken(operation)

    def on_unreadable(self, error: CommandSetError) -> str:
        """A response has come that cannot be read. Returns what is wrong with it; whose it is, if that can be told, is told too."""
        problem = f"the peer sent a response that cannot be read: {error}"
        outstanding = [each for each in self._all.values() if each.is_outstanding]
        for operation in outstanding:
            if error.message_id == operation.request.message_id or (error.message_id is None and len(outstanding) == 1):
                self._spoil(operation, problem)
        return problem

    def fail(self, error: Exception) -> None:
        """No responses will come any more, and no requests can be sent."""
        if self._ended is None:
            self._ended = error
        self._alarm.stop()
        for operation in self._all.values():
            operation.fail(error)

    def _spoil(self, operation: Operation, problem: str) -> None:
        """What came for this operation is no answer to it, and none is to be expected any more."""
        operation.fail(PeerMisbehaved(problem))
        operation.answered = True
        self._give_back_place(operation)
        if operation.abandoned:
            self._remove(operation)

    # Time

    def _check(self, now: float) -> float | None:
        unsent = self._unsent()
        peer_is_reading = 0 < unsent != self._unsent_before
        self._unsent_before = unsent
        due: list[float] = []
        late: list[Operation] = []
        for operation in self._all.values():
            if operation.timeout is None or not operation.sent:
                continue
            if operation.touched + operation.timeout <= now and (peer_is_reading or operation.has_responses):
                operation.touched = now
            at = operation.touched + operation.timeout
            if at > now:
                due.append(at)
            else:
                late.append(operation)
        if late:
            self._give_up(late)
            return None
        return min(due, default=None)

    def _give_up(self, late: list[Operation]) -> None:
        """A late answer could be taken for that of a later request: this association is not used again."""
        for operation in late:
            operation.fail(OperationTimeout(_nothing_moved(operation)))
        self._on_late(_nothing_moved(late[0]))


def _problem(operation: Operation | None, response: Response) -> str | None:
    kind, message_id = type(response).__name__, response.message_id_being_responded_to
    if operation is None or not operation.sent:
        return f"the peer sent {kind} for Message ID {message_id}, which is not in use"
    if response.command_field != operation.request.command_field | _RESPONSE:
        return f"the peer sent {kind} in response to {type(operation.request).__name__}"
    if operation.answered:
        return f"the peer sent {kind} for Message ID {message_id}, which it had answered already"
    if Status(response.status).is_pending and not isinstance(operation.request, _SEVERAL_RESPONSES):
        return f"the peer sent {kind} with a status of pending"
    return None


def _nothing_moved(operation: Operation) -> str:
    return f"{operation.name}: nothing moved for {operation.timeout:g} s; the association was aborted"
