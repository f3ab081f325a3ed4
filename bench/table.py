"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from programs import GROUPS
from transfer import Result


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that the project has set itself, and what was measured. `aside` is for the reader; nothing is held to it."""

    what: str
    measured: float
    limit: float
    unit: str = ""
    aside: str = ""

    @property
    def row(self) -> tuple[str, str, str, str]:
        measured = f"{number(self.measured)}{self.unit}{f' ({self.aside})' if self.aside else ''}"
        kept = "yes" if self.measured <= self.limit else "**no**"
        return self.what, measured, f"≤ {number(self.limit)}{self.unit}", kept


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def figures_table(figures: Sequence[Figure]) -> str:
    return markdown(("figure", "measured", "limit", "kept"), [figure.row for figure in figures])


def transfer_tables(results: Sequence[Result]) -> str:
    """One table for each kind of receiver."""
    parts = []
    for group, title in GROUPS.items():
        chosen = [result for result in results if result.pairing.group == group]
        if chosen:
            parts += [f"### {title}", _time_table(chosen), _memory_table(chosen)]
    return "\n\n".join(parts)


def _time_table(results: Sequence[Result]) -> str:
    header = ("seconds", "total", "tomowire ÷ this", "sender alone", "tomowire ÷ this", "receiver's start")
    return markdown(header, [_times(result, reference(results, result)) for result in results])


def _times(result: Result, ours: Result | None) -> tuple[str, ...]:
    compared = ours if ours is not result else None
    return (
        _title(result),
        number(median(run.total for run in result.runs)),
        spread(ratios(compared, result)) if compared else "",
        number(median(run.send for run in result.runs)),
        spread(ratios(compared, result, of_sender=True)) if compared else "",
        number(median(run.start for run in result.runs)),
    )


def _memory_table(results: Sequence[Result]) -> str:
    header = (
        "MB",
        "receiver's peak",
        "which is more than idle by",
        "sender's peak",
        "which is more than for one 4 kB object by",
    )
    return markdown(header, [_memory(result) for result in results])


def _memory(result: Result) -> tuple[str, ...]:
    sizes = (result.receiver_peak, result.receiver_adds, result.sender_peak, result.sender_adds)
    return _title(result), *(str(round(size / 1e6)) for size in sizes)


def _title(result: Result) -> str:
    return f"{result.workload.title}, {result.pairing.title}"


def reference(results: Sequence[Result], result: Result) -> Result | None:
    """The run of tomowire beside which `result` stands."""
    for other in results:
        if (other.pairing.group, other.workload) == (result.pairing.group, result.workload) and other.pairing.ours:
            return other
    return None


def ratios(ours: Result, other: Result, *, of_sender: bool = False) -> list[float]:
    """tomowire's time divided by the other's, for each round: total times, or those of the senders alone."""
    pairs = zip(ours.runs, other.runs, strict=True)
    return [mine.send / its.send if of_sender else mine.total / its.total for mine, its in pairs]


def spread(values: Sequence[float]) -> str:
    """The median, and the smallest and largest where there are several."""
    text = number(median(values))
    return text if len(values) == 1 else f"{text} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
