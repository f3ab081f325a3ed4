"""How many requests of a kind are served at once. Each takes memory for as long as its peer likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.aio.association import Association


class Crowded(Exception):
    """There is no room for one more."""


class Crowd:
    """Lets in `most` at a time, and `most_of_one` of each association."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._inside: Counter[Association] = Counter()

    @contextmanager
    def joined(self, association: Association) -> Iterator[None]:
        """Raises `Crowded` at once: who waited might hold up what those inside are waiting for."""
        inside = self._inside
        if inside.total() >= self._most or inside.get(association, 0) >= self._most_of_one:
            raise Crowded
        inside[association] += 1
        try:
            yield
        finally:
            inside[association] -= 1
            if not inside[association]:
                del inside[association]
