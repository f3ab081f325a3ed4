"""PS3.4 C.2.2.1.3: an optional key that a peer does not know restricts nothing; its answers show that."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from support.data_sets import EXPLICIT
from tomowire import Query
from tomowire.services.confirming import Confirmation
from tomowire.services.identifiers import decode


def data_set(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, each in values.items():
        setattr(made, keyword, each)
    return made


CONFIRMED: list[tuple[str, Any, Any]] = [
    ("StudyInstanceUID", "1.2.3", "1.2.3"),
    ("StudyInstanceUID", ["1.2.3", "1.2.4"], "1.2.4"),  # C.2.2.2.2, list of UID matching
    ("ModalitiesInStudy", "CT", ["SR", "CT"]),  # C.3.4: any of its values
    ("ModalitiesInStudy", ["CT", "MR"], "MR"),
    ("StudyDescription", "*", None),  # C.2.2.2.3: universal
    ("StudyDescription", None, None),
    ("PatientName", "*", None),
    ("StudyDescription", "HEAD*", "Head and neck"),  # C.2.2.2.1: case may be looked away from
    ("StudyDescription", "?chädel", "Schadel "),
    ("StudyDescription", "Stra?e ?부 A?1", "STRAßE 복부 a™1"),
    ("StudyDescription", "a[b]", "a[b]"),  # C.2.2.2.4: no other characters are wildcards
    ("StudyDate", "20240229", "20240229"),
    ("StudyDate", "20240101-20241231", "20240229"),  # C.2.2.2.5
    ("StudyDate", "20240229-", "20240229"),
    ("StudyDate", "-20240229", "20240229"),
    ("StudyDate", "20240101-20241231", "2024.02.29"),  # ACR-NEMA's form: the peer's affair
    ("StudyTime", "1000-1100", "153000"),  # with a date it need not be in between (C.2.2.2.5)
    ("PatientName", "Muller^J*", "Müller^Jörg"),
    ("PatientName", "yamada*", "山田^太郎=Yamada^Tarou"),
    ("Rows", 512, 512),
]

DOUBTFUL: list[tuple[str, Any, Any]] = [
    ("SeriesInstanceUID", "1.2.3", None),
    ("StudyInstanceUID", "1.2.3", "1.2.34"),
    ("ModalitiesInStudy", "CT", None),
    ("ModalitiesInStudy", "CT", ["SR", "MR"]),
    ("StudyDescription", "HEAD?", "Head and neck"),
    ("StudyDescription", "a[b]", "ab"),
    ("StudyDate", "20240229", "20240301"),
    ("StudyDate", "20240101-20241231", "20250101"),
    ("StudyDate", "-20240228", "20240229"),
    ("StudyDate", "20240229", None),
    ("PatientName", "Muller^J*", None),
    ("StudyTime", "1000-1100", None),
]


@pytest.mark.parametrize(("keyword", "asked", "answered"), CONFIRMED)
def test_confirmed(keyword: str, asked: Any, answered: Any) -> None:
    assert Confirmation(data_set(**{keyword: asked})).doubts(data_set(**{keyword: answered})) == []


@pytest.mark.parametrize(("keyword", "asked", "answered"), DOUBTFUL)
def test_doubtful(keyword: str, asked: Any, answered: Any) -> None:
    confirmation = Confirmation(data_set(**{keyword: asked}))
    assert confirmation.doubts(data_set(**{keyword: answered})) == [keyword]
    if answered is None:
        assert confirmation.doubts(Dataset()) == [keyword]


def test_items_of_sequences() -> None:
    asked = Query.studies().where("ProcedureCodeSequence", {"CodeValue": "A"}).dataset()
    assert Confirmation(asked).doubts(data_set(StudyInstanceUID="1.2")) == ["ProcedureCodeSequence"]
    assert Confirmation(asked).doubts(data_set(ProcedureCodeSequence=[data_set(CodeValue="A")])) == []
    anything = Query.studies().where("ProcedureCodeSequence", {"CodeValue": ""}).dataset()
    assert Confirmation(anything).doubts(Dataset()) == []


def test_what_says_nothing_and_what_may_be_missing() -> None:
    asked = Query.series("1.2.3").series_uid("1.2.3.4").dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    answer = data_set(SeriesInstanceUID="1.2.3.4")
    assert Confirmation(asked).doubts(answer) == ["StudyInstanceUID"]
    assert Confirmation(asked, ["StudyInstanceUID"]).doubts(answer) == []
    answer.StudyInstanceUID = "1.2.99"  # what is there has to be right
    assert Confirmation(asked, ["StudyInstanceUID"]).doubts(answer) == ["StudyInstanceUID"]


def test_what_cannot_be_read_confirms_nothing() -> None:
    """PS3.5 6.2 has no such VR."""
    answer = decode(EXPLICIT.element(0x00080061, "CW", b"CT"), EXPLICIT.transfer_syntax)
    assert Confirmation(data_set(ModalitiesInStudy="CT")).doubts(answer) == ["ModalitiesInStudy"]
    assert Confirmation(data_set(ModalitiesInStudy="CT"), ["ModalitiesInStudy"]).doubts(answer) == ["ModalitiesInStudy"]


def test_private_keys_go_by_their_tag() -> None:
    asked = Query.studies().where(0x00291010, "zzz").dataset()
    assert Confirmation(asked).doubts(Dataset()) == ["(0029,1010)"]
