"""What all responses to an operation have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.protocol.status import Status


class Answered:
    """A response that is a value: a failure is one too."""

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
