"""The files of an archive, in the order in which their objects came.

Where the objects of a study name different patients, it is under that of the first; and what is said of a patient, a study or a
series is what its first object says. So an index that is made from files is the same as before only if they are read in that order.
The old index knows it. Without one the times of the files have to say it, and their names where those are the same: then it is at
least one and the same order each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.server.files import ObjectName

if TYPE_CHECKING:
    from tomowire.server.files import DataDirectory
    from tomowire.server.former import FormerIndex

_AT_ONCE: Final = 500

_Arrival = tuple[bool, int, str]
"""Whether the old index does not know it; by what it is told apart then from others of its kind; its path."""


def files_by_arrival(directory: DataDirectory, former: FormerIndex) -> Iterator[str]:
    """The paths, relative to the data directory, of all files below `objects/`: those of the study that came first come first.

    All of a study follow each other. Those that the archive would not have named so come at the beginning. In memory are the paths
    of one study, and of the folders of all of them. Raises `OSError`.
    """
    first: dict[str, _Arrival] = {}
    for paths in _batches(directory.object_files()):
        names = _names_of(paths)
        yield from (path for path in paths if path not in names)
        for each in _arrivals(directory, former, names):
            study = _study_folder(each[-1])
            first[study] = min(each, first.get(study, each))
    for study in sorted(first, key=first.__getitem__):
        batches = _batches(directory.object_files(study))
        found = [each for paths in batches for each in _arrivals(directory, former, _names_of(paths))]
        yield from (path for *_, path in sorted(found))


def _names_of(paths: Sequence[str]) -> dict[str, ObjectName]:
    return {path: name for path in paths if (name := ObjectName.parse(path)) is not None}


def _arrivals(directory: DataDirectory, former: FormerIndex, names: Mapping[str, ObjectName]) -> Iterator[_Arrival]:
    known = former.numbers(list(names.values()))
    for path, name in names.items():
        number = known.get(name)
        yield (False, number, path) if number is not None else (True, _modified(directory.root / path), path)


def _modified(path: Path) -> int:
    """Nanoseconds since 1970; 0 for what cannot be asked, and so cannot be read either."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _study_folder(path: str) -> str:
    """Of the path of an object's file: `objects/<ab>/<study>/<series>/<instance>.dcm`."""
    return path.rsplit("/", 2)[0]


def _batches(paths: Iterable[str]) -> Iterator[list[str]]:
    paths = iter(paths)
    while batch := list(islice(paths, _AT_ONCE)):
        yield batch
