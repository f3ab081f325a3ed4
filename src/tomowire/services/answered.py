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
        """Neither success nor warning. FE00H (cancelled) is one too: such an operation cannot be cancelled (PS3.7 9.3.1, 10.3), so
        all that it can say is that it was not done.
        """
        return not (self.status.is_success or self.status.is_warning)
