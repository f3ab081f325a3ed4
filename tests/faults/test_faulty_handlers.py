"""Handlers of C-FIND, C-GET and C-MOVE that raise, hang or return nonsense: a failure of that request, never of the association.

For C-ECHO there is no handler; what any service provider may do wrong stands in `tests/aio/test_serving.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.files import write_file
from support.network import LOOPBACK
from tomowire import (
    Association,
    CEchoScu,
    CFindScu,
    CGetScu,
    CMoveScu,
    Destination,
    Find,
    FindAnswers,
    Get,
    Move,
    OperationTimeout,
    PeerAddress,
    Query,
    QueryFailed,
    Retrieval,
    RetrieveFailed,
    Status,
    Storage,
    StoreRequest,
    SubOperationFailed,
    Verification,
    associate,
    getting,
    listen,
    moving,
    querying,
    verification,
)
from tomowire.testing import Archive
from tomowire.testing.samples import CT_IMAGE_STORAGE

pytestmark = pytest.mark.usefixtures("no_leaks")

SHORT, LONG = 0.2, 30.0
STUDY = Query.study("1.2.3")
SECRET = "Doe^Jane"


class Hanging:
    """A handler that waits for ever, and knows when it was cancelled."""

    def __init__(self) -> None:
        self.begun, self.cancelled = asyncio.Event(), asyncio.Event()

    async def wait(self, *_: Any) -> Any:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()

    async def iterate(self, *_: Any) -> AsyncIterator[Any]:
        await self.wait()
        yield


async def raises(*_: Any) -> Any:
    raise RuntimeError(SECRET)


async def forgets_to_return(*_: Any) -> Any:
    return None


async def returns_text(*_: Any) -> Any:
    return SECRET


def returns_text_at_once(*_: Any) -> Any:
    return SECRET


async def files_that_are_none(*_: Any) -> Any:
    async def batches() -> AsyncIterator[Any]:
        yield [SECRET]

    return Retrieval(1, batches())


async def no_iterator_of_files(*_: Any) -> Any:
    return Retrieval(1, [SECRET])  # type: ignore[arg-type]


async def batches_that_are_none(*_: Any) -> Any:
    async def batches() -> AsyncIterator[Any]:
        yield None

    return Retrieval(1, batches())


def answering(*answers: Any) -> Callable[..., AsyncIterator[Any]]:
    async def answer(*_: Any) -> AsyncIterator[Any]:
        for each in answers:
            yield each

    return answer


async def answers_and_raises(*_: Any) -> AsyncIterator[Any]:
    yield FindAnswers([b""])
    raise RuntimeError(SECRET)


async def keep(request: StoreRequest) -> Status:
    await request.data.pass_over()
    return Status(0)


@asynccontextmanager
async def asking(*services: Any) -> AsyncIterator[Association]:
    contexts = [verification(), querying(), moving(), *getting(CT_IMAGE_STORAGE)]
    async with (
        asyncio.timeout(LONG),
        listen(LOOPBACK, 0, services=[Verification(), *services], shutdown_grace=1.0) as server,
        associate(f"SCP@{LOOPBACK}:{server.port}", contexts, services=[Storage(keep)]) as association,
    ):
        yield association


async def find(association: Association, timeout: float = LONG) -> Status:
    try:
        async for _ in CFindScu(association).find(Query.studies(), timeout=timeout):
            pass
    except QueryFailed as error:
        return Status(error.status)
    return Status(0)


async def retrieve(association: Association, scu: type[CGetScu | CMoveScu], timeout: float = LONG) -> Status:
    asked = (
        CGetScu(association).get(STUDY, timeout=timeout)
        if scu is CGetScu
        else CMoveScu(association).move(STUDY, "DEST", timeout=timeout)
    )
    status = Status(0)
    try:
        async for _ in asked:
            pass
    except* RetrieveFailed as errors:
        (error,) = errors.exceptions
        assert isinstance(error, RetrieveFailed)
        status = Status(error.status)
    except* SubOperationFailed as failures:
        assert len(failures.exceptions) == 1
        status = Status(0xA702)
    return status


async def is_usable(association: Association) -> bool:
    return await CEchoScu(association).echo(timeout=LONG) == 0


# C-FIND

BAD_ANSWERS = {
    "raises": raises,
    "raises after an answer": answers_and_raises,
    "is no generator": returns_text,
    "returns nothing": forgets_to_return,
    "is not even a coroutine": returns_text_at_once,
    "gives text": answering(SECRET),
    "gives None": answering(None),
    "gives text for an identifier": answering(FindAnswers([SECRET])),  # type: ignore[list-item]
    "gives None for an identifier": answering(FindAnswers([None])),  # type: ignore[list-item]
}


@pytest.mark.parametrize("handler", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_query_handler_that_goes_wrong_is_a_processing_failure(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    # In a lambda: what can be seen when the service is made is refused there.
    async with asking(Find(lambda request: handler(request))) as association:
        assert await find(association) == 0x0110
        assert await is_usable(association)
    assert "the handler of CFindRQ failed" in caplog.text
    assert SECRET not in caplog.text


async def test_what_is_no_generator_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with asking(Find(lambda request: returns_text(request))) as association:
        assert await find(association) == 0x0110
    assert "the query handler returned a coroutine: it has to be an async generator" in caplog.text


async def test_a_query_handler_that_hangs_is_cancelled_when_the_requestor_has_enough() -> None:
    hanging = Hanging()
    async with asking(Find(hanging.iterate)) as association:
        with pytest.raises(OperationTimeout, match="C-FIND"):
            await find(association, SHORT)
        await hanging.cancelled.wait()


# C-GET, C-MOVE


async def known(*_: Any) -> Destination:
    return Destination(PeerAddress("DEST", LOOPBACK, 1))


def retrieving(scu: Any, handler: Any, destination: Any = known) -> Get | Move:
    return Get(handler) if scu is CGetScu else Move(handler, destination)


both = pytest.mark.parametrize("scu", [CGetScu, CMoveScu])

BAD_OBJECTS = {
    "raises": raises,
    "returns nothing": forgets_to_return,
    "returns text": returns_text,
    "is not a coroutine": returns_text_at_once,
}


@both
@pytest.mark.parametrize("handler", BAD_OBJECTS.values(), ids=BAD_OBJECTS)
async def test_a_retrieval_handler_that_goes_wrong_is_a_processing_failure(
    scu: Any, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with asking(retrieving(scu, handler)) as association:
        assert await retrieve(association, scu) == 0x0110
        assert await is_usable(association)
    assert "failed" in caplog.text
    assert SECRET not in caplog.text


BAD_FILES = {
    "gives what is no file": files_that_are_none,
    "gives what is no batch": batches_that_are_none,
    "is no iterator": no_iterator_of_files,
}


@both
@pytest.mark.parametrize("handler", BAD_FILES.values(), ids=BAD_FILES)
async def test_an_iterator_of_objects_that_gives_nonsense_is_a_failure(
    scu: Any, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Which one, depends on how far it came: 0110H, or A702H when objects were promised and none was sent."""
    async with Archive() as destination:

        async def there(*_: Any) -> Destination:
            return Destination(PeerAddress.parse(destination.address))

        async with asking(retrieving(scu, handler, there)) as association:
            assert await retrieve(association, scu) in (0x0110, 0xA702)
            assert await is_usable(association)
    assert SECRET not in caplog.text


