"""Names for received files, from a template: `{study_instance_uid}/{sop_instance_uid}.dcm`."""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, Final

from tomowire.errors import DataSetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tomowire.aio.streams import Chunk
    from tomowire.services.folder import NameOf
    from tomowire.services.storage_scp import StoreRequest

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
_PIECE: Final = 4096
_MOST_INFLATED: Final = 1 << 20


def safe_part(text: str) -> str:
    """`text` as one part of a path on any system: letters, digits, `.`, `_` and `-`, never empty and never a way out."""
    cleaned = _NOT_SAFE.sub("_", text.strip())[:_LONGEST].strip(".")
    return cleaned or "_"


def name_from_template(template: str) -> NameOf:
    """A naming function for `Folder`. Raises `UsageError` for unknown fields and for templates that lead out of the folder."""
    wanted = _fields(template)
    if "sop_instance_uid" not in wanted and "instance_number" not in wanted:
        raise UsageError("without {sop_instance_uid} or {instance_number} all objects would get the same name")
    parts = template.replace("\\", "/").split("/")
    if template.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"{template!r} is not a path below the folder")
    if any(part.startswith(".") for part in parts):
        # With what a peer sends behind it, it might be called as what is removed at the next start (see `Folder`).
        raise UsageError(f"{template!r} makes hidden files, which are taken for unfinished ones")
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


def is_unique(template: str) -> bool:
    """Whether no two objects can get the same name."""
    return "sop_instance_uid" in _fields(template)


def _fields(template: str) -> set[str]:
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UsageError(f"{template!r}: {error}") from None
    for _, name, specification, conversion in parts:
        if name not in FIELDS:
            raise UsageError(f"unknown field {{{name}}}; known are {', '.join(FIELDS)}")
        if specification or conversion:
            raise UsageError(f"{{{name}}} is text and is taken as it is: write it without ':' and '!'")
    return {str(name) for _, name, _, _ in parts}


def _look_up(transfer_syntax: str, first: Chunk, tags: Mapping[str, int]) -> dict[str, str]:
    """Values from the beginning of the data set; `_` for what is not there or cannot be read."""
    from tomowire.server.index.scanner import HeaderScanner

    # This happens in the event loop. What names are made of stands at the beginning, and a kilobyte may inflate to a megabyte.
    scanner = HeaderScanner(transfer_syntax, most_inflated=_MOST_INFLATED)
    found = scanner.values
    wanted = set(tags.values())
    last = max(wanted)
    try:
        for piece in _pieces(first):
            scanner.feed(piece)
            # The tags of a data set ascend (PS3.5 7.1).
            if found.keys() >= wanted or max(found, default=0) > last:
                break
    except DataSetError:
        pass  # what was found before stays good; the file itself is kept as it came
    return {name: safe_part(found.get(tag, b"").decode("latin-1").strip("\0 ")) for name, tag in tags.items()}


def _pieces(chunk: Chunk) -> Iterator[memoryview]:
    for buffer in chunk.buffers:
        for start in range(0, len(buffer), _PIECE):
            yield buffer[start : start + _PIECE]
