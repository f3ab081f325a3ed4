"""The audit trail as a file: DICOM's messages in one XML document, or a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree import ElementTree

from tomowire.server.audit.messages import date_time
from tomowire.server.audit.trail import Entry

MEDIA_TYPES: Final = {"jsonl": "application/jsonl", "csv": "text/csv", "xml": "application/xml"}
"""By the name of the format."""

_COLUMNS: Final = (
    "number",
    "recorded_at",
    "event",
    "outcome",
    "actor",
    "source",
    "patients",
    "studies",
    "reason",
    "hash",
    "message",
)
HEADS: Final = {"csv": ",".join(_COLUMNS) + "\r\n", "xml": '<?xml version="1.0" encoding="UTF-8"?>\n<AuditMessages>\n'}
FEET: Final = {"xml": "</AuditMessages>\n"}

_PATIENT: Final = "1"
_STUDY: Final = "110180"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def messages_of(page: Sequence[Entry]) -> str:
    """The messages, one after the other."""
    return "".join(f"{each.message}\n" for each in page)


def rows_of(page: Sequence[Entry]) -> str:
    """Rows of a table (RFC 4180). Several patients or studies of an event have blanks between them in their column."""
    text = io.StringIO()
    writer = csv.writer(text)
    for entry in page:
        writer.writerow([_cell(each) for each in _row(entry)])
    return text.getvalue()


def _row(entry: Entry) -> Iterator[object]:
    yield entry.number
    yield date_time(entry.recorded_at)
    yield entry.event
    yield entry.outcome
    yield entry.actor
    yield entry.source
    try:
        message = ElementTree.fromstring(entry.message)
    except ElementTree.ParseError:  # somebody has changed it: the rest of the row says what was there
        yield from ("", "", "")
    else:
        objects = message.findall("ParticipantObjectIdentification")
        yield " ".join(_id(each) for each in objects if each.get("ParticipantObjectTypeCode") == _PATIENT)
        yield " ".join(_id(each) for each in objects if _kind(each) == _STUDY)
        yield message.findtext("EventIdentification/EventOutcomeDescription", "")
    yield entry.hash.hex()
    yield entry.message


def _id(described: ElementTree.Element) -> str:
    return described.get("ParticipantObjectID", "")


def _kind(described: ElementTree.Element) -> str | None:
    code = described.find("ParticipantObjectIDTypeCode")
    return code.get("csd-code") if code is not None else None


def _cell(value: object) -> object:
    """A spreadsheet calculates what begins like a formula, whoever on the network has written it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
