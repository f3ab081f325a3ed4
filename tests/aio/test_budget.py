"""How the memory of a server is divided, and what becomes of a connection that gets little of it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.network import LOOPBACK
from support.raw_peer import RawPeer, associate_rq, command_pdu, message_pdus, p_data, store_rq
from support.services import Keeper, serve
from tomowire.aio.blocks import BLOCK_LIMIT, BLOCK_SIZE, LEAST_BLOCKS, Block, BlockPool
from tomowire.aio.budget import BLOCKS_FOR_TLS, DEFAULT_MEMORY, LEAST_MEMORY, MemoryBudget
from tomowire.aio.connect import associate
from tomowire.errors import AssociationRejected, UsageError
from tomowire.services.verification import verification

pytestmark = pytest.mark.usefixtures("no_leaks")

MB = 1 << 20
FRAGMENT = p_data(3, bytes(128 * 1024 - 12), command=False, last=False)


def extra_blocks(budget: MemoryBudget) -> int:
    """How many there are; they are taken."""
    count = 0
    while budget.take_block():
        count += 1
    return count


@given(st.integers(LEAST_MEMORY, 1 << 33), st.integers(1, 10_000), st.booleans())
def test_the_parts_are_never_more_than_the_whole(total: int, associations: int, tls: bool) -> None:
    budget = MemoryBudget(total, maximum_associations=associations, tls=tls)
    assert 1 <= budget.maximum_associations <= associations
    below = BLOCKS_FOR_TLS if tls else 0
    blocks = budget.maximum_associations * (LEAST_BLOCKS + below) + extra_blocks(budget)
    assert blocks * BLOCK_SIZE + budget.data.limit == total
    assert blocks * BLOCK_SIZE <= total // 2 <= budget.data.limit
    assert blocks <= associations * (BLOCK_LIMIT + below)


def test_by_default_a_hundred_associations_have_all_that_they_can_use() -> None:
    budget = MemoryBudget(DEFAULT_MEMORY, maximum_associations=200)
    assert budget.maximum_associations == 200
    assert budget.data.limit == 512 * MB
    assert extra_blocks(budget) >= 100 * (BLOCK_LIMIT - LEAST_BLOCKS)


def test_what_few_associations_cannot_use_is_left_for_data_sets() -> None:
    budget = MemoryBudget(DEFAULT_MEMORY, maximum_associations=2)
    assert budget.data.limit == DEFAULT_MEMORY - 2 * BLOCK_LIMIT * BLOCK_SIZE


def test_with_tls_fewer_are_let_in_for_the_same_memory() -> None:
    """1.5 MiB for each in half of it, where without it is half a MiB."""
    assert MemoryBudget(48 * MB, maximum_associations=200).maximum_associations == 48
    assert MemoryBudget(48 * MB, maximum_associations=200, tls=True).maximum_associations == 16


def test_too_little_for_any_server() -> None:
    with pytest.raises(UsageError, match="4 MiB is the least"):
        MemoryBudget(LEAST_MEMORY - 1, maximum_associations=1)


def small_budget(extra: int) -> MemoryBudget:
    budget = MemoryBudget(LEAST_MEMORY, maximum_associations=4)
    assert extra_blocks(budget) == 0
    for _ in range(extra):
        budget.return_block()
    return budget


def pool_of(budget: MemoryBudget) -> BlockPool:
    pool = BlockPool(lambda: None, budget)
    pool.received(300)
    pool.grow()
    assert pool.has_room()
    return pool


def lend_everything(pool: BlockPool) -> list[Block]:
    lent = []
    while pool.has_room():
        pool.received(len(pool.room()))
        pool.current.pins += 1
        lent.append(pool.current)
    return lent


def test_without_more_every_connection_has_two_blocks() -> None:
    budget = small_budget(0)
    assert [len(lend_everything(pool_of(budget))) for _ in range(2)] == [2, 2]


def test_what_there_is_more_goes_to_whoever_wants_it_first() -> None:
    budget = small_budget(20)
    assert [len(lend_everything(pool_of(budget))) for _ in range(3)] == [16, 8, 2]


def test_what_is_given_back_is_there_for_others() -> None:
    budget = small_budget(20)
    pool, other = pool_of(budget), pool_of(budget)
    lent = lend_everything(pool)
    while lent:
        lent.pop().release()
    assert len(lend_everything(other)) == 16
    assert len(lend_everything(pool)) == 2 + 20 - 14


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, BLOCK_SIZE), st.booleans(), st.integers(0, 20)), max_size=100)
)
def test_together_connections_never_have_more_blocks_than_there_are(steps: list[tuple[int, int, bool, int]]) -> None:
    budget = small_budget(10)
    pools = [pool_of(budget) for _ in range(3)]
    lent: list[Block] = []
    for number, size, lend, give_back in steps:
        pool = pools[number]
        if give_back < len(lent):
            lent.pop(give_back).release()
        if pool.has_room():
            pool.received(min(size, len(pool.room())))
            if lend:
                pool.current.pins += 1
                lent.append(pool.current)
        in_use = {id(block) for block in lent} | {id(each.current) for each in pools}
        assert len(in_use) <= 3 * LEAST_BLOCKS + 10
    for block in lent:
        block.release()
    for pool in pools:
        pool.close()
    assert extra_blocks(budget) == 10


async def test_a_server_with_little_memory_receives_the_same_in_smaller_pieces() -> None:
    sizes: list[int] = []

    class Sized(Keeper):
        async def keep(self, request):  # type: ignore[no-untyped-def]
            total = 0
            async for chunk in request.data:
                sizes.append(chunk.nbytes)
                total += chunk.nbytes
            return 0 if total == 5 * MB else 0xC000

    async with serve(Sized(), memory=LEAST_MEMORY) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(message_pdus(3, store_rq(), bytes(5 * MB), 1 << 17))
        assert (await peer.read_message()).command.status == 0  # type: ignore[attr-defined]
    assert max(sizes) <= LEAST_BLOCKS * BLOCK_SIZE


async def test_of_an_association_that_is_not_read_from_two_blocks_are_held() -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with serve(keeper, memory=LEAST_MEMORY) as server, await RawPeer.connect(server.port) as peer:
        await peer.associate()
        await peer.send(command_pdu(3, store_rq()))
        request = await keeper.next_begun()
        await peer.send_until_stalled(FRAGMENT, limit=200 * MB)
        assert BLOCK_SIZE < request.data.received <= LEAST_BLOCKS * BLOCK_SIZE
        peer.reset()


async def test_more_associations_than_there_is_memory_for_are_rejected(caplog: pytest.LogCaptureFixture) -> None:
    """PS3.8 Table 9-21: rejected transient, local limit exceeded."""
    caplog.set_level(logging.WARNING)
    async with serve(memory=LEAST_MEMORY) as server:
        peers = [await RawPeer.connect(server.port) for _ in range(4)]
        for peer in peers:
            await peer.associate()
        with pytest.raises(AssociationRejected) as rejected:
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]):
                pass
        assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (2, 3, 2)
        await peers[0].release()
        async with asyncio.timeout(10), associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]):
            pass
        for peer in peers:
            peer.close()
    assert "4 MiB of memory is enough for 4 associations at once, not for 200" in caplog.text


async def test_associations_that_end_in_the_middle_leave_nothing_taken() -> None:
    keeper = Keeper(reads=False)
    keeper.gate.clear()
    async with serve(keeper, memory=LEAST_MEMORY * 4, maximum_associations=4) as server:
        for _ in range(3):
            async with await RawPeer.connect(server.port) as peer:
                await peer.associate(associate_rq())
                (association,) = server.associations
                await peer.send(command_pdu(3, store_rq()))
                await keeper.next_begun()
                await peer.send_until_stalled(FRAGMENT, limit=200 * MB)
                budget = association.budget
                assert budget is not None
                await association.close(grace=0)
        assert extra_blocks(budget) == 8 * MB // BLOCK_SIZE - 4 * LEAST_BLOCKS
