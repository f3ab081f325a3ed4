"""Names for received files, from a template: `{study_instance_uid}/{sop_instance_uid}.dcm`."""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, Final

from tomowire.errors import DataSetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomowire.aio.streams import Chunk
    from tomowire.services.folder import NameOf
    from tomowire.services.storage import StoreRequest

DEFAULT_TEMPLATE: Final = "{sop_instance_uid}.dcm"

# Known from the request alone.
_OF_REQUEST: Final = ("sop_instance_uid", "sop_class_uid", "calling_aet", "called_aet")
# To be looked up in the data set: field -> tag.
_OF_DATA_SET: Final[Mapping[str, int]] = {
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "patient_id": 0x00100020,
    "accession_number": 0x00080050,
    "study_date": 0x00080020,
    "modality": 0x00080060,
    "series_number": 0x00200011,
    "instance_number": 0x00200013,
}
FIELDS: Final = (*_OF_REQUEST, *_OF_DATA_SET)

_NOT_SAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST: Final = 100


def safe_part(text: str) -> str:
    """`text` as one part of a path on any system: letters, digits, `.`, `_` and `-`, never empty and never a way out."""
    cleaned = _NOT_SAFE.sub("_", text.strip())[:_LONGEST].strip(".")
    return cleaned or "_"


def name_from_template(template: str) -> NameOf:
    """A naming function for `Folder`. Raises `UsageError` for unknown fields and for templates that lead out of the folder."""
    try:
        wanted = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise UsageError(f"{template!r}: {error}") from None
    unknown = sorted(wanted - set(FIELDS))
    if unknown:
        raise UsageError(f"unknown field {{{unknown[0]}}}; known are {', '.join(FIELDS)}")
    if "sop_instance_uid" not in wanted and "instance_number" not in wanted:
        raise UsageError("without {sop_instance_uid} or {instance_number} all objects would get the same name")
    parts = template.replace("\\", "/").split("/")
    if template.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"{template!r} is not a path below the folder")
    looked_up = {name: tag for name, tag in _OF_DATA_SET.items() if name in wanted}

    def name_of(request: StoreRequest, first: Chunk) -> str:
        values = {
            "sop_instance_uid": safe_part(request.sop_instance_uid),
            "sop_class_uid": safe_part(request.sop_class_uid),
            "calling_aet": safe_part(request.association.calling_ae_title),
            "called_aet": safe_part(request.association.called_ae_title),
        }
        if looked_up:
            values |= _look_up(request.transfer_syntax_uid, first, looked_up)
        return template.format(**values)

    return name_of


def _look_up(transfer_syntax: str, first: Chunk, tags: Mapping[str, int]) -> dict[str, str]:
    """Values from the beginning of the data set; `_` for what is not there or cannot be read."""
    from tomowire.server.index.scanner import HeaderScanner

    scanner = HeaderScanner(transfer_syntax)
    try:
        for buffer in first.buffers:
            scanner.feed(buffer)
    except DataSetError:
        pass  # what was found before stays good; the file itself is kept as it came
    found = scanner.values
    return {name: safe_part(found.get(tag, b"").decode("latin-1").strip("\0 ")) for name, tag in tags.items()}
