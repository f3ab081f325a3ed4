"""The oldest studies go when there is too much or they are too old, protected ones stay, and looking costs next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.objects import Sample, chunks_of, stream
from support.places import open_storage
from support.stored import contents
from tomowire.server import setbacks
from tomowire.server.archive import ArchiveStorage
from tomowire.server.incoming import DuplicatePolicy, Outcome
from tomowire.server.index import ages
from tomowire.server.protection import Protection
from tomowire.server.quotas import BY, Quotas
from tomowire.server.settings import QuotaSettings

SIZE = 10_000
STUDIES = [Sample(number, study=number, size=SIZE, patient_id=f"P{number}") for number in range(1, 6)]
FAR_AWAY = 3600.0


class Clock:
    """Seconds since 1970: the real ones and `ahead`, or always `at`."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.at: float | None = None

    def __call__(self) -> float:
        return time.time() + self.ahead if self.at is None else self.at


class Watched(Quotas):
    """Says when it has looked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.looked = asyncio.Event()

    async def enforce(self) -> int:
        count = await super().enforce()
        self.looked.set()
        return count


async def keep(storage: ArchiveStorage, *samples: Sample) -> None:
    for sample in samples:  # one after the other: their order is what these tests are about
        await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))


@pytest.fixture
async def storage(tmp_path: Path, each_index: str) -> AsyncIterator[ArchiveStorage]:
    async with open_storage(tmp_path, fsync=False) as storage:
        await keep(storage, *STUDIES)
        yield storage


def studies_left(storage: ArchiveStorage) -> list[int]:
    uids = contents(storage.root)
    return [sample.study for sample in STUDIES if sample.uid in uids]


def quotas(storage: ArchiveStorage, clock: Clock | None = None, **limits: float) -> Quotas:
    settings = QuotaSettings(**({"every": FAR_AWAY, "grace": 0.0} | limits))
    return Quotas(settings, storage.records, storage.deletion, now=clock or Clock())


async def enforce(watching: Quotas, storage: ArchiveStorage) -> int:
    storage.deletion.listeners.append(watching._shrank)
    return await watching.enforce()


async def test_what_nobody_has_foreseen_does_not_end_it(
    storage: ArchiveStorage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setbacks, "_FIRST_WAIT", 0.01)
    looks = 0

    class Surprised(Watched):
        async def enforce(self) -> int:
            nonlocal looks
            looks += 1
            if looks <= 2:
                raise ZeroDivisionError
            return await super().enforce()

    settings = QuotaSettings(every=0.01, bytes=int(3.5 * SIZE), grace=0.0)
    async with Surprised(settings, storage.records, storage.deletion, now=Clock()) as watching:
        async with asyncio.timeout(30):
            await watching.looked.wait()
            watching.looked.clear()
            await watching.looked.wait()
        assert watching.setbacks.in_a_row == 0
    assert studies_left(storage) == [3, 4, 5]
    assert caplog.text.count("looking after the quota has failed, and is tried again") == 2
    assert "ZeroDivisionError" in caplog.text


async def test_too_many_bytes_take_the_oldest_studies(storage: ArchiveStorage) -> None:
    heard: list[str] = []
    storage.deletion.listeners.append(lambda deleted, by, address: heard.append(f"{deleted.study_instance_uid} {by}"))
    assert await enforce(quotas(storage, bytes=int(3.5 * SIZE)), storage) == 2
    assert studies_left(storage) == [3, 4, 5]
    assert heard == [f"{STUDIES[number].study_uid} {BY}" for number in (0, 1)]


async def test_a_study_is_as_old_as_its_last_object(storage: ArchiveStorage) -> None:
    await keep(storage, Sample(99, study=1, size=SIZE, patient_id="P1"))
    assert await enforce(quotas(storage, bytes=int(5.5 * SIZE)), storage) == 1
    assert studies_left(storage) == [1, 3, 4, 5]


async def test_protected_studies_stay(storage: ArchiveStorage, caplog: pytest.LogCaptureFixture) -> None:
    protection = Protection(storage.records)
    for number in (0, 2):
        await protection.protect(STUDIES[number].study_uid)
    watching = quotas(storage, bytes=int(2.5 * SIZE))
    assert await enforce(watching, storage) == 3
    assert studies_left(storage) == [1, 3]
    watching = quotas(storage, bytes=SIZE)
    assert await enforce(watching, storage) == 0
    assert await watching.enforce() == 0
    assert errors(caplog) == [
        "the archive holds more than its quota, and all studies are protected: nothing can be deleted"
    ]
    assert "protected" in watching.trouble


async def test_no_study_goes_for_a_quota_that_protected_studies_alone_exceed(
    storage: ArchiveStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """It could not be kept if all went, and each that comes would go at once. What is too old goes all the same."""
    protection = Protection(storage.records)
    for number in (0, 1):
        await protection.protect(STUDIES[number].study_uid)
    clock = Clock()
    watching = quotas(storage, clock, bytes=int(1.5 * SIZE), age=600.0)
    assert await enforce(watching, storage) == 0
    assert await watching.enforce() == 0
    assert studies_left(storage) == [1, 2, 3, 4, 5]
    [text] = errors(caplog)
    assert "protected studies alone hold " in text
    assert "no study goes to make room" in text
    assert watching.trouble in text
    assert watching.excess == (watching.bytes or 0) - int(1.5 * SIZE)
    assert watching._until_next_look == FAR_AWAY
    await protection.unprotect(STUDIES[0].study_uid)
    assert await watching.enforce() == 4
    assert (studies_left(storage), watching.trouble) == ([2], "")
    clock.ahead = 601.0
    await protection.unprotect(STUDIES[1].study_uid)
    assert await watching.enforce() == 1


async def test_what_is_protected_meanwhile_is_seen_before_more_goes(storage: ArchiveStorage) -> None:
    """The list of the oldest studies is of use for long; who protects some of them meanwhile is heard before the next one goes."""
    watching = quotas(storage, bytes=int(3.5 * SIZE))
    assert await enforce(watching, storage) == 2
    protection = Protection(storage.records)
    await keep(storage, *(Sample(number, study=number, size=SIZE) for number in range(101, 105)))
    for number in range(101, 105):
        await protection.protect(Sample(number, study=number).study_uid)
    assert await watching.enforce() == 0
    assert studies_left(storage) == [3, 4, 5]
    assert "protected studies alone" in watching.trouble


async def test_what_is_too_old_goes_though_protected_studies_alone_exceed_the_quota(storage: ArchiveStorage) -> None:
    await Protection(storage.records).protect(STUDIES[0].study_uid)
    clock = Clock()
    watching = quotas(storage, clock, bytes=1, age=600.0)
    assert await enforce(watching, storage) == 0
    clock.ahead = 601.0
    assert await watching.enforce() == 4
    assert studies_left(storage) == [1]


async def test_what_other_limits_would_take_is_foreseen(storage: ArchiveStorage) -> None:
    clock = Clock()
    watching = quotas(storage, clock)
    total = sum(study.bytes for study in (await storage.records.read(ages.oldest_studies))[1])
    assert await watching.foresee(QuotaSettings(bytes=total, age=600.0)) is None
    assert await watching.foresee(QuotaSettings()) is None
    fewer = await watching.foresee(QuotaSettings(bytes=total - 1))
    assert fewer is not None
    assert fewer.takes
    assert "1 bytes too many" in str(fewer)
    assert "protected studies hold 0 bytes" in str(fewer)
    await Protection(storage.records).protect(STUDIES[0].study_uid)
    hopeless = await watching.foresee(QuotaSettings(bytes=1))
    assert hopeless is not None
    assert not hopeless.takes
    assert f"protected studies alone hold {total // 5} bytes" in str(hopeless)
    clock.ahead = 601.0
    old = await watching.foresee(QuotaSettings(age=600.0))
    assert old is not None
    assert (old.takes, "4 studies are older than quota.age" in str(old)) == (True, True)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "ERROR"]


async def newest(storage: ArchiveStorage) -> float:
    """When the last object came, in seconds since 1970."""
    _, listed = await storage.records.read(ages.oldest_studies)
    return listed[-1].last_received / 1e6


async def oldest(storage: ArchiveStorage) -> float:
    """When the last object of the oldest study came, in seconds since 1970."""
    _, listed = await storage.records.read(ages.oldest_studies)
    return listed[0].last_received / 1e6


async def test_what_is_being_received_does_not_go_to_make_room(
    storage: ArchiveStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender was told Success for what came, and will not send it again. What came before goes, however much there is."""
    clock = Clock()
    watching = quotas(storage, clock, bytes=1, grace=600.0)
    assert await enforce(watching, storage) == 0
    assert (studies_left(storage), watching.excess) == ([1, 2, 3, 4, 5], (watching.bytes or 0) - 1)
    await keep(storage, Sample(99, study=1, size=SIZE, patient_id="P1"))
    assert await watching.enforce() == 0
    assert len(contents(storage.root)) == 6
    assert [text.partition(":")[0] for text in errors(caplog)] == [
        "the archive holds more than its quota, and each study that may go got an object within the last 600 seconds (quota.grace)"
    ]
    last = await newest(storage)
    clock.at = last + 600.0 - 0.0001
    assert await watching.enforce() == 4
    assert studies_left(storage) == [1]
    assert watching.trouble
    clock.at = last + 600.0 + 0.0001
    assert await watching.enforce() == 1
    assert contents(storage.root) == {}
    assert (watching.trouble, watching.excess) == ("", 0)
    assert len(errors(caplog)) == 1


