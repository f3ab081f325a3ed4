"""A peer by its address, and what one can ask of it: associations are opened, planned and closed behind the scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.arguments import seconds, whole
from tomowire.aio.connect import DEFAULT_AE_TITLE
from tomowire.services import peer_arguments as arguments
from tomowire.services import peer_calls
from tomowire.services.adapting import AUTO, DEFAULT_MOST_ASSOCIATIONS, AdaptivePace
from tomowire.services.find import default_model_of
from tomowire.services.get import COMPLETE_IN_FLIGHT, check_cancellation
from tomowire.services.pacing import Pacer
from tomowire.services.pool import DEFAULT_IDLE, DEFAULT_KEPT, Pool
from tomowire.services.retrying import DEFAULT_RETRIES, retry_waits
from tomowire.services.timeouts import UNSET, Seconds, Timeouts, chosen
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from os import PathLike
    from types import AsyncGeneratorType

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.protocol.status import Status
    from tomowire.services.adapting import Associations
    from tomowire.services.folder import Folder
    from tomowire.services.get import Cancellation
    from tomowire.services.models import Model
    from tomowire.services.query import Query
    from tomowire.services.retrieval import Retrieved
    from tomowire.services.retrieving import Progress
    from tomowire.services.sent import Sent
    from tomowire.services.storage_scp import StoreRequest

T = TypeVar("T")


class Peer:
    """A DICOM application at `AET@host:port`. `aet` is one's own AE title, `timeouts` how long the peer may take for what. All that
    is sent together takes no more than `bandwidth` bytes of data sets per second. All other `options` go to `associate`.

    Within `async with Peer(...) as peer` up to `kept` associations are kept between calls, each for up to `idle` seconds; at the
    end of the block they are released, and nothing is left of an iteration that was not finished. Without such a block each
    call opens the associations that it needs, and closes them. Several calls may go on at once: no two share an association.
    """

    def __init__(
        self,
        address: str | PeerAddress,
        *,
        aet: str = DEFAULT_AE_TITLE,
        timeouts: Timeouts | None = None,
        kept: int = DEFAULT_KEPT,
        idle: float = DEFAULT_IDLE,
        bandwidth: float | None = None,
        **options: Any,
    ) -> None:
        self.address = PeerAddress.of(address)
        self.timeouts = Timeouts() if timeouts is None else timeouts
        arguments.check_timeouts(self.timeouts)
        whole(0)("kept", kept)
        seconds(or_zero=True)("idle", idle)
        options = arguments.association_options(options, "Peer")
        options = {"aet": check_ae_title(aet), **self.timeouts.for_association, **options}
        self._pacer = Pacer(bandwidth) if bandwidth is not None else None
        self._pool = Pool(self.address, options, most=kept, idle=idle)
        self._pace = AdaptivePace()  # what has been learnt about how many associations pay
        self._iterations: set[AsyncGeneratorType[Any, None]] = set()

    async def __aenter__(self) -> Self:
        self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._close_iterations()
        finally:
            await self._pool.close()

    async def _close_iterations(self) -> None:
        """Close those that were left; one that another task is in the middle of ends with that task."""
        failures: list[Exception] = []
        while self._iterations:
            iteration = self._iterations.pop()
            if not iteration.ag_running:
                try:
                    await iteration.aclose()
                except Exception as error:  # the others are closed all the same
                    failures.append(error)
        if failures:
            raise failures[0]

    async def echo(self, *, timeout: Seconds = UNSET, timeouts: Timeouts | None = None) -> Status:
        """C-ECHO. `timeout` is how long its answer may take, `timeouts` are those of this call (so in all calls).

        Raises `AssociationError`, `OperationTimeout`, `NoAcceptedContext`.
        """
        limits, options = self._limits(timeouts, timeout=timeout)

        async def echo(association: Association) -> Status:
            return await CEchoScu(association).echo(timeout=cast("float", chosen(timeout, limits.echo)))

        return await self._pool.use([verification()], echo, options=options)

    def send(
        self,
        *things: Any,
        associations: Associations = 1,
        most_associations: int = DEFAULT_MOST_ASSOCIATIONS,
        retries: int = DEFAULT_RETRIES,
        transcode: bool = False,
        timeout: Seconds = UNSET,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Sent, None]:
        """Send any number of things; yield what became of each object as soon as it is known, in no fixed order.

        A thing is a path of a file or of a folder with all that is below it, a pydicom `Dataset`, a binary stream or bytes with a
        DICOM file, any `Source` (see `as_source`), or an iterable of these, asynchronous or not; a generator is asked for more as
        objects are sent. A stream that comes from an asynchronous iterator of bytes is made one thing by `as_source`.

        A failure is a value (`Sent.status`, `Sent.error`, or both as `Sent.outcome`) and never stops the others; `Sent.source` is
        the path or the thing that it is about. What does not exist, or is damaged, or no DICOM, is a failure too. In a folder what
        is not DICOM is passed over. What an iterable raises is raised at the end.

        `associations` is how many are used at once: one by default, since some peers confirm and then lose what comes on several
        (DCMTK's `dcmqrscp`). "auto" finds out how many, and how much of the window, make it faster, and
        goes on in the next call with what it has learnt; it never uses more than `most_associations`, and one where nothing may
        be sent twice. An object that fails while others come on other associations is sent once more, on the only one: not
        every peer bears several.

        Up to `retries` times an object that is refused with A7xx (out of resources) or loses its connection is sent again, and a
        peer that has gone away is tried again, after 1 s, 2 s, 4 s, and so on; what was under way when an association was aborted
        or timed out is sent once more, alone. With 0 nothing is sent twice. A stream that cannot be wound back is not sent again
        once it was begun.

        With `transcode` what the peer does not take as it is, is sent in a transfer syntax that it does take, if that can be made
        without loss. `timeout` is the time without progress after which an object is given up.
        """
        limits, options = self._limits(timeouts)
        if timeout is not UNSET:
            seconds(or_zero=True)("timeout", timeout)
        whole(0)("retries", retries)
        return self._kept(
            peer_calls.send(
                self._pool,
                things,
                associations=self._pace_for(associations, most_associations, may_try=retries > 0),
                learn=self._learn,
                retry_waits=retry_waits(retries),
                transcode=transcode,
                timeout=cast("float", chosen(timeout, limits.store)),
                pacer=self._pacer,
                **options,
            )
        )

    def find(
        self,
        query: Query | Dataset,
        *,
        model: Model | None = None,
        timeout: Seconds = UNSET,
        grace: Seconds = UNSET,
        timeouts: Timeouts | None = None,
        **special: Any,
    ) -> AsyncGenerator[Dataset, None]:
        """C-FIND: yield the answers as they come. Several iterations may go on at once, each on an association of its own.

        Arguments and errors are those of `CFindScu.find`; `special` ones go to `associate`, and only an association that was opened
        with the same is used again (so in `get` and `move`): `extended=QueryOptions(relational=True)`, say, for extended
        negotiation; for `get` and `move` there are `RetrieveOptions` besides, and `relational()` for both.

        To leave it early and go on at once with something else, leave it with `contextlib.aclosing`; at the latest the end of the
        `async with` block of this peer closes it.
        """
        arguments.check_model(model)
        limits, options = self._limits(timeouts, timeout=timeout, grace=grace)
        return self._kept(
            peer_calls.find(
                self._pool,
                query,
                model or default_model_of(query),
                timeout=chosen(timeout, limits.find),
                grace=chosen(grace, limits.grace),
                options=options,
                special=arguments.association_options(special, "Peer.find"),
            )
        )

    def get(
        self,
        query: Query | Dataset,
        into: Folder | str | PathLike[str] | Callable[[StoreRequest], Awaitable[int]],
        *,
        model: Model | None = None,
        timeout: Seconds = UNSET,
        grace: Seconds = UNSET,
        timeouts: Timeouts | None = None,
        cancellation: Cancellation = COMPLETE_IN_FLIGHT,
        confirm: bool = True,
        **special: Any,
    ) -> AsyncGenerator[Retrieved | Progress, None]:
        """Get all that `query` matches with C-GET, into a folder or to a handler as of `Storage`; yield what became of each.

        The peer is first asked with C-FIND what there is, so any key will do, and presentation contexts are proposed for just
        the SOP classes that come; where 128 are not enough there are several associations. `Progress` tells between the objects
        how far it is; the first one, before any object, how many there are if the peer says so.

        A peer that does not know a key answers with all that it has. What its answers do not `confirm` to match is not asked for
        then, and at the end there is a `NotConfirmed`; False takes what it answers.

        Arguments and errors are those of `CGetScu.get`, and `QueryFailed`. When there was more than one request, their failures
        come at the end in one `ExceptionGroup`.
        """
        arguments.check_place(into)
        arguments.check_model(model)
        check_cancellation(cancellation)
        limits, options = self._limits(timeouts, timeout=timeout, grace=grace)
        return self._kept(
            peer_calls.get(
                self._pool,
                query,
                into,
                model or default_model_of(query),
                confirm=confirm,
                cancellation=cancellation,
                timeout=chosen(timeout, limits.retrieve),
                grace=chosen(grace, limits.grace),
                find_timeout=limits.find,
                options=options,
                special=arguments.association_options(special, "Peer.get"),
            )
        )

    def move(
        self,
        query: Query | Dataset,
        destination: str,
        *,
        model: Model | None = None,
        timeout: Seconds = UNSET,
        grace: Seconds = UNSET,
        timeouts: Timeouts | None = None,
        confirm: bool = True,
        **special: Any,
    ) -> AsyncGenerator[Progress, None]:
        """Have the peer send all that `query` matches to the AE title `destination` with C-MOVE; yield how far it is.

        A query with keys that a retrieval cannot have, such as a name, is first asked with C-FIND; an identifier of one's own is
        sent as it is. `confirm` is as with `get`. Arguments and errors are those of `CMoveScu.move`, and `QueryFailed`. When there
        was more than one request, their failures come at the end in one `ExceptionGroup`.
        """
        check_ae_title(destination)
        arguments.check_model(model)
        limits, options = self._limits(timeouts, timeout=timeout, grace=grace)
        return self._kept(
            peer_calls.move(
                self._pool,
                query,
                destination,
                model or default_model_of(query),
                confirm=confirm,
                timeout=chosen(timeout, limits.retrieve),
                grace=chosen(grace, limits.grace),
                find_timeout=limits.find,
                options=options,
                special=arguments.association_options(special, "Peer.move"),
            )
        )

    def _pace_for(self, associations: Associations, most: int, *, may_try: bool) -> int | AdaptivePace:
        whole(1)("most_associations", most)
        if associations == AUTO:
            return self._pace.resumed(most if may_try else 1)
        whole(1, otherwise=AUTO)("associations", associations)
        return associations

    def _learn(self, pace: int | AdaptivePace) -> None:
        """A call is over; where several are, that which is over last counts. What had to use one has learnt nothing."""
        if isinstance(pace, AdaptivePace) and pace.most > 1:
            self._pace = pace

    def _limits(self, of_call: Timeouts | None, **times: Seconds) -> tuple[Timeouts, dict[str, Any]]:
        """The time-outs of a call, and what `associate` is told of them. `times` are its other arguments of the kind."""
        arguments.check_timeouts(self.timeouts if of_call is None else of_call, **times)
        return of_call or self.timeouts, dict(of_call.for_association) if of_call is not None else {}

    def _kept(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Remember an iteration that has begun, and forget those that are over."""
        iteration = cast("AsyncGeneratorType[T, None]", generator)
        self._iterations = {each for each in self._iterations if each.ag_frame is not None} | {iteration}
        return iteration
