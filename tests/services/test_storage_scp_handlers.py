"""What storage handlers do, good and bad, and what the peer is told of it. The association lives on in every case."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from support.raw_peer import CT, RawPeer, associate_rq, command_pdu, echo_rq, message_pdus, p_data, store_rq
from tomowire.aio.listen import listen
from tomowire.errors import AssociationLost, DataSetError, StoreFailed, UsageError
from tomowire.protocol.status import Status
from tomowire.services.retrieval import Objects, Retrieved
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.verification import Verification
from tomowire.wire.messages import CEchoRSP, CStoreRSP

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
PATIENT = "Doe^Jane"

Handler = Callable[[StoreRequest], Awaitable[Any]]


@asynccontextmanager
async def peer_of(keep: Handler, *, window: int = 1, **options: Any) -> AsyncIterator[RawPeer]:
    """At the end the peer sees that it can still use the association: C-ECHO, and release."""
    services = [Verification(), Storage(keep, **options)]
    async with (
        listen(port=0, services=services, maximum_length=0) as server,
        await RawPeer.connect(server.port) as peer,
    ):
        await peer.associate(associate_rq(window=(window, 1) if window > 1 else None))
        yield peer
        await peer.send(command_pdu(1, echo_rq(99)))
        assert isinstance((await peer.read_message()).command, CEchoRSP)
        await peer.release()


async def answer_of(peer: RawPeer) -> CStoreRSP:
    answer = (await peer.read_message()).command
    assert isinstance(answer, CStoreRSP)
    return answer


async def store(peer: RawPeer, data: bytes = b"data", number: int = 1) -> tuple[int, str | None]:
    sending = asyncio.ensure_future(peer.send(message_pdus(3, store_rq(number, f"1.{number}"), data, 1 << 17)))
    answer = await answer_of(peer)
    await sending
    assert (answer.message_id_being_responded_to, answer.affected_sop_instance_uid) == (number, f"1.{number}")
    return answer.status, answer.error_comment


def returning(what: Any) -> Handler:
    async def keep(request: StoreRequest) -> Any:
        return what

    return keep


@pytest.mark.parametrize(
    ("given", "status", "comment"),
    [
        (0, 0, None),
        (Status(0xB000), 0xB000, None),
        ((0, None), 0, None),
        ((0xB006, "private elements dropped"), 0xB006, "private elements dropped"),
        ((0xA701, "disk full"), 0xA701, "disk full"),
        (0xC123, 0xC123, None),
        (0xFFFF, 0xFFFF, None),
    ],
)
async def test_status_and_comment_are_those_that_the_handler_returns(
    given: Any, status: int, comment: str | None
) -> None:
    async with peer_of(returning(given)) as peer:
        assert await store(peer) == (status, comment)


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        (None, "returned None and not a status"),
        (PATIENT, "returned a str and not a status"),
        (b"\0\0", "returned a bytes and not a status"),
        (True, "returned True and not a status"),
        (0.0, "returned 0.0 and not a status"),
        (70000, "returned a number of more than 16 bits and not a status"),
        (-1, "returned a number of more than 16 bits and not a status"),
        (0xFF00, "returned FF00H and not a status"),
        (0xFF01, "returned FF01H and not a status"),
        (0xFE00, "returned FE00H and not a status"),
        ((0, 5), "returned 0005H and not an error comment"),
        ((None, "comment"), "returned None and not a status"),
        ((0, "comment", 1), "returned a tuple and not a status"),
        ((), "returned a tuple and not a status"),
    ],
)
async def test_what_is_no_final_status_is_a_failure_and_the_log_names_the_handler(
    given: Any, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """PS3.7 C.5.11: 0110H, processing failure. Pending and Cancel are no status of a C-STORE (PS3.7 9.1.1.1.9)."""
    async with peer_of(returning(given)) as peer:
        assert (await store(peer))[0] == 0x0110
    (entry,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert f"the storage handler {logged}: {__name__}.returning.<locals>.keep" in entry
    assert PATIENT not in entry


class Kept:
    """A handler that is no function."""

    async def __call__(self, request: StoreRequest) -> Any:
        return None


async def test_a_handler_that_is_an_object_is_named_by_its_class(caplog: pytest.LogCaptureFixture) -> None:
    async with peer_of(Kept()) as peer:
        assert (await store(peer))[0] == 0x0110
    assert f"{__name__}.Kept" in caplog.text


def raising(error: BaseException) -> Handler:
    async def keep(request: StoreRequest) -> Any:
        if request.sop_instance_uid == "1.1":
            raise error
        return 0

    return keep


@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (StoreFailed(0xA702, "no room"), 0xA702, "no room"),
        (StoreFailed(0xA900, ""), 0xA900, None),
        (StoreFailed(0x0110, "x" * 100), 0x0110, "x" * 64),
        (DataSetError("no Patient ID"), 0xC000, "no Patient ID"),
        (ValueError(PATIENT), 0x0110, "internal error"),
        (StopIteration(), 0x0110, "internal error"),
        (TimeoutError(), 0x0110, "internal error"),
        (asyncio.CancelledError(), 0x0110, "internal error"),
        (StoreFailed(0, "no failure at all"), 0x0110, "internal error"),
        (StoreFailed(0xB000, "a warning"), 0x0110, "internal error"),
        (StoreFailed(70000, "nothing"), 0x0110, "internal error"),
    ],
    ids=repr,
)
async def test_what_a_handler_raises_is_a_failure_of_that_object_alone(
    error: BaseException, status: int, comment: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer_of(raising(error)) as peer:
        assert await store(peer, number=1) == (status, comment)
        assert await store(peer, number=2) == (0, None)
    assert PATIENT not in caplog.text
    assert any(each.levelno >= logging.WARNING for each in caplog.records)


async def test_the_log_says_which_handler_failed_with_which_object_and_where(caplog: pytest.LogCaptureFixture) -> None:
    """Once, and without the text of the exception; the traceback is there for who asks for it."""
    caplog.set_level(logging.INFO)
    async with peer_of(raising(KeyError(PATIENT))) as peer:
        await store(peer)
    (entry,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "): 1.1 not stored: the handler " in entry
    assert f"the handler {__name__}.raising.<locals>.keep failed: KeyError" in entry
    assert f"{__file__}:" in entry
    assert PATIENT not in caplog.text


async def test_at_debug_the_log_has_the_traceback_of_a_handler_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with peer_of(raising(KeyError("key"))) as peer:
        await store(peer)
    (entry,) = [each for each in caplog.records if each.exc_info]
    assert entry.levelno == logging.DEBUG
    assert entry.exc_info is not None
    assert entry.exc_info[0] is KeyError


async def test_what_a_handler_meets_on_another_association_is_its_own_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Such as of one that it passes the object on to: this association is there, and its peer is told."""
    async with peer_of(raising(AssociationLost("the other one"))) as peer:
        assert await store(peer) == (0x0110, "internal error")
    assert "AssociationLost: the other one" in caplog.text


