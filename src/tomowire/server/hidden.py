"""What is shown of a secret."""

from __future__ import annotations

import re
from typing import Final

from tomowire.server.index.index_url import credentials

_HIDDEN: Final = "***"
_SECRET_PARAMETERS: Final = re.compile(r"([?&](?:password|sslpassword)=)[^&]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """The URL of a database, for people: `postgresql://user:***@host/database`."""
    user, colon, _ = credentials(url)[0].partition(":")
    if colon:
        url = f"{url.partition('://')[0]}://{user}:{_HIDDEN}@{credentials(url)[1]}"
    return _SECRET_PARAMETERS.sub(rf"\1{_HIDDEN}", url)


def is_the_same(shown: str | None, url: str | None) -> bool:
    """Whether `shown` is what `without_password` makes of `url`: who sends back what was shown changes nothing."""
    return shown is not None and url is not None and _HIDDEN in shown and shown == without_password(url)
