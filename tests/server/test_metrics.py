"""The metrics against what was really sent, in Prometheus' own words, and the documentation against both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.network import LOOPBACK
from support.objects import Sample
from tomowire import Peer, Query, associate, verification
from tomowire.errors import AssociationRejected, RetrieveFailed, TomowireError
from tomowire.protocol.status import Status
from tomowire.server.app import Archive, Settings
from tomowire.server.measures import Counter, Histogram, Watched
from tomowire.server.metrics import Metrics

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "how-to" / "monitor.md"

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(metrics: Metrics) -> Series:
    """All samples, by name and labels."""
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def value(found: Series, name: str, **labels: str) -> float:
    return found.get((f"tomowire_{name}", tuple(sorted(labels.items()))), 0)


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        yield archive


def write(folder: Path, *samples: Sample) -> list[Path]:
    paths = [folder / f"{number}.dcm" for number, _ in enumerate(samples)]
    for path, sample in zip(paths, samples, strict=True):
        path.write_bytes(sample.header + sample.data_set)
    return paths


def peer(archive: Archive, title: str = "MODALITY") -> Peer:
    return Peer(f"TOMOWIRE@{LOOPBACK}:{archive.port}", aet=title)


async def settled(archive: Archive) -> None:
    """Until the last association is over."""
    async with asyncio.timeout(20):
        while value(series(archive.metrics), "associations"):  # noqa: ASYNC110 - it is the figure that is tested
            await asyncio.sleep(0.01)


async def test_the_figures_are_those_of_what_was_done(archive: Archive, tmp_path: Path) -> None:
    first, second = Sample(1), Sample(2, size=300_000)
    wrong = Sample(3, overrides={0x0020000D: ("UI", "no UID")})
    paths = write(tmp_path, first, second, Sample(1, content="other"), wrong)
    assert value(series(archive.metrics), "objects_refused_total", status="A700") == 0, "a rate needs a beginning"
    statuses: list[Status] = []
    async with peer(archive) as sender:
        for path in (*paths, paths[0]):
            statuses += [sent.response.status async for sent in sender.send(path) if sent.response is not None]
        await sender.echo()
        assert len([each async for each in sender.find(Query.studies())]) == 1
    assert [status.is_success for status in statuses] == [True, True, True, False, True]
    await settled(archive)
    found = series(archive.metrics)
    assert value(found, "objects_stored_total", outcome="stored") == 2
    assert value(found, "objects_stored_total", outcome="kept_first") == 1
    assert value(found, "objects_stored_total", outcome="identical") == 1
    assert value(found, "objects_refused_total", status=f"{statuses[3]:04X}") == 1
    assert value(found, "request_duration_seconds_count", service="c-store", status="success") == 4
    assert value(found, "request_duration_seconds_count", service="c-store", status="failure") == 1
    assert value(found, "request_duration_seconds_count", service="c-echo", status="success") == 1
    assert value(found, "request_duration_seconds_count", service="c-find", status="success") >= 1
    assert value(found, "store_batch_objects_sum") == 4, "one was refused before"
    assert value(found, "store_batch_duration_seconds_count") == value(found, "store_batch_objects_count")
    assert value(found, "index_commit_duration_seconds_count") == 2, "nothing is written of what is there"
    sent = sum(path.stat().st_size - len(Sample(1).header) for path in (*paths, paths[0]))
    assert sent < value(found, "received_bytes_total") < sent + 20_000
    assert 0 < value(found, "sent_bytes_total") < 20_000
    accepted = value(found, "associations_accepted_total")
    assert accepted >= 1
    assert value(found, "associations_ended_total", how="released") == accepted
    assert value(found, "associations") == 0


async def test_what_is_retrieved_is_in_the_bytes_sent(archive: Archive, tmp_path: Path) -> None:
    sample = Sample(1, size=400_000)
    async with peer(archive) as sender:
        assert [sent async for sent in sender.send(write(tmp_path, sample)[0])]
        with suppress(RetrieveFailed, TomowireError, ExceptionGroup):
            async for _ in sender.get(Query.study(sample.study_uid), into=tmp_path / "got"):
                pass
    await settled(archive)
    found = series(archive.metrics)
    assert 400_000 < value(found, "sent_bytes_total") < 430_000
    assert value(found, "request_duration_seconds_count", service="c-get", status="success") == 1


async def test_open_associations_are_counted_with_their_bytes_and_counters_do_not_shrink(archive: Archive) -> None:
    address = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
    async with associate(address, [verification()]), associate(address, [verification()]):
        during = series(archive.metrics)
        assert value(during, "associations") == 2
        assert value(during, "received_bytes_total") > 300
    await settled(archive)
    after = series(archive.metrics)
    assert all(after[key] >= number for key, number in during.items() if key[0].endswith(("_total", "_count")))


@pytest.mark.parametrize(
    ("options", "called", "reason"),
    [
        ({"allowed_callers": ("KNOWN",)}, "TOMOWIRE", "calling-ae-title"),
        ({}, "OTHER", "called-ae-title"),
        ({"maximum_associations": 1}, "TOMOWIRE", "limit"),
    ],
    ids=["caller", "called", "limit"],
)
async def test_rejections_are_told_by_their_reason(
    tmp_path: Path, options: dict[str, object], called: str, reason: str
) -> None:
    async with Archive(Settings(tmp_path / "data", port=0, **options)) as archive:  # type: ignore[arg-type]
        title = "KNOWN" if reason != "calling-ae-title" else "STRANGER"
        address = f"{called}@{LOOPBACK}:{archive.port}"
        if reason == "limit":
            async with associate(address, [verification()], aet=title):
                with pytest.raises(AssociationRejected):
                    async with associate(address, [verification()], aet=title):
                        pass
        else:
            with pytest.raises(AssociationRejected):
                async with associate(address, [verification()], aet=title):
                    pass
        found = series(archive.metrics)
        assert value(found, "associations_rejected_total", reason=reason) == 1
        rejected = [number for (name, _), number in found.items() if name == "tomowire_associations_rejected_total"]
        assert sum(rejected) == 1


async def test_an_aborted_association_is_told(archive: Archive) -> None:
    async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", [verification()]) as association:
        association.abort()
        await association.wait_closed()
    await settled(archive)
    assert value(series(archive.metrics), "associations_ended_total", how="aborted") == 1


async def test_who_calls_makes_no_series(archive: Archive) -> None:
    async def call(number: int) -> None:
        async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", [verification()], aet=f"CALLER{number}"):
            pass

    await call(0)
    await settled(archive)
    before = series(archive.metrics).keys()
    for number in range(1, 20):
        await call(number)
    await settled(archive)
    after = series(archive.metrics)
    assert after.keys() == before
    assert not any("CALLER" in label for _, labels in after for _, label in labels)


async def test_the_audit_and_the_disk_are_watched(archive: Archive) -> None:
    assert await archive.audit.flush(20)
    found = series(archive.metrics)
    assert value(found, "audit_events_total") == archive.audit.written >= 1
    assert value(found, "audit_queue_events") == 0
    assert value(found, "audit_lost_events_total") == 0
    assert 0 < value(found, "disk_free_bytes") < value(found, "disk_size_bytes")
    assert value(found, "jobs", state="waiting") == value(found, "jobs", state="running") == 0
    assert found["process_resident_memory_bytes", ()] > 10_000_000


async def test_names_and_units_are_prometheus_own(archive: Archive) -> None:
    """https://prometheus.io/docs/practices/naming: base units, and counters that end in _total."""
    families = list(text_string_to_metric_families(archive.metrics.exposition().decode()))
    for family in families:
        assert re.fullmatch("(tomowire|process)(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search("millis|micro|kilo|minutes|percent", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        if "duration" in family.name:
            assert family.name.endswith("_seconds")


def test_every_metric_is_documented_and_nothing_else(tmp_path: Path) -> None:
    async def names() -> set[str]:
        async with Archive(Settings(tmp_path, port=0)) as archive:
            return {
                measure.name + ("_total" if measure.family().type == "counter" else "")
                for measure in archive.metrics.measures()
            }

    documented = set(re.findall(r"^\| `(tomowire_[a-z_]+)`", DOCUMENTATION.read_text(), re.MULTILINE))
    assert documented == asyncio.run(names())


async def test_one_figure_that_cannot_be_had_does_not_cost_the_others(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()

    def broken() -> float:
        raise OSError("gone")

    metrics.watch("tomowire_broken", "Cannot be told.", broken)
    for _ in range(3):
        assert ("tomowire_associations", ()) in series(metrics)
    assert caplog.text.count("tomowire_broken cannot be told: gone") == 1


# The measures themselves


def test_a_value_belongs_to_the_first_bound_that_is_not_smaller() -> None:
    histogram = Histogram("x_seconds", "X.", (1.0, 2.0, 5.0))
    for number in (0.5, 1.0, 1.5, 2.0, 7.0):
        histogram.observe(number)
    buckets = {sample.labels["le"]: sample.value for sample in histogram.family().samples if "le" in sample.labels}
    assert buckets == {"1.0": 2, "2.0": 4, "5.0": 4, "+Inf": 5}
    sums = {sample.name: sample.value for sample in histogram.family().samples if "le" not in sample.labels}
    assert sums == {"x_seconds_count": 5, "x_seconds_sum": 12.0}


def test_a_counter_with_labels_is_there_from_the_start() -> None:
    counter = Counter("x", "X.", ("kind",), [("a",), ("b",)])
    counter.add(2, ("b",))
    assert {sample.labels["kind"]: sample.value for sample in counter.family().samples} == {"a": 0, "b": 2}


def test_what_cannot_be_told_now_is_left_out() -> None:
    assert Watched("x", "X.", lambda: None).family().samples == []