async def yielding(request: StoreRequest) -> AsyncIterator[int]:
    yield 0


def yielding_at_once(request: StoreRequest) -> Iterator[int]:
    yield 0


@pytest.mark.parametrize("handler", [yielding, yielding_at_once])
def test_a_handler_that_yields_is_refused_when_the_service_is_made(handler: Any) -> None:
    with pytest.raises(UsageError, match=rf"a storage handler returns its answer.*{handler.__name__}"):
        Storage(handler)


@pytest.mark.parametrize("name", ["sop_classes", "transfer_syntaxes"])
def test_one_uid_in_the_place_of_a_list_is_a_mistake(name: str) -> None:
    """Parts of it would be taken for UIDs that are served: "1.2" is in "1.2.3"."""
    with pytest.raises(UsageError, match="are given as a list"):
        Storage(returning(0), **{name: CT})


# Handlers and the data set


@pytest.mark.parametrize("size", [0, 4, MB, 9 * MB])
async def test_a_handler_that_does_not_read_the_data_set(size: int) -> None:
    async with peer_of(returning(0)) as peer:
        for number in (1, 2):
            assert await store(peer, bytes(size), number) == (0, None)


async def test_a_handler_that_reads_half_of_the_data_set() -> None:
    async def keep(request: StoreRequest) -> int:
        await anext(request.data)
        return 0xB000

    async with peer_of(keep) as peer:
        for number in (1, 2):
            assert await store(peer, bytes(9 * MB), number) == (0xB000, None)


@pytest.mark.parametrize("outcome", [0, (0xA700, "no"), 0xB000])
async def test_a_handler_that_returns_before_the_data_set_is_whole_is_answered_for_when_it_is(outcome: Any) -> None:
    async with peer_of(returning(outcome)) as peer:
        await peer.send(command_pdu(3, store_rq()), p_data(3, b"half", command=False, last=False))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.read_pdu()
        await peer.send(p_data(3, b"rest", command=False, last=True))
        assert (await answer_of(peer)).status == (outcome[0] if isinstance(outcome, tuple) else outcome)


