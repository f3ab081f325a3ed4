"""The first login of an archive that needs one: an administrator's token, in a file that only its owner can read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import UserExists
from tomowire.server.access_settings import is_loopback

if TYPE_CHECKING:
    from tomowire.server.settings import Settings
    from tomowire.server.users import Users

NAME: Final = "administrator"
FILE_NAME: Final = "administrator-token"


def needs_login(settings: Settings) -> bool:
    """Whether the archive can be used over HTTP by others than who sits at it: then nobody gets in without a login."""
    return settings.http is not None and not is_loopback(settings.http.bind)


async def first_administrator(users: Users, data_dir: Path) -> Path | None:
    """The file with the token of an administrator that was made because there was no user; None if there is one.

    Raises `OSError` if the file cannot be written: then nobody was made.
    """
    if await users.any():
        return None
    token = users.new_secret()
    path = data_dir / FILE_NAME
    _write(path, token)
    with suppress(UserExists):  # another node of the same database was first
        if await users.make_first(NAME, token):
            return path
    path.unlink(missing_ok=True)
    return None


def _write(path: Path, token: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())
