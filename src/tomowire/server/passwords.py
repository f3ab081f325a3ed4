"""argon2id for passwords (RFC 9106), in few threads: each check takes 64 MiB for some 50 ms, and anybody can ask for one."""

from __future__ import annotations

import asyncio
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Final

from tomowire.aio.threads import finished
from tomowire.errors import TooManyLogins
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from argon2 import PasswordHasher

    T = TypeVar("T")

logger: Final = logging.getLogger("tomowire.users")

_AT_ONCE: Final = 2
_MOST_WAITING: Final = 64
_SECONDS_TO_WAIT: Final = 2.0


@value()
class Cost:
    """What a hash costs: passes over the memory, memory in KiB, lanes. As RFC 9106 4 recommends where memory is short."""

    time: int = 3
    memory: int = 65536
    lanes: int = 4


@value()
class Checked:
    """Whether a password was right; `renewed` is a hash to be kept in place of one of another cost."""

    is_right: bool
    renewed: str | None = None


class Passwords:
    """Makes and checks hashes. Raises `TooManyLogins` where too many wait for it."""

    def __init__(self, cost: Cost = Cost()) -> None:  # noqa: B008 - a value
        self._cost = cost
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tomowire-argon2")
        self._waiting = 0
        self._making = Lock()
        self._hasher: PasswordHasher | None = None
        self._nobodys = ""

    async def hash(self, password: bytes) -> str:
        """A hash of a new password."""
        return await self._do(lambda: self._ready().hash(password))

    async def verify(self, hashed: str, password: bytes) -> Checked:
        """Whether `password` is that of `hashed`. If that is empty, since there is no user or no password, it takes as long."""
        return await self._do(lambda: self._verify(hashed, password))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _do(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MOST_WAITING:
            raise TooManyLogins("too many logins at once", seconds=_SECONDS_TO_WAIT)
        self._waiting += 1
        try:
            return await finished(asyncio.get_running_loop().run_in_executor(self._threads, work))
        finally:
            self._waiting -= 1

    def _ready(self) -> PasswordHasher:
        with self._making:
            if self._hasher is None:
                from argon2 import PasswordHasher

                cost = self._cost
                self._hasher = PasswordHasher(cost.time, cost.memory, cost.lanes)
            return self._hasher

    def _nobodys_hash(self, hasher: PasswordHasher) -> str:
        """Of a password that nobody has; made before the first check, whoever that is about."""
        with self._making:
            if not self._nobodys:
                self._nobodys = hasher.hash(secrets.token_bytes(32))
            return self._nobodys

    def _verify(self, hashed: str, password: bytes) -> Checked:
        hasher = self._ready()
        nobodys = self._nobodys_hash(hasher)
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            hasher.verify(hashed or nobodys, password)
        except InvalidHashError:
            logger.error("a password hash in the database is not one of argon2: its user cannot log in")
            return Checked(False)
        except VerificationError:
            return Checked(False)
        if not hashed:
            return Checked(False)
        return Checked(True, hasher.hash(password) if hasher.check_needs_rehash(hashed) else None)
