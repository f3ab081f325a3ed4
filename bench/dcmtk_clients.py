"""DCMTK's SCUs of C-FIND, C-GET and C-MOVE, and how to see that they got everything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from arrivals import Arrived
from processes import LOOPBACK, ProgramFailed
from programs import MAXIMUM_PDU, system_program

DESTINATION: Final = "DESTINATION"
"""The AE title that C-MOVE sends to."""

_PDU: Final = ("-pdu", str(MAXIMUM_PDU))
_RETURNED: Final = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "Rows", "Columns")
_PENDING: Final = re.compile(r"Received Find Response (\d+) \(Pending\)")
_FOUND_ALL: Final = "Received Final Find Response (Success)"


def findscu(ae_title: str, port: int, study: str, series: str) -> list[str]:
    """All images of a series. What it says are lines with the numbers of the answers; the answers are not printed."""
    keys = ["QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study}", f"SeriesInstanceUID={series}", *_RETURNED]
    return [*_client("findscu", ae_title), "-v", "-sr", *_keys(keys), LOOPBACK, str(port)]


def getscu(ae_title: str, port: int, study: str, folder: Path) -> list[str]:
    """A study, written to `folder` as it comes."""
    return [*_client("getscu", ae_title), "+B", "-od", str(folder), *_keys(_whole(study)), LOOPBACK, str(port)]


def movescu(ae_title: str, port: int, study: str) -> list[str]:
    """A study, to `DESTINATION`."""
    return [*_client("movescu", ae_title), "-aem", DESTINATION, *_keys(_whole(study)), LOOPBACK, str(port)]


def check_found(title: str, log: Path, answers: int) -> None:
    """Raises `ProgramFailed` unless `findscu`, whose output is in `log`, got that many answers and Success."""
    found = 0
    with log.open(errors="replace") as lines:
        last = ""
        for line in lines:
            if match := _PENDING.search(line):
                found = int(match[1])
            elif _FOUND_ALL in line:
                last = line
    if found != answers or not last:
        raise ProgramFailed(f"{title}: {found} answers instead of {answers}, {'Success' if last else 'and no Success'}")


def check_retrieved(title: str, arrived: Arrived, objects: int, pixel_bytes: int) -> None:
    """Raises `ProgramFailed` unless every object is there, with at least its pixels."""
    if arrived.objects != objects or arrived.bytes < pixel_bytes:
        raise ProgramFailed(f"{title}: {arrived.objects} objects in {arrived.bytes} bytes instead of {objects}")


def _client(name: str, ae_title: str) -> list[str]:
    return [system_program(name, "dcmtk"), "-S", "-aec", ae_title, *_PDU]


def _whole(study: str) -> tuple[str, ...]:
    return "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"


def _keys(keys: Iterable[str]) -> list[str]:
    return [part for key in keys for part in ("-k", key)]
