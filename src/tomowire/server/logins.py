"""Logging in, with a limit for what fails: nobody tries passwords for long."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict, deque
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from tomowire.errors import IndexUnavailable, LoginFailed, TomowireError, TooManyLogins

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from tomowire.server.users import Principal, Users

_MOST_KNOWN: Final = 10_000
_ONE_NETWORK: Final = 64
"""Bits of an IPv6 address that one subscriber cannot choose: its limit is that of all the others."""


class FailedLogins:
    """At most `limit` failures of one address, and of one user, within `window` seconds; what they try beyond is not looked at.

    A user who has been right from an address before is not closed out there by what is tried in its name elsewhere: otherwise
    anybody could keep anybody out. There it has a limit of its own, which nobody else's right password ends.

    Of more than `most` addresses or users, those are forgotten of which was heard longest ago. `clock` gives seconds that only
    grow. An IPv6 address counts as its network of 64 bits.
    """

    def __init__(
        self,
        limit: int = 10,
        window: float = 300.0,
        *,
        most: int = _MOST_KNOWN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._addresses = _Failures(limit, window, most)
        self._users = _Failures(limit, window, most)
        self._there = _Failures(limit, window, most)
        """Those of a user at one address."""
        self._at_home: OrderedDict[tuple[str, str], None] = OrderedDict()
        """The users who have been right, with the addresses where they were."""
        self._most = most

    def seconds_to_wait(self, address: str, user: str | None = None) -> float:
        """How long until this address may try again, as this user; 0 if it may."""
        now = self._clock()
        network = network_of(address)
        waits = [self._addresses.seconds_to_wait(network, now)]
        if user is not None:
            is_at_home = (user, network) in self._at_home
            waits.append(
                self._there.seconds_to_wait((user, network), now)
                if is_at_home
                else self._users.seconds_to_wait(user, now)
            )
        return max(waits)

    def failed(self, address: str, user: str | None = None) -> None:
        """A login has failed."""
        now, network = self._clock(), network_of(address)
        self._addresses.add(network, now)
        if user is not None:
            self._users.add(user, now)
            self._there.add((user, network), now)

    def not_failed(self, address: str, user: str | None = None) -> None:
        """Take back what `failed` was told last: nobody could say whether the login is right."""
        network = network_of(address)
        self._addresses.take_back(network)
        if user is not None:
            self._users.take_back(user)
            self._there.take_back((user, network))

    def succeeded(self, address: str, user: str | None = None) -> None:
        """A login was right: what went before it is forgotten."""
        network = network_of(address)
        self._addresses.forget(network)
        if user is not None:
            self._users.forget(user)
            self._there.forget((user, network))
            self._at_home[user, network] = None
            self._at_home.move_to_end((user, network))
            if len(self._at_home) > self._most:
                self._at_home.popitem(last=False)


class _Failures:
    """When what has failed, the most recent times only."""

    def __init__(self, limit: int, window: float, most: int) -> None:
        self._limit = limit
        self._window = window
        self._most = most
        self._times: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def seconds_to_wait(self, who: Hashable, now: float) -> float:
        times = self._times.get(who)
        if times is None or len(times) < self._limit:
            return 0.0
        return max(times[0] + self._window - now, 0.0)

    def add(self, who: Hashable, now: float) -> None:
        times = self._times.setdefault(who, deque(maxlen=self._limit))
        times.append(now)
        self._times.move_to_end(who)
        if len(self._times) > self._most:
            self._times.popitem(last=False)

    def take_back(self, who: Hashable) -> None:
        times = self._times.get(who)
        if times:
            times.pop()
            if not times:
                del self._times[who]

    def forget(self, who: Hashable) -> None:
        self._times.pop(who, None)


class Logins:
    """What an HTTP server asks: `Users`, as far as `FailedLogins` lets it."""

    def __init__(self, users: Users, failed: FailedLogins) -> None:
        self._users = users
        self._failed = failed
        self._looking: dict[tuple[str, str, str], asyncio.Task[Principal]] = {}

    async def by_password(self, name: str, password: str, address: str) -> Principal:
        """Raises `LoginFailed`, `TooManyLogins`, `IndexUnavailable`.

        Many who ask for the same at the same time are answered together: a page may begin with twenty requests. Many who share
        an address are all let in, if all of them are right: what is being looked at may be, and whoever comes then waits for it.
        """
        key = name, password, address
        while (task := self._looking.get(key)) is None:
            try:
                self._check(address, name)
            except TooManyLogins:
                if not (undecided := self._undecided(address, name)):
                    raise
                decided, _ = await asyncio.wait(undecided, return_when=asyncio.FIRST_COMPLETED)
                for each in decided:
                    _raise_unless_decided(each)
                continue
            # It counts as failed from the beginning: of many that are tried at the same time no more are looked at than one by one.
            self._failed.failed(address, name)
            task = self._looking[key] = asyncio.create_task(self._look(*key))
            task.add_done_callback(lambda done: self._looked(key, done))
        return await asyncio.shield(task)

    def _undecided(self, address: str, user: str) -> list[asyncio.Task[Principal]]:
        """What is being looked at, and counts as failed so long, of this address or this user."""
        network = network_of(address)
        return [
            task for (name, _, from_), task in self._looking.items() if name == user or network_of(from_) == network
        ]

    def _looked(self, key: tuple[str, str, str], task: asyncio.Task[Principal]) -> None:
        self._looking.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, if everybody who asked has gone away meanwhile

    async def _look(self, name: str, password: str, address: str) -> Principal:
        try:
            principal = await self._users.by_password(name, password)
        except TomowireError:  # the database cannot be asked, or too many wait
            self._failed.not_failed(address, name)
            raise
        if principal is None:
            raise LoginFailed("no user has this name and password")
        self._failed.succeeded(address, name)
        return principal

    async def by_token(self, token: str, address: str) -> Principal:
        """Raises `LoginFailed`, `TooManyLogins`, `IndexUnavailable`.

        A token that is right is right however many have failed: nobody guesses one, and who shares an address with somebody that
        has an old one is not kept out.
        """
        principal = await self._users.by_token(token)
        if principal is not None:
            return principal
        self._check(address, None)
        self._failed.failed(address)
        raise LoginFailed("the token is not known, or has expired")

    def _check(self, address: str, user: str | None) -> None:
        seconds = self._failed.seconds_to_wait(address, user)
        if seconds > 0:
            raise TooManyLogins("too many logins have failed", seconds=seconds)


def _raise_unless_decided(task: asyncio.Task[Principal]) -> None:
    """Who waits behind somebody that cannot be answered now (the database is silent) cannot be answered either."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, IndexUnavailable | TooManyLogins):
        raise error.with_traceback(None)


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """Whose failures are counted together: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _ONE_NETWORK), strict=False))
