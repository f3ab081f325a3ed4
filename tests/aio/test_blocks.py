"""The block pool: what is lent out is never written over, what is given back is used again, and there is an end to it."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tomowire.aio.blocks import BLOCK_LIMIT, BLOCK_SIZE, FIRST_BLOCK_SIZE, Block, BlockPool


class Room:
    """Counts the calls of `on_room`."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


def grown(on_room: Room | None = None) -> BlockPool:
    """A pool after the A-ASSOCIATE-RQ."""
    pool = BlockPool(on_room or Room())
    fill(pool, 300)
    pool.grow()
    assert pool.has_room()
    return pool


def fill(pool: BlockPool, size: int | None = None) -> memoryview:
    """Receive `size` bytes, by default as many as fit."""
    assert pool.has_room()
    room = pool.room()
    return pool.received(len(room) if size is None else size)


def lend_everything(pool: BlockPool) -> list[Block]:
    """Receive and lend until there is no room."""
    lent = []
    while pool.has_room():
        fill(pool)
        pool.current.pins += 1
        lent.append(pool.current)
    return lent


def test_before_the_association_there_is_one_small_block_and_no_more() -> None:
    pool = BlockPool(Room())
    assert pool.has_room()
    assert len(pool.room()) == FIRST_BLOCK_SIZE == 16 * 1024
    fill(pool)
    assert pool.has_room()
    assert len(pool.room()) == FIRST_BLOCK_SIZE, "nothing was lent: the same block serves again"
    assert len(lend_everything(pool)) == 1


def test_the_kernel_is_given_full_blocks_after_the_association_is_established() -> None:
    pool = BlockPool(Room())
    fill(pool, 300)
    pool.grow()
    assert pool.has_room()
    assert len(pool.room()) == BLOCK_SIZE == 256 * 1024
    pool.grow()  # twice does no harm
    assert len(lend_everything(pool)) == BLOCK_LIMIT


def test_a_block_that_is_not_lent_is_used_again_from_its_beginning() -> None:
    pool = grown()
    first = pool.current
    fill(pool, 1000)
    assert pool.has_room()
    assert pool.current is first
    assert len(pool.room()) == BLOCK_SIZE


def test_a_lent_block_is_filled_further_and_not_from_its_beginning() -> None:
    pool = grown()
    slice_lent = fill(pool, 1000)
    slice_lent[:] = b"x" * 1000
    pool.current.pins += 1
    assert pool.has_room()
    assert len(pool.room()) == BLOCK_SIZE - 1000
    fill(pool)[:5] = b"12345"
    assert bytes(slice_lent) == b"x" * 1000


def test_a_little_room_at_the_end_is_left_for_a_new_block_while_there_are_any() -> None:
    pool = grown()
    lent = pool.current
    fill(pool, BLOCK_SIZE - 100)
    lent.pins += 1
    assert pool.has_room()
    assert pool.current is not lent
    assert len(pool.room()) == BLOCK_SIZE


def test_the_last_block_is_used_to_its_last_byte() -> None:
    pool = grown()
    for _ in range(BLOCK_LIMIT - 1):
        fill(pool)
        pool.current.pins += 1
    fill(pool, BLOCK_SIZE - 10)
    pool.current.pins += 1
    assert pool.has_room()
    assert len(pool.room()) == 10
    fill(pool)
    assert not pool.has_room()


def test_when_all_is_lent_the_first_that_comes_back_makes_room_once() -> None:
    on_room = Room()
    pool = grown(on_room)
    lent = lend_everything(pool)
    assert len({id(block) for block in lent}) == len(lent) == BLOCK_LIMIT
    assert not pool.has_room()
    lent[3].release()
    assert on_room.calls == 1
    lent[5].release()
    assert on_room.calls == 1, "nobody waits any more"
    assert pool.has_room()
    assert pool.current.view in (lent[3].view, lent[5].view)


def test_the_current_block_makes_room_too() -> None:
    on_room = Room()
    pool = grown(on_room)
    lend_everything(pool)[-1].release()
    assert on_room.calls == 1
    assert pool.has_room()
    assert len(pool.room()) == BLOCK_SIZE


