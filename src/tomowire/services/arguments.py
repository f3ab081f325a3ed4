"""What callers give to a service, objects that are to be sent above all, looked at before anything is done with it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from pydicom import Dataset

_UID_LENGTH: Final = 64
_UID: Final = re.compile(r"[!-\[\]-~]+")  # devices make letters too, and an object is sent as it is


def is_dataset(thing: object) -> TypeGuard[Dataset]:
    """Whether it is one of pydicom's, which is not imported only to ask."""
    # Another thread may be about to import it: there is none yet then.
    kind = getattr(sys.modules.get("pydicom"), "Dataset", None)
    return kind is not None and isinstance(thing, kind)


def checked_uid(uid: object, what: str) -> str:
    """`uid`, if a command set can hold it and peers will not choke on it. Raises `UsageError`, in which it is called `what`."""
    if isinstance(uid, str) and len(uid) <= _UID_LENGTH and _UID.fullmatch(uid):
        return str(uid)
    raise UsageError(f"{what} is no UID: {uid!r}")


def checked_size(size: Any, name: str) -> int | None:
    """`size`, a number of bytes, or None. Raises `UsageError`, in which it is called `name`."""
    if size is None or (isinstance(size, int) and size >= 0):
        return size
    raise UsageError(f"`{name}` is a number of bytes, not {size!r}")


def checked_association(association: Any, service: str) -> Any:
    """`association`, or what does as one. Raises `UsageError` for what is none, such as a `Peer`; `service` is whose it is."""
    if not hasattr(association, "context"):
        how = "`async with associate(...) as association` gives one"
        raise UsageError(f"{service} works on an association, and not on a {type(association).__name__}: {how}")
    return association
