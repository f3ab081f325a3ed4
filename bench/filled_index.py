"""Archives that hold many objects by their index alone: rows are written as the archive writes them, and there are no files."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from workloads import ONE_OBJECT

from tomowire import Query
from tomowire.server.belonging import mark_objects
from tomowire.server.files import DataDirectory
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.backend import backend_for
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.rows import NewRow
from tomowire.server.index.scanner import scan
from tomowire.server.index.text import normalize_person_name
from tomowire.services.dicom_file import inspect

ALIKE: Final = 20
"""Studies that the queries below find, however many others there are."""

_BATCH: Final = 1000
_SERIES_PER_STUDY: Final = 2
_SYLLABLES: Final = ("ba", "der", "gor", "hel", "kin", "la", "mo", "nel", "pe", "ros", "san", "tor", "val", "wes", "zu")
_GIVEN: Final = ("Anna", "Ben", "Carla", "David", "Elena", "Frank", "Greta", "Hugo", "Ines", "Jonas", "Kim", "Lena")
_MODALITIES: Final = ("CT", "CT", "MR", "CR", "CT", "US", "MR")
_ALIKE_NAMES: Final = ("Smith", "Goldsmith", "Smith", "Blacksmith")

# What each query finds, at whatever size.
QUERIES: Final = (
    ("patient ID", Query.studies().patient_id("ALIKE07"), 1),
    ("name `Smith*`", Query.studies().patient_name("Smith*"), ALIKE // 2),
    ("name `*mith*`", Query.studies().patient_name("*mith*"), ALIKE),
    ("ten days, CT", Query.studies().study_date("20240301", "20240310").modality("CT"), ALIKE // 2),
)


def write_hospital(
    data_dir: Path, template: InstanceRecord, instances: int, per_study: int, index_url: str | None = None
) -> None:
    """Make the data directory of an archive with that many objects, their index there or in the database at `index_url`: each study
    has a patient of its own and two series."""
    studies = instances // per_study
    if studies < ALIKE:
        raise ValueError(f"{instances} objects are too few")
    _write(
        data_dir,
        itertools.chain.from_iterable(_study(template, number, studies, per_study) for number in range(studies)),
        index_url,
    )


def write_long_series(data_dir: Path, template: InstanceRecord, *instances: int) -> list[tuple[str, str]]:
    """Make the data directory of an archive with a series of each length; gives their Study and Series Instance UIDs."""
    uids = [(_uid(1, number), _uid(2, number)) for number in range(len(instances))]
    records = [
        replace(
            template,
            study=replace(template.study, study_instance_uid=study),
            series=replace(template.series, series_instance_uid=series),
        )
        for study, series in uids
    ]
    of_each = itertools.chain.from_iterable(itertools.repeat(*each) for each in zip(records, instances, strict=True))
    _write(data_dir, map(_instance, of_each, itertools.count()))
    return uids


def record_of_a_file(work_dir: Path) -> InstanceRecord:
    """What the index keeps of one of the benchmark's small objects."""
    folder = work_dir / "one"
    ONE_OBJECT.write(folder)
    (path,) = folder.iterdir()
    file = inspect(path)
    data_set = path.read_bytes()[file.offset :]
    shutil.rmtree(folder)
    return instance_record(scan(file.transfer_syntax_uid, [data_set]))


def _write(data_dir: Path, records: Iterable[InstanceRecord], index_url: str | None = None) -> None:
    data_dir.mkdir(exist_ok=True)
    writer = backend_for(index_url, data_dir, fsync=False).open_writer()
    try:
        rows = map(_row, records, itertools.count())
        for number in itertools.count(1):
            batch = list(itertools.islice(rows, _BATCH))
            if not batch:
                break
            writer.insert(number, batch)
        with DataDirectory.open_empty(data_dir.absolute(), fsync=False) as directory:
            mark_objects(directory, writer.archive_id)  # or an archive would ask whether the disk is mounted
    finally:
        writer.close()


def _row(record: InstanceRecord, number: int) -> NewRow:
    return NewRow(record, 0, 350, 4000, number.to_bytes(16, "big"), 1_700_000_000_000_000 + number, "MODALITY")


def _study(template: InstanceRecord, number: int, studies: int, per_study: int) -> Iterator[InstanceRecord]:
    # Those that are found lie between others, in every part of the index.
    apart = studies // ALIKE
    alike = number // apart if number % apart == 0 and number // apart < ALIKE else None
    random = Random(number)
    if alike is None:
        patient_id = f"PAT{random.randrange(10**9):09}-{number}"
        name = "".join(random.choices(_SYLLABLES, k=3)).title()
        date = f"{random.randint(2008, 2023)}{random.randint(1, 12):02}{random.randint(1, 28):02}"
        modality = random.choice(_MODALITIES)
    else:
        patient_id, name = f"ALIKE{alike:02}", _ALIKE_NAMES[alike % len(_ALIKE_NAMES)]
        date, modality = f"202403{alike // 2 + 1:02}", "CT" if alike % 2 else "MR"
    name = f"{name}^{random.choice(_GIVEN)}"
    record = replace(
        template,
        patient=replace(
            template.patient,
            patient_id=patient_id,
            patient_name=name,
            patient_name_normalized=normalize_person_name(name),
        ),
        study=replace(
            template.study, study_instance_uid=_uid(1, number), study_date=date, accession_number=f"A{number:07}"
        ),
    )
    for series in range(_SERIES_PER_STUDY):
        of_series = replace(
            record,
            series=replace(
                record.series,
                series_instance_uid=_uid(2, number * _SERIES_PER_STUDY + series),
                series_number=series + 1,
                series_date=date,
                modality=modality,
            ),
        )
        for instance in range(series * per_study // _SERIES_PER_STUDY, (series + 1) * per_study // _SERIES_PER_STUDY):
            yield _instance(of_series, number * per_study + instance)


def _instance(record: InstanceRecord, number: int) -> InstanceRecord:
    instance = replace(record.instance, sop_instance_uid=_uid(3, number), instance_number=number)
    return replace(record, instance=instance)


def _uid(level: int, number: int) -> str:
    """Another UID for each, in no order."""
    return f"2.25.{level}{number * 3**18 % 10**9:034}"
