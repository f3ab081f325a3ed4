"""What `login` asks about the archive: its users, whether everybody is let in, and by which names it may be called."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from tomowire.errors import LoginFailed, TooManyLogins
from tomowire.server.access_settings import is_loopback
from tomowire.server.audit.events import Login as LoginEvent
from tomowire.server.audit.events import Outcome, Party
from tomowire.server.hosts_allowed import host_allowed, origin_allowed
from tomowire.server.logins import FailedLogins, Logins, network_of
from tomowire.server.users import Principal, Role
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from tomowire.server.app import Archive
    from tomowire.server.audit.events import AuditEvent
    from tomowire.server.changes import Reconfigured
    from tomowire.server.settings import HttpSettings

ANYBODY: Final = Principal("anybody", Role.ADMINISTRATOR)
"""Who asks where nobody has to log in."""

_ONCE_IN: Final = 600.0
_LOCKED_OUT_ONCE_IN: Final = 10.0
"""Seconds in which the audit trail gets the same event once: many programs log in with each request."""

_LONGEST_NAME: Final = 64

_MOST_REMEMBERED: Final = 1000


@value()
class Process:
    """What the process that the archive runs in lets be done with it; None where it does not."""

    shut_down: Callable[[], object] | None = None
    """Begins the end of the archive, and returns at once."""

    reload: Callable[[Party], Awaitable[Reconfigured]] | None = None
    """Reads the configuration again and applies it, for who asks for it. Raises `ConfigurationInvalid`, `UsageError`."""


class Gate:
    """Who is let in to the HTTP port of `archive`."""

    def __init__(self, archive: Archive, settings: HttpSettings, process: Process) -> None:
        self.settings: Final = settings
        self.process: Final = process
        self.started_at: Final = datetime.now(UTC)
        self.streams = 0
        """How many answers there are that go on for ever."""
        self._began = time.monotonic()
        self._archive = archive
        self._logins = Logins(archive.users, FailedLogins(settings.failed_logins, settings.failed_login_window))
        self._is_loopback = is_loopback(settings.bind)
        self._has_users = False
        self._told: OrderedDict[Hashable, float] = OrderedDict()
        self._told_failures: WeakSet[LoginFailed] = WeakSet()

    @property
    def seconds(self) -> float:
        """Since the HTTP port was opened."""
        return time.monotonic() - self._began

    async def is_open(self) -> bool:
        """Whether nobody has to log in. Raises `IndexUnavailable`."""
        if not self._is_loopback or self._has_users:
            return False
        self._has_users = await self._archive.users.any()  # somebody may have added one with `tomowire user`
        return not self._has_users

    def knows_host(self, host: str | None) -> bool:
        """Whether the server may be called `host` (`name` or `name:port`)."""
        return host_allowed(host, bind=self.settings.bind, names=self.settings.hosts)

    def knows_origin(self, origin: str | None, host: str | None, scheme: str) -> bool:
        """Whether a page of `origin` may ask, where the server was called `host`. Of the names that a person has given it, behind
        a proxy with TLS, only the default ports are ours."""
        if origin_allowed(origin, host=host, scheme=scheme):
            return True
        its_scheme, _, name = (origin or "").lower().partition("://")
        return its_scheme in ("http", "https") and name in {each.lower() for each in self.settings.hosts}

    async def log_in(self, address: str, name: str, secret: str) -> Principal:
        """Who that is; of a token, `name` is empty. Raises `LoginFailed`, `TooManyLogins`, `IndexUnavailable`."""
        try:
            if name:
                principal = await self._logins.by_password(name, secret, address)
            else:
                principal = await self._logins.by_token(secret, address)
        except LoginFailed as error:
            shown = "".join(each if each.isprintable() else "?" for each in name[:_LONGEST_NAME])
            user = Party(shown or "a token", address)
            if isinstance(error, TooManyLogins):
                # Whatever the name: there are as many as somebody thinks of, and nothing bounds how often they are tried.
                event = LoginEvent(user=user, outcome=Outcome.SERIOUS_FAILURE, reason=str(error))
                self.tell(event, once_in=_LOCKED_OUT_ONCE_IN, key=network_of(address))
            elif error not in self._told_failures:  # each, and once for those who were answered together
                self._told_failures.add(error)
                event = LoginEvent(user=user, outcome=Outcome.MINOR_FAILURE, reason=str(error))
                self._archive.witness.login_failed(event, network_of(address))
            raise
        self.tell(LoginEvent(user=Party(principal.name, address)), once_in=_ONCE_IN)
        return principal

    async def again(self, name: str, secret: str) -> Principal | None:
        """Who that is by now, for an answer that goes on for ever: a login that was right is neither counted nor told again.

        None for one that is not right any more. Raises `TooManyLogins`, `IndexUnavailable`.
        """
        users = self._archive.users
        return await (users.by_password(name, secret) if name else users.by_token(secret))

    async def anybody_again(self) -> Principal | None:
        """The same for who did not have to log in. Raises `IndexUnavailable`."""
        return ANYBODY if await self.is_open() else None

    def tell(self, event: AuditEvent, *, once_in: float = _ONCE_IN, key: Hashable = None) -> None:
        """Have an event in the audit trail; the same one, or one of the same `key`, once in so many seconds: nobody is to fill it
        by asking often."""
        now, key = time.monotonic(), event if key is None else key
        if now - self._told.get(key, float("-inf")) < once_in:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > _MOST_REMEMBERED:
            self._told.popitem(last=False)
        self._archive.audit.record(event)
