"""What is sent: folders of DICOM files, made when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from objects import Template

_INSTANCES_PER_STUDY: Final = 500
_SCATTER: Final = 3**18  # has no factor in common with a power of ten


@dataclass(frozen=True, slots=True)
class Workload:
    """A number of objects of one size, in one study of `series` series."""

    name: str
    title: str
    objects: int
    series: int = 1
    rows: int = 512
    columns: int = 512
    frames: int = 1

    @property
    def pixel_bytes(self) -> int:
        """The pixel data of all objects together."""
        return self.objects * self.rows * self.columns * self.frames * 2

    def write(self, folder: Path) -> None:
        """Make the folder and its files."""
        folder.mkdir(parents=True)
        template = Template(self.rows, self.columns, self.frames)
        for number in range(self.objects):
            series = number * self.series // self.objects
            template.write(folder / f"{number:06}.dcm", study=0, series=series, instance=number)


FULL: Final = (
    Workload("small", "6000 objects of 4 kB", objects=6000, series=3, rows=24, columns=44),
    Workload("ct", "800 CT of 526 kB", objects=800, series=2),
    Workload("large", "one object of 1.07 GB", objects=1, frames=2048),
)
TINY: Final = (
    Workload("small", "30 objects of 4 kB", objects=30, series=3, rows=24, columns=44),
    Workload("ct", "4 CT of 526 kB", objects=4, series=2),
    Workload("large", "one object of 8 MB", objects=1, frames=16),
)
ONE_OBJECT: Final = Workload("one", "one object of 4 kB", objects=1, rows=24, columns=44)


def write_window(folder: Path, first: int, objects: int) -> None:
    """Objects `first` to `first + objects` of an endless supply of 4 kB: each 500 have a patient and a study of their own."""
    folder.mkdir(parents=True)
    template = Template(ONE_OBJECT.rows, ONE_OBJECT.columns, ONE_OBJECT.frames)
    for number in range(first, first + objects):
        study = number // _INSTANCES_PER_STUDY
        template.write(
            folder / f"{number:07}.dcm",
            study=_scattered(study),
            series=_scattered(2 * study + number % 2),
            instance=_scattered(number),
        )


def _scattered(number: int) -> int:
    """Another number for each, in no order: UIDs that grow one by one are what an index likes best, and not what it gets."""
    return number * _SCATTER % 1_000_000_000
