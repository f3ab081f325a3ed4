"""DCMTK's `findscu` and pynetdicom's SCU ask the archive."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from support.dcmtk import NO_DELAY
from support.filled import ABOVE, FOUND, fill, small_hospital
from support.network import LOOPBACK
from support.objects import ROOT
from support.programs import serving
from tomowire.services.models import Level, Model

pytestmark = pytest.mark.interop

EVERY = [(model, level) for model in Model for level in model.levels]
OPTIONS = {Model.PATIENT_ROOT: "-P", Model.STUDY_ROOT: "-S", Model.PATIENT_STUDY_ONLY: "-O"}

Matches = dict[str, str]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    data_dir = tmp_path_factory.mktemp("archive") / "data"
    asyncio.run(fill(data_dir, small_hospital()))
    with serving("serve", "--data-dir", data_dir) as archive:
        yield archive.port


@dataclass(frozen=True)
class Run:
    """What `findscu` was answered: the identifiers, and its own words."""

    answers: list[Dataset]
    output: str
    code: int


Findscu = Callable[..., Run]


@pytest.fixture
def findscu(port: int, dcmtk: Callable[[str], Path], tmp_path: Path) -> Findscu:
    """`findscu("-S", "-k", "PatientName", ...)`."""

    def run(*options: str) -> Run:
        command = [dcmtk("findscu"), "-v", "-X", "-od", tmp_path, "-aec", "TOMOWIRE", *options, LOOPBACK, str(port)]
        done = subprocess.run(command, env=NO_DELAY, capture_output=True, check=False, timeout=30)
        answers = [dcmread(path, force=True) for path in sorted(tmp_path.glob("rsp*.dcm"))]
        return Run(answers, (done.stdout + done.stderr).decode(errors="replace"), done.returncode)

    return run


def keys(**wanted: str) -> list[str]:
    return [part for keyword, value in wanted.items() for part in ("-k", f"{keyword}={value}")]


@pytest.mark.parametrize("syntax", ["-xe", "-xi", "-xb"])
@pytest.mark.parametrize(("model", "level"), EVERY)
def test_findscu_asks_at_every_level_of_every_model(findscu: Findscu, model: Model, level: Level, syntax: str) -> None:
    run = findscu(OPTIONS[model], syntax, *keys(QueryRetrieveLevel=level, **wanted(model, level), PatientName=""))
    assert run.code == 0, run.output
    check(model, level, run.answers)
    assert "Received Final Find Response (Success)" in run.output


def wanted(model: Model, level: Level) -> Matches:
    """The keys of a query: those above the level, and that of the level."""
    above = {keyword: key for keyword, key in ABOVE[level].items() if level != model.levels[0]}
    return {**above, level.unique_key: ""}


def check(model: Model, level: Level, answers: list[Dataset]) -> None:
    uids = [answer[level.unique_key].value for answer in answers]
    assert len(uids) == len(set(uids))
    if level == model.levels[0] == Level.STUDY:
        assert set(uids) == {f"{ROOT}.1.{study}" for study in (1, 2, 3, 4)}
    else:
        assert set(uids) == FOUND[level]
    for answer in answers:
        assert (answer.QueryRetrieveLevel, answer.RetrieveAETitle) == (level.value, "TOMOWIRE")
        assert answer.PatientName


def test_findscu_finds_names_in_the_character_set_that_it_asks_in(findscu: Findscu) -> None:
    """DCMTK hands bytes on as they are, here UTF-8."""
    query = keys(QueryRetrieveLevel="STUDY", SpecificCharacterSet="ISO_IR 192", PatientName="山田*", PatientID="")
    (answer,) = findscu("-S", *query).answers
    assert answer.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("key", "value", "studies"),
    [
        ("PatientName", "DOE*", {1, 2}),
        ("PatientName", "m?ller*", {3}),
        ("StudyDate", "20240101-20241231", {1, 3, 4}),
        ("StudyDate", "20250101-", {2}),
        ("ModalitiesInStudy", "MR", {1, 2, 4}),
        ("StudyInstanceUID", f"{ROOT}.1.2\\{ROOT}.1.3", {2, 3}),
        ("AccessionNumber", "a1", set()),
        ("AccessionNumber", "A1", {1}),
        ("PatientID", "%", set()),
    ],
)
def test_findscu_matches(findscu: Findscu, key: str, value: str, studies: set[int]) -> None:
    """PS3.4 C.2.2.2."""
    query = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", key: value}
    answers = findscu("-S", *keys(**query)).answers
    assert {answer.StudyInstanceUID for answer in answers} == {f"{ROOT}.1.{study}" for study in studies}


def test_findscu_gets_what_a_study_counts(findscu: Findscu) -> None:
    names = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "ModalitiesInStudy", "SOPClassesInStudy")
    query = keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=f"{ROOT}.1.1", **dict.fromkeys(names, ""))
    (answer,) = findscu("-S", *query).answers
    assert [answer[name].value for name in names[:2]] == [2, 5]
    assert sorted(answer.ModalitiesInStudy) == ["CT", "MR"]
    assert answer.SOPClassesInStudy == "1.2.840.10008.5.1.4.1.1.7"


def test_findscu_cancels(findscu: Findscu) -> None:
    """It goes on until the final response; whether the archive is quicker than the C-CANCEL is a matter of luck."""
    run = findscu("-S", "--cancel", "1", *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=""))
    assert run.code == 0, run.output
    assert re.search(r"Received Final Find Response \((Success|Cancel.*)\)", run.output), run.output
    assert 1 <= len(run.answers) <= 4


def test_findscu_is_told_what_is_wrong(findscu: Findscu) -> None:
    run = findscu("-S", *keys(QueryRetrieveLevel="SERIES", SeriesInstanceUID=""))
    assert run.answers == []
    assert "DataSetDoesNotMatchSOPClass" in run.output or "0xa900" in run.output.lower(), run.output


@pytest.mark.parametrize(("model", "level"), EVERY)
def test_pynetdicom_asks_at_every_level_of_every_model(
    port: int, pynetdicom: ModuleType, model: Model, level: Level
) -> None:
    answers, statuses = asked(pynetdicom, port, model, {**wanted(model, level), "PatientName": ""}, level)
    check(model, level, answers)
    assert statuses == [0xFF00] * len(answers) + [0x0000]


def test_pynetdicom_is_told_of_a_key_that_is_not_supported(port: int, pynetdicom: ModuleType) -> None:
    query = {"StudyInstanceUID": f"{ROOT}.1.1", "InterpretationText": ""}
    answers, statuses = asked(pynetdicom, port, Model.STUDY_ROOT, query, Level.STUDY)
    assert statuses == [0xFF01, 0x0000]
    assert answers[0].InterpretationText == ""


def test_pynetdicom_is_told_what_is_wrong(port: int, pynetdicom: ModuleType) -> None:
    answers, statuses = asked(pynetdicom, port, Model.STUDY_ROOT, {"PatientID": ""}, Level.PATIENT)
    assert (answers, statuses) == ([], [0xA900])


def asked(
    pynetdicom: ModuleType, port: int, model: Model, keys: Matches, level: Level
) -> tuple[list[Dataset], list[int]]:
    """The identifiers and the statuses that pynetdicom got."""
    query = Dataset()
    query.QueryRetrieveLevel = level.value
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_requested_context(model.find)
    association = entity.associate(LOOPBACK, port, ae_title="TOMOWIRE")
    assert association.is_established
    try:
        responses: list[tuple[Any, Dataset | None]] = [*association.send_c_find(query, model.find)]
    finally:
        association.release()
    return [answer for _, answer in responses if answer is not None], [status.Status for status, _ in responses]
