"""Queries by tomowire's SCU over associations that stay open: when the first answer is there, and when the last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from tomowire import CFindScu, Query, associate, querying
from tomowire.aio.association import Association

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: the number of answers, and the seconds from asking until the first and until the end."""

    answers: int
    first: float
    whole: float


async def ask_in_turn(addresses: Sequence[str], query: Query, rounds: int) -> list[list[Asked]]:
    """Ask each peer once in a round, in every other round in the opposite order; gives a list for each peer.

    A first round is not counted.
    """
    asked: list[list[Asked]] = [[] for _ in addresses]
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(associate(address, [querying()])) for address in addresses]
        for number in range(rounds + 1):
            turn = list(enumerate(peers))
            for index, association in turn if number % 2 else reversed(turn):
                found = await _ask(association, query)
                if number:
                    asked[index].append(found)
    return asked


async def _ask(association: Association, query: Query) -> Asked:
    answers, first = 0, 0.0
    begun = time.perf_counter()
    async with aclosing(CFindScu(association).find(query, timeout=_TIMEOUT)) as found:
        async for _ in found:
            if not answers:
                first = time.perf_counter() - begun
            answers += 1
    return Asked(answers, first, time.perf_counter() - begun)
