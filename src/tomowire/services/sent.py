"""What became of a file that was to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.wire.value import value

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.protocol.status import Status
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.storage import StoreResponse


@value()
class Sent:
    """What became of one file: the peer's `response`, or the `error` because of which there is none."""

    file: DicomFile
    response: StoreResponse | None
    error: Exception | None = None

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.file.path

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
