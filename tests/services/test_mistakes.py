"""The commonest mistakes of a caller: each is told where it was made, and in words."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from support.network import LOOPBACK
from support.objects import Sample
from tomowire import (
    BufferedStorage,
    CEchoScu,
    CFindScu,
    CGetScu,
    CMoveScu,
    CStoreScu,
    EventReporter,
    Find,
    FindAnswers,
    Folder,
    Get,
    Model,
    Move,
    NoAcceptedContext,
    NormalizedScu,
    Peer,
    Query,
    QueryFailed,
    Server,
    Status,
    Storage,
    UsageError,
    Verification,
    associate,
    listen,
    storage,
    verification,
)
from tomowire.errors import TranscodingFailed
from tomowire.services import image_codecs

pytestmark = pytest.mark.usefixtures("no_leaks")


async def keep(request: Any) -> Status:
    return Status(0x0000)


def no_coroutine(request: Any) -> Status:
    return Status(0x0000)


def calling(server: Server) -> Peer:
    return Peer(f"ANY@{LOOPBACK}:{server.port}")


async def test_a_server_that_was_never_started_is_not_waited_for() -> None:
    server = listen(LOOPBACK, 0, services=[Verification()])
    with pytest.raises(UsageError, match=re.escape("use it as `async with listen(...) as server`")):
        await server.wait_closed()


async def test_a_server_that_is_closed_is_not_waited_for_either() -> None:
    async with listen(LOOPBACK, 0, services=[Verification()]) as server:
        pass
    await server.wait_closed()


@pytest.mark.parametrize(
    ("services", "complaint"),
    [
        (Storage(keep), "given as a list, services=[...], and not as a Storage"),
        ([Storage], "Storage is a class and no service"),
        ([keep], "keep is no service: a handler goes into one, as in Storage(handler)"),
        ([None], "a NoneType is no service"),
    ],
    ids=["one", "class", "handler", "nothing"],
)
def test_what_is_no_service_cannot_be_listened_with(services: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        listen(LOOPBACK, 0, services=services)


async def test_a_port_that_is_none() -> None:
    with pytest.raises(UsageError, match="80000 is not a TCP port"):
        async with listen(LOOPBACK, 80000, services=[Verification()]):
            pass


@pytest.mark.parametrize("kind", [Storage, BufferedStorage])
@pytest.mark.parametrize(("handler", "named"), [(None, "NoneType"), (5, "int"), (Folder, "Folder")])
def test_what_cannot_handle_is_no_handler(kind: Any, handler: Any, named: str) -> None:
    with pytest.raises(UsageError, match=f"is an async function that takes the request, and not {named}$"):
        kind(handler)


async def a_match(request: Any) -> AsyncIterator[FindAnswers]:
    yield FindAnswers([b""])


def matches_at_once(request: Any) -> Iterator[FindAnswers]:
    yield FindAnswers([b""])


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (None, "a query handler is an async generator that takes the request, and not NoneType"),
        (Folder, "and not Folder"),
        (keep, "a query handler is an async generator (`async def` with `yield`): {module}.keep is none"),
        (matches_at_once, "{module}.matches_at_once is none"),
    ],
    ids=["nothing", "class", "no yield", "no async"],
)
def test_what_cannot_answer_queries_is_no_query_handler(handler: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint.format(module=__name__))):
        Find(handler)


def test_what_cannot_say_what_to_retrieve_is_no_handler() -> None:
    none: Any = None
    with pytest.raises(UsageError, match=r"a handler of retrievals is an async function .* not NoneType"):
        Get(none)
    with pytest.raises(UsageError, match=r"a handler of retrievals is an async function .* not NoneType"):
        Move(none, keep)
    with pytest.raises(UsageError, match=r"a handler of destinations is an async function .* not NoneType"):
        Move(keep, none)


@pytest.mark.parametrize("models", [Model.STUDY_ROOT, "1.2.840.10008.5.1.4.31", ["1.2.840.10008.5.1.4.31"], None])
def test_what_are_no_models_is_told_and_not_silently_served_by_nobody(models: Any) -> None:
    complaint = r"models is a list of Model, such as \[Model.STUDY_ROOT\], and not "
    with pytest.raises(UsageError, match=complaint):
        Find(a_match, models=models)
    with pytest.raises(UsageError, match=complaint):
        Get(keep, models=models)
    with pytest.raises(UsageError, match=complaint):
        Move(keep, keep, models=models)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (Dataset(), "the query handler yielded a Dataset: it has to yield FindAnswers([identifier, ...])"),
        (FindAnswers([Dataset()]), "an identifier in FindAnswers is a Dataset, and not bytes: see `encode`"),  # type: ignore[list-item]
        (FindAnswers(b"ab"), "an identifier in FindAnswers is a int, and not bytes"),  # type: ignore[arg-type]
    ],
    ids=["data set", "data set in a list", "no list"],
)
async def test_what_a_query_handler_yields_by_mistake_is_named_in_the_log(
    given: Any, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: Any) -> AsyncIterator[Any]:
        yield given

    async with listen(LOOPBACK, 0, services=[Find(answer)]) as server, calling(server) as peer:
        with pytest.raises(QueryFailed, match="0110H"):
            async for _ in peer.find(Query.studies()):
                pass
    assert complaint in caplog.text


@pytest.mark.parametrize("kind", [Storage, BufferedStorage])
@pytest.mark.parametrize("limit", [None, 10.0])
async def test_a_handler_without_async_is_named_in_the_log(
    kind: Any, limit: float | None, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(Sample(1).header + Sample(1).data_set)
    with caplog.at_level(logging.ERROR, "tomowire"):
        async with listen(LOOPBACK, 0, services=[kind(no_coroutine, handler_timeout=limit)]) as server:
            (sent,) = [each async for each in calling(server).send(path)]
    assert sent.status == 0x0110
    assert "is no async function (`async def`)" in caplog.text
    assert "test_mistakes.no_coroutine" in caplog.text


@pytest.mark.parametrize("peer", [None, 5, ("ARCHIVE", "localhost", 11112)])
async def test_what_is_no_address(peer: Any) -> None:
    complaint = f"a peer is AET@host:port or a PeerAddress, and not a {type(peer).__name__}"
    with pytest.raises(UsageError, match=complaint):
        Peer(peer)
    with pytest.raises(UsageError, match=complaint):
        async with associate(peer, [verification()]):
            pass


def test_an_unknown_option_is_told_by_the_peer_at_once() -> None:
    with pytest.raises(TypeError, match=re.escape("Peer() got an unexpected keyword argument 'ae_title'")):
        Peer("ARCHIVE@localhost", ae_title="WORKSTATION")


@pytest.mark.parametrize(
    ("query", "named"), [("1.2.3", "a str"), (None, "a NoneType"), (Query, "Query"), ({}, "a dict")]
)
def test_what_is_no_query(query: Any, named: str) -> None:
    peer = Peer("ARCHIVE@localhost")
    complaint = rf"a query is a Query, such as Query.study\(uid\), or a pydicom Dataset, and not {named}$"
    with pytest.raises(UsageError, match=complaint):
        peer.find(query)
    with pytest.raises(UsageError, match=complaint):
        peer.get(query, into="received")
    with pytest.raises(UsageError, match=complaint):
        peer.move(query, "VIEWER")


def test_one_transfer_syntax_is_no_list_of_them() -> None:
    with pytest.raises(UsageError, match=re.escape("given as a list: ['1.2.840.10008.1.2']")):
        storage("CT Image Storage", "1.2.840.10008.1.2")


async def test_a_missing_codec_is_told_to_who_wants_to_transcode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image_codecs, "find_spec", lambda _: None)
    path = tmp_path / "1.dcm"
    sample = Sample(1, transfer_syntax_uid="1.2.840.10008.1.2.4.201")  # HTJ2K, which nothing else decodes
    path.write_bytes(sample.header + sample.data_set)
    taking = Storage(keep, transfer_syntaxes=["1.2.840.10008.1.2"])
    async with listen(LOOPBACK, 0, services=[taking]) as server:
        (sent,) = [each async for each in calling(server).send(path, transcode=True)]
        (as_it_is,) = [each async for each in calling(server).send(path)]
    assert isinstance(sent.error, TranscodingFailed)
    assert 'pip install "tomowire[images]"' in str(sent.error)
    assert isinstance(as_it_is.error, NoAcceptedContext)


@pytest.mark.parametrize(
    "service",
    [CEchoScu, CFindScu, CGetScu, CMoveScu, CStoreScu, NormalizedScu, EventReporter],
    ids=lambda kind: kind.__name__,
)
def test_what_is_no_association_has_no_services(service: Any) -> None:
    complaint = f"{service.__name__} works on an association, and not on a "
    with pytest.raises(UsageError, match=f"{complaint}Peer: `async with associate"):
        service(Peer("ARCHIVE@localhost"))
    with pytest.raises(UsageError, match=complaint):
        service(associate("ARCHIVE@localhost", [verification()]))
