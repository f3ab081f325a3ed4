"""Peers that do not bear several associations at once: none of them costs an object, and it is remembered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.files import write_file
from support.network import LOOPBACK
from support.services import Keeper
from tomowire import Association, Peer
from tomowire.aio.listen import Server, listen
from tomowire.services import retrying
from tomowire.services.adapting import AUTO, AdaptivePace
from tomowire.services.storage_scp import Storage, StoreRequest

pytestmark = pytest.mark.usefixtures("no_leaks")


class Touchy(Keeper):
    """Serves one object of an association after the other, slowly; when there are several associations, it does what it must not.

    `bad` are always refused with C000H.
    """

    def __init__(self, how: str = "", bad: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.how = how
        self.bad = bad
        self.server: Server | None = None
        self.asked: Counter[str] = Counter()
        self.most = 0
        self.used: set[Association] = set()

    async def keep(self, request: StoreRequest) -> int:
        assert self.server is not None
        await request.data.read()
        self.asked[request.sop_instance_uid] += 1
        self.used.add(request.association)
        await asyncio.sleep(0.01)
        count = sum(each.has_begun for each in self.server.associations)
        self.most = max(self.most, count)
        if request.sop_instance_uid in self.bad:
            return 0xC000
        if count > 1 and self.how == "refuses":
            return 0xC000
        if count > 1 and self.how == "aborts":
            request.association.abort()
            await asyncio.get_running_loop().create_future()
        if count > 1 and self.how == "closes":
            request.association.connection.kill()
            await asyncio.get_running_loop().create_future()
        self.stored[request.sop_instance_uid] = b""
        return 0


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(retrying, "_FIRST_WAIT", 0.1)
    return [write_file(tmp_path, number).path for number in range(200)]


@asynccontextmanager
async def serving(keeper: Touchy, **options: Any) -> AsyncIterator[Peer]:
    async with listen(LOOPBACK, 0, services=[Storage(keeper.keep)], shutdown_grace=0.1, **options) as server:
        keeper.server = server
        async with asyncio.timeout(60), Peer(f"ANY@{LOOPBACK}:{server.port}", window=1) as peer:
            yield peer


async def outcomes(peer: Peer, paths: list[Path], **options: Any) -> Counter[object]:
    results = [sent async for sent in peer.send(paths, **{"associations": "auto"} | options)]
    assert len({sent.path for sent in results}) == len(results) == len(paths)
    return Counter(sent.outcome for sent in results)


@pytest.mark.parametrize("associations", [AUTO, 3])
@pytest.mark.parametrize("how", ["refuses", "aborts", "closes"])
async def test_no_object_is_lost(paths: list[Path], associations: Any, how: str) -> None:
    keeper = Touchy(how)
    async with serving(keeper) as peer:
        assert await outcomes(peer, paths, associations=associations) == {0: 200}
    assert keeper.most > 1, "otherwise nothing has been tried"
    assert len(keeper.stored) == 200


async def test_what_was_learnt_of_company_is_remembered(paths: list[Path]) -> None:
    keeper = Touchy("refuses")
    async with serving(keeper) as peer:
        assert await outcomes(peer, paths) == {0: 200}
        assert keeper.most == 2
        keeper.most = 0
        for _ in range(2):
            assert await outcomes(peer, paths) == {0: 200}
        assert keeper.most == 1


async def test_an_object_that_is_bad_itself_is_refused_and_company_goes_on(paths: list[Path]) -> None:
    """It is sent twice, alone the second time; then such a refusal is not doubted any more."""
    keeper = Touchy(bad=frozenset({"1.2.150"}))
    async with serving(keeper) as peer:
        assert await outcomes(peer, paths) == {0: 199, 0xC000: 1}
        assert keeper.asked["1.2.150"] == 2
        keeper.used.clear()
        assert await outcomes(peer, paths) == {0: 199, 0xC000: 1}
    assert len(keeper.used) > 1
    assert keeper.asked["1.2.150"] == 3


async def test_the_next_call_begins_with_what_the_last_has_learnt(paths: list[Path]) -> None:
    keeper = Touchy()
    async with serving(keeper) as peer:
        await outcomes(peer, paths)
        learnt = keeper.most
        keeper.used.clear()  # `most` would count those that are kept from the first call
        await outcomes(peer, paths[:8])
    assert learnt > 2
    assert len(keeper.used) >= 2, "after 8 answers nothing has been measured yet"


async def test_where_nothing_may_be_sent_twice_there_is_one_association(paths: list[Path]) -> None:
    keeper = Touchy()
    async with serving(keeper) as peer:
        assert await outcomes(peer, paths, retries=0) == {0: 200}
    assert keeper.most == 1


async def test_a_peer_that_takes_one_association_is_not_asked_for_another_all_the_time(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, told = Touchy(), 0
    rejected = AdaptivePace.rejected

    def count(self: AdaptivePace, used: int) -> None:
        nonlocal told
        told += 1
        rejected(self, used)

    monkeypatch.setattr(AdaptivePace, "rejected", count)
    async with serving(keeper, maximum_associations=1) as peer:
        for _ in range(5):
            assert await outcomes(peer, paths[:40]) == {0: 40}
    assert keeper.most == 1
    assert 1 <= told <= 3


def test_the_bound_of_a_call_is_its_own() -> None:
    pace = AdaptivePace(8)
    pace.opened(0.0, 1)
    pace.rejected(3)
    assert pace.resumed(2).most == 2
    assert pace.resumed(8)._allowed == 3
    assert pace.resumed(2).resumed(8).most == 8


async def test_one_association_is_used_unless_more_are_asked_for(paths: list[Path]) -> None:
    """DCMTK's dcmqrscp confirms what comes on several, and loses some of it."""
    keeper = Touchy()
    async with serving(keeper) as peer:
        results = [sent async for sent in peer.send(paths[:40])]
    assert Counter(sent.outcome for sent in results) == {0: 40}
    assert keeper.most == 1
