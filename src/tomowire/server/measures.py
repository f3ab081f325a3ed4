"""Counters and histograms as plain numbers: what is measured costs some list accesses, and no library is imported for it.

They are turned into Prometheus' families when somebody asks (`metrics`). One thread at a time may count in each of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels: TypeAlias = tuple[str, ...]

SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
OBJECTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Counter:
    """Only ever grows. The name ends in `_total` where it is shown, and not here."""

    def __init__(self, name: str, meaning: str, labels: Labels = (), known: Iterable[Labels] = ((),)) -> None:
        self.name: Final = name
        self.meaning: Final = meaning
        self.labels: Final = labels
        self.values: dict[Labels, float] = dict.fromkeys(known, 0)
        """`known` are there from the start, with 0: a counter that appears with 1 has no rate."""

    def add(self, amount: float = 1, labels: Labels = ()) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount

    def family(self) -> Metric:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, number in list(self.values.items()):
            family.add_metric(labels, number)
        return family


class _Distribution:
    """How often a value fell between which bounds."""

    __slots__ = ("counts", "sum")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.sum = 0.0


class Histogram:
    """How values are distributed; a value belongs to the first of `bounds` that is not smaller."""

    def __init__(self, name: str, meaning: str, bounds: tuple[float, ...], labels: Labels = ()) -> None:
        self.name: Final = name
        self.meaning: Final = meaning
        self.labels: Final = labels
        self._bounds: Final = bounds
        self._found: dict[Labels, _Distribution] = {} if labels else {(): _Distribution(len(bounds) + 1)}

    def observe(self, number: float, labels: Labels = ()) -> None:
        found = self._found.get(labels)
        if found is None:
            found = self._found[labels] = _Distribution(len(self._bounds) + 1)
        found.counts[bisect_left(self._bounds, number)] += 1
        found.sum += number

    def family(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        names = [*map(str, self._bounds), "+Inf"]
        for labels, found in list(self._found.items()):
            family.add_metric(labels, list(zip(names, _cumulated(found.counts), strict=True)), found.sum)
        return family


class Watched:
    """What is looked up when somebody asks: `look` gives a number, or one for each label. None: it cannot be told now."""

    def __init__(
        self,
        name: str,
        meaning: str,
        look: Callable[[], float | Mapping[Labels, float] | None],
        labels: Labels = (),
        kind: Literal["gauge", "counter"] = "gauge",
    ) -> None:
        self.name: Final = name
        self.meaning: Final = meaning
        self.labels: Final = labels
        self._look = look
        self._kind = kind

    def family(self) -> Metric:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        made = CounterMetricFamily if self._kind == "counter" else GaugeMetricFamily
        family = made(self.name, self.meaning, labels=self.labels)
        found = self._look()
        if isinstance(found, Mapping):
            for labels, number in found.items():
                family.add_metric(labels, number)
        elif found is not None:
            family.add_metric((), found)
        return family


Measure: TypeAlias = Counter | Histogram | Watched


def _cumulated(counts: list[int]) -> Iterator[int]:
    total = 0
    for count in list(counts):
        total += count
        yield total