async def test_what_is_sent_again_does_not_go_to_make_room(storage: ArchiveStorage) -> None:
    """Its objects were told Success a moment ago, though nothing of it is new: it is the next one that goes."""
    clock = Clock()
    clock.at = await newest(storage) + 600.0001
    watching = quotas(storage, clock, bytes=int(4.5 * SIZE), grace=600.0)
    again = await storage.ingest.receive(STUDIES[0].incoming(), stream(chunks_of(STUDIES[0].data_set)))
    assert again.outcome is Outcome.IDENTICAL
    watching.received(again, SIZE)
    assert await enforce(watching, storage) == 1
    assert studies_left(storage) == [1, 3, 4, 5]


async def test_what_seems_to_come_from_the_future_has_no_grace(storage: ArchiveStorage) -> None:
    """The clock was set back: nobody knows when it came, and a disk is not to be filled for years."""
    clock = Clock()
    clock.at = await oldest(storage) - 1000
    assert await enforce(quotas(storage, clock, bytes=int(4.5 * SIZE), grace=600.0), storage) == 1
    assert studies_left(storage) == [2, 3, 4, 5]


@pytest.mark.parametrize("ahead", [-36000.0, 36000.0])
async def test_a_clock_that_is_set_neither_prolongs_nor_ends_the_grace_of_what_just_came(
    storage: ArchiveStorage, ahead: float
) -> None:
    clock, passed = Clock(), Clock()
    passed.at = 1000.0
    settings = QuotaSettings(bytes=int(4.5 * SIZE), every=FAR_AWAY, grace=600.0)
    watching = Quotas(settings, storage.records, storage.deletion, now=clock, clock=passed)
    for sample in STUDIES:
        again = await storage.ingest.receive(sample.incoming(), stream(chunks_of(sample.data_set)))
        watching.received(again, SIZE)
    clock.ahead = ahead
    passed.at += 599.9
    assert await enforce(watching, storage) == 0
    assert "quota.grace" in watching.trouble
    passed.at += 0.2
    assert await watching.enforce() == 1
    assert studies_left(storage) == [2, 3, 4, 5]
    assert not watching._lately


