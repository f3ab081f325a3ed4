"""Values of a data set for output: as text for people, as text for programs, and in the DICOM JSON model (PS3.18 F).

What pydicom cannot read of a peer's answer, such as a number with letters in it, is given as it stands: one bad value must not
cost all the others.
"""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement

# VRs whose values are characters (PS3.5 6.2).
_TEXT: Final = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)


@value()
class _Unreadable:
    """An element that is not what its VR wants."""

    VR: str
    content: bytes

    @property
    def texts(self) -> list[str]:
        if self.VR in _TEXT:
            return [text.strip(" \0") for text in self.content.decode("latin-1").split("\\")]
        return [base64.b64encode(self.content).decode("ascii")]

    @property
    def json(self) -> dict[str, Any]:
        if self.VR in _TEXT:
            return {"vr": self.VR, "Value": [text or None for text in self.texts]}
        return {"vr": "UN", "InlineBinary": self.texts[0]}


def json_of(dataset: Dataset) -> str:
    """The data set as one object of the DICOM JSON model, on one line, in ASCII."""
    return _dumps(_object(dataset))


def texts_of(dataset: Dataset, tag: int) -> list[str]:
    """The values of an attribute as they stand in DICOM; items of a sequence as DICOM JSON, binary values in Base64."""
    return _texts(_read(dataset, tag))


def shown(dataset: Dataset, tag: int) -> str:
    """The values of an attribute for people: dates and times with their separators, of a sequence the number of items."""
    element = _read(dataset, tag)
    if element is None:
        return ""
    if element.VR == "SQ" and not isinstance(element, _Unreadable):
        count = len(element.value)
        return f"{count} item{'' if count == 1 else 's'}" if count else ""
    return ", ".join(map({"DA": _date, "TM": _time}.get(element.VR, str), _texts(element)))


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == len("YYYYMMDD") and text.isdigit() else text


def _time(text: str) -> str:
    parts = (text[:2], text[2:4], text[4:6])
    return ":".join(filter(None, parts)) if "".join(parts).isdigit() else text


def _read(dataset: Dataset, tag: int) -> DataElement | _Unreadable | None:
    try:
        return dataset[tag]
    except KeyError:
        return None
    except Exception:  # whatever pydicom's converters raise
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.datadict import dictionary_has_tag, dictionary_VR

        raw = dataset.get_item(tag)
        vr = raw.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
        return _Unreadable(vr, raw.value or b"")


def _texts(element: DataElement | _Unreadable | None) -> list[str]:
    if element is None:
        return []
    if isinstance(element, _Unreadable):
        return element.texts
    if element.is_empty:
        return []
    if element.VR == "SQ":
        return [_dumps([_object(item) for item in element.value])]
    values = element.value if element.VM > 1 else [element.value]
    if element.VR == "AT":
        return [f"{int(each):08X}" for each in values]
    return [base64.b64encode(each).decode("ascii") if isinstance(each, bytes) else str(each) for each in values]


def _object(dataset: Dataset) -> dict[str, Any]:
    """PS3.18 F.2.2: ascending by tag, without group lengths. Specific Character Set stays: it tells of the source."""
    return {f"{tag:08X}": _attribute(dataset, tag) for tag in sorted(dataset.keys()) if tag.element}


def _attribute(dataset: Dataset, tag: int) -> dict[str, Any]:
    element = _read(dataset, tag)
    assert element is not None
    if isinstance(element, _Unreadable):
        return element.json
    if element.VR == "SQ":
        return {"vr": "SQ", "Value": [_object(item) for item in element.value]} if element.value else {"vr": "SQ"}
    try:
        made = element.to_json_dict(None, 0)
    except Exception:  # such as that of a number with letters in it, which is read as text
        return {"vr": element.VR, "Value": _texts(element)}
    if "Value" in made:
        made["Value"] = [_json_value(each) for each in made["Value"]]
    return made


def _json_value(each: Any) -> Any:
    """PS3.18 F.2.5: an empty value is null. F.2.2: a name has the groups that are not empty. JSON knows no infinity."""
    if isinstance(each, dict):
        each = {group: text for group, text in each.items() if text}
    if isinstance(each, float) and not math.isfinite(each):
        return str(each)
    return None if each in ("", {}) else each


def _dumps(made: Any) -> str:
    # DEL is the one control character that JSON in ASCII may have as it is.
    return json.dumps(made, allow_nan=False, separators=(",", ":")).replace("\x7f", "\\u007f")