async def test_a_stream_that_is_kept_after_the_handler_has_returned_is_no_empty_data_set() -> None:
    kept: list[StoreRequest] = []

    async def keep(request: StoreRequest) -> int:
        kept.append(request)
        return 0

    async with peer_of(keep) as peer:
        assert await store(peer) == (0, None)
        with pytest.raises(UsageError, match="read after the request had been answered"):
            await kept[0].data.read()


async def test_a_handler_whose_data_set_is_still_read_by_another_task_has_failed() -> None:
    reading: list[asyncio.Task[bytes]] = []

    async def keep(request: StoreRequest) -> int:
        reading.append(asyncio.create_task(request.data.read()))
        await asyncio.sleep(0)
        return 0

    async with peer_of(keep) as peer:
        await peer.send(command_pdu(3, store_rq()), p_data(3, b"half", command=False, last=False))
        assert (await answer_of(peer)).status == 0x0110
        await peer.send(p_data(3, b"rest", command=False, last=True))
        with pytest.raises(UsageError, match="read after the request had been answered"):
            await reading[0]


async def test_a_handler_that_leaves_the_reading_to_a_task_that_is_cancelled_can_go_on() -> None:
    """Nothing is lost: what had come and was not handed out comes next."""
    async with asyncio.timeout(20):
        begun = asyncio.Event()

        async def keep(request: StoreRequest) -> int:
            reading = asyncio.create_task(request.data.read())
            begun.set()
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            return 0 if await request.data.read() == b"halfrest" else 0xC000

        async with peer_of(keep) as peer:
            await peer.send(command_pdu(3, store_rq()), p_data(3, b"half", command=False, last=False))
            await begun.wait()
            await peer.send(p_data(3, b"rest", command=False, last=True))
            assert (await answer_of(peer)).status == 0


async def test_a_handler_whose_task_is_cancelled_by_somebody_does_not_leave_its_peer_waiting() -> None:
    """Nor when the event loop ends: nobody would answer any more."""

    async def keep(request: StoreRequest) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return 0

    async with listen(port=0, services=[Storage(keep)]) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(message_pdus(3, store_rq(), b"data"))
        assert await peer.expect_abort()


async def test_two_handlers_at_once_in_a_window_do_not_disturb_each_other() -> None:
    """The first waits until the second has all of its data set, and has none of its bytes."""
    both = asyncio.Barrier(2)
    got: dict[str, bytes] = {}

    async def keep(request: StoreRequest) -> tuple[int, str]:
        chunk = await anext(request.data)
        async with asyncio.timeout(10):
            await both.wait()
        got[request.sop_instance_uid] = b"".join(chunk.buffers)
        if request.sop_instance_uid == "1.1":
            raise StoreFailed(0xA700, "the first")
        return 0, "the second"

    async with peer_of(keep, window=2) as peer:
        await peer.send(*(message_pdus(3, store_rq(each, f"1.{each}"), bytes([each]) * 1000) for each in (1, 2)))
        answers = {each.message_id_being_responded_to: each for each in (await answer_of(peer), await answer_of(peer))}
    assert (answers[1].status, answers[1].error_comment) == (0xA700, "the first")
    assert (answers[2].status, answers[2].error_comment) == (0, "the second")
    assert got == {"1.1": b"\1" * 1000, "1.2": b"\2" * 1000}


async def test_the_handler_sees_who_calls() -> None:
    seen: list[Any] = []

    async def keep(request: StoreRequest) -> int:
        seen.extend([request.calling_ae_title, request.called_ae_title, request.peer_address])
        assert request.association.contexts(CT)
        return 0

    async with peer_of(keep) as peer:
        await store(peer)
        host, port = peer.socket.getsockname()
    assert seen == ["CALLING", "CALLED", f"{host}:{port}"]


class Told:
    """What a retrieval tells of its objects."""

    def __init__(self) -> None:
        self.of: list[Retrieved] = []

    async def room(self) -> None:
        """There is some."""

    def of_object(self, retrieved: Retrieved) -> None:
        self.of.append(retrieved)


