"""Who tells the events of the audit: this process. What it tells them with is `telling`, which is imported when there are any."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.server.audit.events import Party
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.settings import Settings

_LOGIN_USER: Final = Path("/proc/self/loginuid")
_NOBODY: Final = 2**32 - 1


@value()
class Teller:
    """Who tells the events: this process, and which system it is of."""

    source_id: str
    ae_titles: tuple[str, ...] = ()
    address: str = ""
    trail_uri: str = ""


def teller_of(settings: Settings) -> Teller:
    """The teller for an archive."""
    host = socket.gethostname()
    address = host if settings.bind in ("", "0.0.0.0", "::") else settings.bind
    titles = (settings.ae_title, *getattr(settings, "aliases", ()))
    return Teller(f"{settings.ae_title}@{host}", titles, address, settings.data_dir.absolute().as_uri())


def person() -> Party:
    """Who runs this process, as the system has it (A.5.2.1): not as the environment says, which is whatever its owner wants.

    Who has logged in and has become somebody else since (sudo, su) stands in front: `jane as root@archive`.
    """
    # Windows, for a database that is elsewhere: there is nothing else than what is claimed.
    if not hasattr(os, "getuid"):
        import getpass

        return Party(f"{getpass.getuser()}@{socket.gethostname()}")
    user = os.getuid()
    names = dict.fromkeys(_name_of(each) for each in (_login_user(), user) if each is not None)
    return Party(f"{' as '.join(names)}@{socket.gethostname()}")


def _name_of(user: int) -> str:
    import pwd  # which not every system has

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # a container may run as a user that nobody has named
        return str(user)


def _login_user() -> int | None:
    """Whom Linux has seen log in; nobody can change that afterwards. None for what no login began, or where it is not told."""
    try:
        found = int(_LOGIN_USER.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return found if found != _NOBODY else None
