"""The elements of a file in the DICOM JSON model (PS3.18 F.2), without bulk data.

A file can be made so that it takes a thousand times its size of memory to read. What is read of one is bounded.
"""

from __future__ import annotations

import zlib
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tomowire.server.index.layout import is_deflated
from tomowire.web.problems import Problem

if TYPE_CHECKING:
    from pydicom import Dataset

MOST: Final = 32 << 20
"""Bytes of a file, or of what it inflates to, that are looked at."""

_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LONG: Final = 64 * 1024
"""Bytes of a value that is not read."""

_DEEPEST: Final = 16
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


def tags_of(path: Path, header_size: int, transfer_syntax_uid: str) -> dict[str, dict[str, Any]]:
    """In a thread: reads the file. Raises `OSError`, and `Problem` for what cannot be read as DICOM, or not within bounds."""
    import pydicom
    import pydicom.config

    try:
        with _Bounded(path) as file, pydicom.config.disable_value_validation():
            if is_deflated(transfer_syntax_uid):
                file.seek(header_size)
                data_set = _inflated(file)
            else:
                data_set = pydicom.dcmread(file, defer_size=_LONG, stop_before_pixels=True)
            return _elements(data_set, file, 0)
    except (OSError, Problem):
        raise
    except Exception as error:  # of a data set that pydicom can make nothing of
        raise Problem(409, f"the object cannot be read: {type(error).__name__}") from None


class _Bounded(BufferedReader):
    """A file of which no more than `MOST` bytes are read; what is skipped does not count."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._left = MOST

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(min(size, self._left + 1) if size is not None and size >= 0 else self._left + 1)
        self._left -= len(found)
        if self._left < 0:
            raise _too_much()
        return found


def _inflated(file: _Bounded) -> Dataset:
    """PS3.5 A.5: a stream of deflate without a header; the data set in it is explicit VR little endian."""
    import pydicom
    import pydicom.filereader

    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflating.decompress(file.read(), MOST)
    if inflating.unconsumed_tail:
        raise _too_much()
    read = pydicom.filereader.read_dataset
    return read(BytesIO(data), False, True, stop_when=lambda tag, vr, length: int(tag) in _PIXELS)


def _too_much() -> Problem:
    return Problem(409, f"the object has more than {MOST} bytes besides its pixels: look at its file")


def _elements(data_set: Dataset, file: _Bounded, depth: int) -> dict[str, dict[str, Any]]:
    return {f"{int(tag):08X}": _element(data_set, tag, file, depth) for tag in data_set.keys()}  # noqa: SIM118 - values are read


def _element(data_set: Dataset, tag: Any, file: _Bounded, depth: int) -> dict[str, Any]:
    raw = data_set.get_item(tag, keep_deferred=True)
    vr = str(getattr(raw, "VR", None) or _in_dictionary(tag))
    is_left_out = raw.value is None and getattr(raw, "length", 0) > _LONG
    if vr in _BINARY or (is_left_out and vr != "SQ"):
        return {"vr": vr or "UN"}
    try:
        if is_left_out:  # a sequence of defined length, such as the functional groups of many frames
            file.seek(raw.value_tell)
            data_set[tag] = raw._replace(value=file.read(raw.length))
        element = data_set[tag]
        vr = str(element.VR)
        if vr in _BINARY or (vr == "SQ" and depth >= _DEEPEST):
            return {"vr": vr}
        if vr == "SQ":
            return {"vr": vr, "Value": [_elements(item, file, depth + 1) for item in element.value]}
        return dict(element.to_json_dict(None, _LONG))
    except Exception:  # one value that is wrong does not hide the others
        return {"vr": vr or "UN"}


def _in_dictionary(tag: Any) -> str:
    """The VR that an element has in implicit VR; empty where PS3.6 knows none, or several."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
    return vr if len(vr) == 2 else ""
