"""How long a peer may take: the defaults, for a client, and for a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from support.files import write_file
from support.network import LOOPBACK
from support.raw_peer import CT, Closed, RawPeer, Unexpected, raw_acceptor
from support.services import serve
from tomowire import Find, FindAnswers, FindRequest, Get, Model, OperationTimeout, Peer, Query, listen
from tomowire.aio.address import PeerAddress
from tomowire.services import pool as pool_module
from tomowire.services.get_scp import Retrieval, RetrieveRequest
from tomowire.services.identifiers import encode
from tomowire.services.timeouts import Timeouts

pytestmark = pytest.mark.usefixtures("no_leaks")

Call = Callable[..., Awaitable[Any]]


def test_the_defaults() -> None:
    assert Timeouts() == Timeouts(
        connect=10.0,
        association=30.0,
        release=30.0,
        artim=30.0,
        echo=30.0,
        store=30.0,
        find=10.0,
        retrieve=120.0,
        grace=5.0,
    )


async def echo(peer: Peer, _: Path, **options: Any) -> None:
    await peer.echo(**options)


async def store(peer: Peer, folder: Path, **options: Any) -> None:
    (sent,) = [each async for each in peer.send(write_file(folder, 1).path, retries=0, **options)]
    assert sent.error is not None
    raise sent.error


async def find(peer: Peer, _: Path, **options: Any) -> None:
    async with aclosing(peer.find(Query.studies(), **options)) as answers:
        await anext(answers)


async def get(peer: Peer, folder: Path, **options: Any) -> None:
    async with aclosing(peer.get(identifier(), folder, **options)) as news:
        async for _ in news:
            pass


async def move(peer: Peer, _: Path, **options: Any) -> None:
    async with aclosing(peer.move(identifier(), "DEST", **options)) as news:
        await anext(news)


def identifier() -> Any:
    """One that is sent as it is by a C-MOVE."""
    return Query.study("1.2.3").dataset(Model.STUDY_ROOT)


async def silent(peer: RawPeer) -> None:
    """Accept the association, and answer nothing."""
    try:
        await peer.accept()
        await peer.expect_abort()
    except (Closed, Unexpected):
        return


LIMITS = [(echo, "echo"), (store, "store"), (find, "find"), (get, "find"), (move, "retrieve")]


@pytest.mark.parametrize(("call", "name"), LIMITS)
async def test_each_is_settable_for_the_client(call: Call, name: str, tmp_path: Path) -> None:
    times = Timeouts(**{name: 0.25})
    async with raw_acceptor(silent) as port, Peer(PeerAddress("ANY", LOOPBACK, port), timeouts=times) as peer:
        with pytest.raises(OperationTimeout, match=r"0\.25 s"):
            await call(peer, tmp_path)


@pytest.mark.parametrize(("call", "name"), LIMITS)
async def test_each_is_settable_for_a_call(call: Call, name: str, tmp_path: Path) -> None:
    async with raw_acceptor(silent) as port, asyncio.timeout(20), Peer(PeerAddress("ANY", LOOPBACK, port)) as peer:
        with pytest.raises(OperationTimeout, match=r"0\.25 s"):
            await call(peer, tmp_path, timeouts=Timeouts(**{name: 0.25}))


@pytest.mark.parametrize("call", [echo, store, find, move])
async def test_the_time_out_of_the_operation_itself_is_an_argument(call: Call, tmp_path: Path) -> None:
    async with raw_acceptor(silent) as port, asyncio.timeout(20), Peer(PeerAddress("ANY", LOOPBACK, port)) as peer:
        with pytest.raises(OperationTimeout, match=r"0\.25 s"):
            await call(peer, tmp_path, timeout=0.25)


async def one_study(request: FindRequest) -> AsyncIterator[FindAnswers]:
    found = Dataset()
    found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", "1.2.3"
    found.SOPClassesInStudy = [CT]
    yield FindAnswers([encode(found, request.transfer_syntax_uid)])


async def never_found(request: RetrieveRequest) -> Retrieval:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    ("of_client", "of_call"),
    [
        ({"timeouts": Timeouts(retrieve=0.25)}, {}),
        ({}, {"timeouts": Timeouts(retrieve=0.25)}),
        ({}, {"timeout": 0.25}),
    ],
)
async def test_that_of_a_c_get_which_was_asked_for_first(
    of_client: dict[str, Any], of_call: dict[str, Any], tmp_path: Path
) -> None:
    """The query before it is answered at once: what is late is the retrieval itself."""
    services = [Find(one_study), Get(never_found)]
    async with (
        listen(LOOPBACK, 0, services=services, shutdown_grace=2.0) as server,
        asyncio.timeout(20),
        Peer(PeerAddress("ANY", LOOPBACK, server.port), **of_client) as peer,
    ):
        with pytest.raises(OperationTimeout, match=r"C-GET.* 0\.25 s"):
            await get(peer, tmp_path, **of_call)


async def deaf(peer: RawPeer) -> None:
    await peer.read_until_closed()


@pytest.mark.parametrize("for_call", [True, False])
async def test_the_answer_to_the_association_request(for_call: bool) -> None:
    times = Timeouts(association=0.25)
    async with raw_acceptor(deaf) as port, asyncio.timeout(20):
        peer = Peer(PeerAddress("ANY", LOOPBACK, port), timeouts=None if for_call else times)
        with pytest.raises(OperationTimeout, match=r"association request within 0\.25 s"):
            await peer.echo(timeouts=times if for_call else None)


async def test_those_of_the_association_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the client; of a call that says so all of its own; and what is said by the name of `associate` counts most."""
    seen: list[dict[str, Any]] = []
    associate = pool_module.associate

    def noting(*arguments: Any, **options: Any) -> Any:
        seen.append({name: seconds for name, seconds in options.items() if name.endswith("_timeout")})
        return associate(*arguments, **options)

    monkeypatch.setattr(pool_module, "associate", noting)
    async with serve() as server:
        address = PeerAddress("ANY", LOOPBACK, server.port)
        peer = Peer(address, timeouts=Timeouts(connect=1.0, association=2.0, release=3.0, artim=4.0))
        await peer.echo()
        await peer.echo(timeouts=Timeouts(connect=5.0))
        await Peer(address, connect_timeout=6.0).echo()
    names = ("connect_timeout", "association_timeout", "release_timeout", "artim_timeout")
    assert [tuple(each[name] for name in names) for each in seen] == [
        (1.0, 2.0, 3.0, 4.0),
        (5.0, 30.0, 30.0, 30.0),
        (6.0, 30.0, 30.0, 30.0),
    ]