def test_a_block_with_two_borrowers_is_free_when_both_have_given_it_back() -> None:
    on_room = Room()
    pool = grown(on_room)
    lent = lend_everything(pool)
    lent[0].pins += 1
    lent[0].release()
    assert on_room.calls == 0
    lent[0].release()
    assert on_room.calls == 1


def test_the_small_first_block_never_comes_back() -> None:
    """It is no room to receive into: to say so would make the connection read into nothing."""
    on_room = Room()
    pool = BlockPool(on_room)
    first = pool.current
    fill(pool, 10)
    first.pins += 1
    pool.grow()
    lend_everything(pool)
    first.release()
    assert on_room.calls == 0
    assert not pool.has_room()


@given(st.lists(st.tuples(st.integers(1, BLOCK_SIZE), st.booleans(), st.integers(0, 20)), max_size=60))
def test_no_sequence_of_lending_and_giving_back_writes_over_what_is_lent(steps: list[tuple[int, bool, int]]) -> None:
    """`lent` is the model: slices that a borrower holds, each with the bytes that must stay in it."""
    pool = grown()
    lent: list[tuple[Block, memoryview, int]] = []
    blocks: set[int] = set()
    for mark, (size, lend, give_back) in enumerate(steps):
        if lent and give_back < len(lent):
            block, *_ = lent.pop(give_back)
            block.release()
        if not pool.has_room():
            assert len({id(block) for block, *_ in lent}) == BLOCK_LIMIT
            continue
        received = fill(pool, min(size, len(pool.room())))
        received[:1] = bytes([mark])
        blocks.add(id(pool.current))
        if lend:
            pool.current.pins += 1
            lent.append((pool.current, received, mark))
        assert all(view[0] == expected for _, view, expected in lent)
    assert len(blocks) <= BLOCK_LIMIT


def test_what_was_given_back_serves_whoever_needs_it_next() -> None:
    lent = lend_everything(grown())
    memory = {id(block.view) for block in lent}
    while lent:
        lent.pop().release()
    others = lend_everything(grown())
    assert len(memory & {id(block.view) for block in others}) >= BLOCK_LIMIT - 2  # but for the current one of each


def test_a_connection_that_is_over_gives_back_its_last_block() -> None:
    idle, busy = grown(), grown()
    busy.current.pins += 1
    views = idle.current.view, busy.current.view
    lend_everything(grown())  # so that nobody else's is there
    idle.close()
    idle.close()
    busy.close()
    assert grown().current.view is views[0]
    assert all(grown().current.view is not view for view in views), "it is still lent"
    busy.current.release()
    assert grown().current.view is views[1]


def test_connections_that_are_over_keep_no_memory_until_they_are_collected() -> None:
    tracemalloc.start()
    try:
        pools = [grown() for _ in range(4 * BLOCK_LIMIT)]
        lent = pools[: BLOCK_LIMIT // 2]
        for pool in lent:
            pool.current.pins += 1
        for pool in pools:
            pool.close()
        for pool in lent:
            pool.current.release()
        assert tracemalloc.get_traced_memory()[0] < (BLOCK_LIMIT + 1) * BLOCK_SIZE
    finally:
        tracemalloc.stop()


def test_after_a_burst_no_more_is_kept_than_one_connection_may_use() -> None:
    tracemalloc.start()
    try:
        pools = [grown() for _ in range(5)]
        lent = [block for pool in pools for block in lend_everything(pool)]
        assert tracemalloc.get_traced_memory()[0] > 4 * BLOCK_LIMIT * BLOCK_SIZE
        while lent:
            lent.pop().release()
        assert tracemalloc.get_traced_memory()[0] < (BLOCK_LIMIT + len(pools) + 1) * BLOCK_SIZE
    finally:
        tracemalloc.stop()
    assert len(lend_everything(pools[0])) >= BLOCK_LIMIT  # another burst has as much room
