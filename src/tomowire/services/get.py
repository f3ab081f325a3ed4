"""C-GET, the SCU (PS3.4 C.4.3): objects come on the association on which they were asked for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from tomowire.aio.operation import on_behalf_of
from tomowire.errors import OperationTimeout, StoreFailed, UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.protocol.status import PROCESSING_FAILURE
from tomowire.services.arguments import checked_association
from tomowire.services.calling import awaitable, checked_handler
from tomowire.services.find import DEFAULT_CANCEL_GRACE
from tomowire.services.models import Model
from tomowire.services.retrieving import (
    DEFAULT_RETRIEVE_TIMEOUT,
    Progress,
    encoded_identifier,
    model_for,
    suboperations,
)
from tomowire.services.storage_scp import Storage
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, storage_uid
from tomowire.wire.messages import MEDIUM, CGetRQ

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.services.handler import Outcome
    from tomowire.services.query import Query
    from tomowire.services.storage_scp import StoreRequest

Cancellation = Literal["complete_in_flight", "reject_in_flight"]
COMPLETE_IN_FLIGHT: Final = "complete_in_flight"
REJECT_IN_FLIGHT: Final = "reject_in_flight"
_CANCELLATIONS: Final = (COMPLETE_IN_FLIGHT, REJECT_IN_FLIGHT)
_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


def check_cancellation(given: object) -> None:
    """One of the two ways. A word that is none must not be taken for the default: what comes would be kept."""
    if given not in _CANCELLATIONS:
        raise UsageError(f"cancellation is {COMPLETE_IN_FLIGHT!r} or {REJECT_IN_FLIGHT!r}, and not {given!r}")


def getting(
    *sop_classes: str, model: Model = Model.STUDY_ROOT, transfer_syntaxes: Iterable[str] = _SYNTAXES
) -> tuple[ProposedContext, ...]:
    """The presentation contexts to propose for C-GET, and for the objects that it brings, by SOP class name or UID.

    An object whose class or transfer syntax is not among them cannot come. One context for each transfer syntax, so that what
    is stored comes as it is stored; this side is SCP of the objects (PS3.4 C.5.3.1, PS3.7 D.3.3.4).
    """
    syntaxes = tuple(transfer_syntaxes)
    uids = dict.fromkeys(map(storage_uid, sop_classes))
    return (
        ProposedContext(model.get, _SYNTAXES),
        *(ProposedContext(uid, (each,), scu=False, scp=True) for uid in uids for each in syntaxes),
    )


class Receiver(Storage):
    """The Storage SCP of who retrieves with C-GET: as `Storage`, and it can refuse what still comes when that is called off."""

    def __init__(self, keep: Callable[[StoreRequest], Awaitable[Outcome]], **options: Any) -> None:
        super().__init__(self._receive, **options)
        self._handler = self._blamed = checked_handler(keep, "a storage handler")
        self._under_way: dict[Association, set[asyncio.Timeout]] = {}
        self._refusing: set[Association] = set()

    def refuse(self, association: Association) -> None:
        """From now on objects that come on this association are refused, and those that are coming too."""
        if association not in self._refusing:
            self._refusing.add(association)
            for limit in self._under_way.pop(association, ()):
                limit.reschedule(asyncio.get_running_loop().time())

    def take(self, association: Association) -> None:
        """Refuse no more."""
        self._refusing.discard(association)

    async def _receive(self, request: StoreRequest) -> Outcome:
        association = request.association
        if association in self._refusing:
            raise _refusal()
        under_way = self._under_way.setdefault(association, set())
        limit = asyncio.timeout(None)
        try:
            async with limit:
                under_way.add(limit)
                outcome: Outcome = await awaitable(self._handler(request), self._handler, "a storage handler")
                return outcome
        except TimeoutError:
            if association in self._refusing:
                raise _refusal() from None
            raise
        finally:
            under_way.discard(limit)
            if not under_way and self._under_way.get(association) is under_way:
                del self._under_way[association]


def _refusal() -> StoreFailed:
    return StoreFailed(PROCESSING_FAILURE, "the retrieval was cancelled")


class CGetScu:
    """C-GET on an association with the presentation contexts of `getting`; `services` there serve the objects.

    They may be a `Storage`, or a `Receiver`, which is given here too if what comes after a cancellation is to be refused.
    """

    def __init__(self, association: Association, receiver: Receiver | None = None) -> None:
        self._association: Association = checked_association(association, "CGetScu")
        self._receiver = receiver

    async def get(
        self,
        query: Query | Dataset,
        *,
        model: Model | None = None,
        timeout: float | None = DEFAULT_RETRIEVE_TIMEOUT,
        grace: float = DEFAULT_CANCEL_GRACE,
        priority: int = MEDIUM,
        cancellation: Cancellation = COMPLETE_IN_FLIGHT,
    ) -> AsyncGenerator[Progress, None]:
        """Have the peer send what `query` names on this association; yield how far it is (PS3.7 9.1.3).

        `query` has unique keys only, as `Query.study(uid)`; an identifier of one's own is sent as it is. `timeout` is the time in
        seconds without a byte from the peer. Left early it sends C-CANCEL and waits up to `grace` seconds for the peer to stop;
        if it does not, the association is aborted. Objects that come meanwhile are taken, or with `reject_in_flight` refused. Leave
        it with `contextlib.aclosing`, or by cancelling the task.

        Raises, at the end, `RetrieveFailed` for a failure status, and one `ExceptionGroup` with a `SubOperationFailed` for each
        object that was not transferred; before, `UsageError` and `DataSetError` for what cannot be asked for; `NoAcceptedContext`,
        `OperationTimeout`, and what else ends an association.
        """
        check_cancellation(cancellation)
        association = self._association
        model = model_for(query, model)
        context = association.context(model.get)
        if cancellation == REJECT_IN_FLIGHT and self._receiver is None:
            raise UsageError(
                "to reject what is in flight takes a `Receiver`, here and in the services of the association"
            )
        identifier = await asyncio.to_thread(encoded_identifier, query, model, context.transfer_syntax)
        request = CGetRQ(message_id=association.next_message_id(), affected_sop_class_uid=model.get, priority=priority)
        name = f"C-GET ({model})"
        # Not timed as an operation, for which only responses count: between two of them objects come, for as long as they take.
        progress = suboperations(association, context, request, identifier, name=name, timeout=None, grace=grace)
        with self._refusing_when_left(cancellation) as on_left:
            async with aclosing(progress):
                try:
                    while (each := await _next(association, progress, name, timeout, on_left)) is not None:
                        yield each
                except BaseException:
                    on_left()
                    raise

    @contextmanager
    def _refusing_when_left(self, cancellation: Cancellation) -> Iterator[Callable[[], None]]:
        receiver = self._receiver if cancellation == REJECT_IN_FLIGHT else None

        def on_left() -> None:
            if receiver is not None:
                receiver.refuse(self._association)

        try:
            yield on_left
        finally:
            if receiver is not None:
                receiver.take(self._association)


async def _next(
    association: Association,
    progress: AsyncGenerator[Progress, None],
    name: str,
    timeout: float | None,
    on_left: Callable[[], None],
) -> Progress | None:
    """The next of `progress`, None at its end. `on_left` is called before a cancellation gets there, and sends C-CANCEL."""
    waiting = asyncio.ensure_future(_step(progress, asyncio.current_task()))
    try:
        if timeout is not None:
            await _wait_while_something_comes(association, waiting, name, timeout)
        else:
            await asyncio.wait({waiting})
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            on_left()
            waiting.cancel()
        # Cancelled once more, it cancels `waiting` once more.
        await _settled(waiting)
        raise
    return await waiting


async def _step(progress: AsyncGenerator[Progress, None], caller: asyncio.Task[Any] | None) -> Progress | None:
    on_behalf_of.set(caller)
    return await anext(progress, None)


async def _settled(waiting: asyncio.Future[Any]) -> None:
    try:
        await waiting
    except asyncio.CancelledError:
        if not waiting.cancelled():
            raise
    except Exception:
        return  # why this was left counts more


async def _wait_while_something_comes(
    association: Association, waiting: asyncio.Future[Any], name: str, timeout: float
) -> None:
    """Wait for `waiting`; when nothing has come from the peer for `timeout` seconds, abort and raise `OperationTimeout`.

    Time in which this side keeps the peer waiting does not count.
    """
    loop, connection = asyncio.get_running_loop(), association.connection
    since = loop.time()
    while True:
        now = loop.time()
        if connection.is_reading_held or not association.is_peers_turn:
            since = now
        due = max(since, connection.last_received) + timeout
        if due <= now:
            text = f"{name}: nothing came for {timeout:g} s; the association was aborted"
            association.abort(because=text)
            raise OperationTimeout(text)
        done, _ = await asyncio.wait({waiting}, timeout=due - now)
        if done:
            return
