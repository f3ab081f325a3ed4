"""Who may associate with an archive: those who are allowed by name, and its nodes, each from its own host."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self

from tomowire.aio.address import check_ae_title
from tomowire.services.hosts import addresses_of, host_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tomowire.server.nodes import Node

logger: Final = logging.getLogger("tomowire.listen")

_LOOKUP_TIMEOUT: Final = 5.0
_BETWEEN_LOOKUPS: Final = 30.0
"""Seconds in which the host of a node is not looked up again, whoever calls by its name."""


class Callers:
    """`async with Callers(allowed, nodes)`: the hosts of the nodes are looked up, and again when a node calls from elsewhere.

    A node is let in when its host has been found and it calls from there; those in `allowed` are from anywhere.
    """

    def __init__(self, allowed: Iterable[str], nodes: Mapping[str, Node]) -> None:
        self._allowed: Final = frozenset(check_ae_title(title) for title in allowed)
        self._hosts: Final = {title: node.host for title, node in nodes.items() if title not in self._allowed}
        self._addresses: dict[str, frozenset[str]] = {}
        self._looked_up: dict[str, float] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}

    @property
    def titles(self) -> frozenset[str]:
        """All AE titles that may be let in."""
        return self._allowed | self._hosts.keys()

    def lets_in(self, title: str, peer_address: str) -> bool:
        """Whether `title` may associate from `peer_address`."""
        if title not in self._hosts:
            return title in self._allowed
        known = self._addresses.get(title)
        is_there = known is not None and host_of(peer_address) in known
        if not is_there:
            self._look_up(title)
            if known:
                logger.warning(
                    "%s calls from %s, and is a node at %s: --allow %s lets it in from anywhere",
                    title,
                    peer_address,
                    self._hosts[title],
                    title,
                )
        return is_there

    def _look_up(self, title: str) -> None:
        loop = asyncio.get_running_loop()
        if (
            title not in self._lookups
            and loop.time() - self._looked_up.get(title, -_BETWEEN_LOOKUPS) >= _BETWEEN_LOOKUPS
        ):
            self._lookups[title] = loop.create_task(self._resolve(title))

    async def _resolve(self, title: str) -> None:
        try:
            self._looked_up[title] = asyncio.get_running_loop().time()
            found = await asyncio.to_thread(addresses_of, self._hosts[title])
            if found:
                self._addresses[title] = found
            elif title not in self._addresses:
                self._say_unknown(title)
        finally:
            self._lookups.pop(title, None)

    async def __aenter__(self) -> Self:
        for title in self._hosts:
            self._look_up(title)
        if self._lookups:
            await asyncio.wait(list(self._lookups.values()), timeout=_LOOKUP_TIMEOUT)
        for title in self._lookups:
            self._say_unknown(title)
        return self

    def _say_unknown(self, title: str) -> None:
        host = self._hosts[title]
        logger.warning(
            "the host %s of node %s is not found: the node is not let in before it is; --allow %s lets it in from anywhere",
            host,
            title,
            title,
        )

    async def __aexit__(self, *_: object) -> None:
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