@pytest.mark.parametrize("size", [SIZE, 10 * SIZE])
async def test_what_replaces_the_newest_object_is_counted(tmp_path: Path, each_index: str, size: int) -> None:
    """SQLite gives it the key of the one that went."""
    async with open_storage(tmp_path, fsync=False, policy=DuplicatePolicy.REPLACE) as storage:
        await keep(storage, *STUDIES)
        watching = quotas(storage, bytes=int(12.5 * SIZE))
        assert await enforce(watching, storage) == 0
        other = replace(STUDIES[-1], content="other", size=size)
        watching.received(
            await storage.ingest.receive(other.incoming(), stream(chunks_of(other.data_set))), len(other.data_set)
        )
        assert await watching.enforce() == (2 if size > SIZE else 0)
        exact, _ = await storage.records.read(ages.oldest_studies)
        assert watching.bytes == exact.bytes


async def test_a_deletion_ends_the_trouble_and_new_growth_is_looked_at(storage: ArchiveStorage) -> None:
    clock = Clock()
    watching = quotas(storage, clock, bytes=int(4.5 * SIZE), grace=600.0)
    assert await enforce(watching, storage) == 0
    await storage.deletion.study(STUDIES[0].study_uid)
    await asyncio.sleep(0)  # the deletion is heard of in the next turn
    assert (watching.trouble, watching.excess) == ("", 0)


