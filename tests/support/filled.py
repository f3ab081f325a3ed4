"""Archives that hold something before they are opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from support.objects import ROOT, Sample, chunks_of, stream
from tomowire.server.archive import ArchiveStorage
from tomowire.services.models import Level


async def fill(root: Path, samples: Iterable[Sample], *, index_url: str | None = None) -> None:
    """Store objects in the data directory `root`, which nobody uses."""
    async with ArchiveStorage(root, fsync=False, index_url=index_url) as storage:
        for sample in samples:
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))


def small_hospital() -> list[Sample]:
    """Three patients, four studies, six series and eleven instances, two patients with names that are not ASCII."""
    jane = {0x00100010: ("PN", "Doe^Jane")}
    joerg = {0x00080005: ("CS", "ISO_IR 192"), 0x00100010: ("PN", "Müller^Jörg")}
    yamada = {0x00080005: ("CS", "ISO_IR 192"), 0x00100010: ("PN", "Yamada^Tarou=山田^太郎=やまだ^たろう")}
    ct, mr = {0x00080060: ("CS", "CT")}, {0x00080060: ("CS", "MR")}
    return [
        *(Sample(number, 1, 1, "JANE", overrides=jane | ct) for number in (1, 2, 3)),
        *(Sample(number, 2, 1, "JANE", overrides=jane | mr) for number in (4, 5)),
        Sample(6, 1, 2, "JANE", overrides=jane | mr | {0x00080020: ("DA", "20250101")}),
        *(Sample(number, 1, 3, "JOERG", overrides=joerg | ct) for number in (7, 8)),
        Sample(9, 2, 3, "JOERG", overrides=joerg | ct),
        *(Sample(number, 1, 4, "YAMADA", overrides=yamada | mr) for number in (10, 11)),
    ]


ABOVE: dict[Level, dict[str, str]] = {
    Level.PATIENT: {},
    Level.STUDY: {"PatientID": "JANE"},
    Level.SERIES: {"PatientID": "JANE", "StudyInstanceUID": f"{ROOT}.1.1"},
    Level.IMAGE: {"PatientID": "JANE", "StudyInstanceUID": f"{ROOT}.1.1", "SeriesInstanceUID": f"{ROOT}.2.1.1"},
}
"""Unique keys above each level, and, in `FOUND`, what the small hospital has there."""

FOUND = {
    Level.PATIENT: {"JANE", "JOERG", "YAMADA"},
    Level.STUDY: {f"{ROOT}.1.1", f"{ROOT}.1.2"},
    Level.SERIES: {f"{ROOT}.2.1.1", f"{ROOT}.2.1.2"},
    Level.IMAGE: {f"{ROOT}.3.1", f"{ROOT}.3.2", f"{ROOT}.3.3"},
}