@both
async def test_a_retrieval_handler_that_hangs_is_cancelled_when_the_requestor_has_enough(scu: Any) -> None:
    hanging = Hanging()
    async with asking(retrieving(scu, hanging.wait)) as association:
        with pytest.raises(OperationTimeout, match=r"C-GET|C-MOVE"):
            await retrieve(association, scu, SHORT)
        await hanging.cancelled.wait()


@both
async def test_an_iterator_of_objects_that_hangs_is_cancelled_when_the_requestor_has_enough(
    scu: Any, tmp_path: Path
) -> None:
    hanging = Hanging()
    file = write_file(tmp_path)

    async def objects(*_: Any) -> Retrieval:
        async def batches() -> AsyncIterator[Any]:
            yield [file]
            await hanging.wait()

        return Retrieval(2, batches())

    async with Archive() as destination:

        async def there(*_: Any) -> Destination:
            return Destination(PeerAddress.parse(destination.address))

        async with asking(retrieving(scu, objects, there)) as association:
            with pytest.raises(OperationTimeout, match=r"C-GET|C-MOVE"):
                await retrieve(association, scu, 4 * SHORT)
            await hanging.cancelled.wait()


BAD_DESTINATIONS = {"raises": raises, "returns text": returns_text, "is not a coroutine": returns_text_at_once}


@pytest.mark.parametrize("handler", BAD_DESTINATIONS.values(), ids=BAD_DESTINATIONS)
async def test_a_destination_handler_that_goes_wrong_is_a_processing_failure(
    handler: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_file(tmp_path)

    async def objects(*_: Any) -> Retrieval:
        async def batches() -> AsyncIterator[Any]:
            yield [file]

        return Retrieval(1, batches())

    async with asking(Move(objects, handler)) as association:
        assert await retrieve(association, CMoveScu) == 0x0110
        assert await is_usable(association)
    assert "the handler of CMoveRQ failed" in caplog.text
    assert SECRET not in caplog.text


async def test_a_destination_handler_that_hangs_is_cancelled_when_the_requestor_has_enough() -> None:
    hanging = Hanging()
    async with asking(Move(raises, hanging.wait)) as association:
        with pytest.raises(OperationTimeout, match="C-MOVE"):
            await retrieve(association, CMoveScu, SHORT)
        await hanging.cancelled.wait()