async def test_a_handler_of_retrieved_objects_may_give_a_comment_too() -> None:
    told = Told()
    objects = Objects(returning((0xB000, "less than all")), cast("Any", told))
    async with peer_of(objects.keep) as peer:
        assert await store(peer) == (0xB000, "less than all")
    (retrieved,) = told.of
    assert (retrieved.status, retrieved.error_comment) == (0xB000, "less than all")


@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (StoreFailed(0xA701, "full"), 0xA701, "full"),
        (StoreFailed(0x0000, "no failure at all"), 0x0110, "internal error"),
        (DataSetError("no Patient ID"), 0xC000, "no Patient ID"),
        (AssociationLost("that to somebody else"), 0x0110, "internal error"),
        (ValueError(PATIENT), 0x0110, "internal error"),
    ],
    ids=repr,
)
async def test_of_retrieved_objects_is_told_what_the_peer_is_answered(
    error: Exception, status: int, comment: str
) -> None:
    told = Told()
    async with peer_of(Objects(raising(error), cast("Any", told)).keep) as peer:
        assert await store(peer) == (status, comment)
    (retrieved,) = told.of
    assert (retrieved.status, retrieved.error_comment) == (status, comment)


# Handlers that take too long


class Hanging:
    """A handler that hangs at its first object until it is cancelled, and then does what it is told to."""

    def __init__(self, on_cancel: str = "raise", *, reads: bool = True) -> None:
        self.on_cancel = on_cancel
        self.reads = reads
        self.hangs = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.let_go = asyncio.Event()
        self.ended = asyncio.Event()

    async def keep(self, request: StoreRequest) -> int:
        if request.sop_instance_uid != "1.1":
            return 0
        try:
            if self.reads:
                await request.data.read()
            self.hangs.set()
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            if self.on_cancel == "raise":
                raise
            if self.on_cancel == "break":
                raise ZeroDivisionError from None
            if self.on_cancel == "go on":
                await self.let_go.wait()
        finally:
            self.ended.set()
        return 0


@pytest.mark.parametrize("size", [4, 9 * MB])
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("on_cancel", ["raise", "return", "break"])
async def test_a_handler_that_hangs_is_cancelled_and_its_object_has_failed(
    on_cancel: str, reads: bool, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it does then: it was too late for this peer. The data set may or may not have come whole."""
    hanging = Hanging(on_cancel, reads=reads)
    async with peer_of(hanging.keep, handler_timeout=0.2) as peer:
        assert await store(peer, bytes(size)) == (0x0110, "the storage handler did nothing for 0.2 s")
        assert hanging.cancelled.is_set()
        assert hanging.ended.is_set()
        assert await store(peer, number=2) == (0, None)
    assert "1.1 not stored: the storage handler did nothing for 0.2 s" in caplog.text


async def test_a_handler_that_does_not_end_when_it_is_cancelled_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hanging = Hanging("go on")
    async with peer_of(hanging.keep, handler_timeout=0.1) as peer:
        assert await store(peer) == (0x0110, "the storage handler did nothing for 0.1 s")
        assert await store(peer, number=2) == (0, None)
        assert not hanging.ended.is_set()
    assert f"{__name__}.Hanging.keep has been cancelled after 0.1 s, and goes on" in caplog.text
    hanging.let_go.set()
    async with asyncio.timeout(10):
        await hanging.ended.wait()


async def test_the_time_in_which_a_handler_waits_for_its_peer_does_not_count() -> None:
    async def keep(request: StoreRequest) -> int:
        return 0 if len(await request.data.read()) == 8 else 0xC000

    async with peer_of(keep, handler_timeout=0.1) as peer:
        await peer.send(command_pdu(3, store_rq()), p_data(3, b"half", command=False, last=False))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await peer.read_pdu()
        await peer.send(p_data(3, b"rest", command=False, last=True))
        assert (await answer_of(peer)).status == 0


@pytest.mark.parametrize("on_cancel", ["raise", "return", "break"])
async def test_a_handler_with_a_time_limit_is_cancelled_when_its_association_ends(on_cancel: str) -> None:
    hanging = Hanging(on_cancel)
    services = [Storage(hanging.keep, handler_timeout=600)]
    async with listen(port=0, services=services) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(message_pdus(3, store_rq(instance="1.1"), b"data"))
        async with asyncio.timeout(10):
            await hanging.hangs.wait()
            peer.reset()
            await hanging.ended.wait()
    assert hanging.cancelled.is_set()


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_time_limit_must_be_a_time(seconds: float) -> None:
    with pytest.raises(UsageError):
        Storage(returning(0), handler_timeout=seconds)
