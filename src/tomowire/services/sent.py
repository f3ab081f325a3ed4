"""What became of something that was to be sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tomowire.services.dicom_file import DicomFile
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.protocol.status import Status
    from tomowire.services.given import Given
    from tomowire.services.storage import StoreResponse

Sendable: TypeAlias = "DicomFile | Given"
"""One object: in a file, or given in another way."""


@value()
class Sent:
    """What became of one object: the peer's `response`, or the `error` because of which there is none."""

    file: Sendable
    response: StoreResponse | None
    error: Exception | None = None

    @property
    def path(self) -> Path | None:
        """Of the file; None if it was none."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def source(self) -> Any:
        """What was sent: the path of a file, otherwise the very thing that was given (a data set, a stream, ...)."""
        return self.file.path if isinstance(self.file, DicomFile) else self.file.thing

    @property
    def sop_instance_uid(self) -> str:
        """Of the object; empty if that is not known."""
        return self.file.sop_instance_uid

    @property
    def status(self) -> Status | None:
        """What the peer answered; None if it did not."""
        return self.response.status if self.response is not None else None

    @property
    def outcome(self) -> Status | Exception | None:
        """What the peer answered, or why it did not: the one to print."""
        return self.response.status if self.response is not None else self.error

    @property
    def is_failure(self) -> bool:
        return self.response is None or self.response.is_failure