async def test_each_time_that_the_quota_cannot_be_kept_is_told(
    storage: ArchiveStorage, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    watching = quotas(storage, clock, bytes=int(5.5 * SIZE), grace=600.0)
    assert await enforce(watching, storage) == 0
    for number in (1, 2):
        assert await watching.enforce() == 0
        assert watching.trouble == ""
        await keep(storage, Sample(100 + number, study=100 + number, size=SIZE))
        assert await watching.enforce() == 0
        assert watching.trouble
        await storage.deletion.study(Sample(number, study=number).study_uid)
        await asyncio.sleep(0)  # the deletion is heard of in the next turn
    assert len(errors(caplog)) == 2


async def test_what_was_received_goes_when_its_grace_is_over(
    storage: ArchiveStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when it is looked again: that may be long after."""
    monkeypatch.setattr("tomowire.server.quotas._FIRST_LOOK", 0.0)
    gone = asyncio.Event()
    storage.deletion.listeners.append(lambda deleted, by, address: gone.set())
    clock = Clock()
    clock.at = await oldest(storage) + 599.9
    settings = QuotaSettings(bytes=int(4.5 * SIZE), every=FAR_AWAY, grace=600.0)
    async with asyncio.timeout(30), Watched(settings, storage.records, storage.deletion, now=clock) as watching:
        await watching.looked.wait()
        assert studies_left(storage) == [1, 2, 3, 4, 5]
        clock.at += 1
        await gone.wait()
    assert studies_left(storage) == [2, 3, 4, 5]


async def test_age_knows_no_grace(storage: ArchiveStorage) -> None:
    clock = Clock()
    clock.ahead = 61.0
    assert await enforce(quotas(storage, clock, age=60.0, grace=600.0), storage) == 5


async def test_what_is_too_old_goes(storage: ArchiveStorage) -> None:
    clock = Clock()
    watching = quotas(storage, clock, age=60.0)
    assert await enforce(watching, storage) == 0
    clock.ahead = 50.0
    assert await watching.enforce() == 0
    await keep(storage, Sample(99, study=6, size=SIZE))
    clock.ahead = 61.0
    assert await watching.enforce() == 6
    assert contents(storage.root) == {}


async def test_a_study_that_got_an_object_meanwhile_is_not_too_old(storage: ArchiveStorage) -> None:
    """The list of the oldest studies is made once, and may be out of date when a study's turn comes."""
    clock = Clock()
    watching = quotas(storage, clock, age=3600.0)
    assert await enforce(watching, storage) == 0
    await keep(storage, Sample(99, study=1, patient_id="P1"))
    clock.at = await newest(storage) + 3600.0 - 0.0001
    before = studies_left(storage)
    await watching.enforce()
    assert before == [1, 2, 3, 4, 5]
    assert studies_left(storage) == [1]


async def test_all_is_gone_through_only_when_there_is_too_much(
    storage: ArchiveStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = 0
    real = ages.oldest_studies

    def counted(connection, limit=1000):
        nonlocal walks
        walks += 1
        return real(connection, limit)

    monkeypatch.setattr(ages, "oldest_studies", counted)
    watching = quotas(storage, bytes=20 * SIZE)
    await enforce(watching, storage)
    for number in range(100, 110):
        await keep(storage, Sample(number, study=number, size=SIZE))
        assert await watching.enforce() == 0
    assert walks == 0
    for number in range(110, 120):
        await keep(storage, Sample(number, study=number, size=SIZE))
        await watching.enforce()
    assert walks == 1
    [size] = {
        study.bytes for study in await storage.records.read(lambda connection: ages.oldest_studies(connection)[1])
    }
    assert len(contents(storage.root)) == 20 * SIZE // size


async def test_growth_wakes_it(storage: ArchiveStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = asyncio.Event()
    storage.deletion.listeners.append(lambda deleted, by, address: gone.set())
    monkeypatch.setattr("tomowire.server.quotas._FIRST_LOOK", 0.0)
    settings = QuotaSettings(bytes=6 * SIZE, every=FAR_AWAY, grace=0.0)
    async with asyncio.timeout(30), Watched(settings, storage.records, storage.deletion) as watching:
        await watching.looked.wait()
        for number in range(100, 102):
            await keep(storage, Sample(number, study=number, size=SIZE))
            watching.grew(SIZE)
        await gone.wait()
    assert studies_left(storage) == [2, 3, 4, 5]


async def test_time_wakes_it(storage: ArchiveStorage) -> None:
    clock = Clock()
    gone = asyncio.Event()
    storage.deletion.listeners.append(lambda deleted, by, address: gone.set())
    settings = QuotaSettings(age=60.0, every=0.02)
    async with asyncio.timeout(30), Watched(settings, storage.records, storage.deletion, now=clock) as watching:
        await watching.looked.wait()
        assert studies_left(storage) == [1, 2, 3, 4, 5]
        clock.ahead = 61.0
        await gone.wait()


async def test_without_limits_nothing_is_looked_at(storage: ArchiveStorage) -> None:
    async with quotas(storage) as watching:
        watching.grew(1 << 60)
        await asyncio.sleep(0.05)
        assert watching.bytes is None


async def test_what_comes_after_the_newest_was_deleted_counts(storage: ArchiveStorage) -> None:
    """SQLite gives the keys of the newest rows again once they are gone: what comes then looks as if it had been counted."""
    watching = quotas(storage, bytes=int(5.5 * SIZE), grace=600.0)
    assert await enforce(watching, storage) == 0
    await storage.deletion.study(STUDIES[4].study_uid)
    await keep(storage, *(Sample(number, study=number, size=SIZE) for number in (101, 102)))
    await watching.enforce()
    _, listed = await storage.records.read(ages.oldest_studies)
    assert watching.bytes == sum(study.bytes for study in listed)


async def test_what_comes_after_all_has_gone_counts(storage: ArchiveStorage) -> None:
    watching = quotas(storage, bytes=1)
    assert await enforce(watching, storage) == 5
    for number in (101, 102):
        await keep(storage, Sample(number, study=number, size=SIZE))
        assert await watching.enforce() == 1
    assert contents(storage.root) == {}
