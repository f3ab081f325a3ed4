"""What all answers of a peer have in common: a status, and its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.protocol.status import Status


class HasStatus:
    """An answer with a status (PS3.7 annex C). A failure is a value and no exception."""

    __slots__ = ()

    status: Status

    @property
    def is_success(self) -> bool:
        return self.status.is_success

    @property
    def is_warning(self) -> bool:
        return self.status.is_warning

    @property
    def is_failure(self) -> bool:
        return self.status.is_failure
