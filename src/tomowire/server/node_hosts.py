"""Where the hosts of nodes are: looked up when they become known, and again when somebody calls in their name from elsewhere."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tomowire.services.hosts import addresses_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger: Final = logging.getLogger("tomowire.listen")

_LOOKUP_TIMEOUT: Final = 5.0
_BETWEEN_LOOKUPS: Final = 30.0
"""Seconds in which a host is not looked up again, whoever calls by the name of its node."""


class NodeHosts:
    """The addresses of hosts by their names."""

    def __init__(self) -> None:
        self._addresses: dict[str, frozenset[str]] = {}
        self._looked_up: dict[str, float] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._titles: dict[str, str] = {}

    async def find(self, hosts: Mapping[str, str]) -> None:
        """Look up those that are not known, and wait for it some seconds at most; what takes longer goes on meanwhile.

        `hosts` are the AE titles of the nodes by their hosts, for the log.
        """
        self._titles |= hosts
        wanted = {host for host in hosts if host not in self._addresses}
        for host in wanted:
            self._look_up(host)
        lookups = [task for host, task in self._lookups.items() if host in wanted]
        if lookups:
            await asyncio.wait(lookups, timeout=_LOOKUP_TIMEOUT)
        for host in wanted & self._lookups.keys():
            self._say_unknown(host)

    def keep(self, hosts: Iterable[str]) -> None:
        """Forget all others."""
        kept = set(hosts)
        self._addresses = {host: found for host, found in self._addresses.items() if host in kept}
        self._titles = {host: title for host, title in self._titles.items() if host in kept}
        self._looked_up = {host: when for host, when in self._looked_up.items() if host in kept}
        for host in self._lookups.keys() - kept:
            self._lookups[host].cancel()

    def is_at(self, host: str, address: str) -> bool:
        """Whether `host` is found to be at an address, as `host_of` gives it. If not, it is looked up again, for the next time."""
        if address in self._addresses.get(host, ()):
            return True
        self._look_up(host)
        return False

    async def close(self) -> None:
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def _look_up(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        last = self._looked_up.get(host, -_BETWEEN_LOOKUPS)
        if host not in self._lookups and loop.time() - last >= _BETWEEN_LOOKUPS:
            self._looked_up[host] = loop.time()
            self._lookups[host] = task = loop.create_task(self._resolve(host))
            task.add_done_callback(lambda _: self._lookups.pop(host, None))

    async def _resolve(self, host: str) -> None:
        found = await asyncio.to_thread(addresses_of, host)
        if found:
            self._addresses[host] = found
        elif host not in self._addresses:
            self._say_unknown(host)

    def _say_unknown(self, host: str) -> None:
        title = self._titles.get(host, "?")
        logger.warning(
            "the host %s of node %s is not found: the node is not let in before it is; --allow %s lets it in from anywhere",
            host,
            title,
            title,
        )
