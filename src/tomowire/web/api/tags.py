"""The elements of a file in the DICOM JSON model (PS3.18 F.2), without bulk data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tomowire.web.problems import Problem

if TYPE_CHECKING:
    from pydicom import Dataset

_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LONG: Final = 64 * 1024
"""Bytes of a value that is not read."""

_DEEPEST: Final = 16


def tags_of(path: Path) -> dict[str, dict[str, Any]]:
    """In a thread: reads the file. Raises `OSError`, and `Problem` for what cannot be read as DICOM."""
    import pydicom
    import pydicom.config

    try:
        with path.open("rb") as file, pydicom.config.disable_value_validation():
            return _elements(pydicom.dcmread(file, defer_size=_LONG, stop_before_pixels=True), 0)
    except OSError:
        raise
    except Exception as error:  # of a data set that pydicom can make nothing of
        raise Problem(422, f"the object cannot be read: {type(error).__name__}") from None


def _elements(data_set: Dataset, depth: int) -> dict[str, dict[str, Any]]:
    return {f"{int(tag):08X}": _element(data_set, tag, depth) for tag in data_set.keys()}  # noqa: SIM118 - values are read


def _element(data_set: Dataset, tag: Any, depth: int) -> dict[str, Any]:
    raw = data_set.get_item(tag)
    vr = str(getattr(raw, "VR", None) or "")
    if vr in _BINARY or (raw.value is None and getattr(raw, "length", 0) > _LONG):
        return {"vr": vr or "UN"}
    try:
        element = data_set[tag]
        vr = str(element.VR)
        if vr in _BINARY or (vr == "SQ" and depth >= _DEEPEST):
            return {"vr": vr}
        if vr == "SQ":
            return {"vr": vr, "Value": [_elements(item, depth + 1) for item in element.value]}
        return dict(element.to_json_dict(None, _LONG))
    except Exception:  # one value that is wrong does not hide the others
        return {"vr": vr or "UN"}
