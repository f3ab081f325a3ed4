"""Lists of what the archive holds: in pages, filtered, with what is below each entry added up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from support.objects import ROOT, SECONDARY_CAPTURE, Sample
from tomowire.errors import UsageError
from tomowire.server.index.backend import IndexBackend
from tomowire.server.index.listing import Listing, Page
from tomowire.server.index.reader import Counts
from tomowire.server.index.readers import IndexReaders
from tomowire.server.index.rows import NewRow
from tomowire.server.index.statistics import ModalityStatistics

MODALITY, STUDY_DATE, PATIENT_NAME = 0x00080060, 0x00080020, 0x00100010


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


@pytest.fixture
async def listing(no_leaks: None, backend: IndexBackend) -> AsyncIterator[Listing]:
    backend.open_writer().close()
    readers = IndexReaders(backend)
    yield Listing(readers)
    await readers.close()


def sample(number: int, series: int, study: int, **overrides: tuple[str, str]) -> Sample:
    tags = {"modality": MODALITY, "date": STUDY_DATE, "name": PATIENT_NAME}
    return Sample(
        number,
        series,
        study,
        f"P{study}",
        overrides={0x00080005: ("CS", "ISO_IR 192")} | {tags[name]: text for name, text in overrides.items()},
    )


def store(backend: IndexBackend, samples: Sequence[Sample]) -> None:
    with closing(backend.open_writer()) as writer:
        rows = [NewRow(each.record, 0, 300, 1000 + each.number, bytes(16), each.number, "SENDER") for each in samples]
        for batch, row in enumerate(rows, 1):  # what comes in one batch has no order
            writer.insert(batch, [row])


def remove(backend: IndexBackend, one: Sample) -> None:
    with closing(backend.open_writer()) as writer:
        known = writer.find([one.uid])[one.uid]
        other = NewRow(sample(999, 1, 999).record, 0, 300, 1, b"", 0, "", replaces=known)
        writer.insert(2, [other])


SOME = [
    sample(1, 1, 1, modality=("CS", "CT"), name=("PN", "Müller^Jörg"), date=("DA", "20240101")),
    sample(2, 1, 1, modality=("CS", "CT"), name=("PN", "Müller^Jörg"), date=("DA", "20240101")),
    sample(3, 2, 1, modality=("CS", "SR"), name=("PN", "Müller^Jörg"), date=("DA", "20240101")),
    sample(4, 1, 2, modality=("CS", "MR"), name=("PN", "Goldsmith"), date=("DA", "20240201")),
    sample(5, 1, 3, modality=("CS", ""), name=("PN", "Smith^A"), date=("DA", "20240301")),
]


def studies(page: Page[Any]) -> list[int]:
    return [int(each.study_instance_uid.rpartition(".")[2]) for each in page.entries]


async def test_a_study_and_what_is_below_it(listing: Listing, backend: IndexBackend) -> None:
    store(backend, SOME)
    found = await listing.study(SOME[0].study_uid)
    assert found is not None
    assert (found.patient_id, found.patient_name, found.study_date) == ("P1", "Müller^Jörg", "20240101")
    assert (found.modalities, found.series, found.instances) == (("CT", "SR"), 2, 3)
    assert (found.data_set_bytes, found.received_at) == (1001 + 1002 + 1003, 3)
    of_study = await listing.series({"StudyInstanceUID": found.study_instance_uid})
    assert [(each.modality, each.instances, each.data_set_bytes, each.received_at) for each in of_study.entries] == [
        ("CT", 2, 2003, 2),
        ("SR", 1, 1003, 3),
    ]
    of_series = await listing.instances({"SeriesInstanceUID": of_study.entries[0].series_instance_uid})
    assert [each.sop_instance_uid for each in of_series.entries] == [SOME[0].uid, SOME[1].uid]


async def test_where_an_instance_lies(listing: Listing, backend: IndexBackend) -> None:
    store(backend, SOME)
    found = await listing.instance(SOME[3].uid)
    assert found is not None
    assert (found.sop_class_uid, found.header_size, found.data_set_bytes) == (SECONDARY_CAPTURE, 300, 1004)
    assert (found.received_at, found.received_from, found.checksum) == (4, "SENDER", bytes(16))
    assert found.path.endswith(f"/{SOME[3].study_uid}/{SOME[3].series_uid}/{SOME[3].uid}.dcm")


async def test_a_study_without_a_modality(listing: Listing, backend: IndexBackend) -> None:
    store(backend, SOME)
    found = await listing.study(SOME[4].study_uid)
    assert found is not None
    assert found.modalities == ()


async def test_pages_have_each_entry_once_whatever_goes_meanwhile(listing: Listing, backend: IndexBackend) -> None:
    store(backend, [sample(number, 1, number) for number in range(1, 26)])
    first = await listing.studies(limit=10)
    assert studies(first) == [*range(25, 15, -1)]
    remove(backend, sample(20, 1, 20))  # from the page that was shown; a new study comes
    second = await listing.studies(limit=10, after=first.after)
    assert studies(second) == [*range(15, 5, -1)]
    last = await listing.studies(limit=10, after=second.after)
    assert (studies(last), last.after) == ([5, 4, 3, 2, 1], None)
    assert studies(await listing.studies(limit=1)) == [999]


async def test_a_last_page_that_is_full_says_so(listing: Listing, backend: IndexBackend) -> None:
    store(backend, [sample(number, 1, 1) for number in range(1, 5)])
    first = await listing.instances(limit=2)
    second = await listing.instances(limit=2, after=first.after)
    assert (len(first.entries), len(second.entries), second.after) == (2, 2, None)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [3, 2, 1]),
        ({"PatientName": "smith*"}, [3]),
        ({"PatientName": "*mith*"}, [3, 2]),
        ({"PatientName": "MULLER^jorg"}, [1]),
        ({"PatientID": "P2"}, [2]),
        ({"PatientID": "P1\\P2"}, [2, 1]),
        ({"StudyDate": "20240115-"}, [3, 2]),
        ({"StudyDate": "20240115-", "ModalitiesInStudy": "MR"}, [2]),
        ({"ModalitiesInStudy": "SR"}, [1]),
        ({"StudyInstanceUID": f"{ROOT}.1.3\\{ROOT}.1.1"}, [3, 1]),
        ({"StudyInstanceUID": ""}, [3, 2, 1]),
        ({"PatientName": ""}, [3, 2, 1]),
        ({"PatientName": "' OR 1=1 --%(x)s:x?"}, []),
        ({"PatientName": "\0\ud800"}, []),
        ({"NumberOfStudyRelatedInstances": "3"}, [1]),
    ],
)
async def test_filters_match_as_queries_do(
    listing: Listing, backend: IndexBackend, filters: dict[str, str], expected: list[int]
) -> None:
    store(backend, SOME)
    found = await listing.studies(filters)
    assert (studies(found), found.after) == (expected, None)


async def test_filters_hold_on_every_page(listing: Listing, backend: IndexBackend) -> None:
    modalities = ["CT", "MR"]
    store(backend, [sample(number, 1, number, modality=("CS", modalities[number % 2])) for number in range(1, 21)])
    first = await listing.studies({"ModalitiesInStudy": "CT"}, limit=6)
    second = await listing.studies({"ModalitiesInStudy": "CT"}, limit=6, after=first.after)
    assert studies(first) + studies(second) == [*range(20, 0, -2)]
    assert second.after is None


@pytest.mark.parametrize(
    "filters",
    [
        {"PatientsName": "x"},
        {"": "x"},
        {"Modality": "CT"},  # of a series
        {"ProcedureCodeSequence": "x"},
        {"PatientID": "\\".join("abcdefgh" * 20)},
        {"PatientID": "x" * 2000},
    ],
)
async def test_filters_that_are_none(listing: Listing, filters: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="filter"):
        await listing.studies(filters)


@pytest.mark.parametrize("after", ["", "-1", "x", "1e3", " 5", "9" * 19, "٣", "1;DROP"])
async def test_tokens_that_are_none(listing: Listing, after: str) -> None:
    with pytest.raises(UsageError, match="is not what a page ends with"):
        await listing.studies(after=after)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_pages_have_a_size(listing: Listing, limit: int) -> None:
    with pytest.raises(UsageError, match="1 to 1000"):
        await listing.instances(limit=limit)


@pytest.mark.parametrize(
    "uid", ["", " ", "\\", f"{ROOT}.1.1\\{ROOT}.1.2", f"{ROOT}.1.*", "1.2.3", "\0", "x" * 5000, "\ud800"]
)
async def test_uids_that_name_nothing(listing: Listing, backend: IndexBackend, uid: str) -> None:
    store(backend, SOME)
    assert await listing.study(uid) is None
    assert await listing.one_series(uid) is None
    assert await listing.instance(uid) is None


async def test_a_series_uid_that_two_studies_have(listing: Listing, backend: IndexBackend) -> None:
    one, other = SOME[0], sample(9, 1, 1)
    twin = Sample(9, 1, 4, "P4", overrides={0x0020000E: ("UI", one.series_uid)})
    store(backend, [one, twin])
    assert other.series_uid == one.series_uid
    first, second = await listing.one_series(one.series_uid), await listing.one_series(one.series_uid, twin.study_uid)
    assert first is not None
    assert second is not None
    assert (first.study_instance_uid, second.study_instance_uid) == (one.study_uid, twin.study_uid)


async def test_statistics_that_take_long_are_counted_now_and_then(
    listing: Listing, backend: IndexBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.server.index.statistics._QUICK", 0.0)
    monkeypatch.setattr("tomowire.server.index.statistics._SHARE", 1e9)
    first, second = await asyncio.gather(listing.statistics(), listing.statistics())
    store(backend, SOME)
    assert first is second is await listing.statistics()


async def test_statistics(listing: Listing, backend: IndexBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.server.index.statistics._QUICK", 1e9)
    nothing = await listing.statistics()
    assert (nothing.counts, nothing.data_set_bytes, nothing.modalities) == (Counts(0, 0, 0, 0), 0, ())
    store(backend, SOME)
    found = await listing.statistics()
    assert (found.counts, found.data_set_bytes) == (Counts(3, 3, 4, 5), sum(range(1001, 1006)))
    assert found.modalities == (
        ModalityStatistics("", 1, 1, 1005),
        ModalityStatistics("CT", 1, 2, 2003),
        ModalityStatistics("MR", 1, 1, 1004),
        ModalityStatistics("SR", 1, 1, 1003),
    )
