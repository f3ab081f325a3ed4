"""A data set that is encoded and in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.services.byte_readers import MemoryReader
from tomowire.services.stream_pieces import StreamPieces
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.services.sources import Source


@value()
class EncodedDataSet:
    """A `Source`: the bytes `data` of the data set of one object. `name` is what messages call it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes
    name: str

    @classmethod
    def of(cls, source: Source, transfer_syntax_uid: str, data: bytes) -> EncodedDataSet:
        """The object of `source`, in another form."""
        return cls(source.sop_class_uid, source.sop_instance_uid, transfer_syntax_uid, data, source.name)

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def repeatable(self) -> bool:
        return True

    def pieces(self, payload: int) -> StreamPieces:
        """The data set; see `Source`."""
        return StreamPieces(MemoryReader(self.data), self.size, payload, self.name)
