"""What the archive tells Prometheus (`/metrics`): how much, how fast, how full. docs/how-to/monitor.md has a table of it.

Nothing is counted for each PDU: a request costs two looks at a clock, an association some additions at its end, and what can be
looked up is looked up when somebody asks. Labels have few values; who calls is not among them, since anybody can call by any name.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from tomowire._version import __version__
from tomowire.aio.ending import Ending
from tomowire.protocol.status import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS, Status
from tomowire.server.incoming import Outcome
from tomowire.server.measures import OBJECTS, SECONDS, Counter, Histogram, Labels, Measure, Watched

if TYPE_CHECKING:
    from collections.abc import Container

    from prometheus_client.core import Metric

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest, ServiceProvider
    from tomowire.server.archive import ArchiveStorage
    from tomowire.server.audit.audit import Audit
    from tomowire.server.jobs.model import QueueFigures
    from tomowire.server.records import Records

logger: Final = logging.getLogger(__name__)

_SERVICES: Final = {
    "CEchoRQ": "c-echo",
    "CStoreRQ": "c-store",
    "CFindRQ": "c-find",
    "CGetRQ": "c-get",
    "CMoveRQ": "c-move",
}
# PS3.8 Table 9-21, by result, source and reason.
_REJECTIONS: Final = {
    (1, 1, 2): "application-context",
    (1, 1, 3): "calling-ae-title",
    (1, 1, 7): "called-ae-title",
    (1, 2, 2): "protocol-version",
    (1, 1, 1): "no-reason",
    (2, 1, 1): "for-now",
    (2, 3, 1): "congestion",
    (2, 3, 2): "limit",
}
_OTHER: Final = "other"
_ENDINGS: Final = {each: (each.value.replace(" ", "_"),) for each in Ending}
# There from the beginning, with 0: `rate` and `increase` do not see how a series began that comes with its first refusal.
_REFUSALS: Final = tuple(f"{each:04X}" for each in (OUT_OF_RESOURCES, CANNOT_UNDERSTAND, PROCESSING_FAILURE))
_OUTCOMES: Final = {each: (each.value.replace(" ", "_"),) for each in Outcome}


class Metrics:
    """The figures of one archive. `exposition()` is what Prometheus reads, of the type `CONTENT_TYPE`."""

    CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._measures: list[Measure] = []
        self._untold: set[str] = set()
        self._open: set[Association] = set()
        self._moving = Lock()  # the bytes of an association from there to here: a counter must not be seen to shrink
        started = time.time()
        own: dict[Labels, float] = {(__version__, platform.python_version()): 1.0}
        self.watch("tomowire_build_info", "What is running.", lambda: own, ("version", "python"))
        self.watch("tomowire_start_time_seconds", "When the archive was started, since 1970.", lambda: started)
        self.requests = self._histogram(
            "tomowire_request_duration_seconds",
            "DIMSE requests that were served, from the command set to the last response.",
            SECONDS,
            ("service", "status"),
        )
        self._associations()
        self._objects()

    def _associations(self) -> None:
        self.watch("tomowire_associations", "Associations that are open.", lambda: len(self._open))
        self.accepted = self._counter("tomowire_associations_accepted", "Associations that were accepted.")
        self.rejected = self._counter(
            "tomowire_associations_rejected",
            "Associations that were rejected, by reason (PS3.8 Table 9-21).",
            ("reason",),
            [*sorted(set(_REJECTIONS.values())), _OTHER],
        )
        self.tls_failed = self._counter(
            "tomowire_tls_handshakes_failed", "TLS handshakes on the DICOM port that failed."
        )
        self.ended = self._counter(
            "tomowire_associations_ended",
            "Associations that are over, and how.",
            ("how",),
            [label for (label,) in _ENDINGS.values()],
        )
        self._received = self._sent = 0
        self.watch(
            "tomowire_received_bytes",
            "Bytes received on associations, headers included.",
            lambda: self._bytes()[0],
            kind="counter",
        )
        self.watch(
            "tomowire_sent_bytes",
            "Bytes sent on associations, headers included.",
            lambda: self._bytes()[1],
            kind="counter",
        )

    def _bytes(self) -> tuple[int, int]:
        """Received and sent."""
        with self._moving:
            received = self._received + sum(each.connection.bytes_received for each in self._open)
            return received, self._sent + sum(each.connection.bytes_sent for each in self._open)

    def _objects(self) -> None:
        self.stored = self._counter(
            "tomowire_objects_stored",
            "Objects that got Success, and what became of them.",
            ("outcome",),
            [label for (label,) in _OUTCOMES.values()],
        )
        self.refused = self._counter(
            "tomowire_objects_refused", "Objects that did not get Success, by status.", ("status",), _REFUSALS
        )
        self.store_batches = self._histogram(
            "tomowire_store_batch_duration_seconds",
            "Making a batch of objects durable: files, folders, index.",
            SECONDS,
        )
        self.batch_objects = self._histogram(
            "tomowire_store_batch_objects", "Objects that were made durable together.", OBJECTS
        )
        self.index_commits = self._histogram(
            "tomowire_index_commit_duration_seconds", "Transactions that put objects into the index.", SECONDS
        )

    def watch(
        self,
        name: str,
        meaning: str,
        look: Callable[[], float | Mapping[Labels, float] | None],
        labels: Labels = (),
        *,
        kind: Any = "gauge",
    ) -> None:
        """Have `look` asked for a figure, or one for each label, whenever the metrics are read, in the thread that reads them."""
        self._measures.append(Watched(name, meaning, look, labels, kind))

    def watch_storage(self, storage: ArchiveStorage) -> None:
        """The objects on their way in, and the file system that they are on."""

        def free() -> float:
            found = os.statvfs(storage.root)
            return float(found.f_bavail * found.f_frsize)

        def size() -> float:
            found = os.statvfs(storage.root)
            return float(found.f_blocks * found.f_frsize)

        self.watch("tomowire_store_queue_objects", "Objects that wait to be stored.", lambda: storage.commit.waiting)
        self.watch("tomowire_disk_free_bytes", "Room that is left where the objects are.", free)
        self.watch("tomowire_disk_size_bytes", "Size of the file system that the objects are on.", size)

    def watch_audit(self, audit: Audit) -> None:
        """The audit trail, and what of it goes to a syslog server."""

        def of_syslog(name: str) -> Callable[[], float | None]:
            return lambda: getattr(audit.syslog, name) if audit.syslog is not None else None

        for name, meaning, look, kind in (
            ("queue_events", "Audit events that are not in the trail yet.", lambda: audit.waiting, "gauge"),
            ("events", "Audit events that were written to the trail.", lambda: audit.written, "counter"),
            ("lost_events", "Audit events that were not, and never will be.", lambda: audit.lost, "counter"),
            ("syslog_queue_messages", "Audit messages that wait for the syslog server.", of_syslog("waiting"), "gauge"),
            ("syslog_messages", "Audit messages that were sent to the syslog server.", of_syslog("sent"), "counter"),
            ("syslog_lost_messages", "Those that were not, and never will be.", of_syslog("lost"), "counter"),
        ):
            self.watch(f"tomowire_audit_{name}", meaning, look, kind=kind)

    def watch_jobs(self, records: Records) -> None:
        """What jobs there are: asked of the database, at most once a second."""
        found: list[tuple[float, QueueFigures]] = []

        def look() -> QueueFigures:
            if not found or time.monotonic() - found[-1][0] > 1:
                from tomowire.server.jobs import table

                found[:] = [(time.monotonic(), records.read_now(table.figures))]
            return found[-1][1]

        def states() -> dict[Labels, float]:
            return {("waiting",): look().waiting, ("running",): look().running}

        self.watch("tomowire_jobs", "Jobs that are not over.", states, ("state",))
        self.watch(
            "tomowire_jobs_oldest_seconds", "For how long the oldest job that is due waits.", lambda: look().oldest
        )

    def on_established(self, association: Association) -> None:
        self.accepted.add()
        with self._moving:
            self._open.add(association)

    def on_ended(self, association: Association) -> None:
        end = association.end
        if end is not None:
            self.ended.add(1, _ENDINGS[end.how])
        with self._moving:
            self._open.discard(association)
            self._received += association.connection.bytes_received
            self._sent += association.connection.bytes_sent

    def on_rejected(self, association: Association) -> None:
        why = association.rejection
        codes = (why.result, why.source, why.reason) if why is not None else None
        self.rejected.add(1, (_REJECTIONS.get(codes, _OTHER) if codes is not None else _OTHER,))

    def on_stored(self, outcome: Outcome) -> None:
        """An object got Success."""
        self.stored.add(1, _OUTCOMES[outcome])

    def on_batch(self, objects: int, seconds: float) -> None:
        """A batch of objects was dealt with."""
        self.store_batches.observe(seconds)
        self.batch_objects.observe(objects)

    def on_served(self, request: IncomingRequest, seconds: float) -> None:
        """A request is over, answered or not."""
        service, status = _SERVICES.get(type(request.message).__name__, _OTHER), _status_of(request)
        self.requests.observe(seconds, (service, status))
        if service == "c-store" and status in ("failure", "aborted"):
            code = f"{request.final.status:04X}" if request.final is not None else "none"
            self.refused.add(1, (code,))

    def exposition(self) -> bytes:
        """All figures in Prometheus' text format. May look at the disk: not for the event loop's thread."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        if sys.platform == "linux":
            ProcessCollector(registry=registry)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus' registry. A figure that cannot be had is left out."""
        for measure in self._measures:
            try:
                yield measure.family()
                self._untold.discard(measure.name)
            except Exception as error:
                level = logging.DEBUG if measure.name in self._untold else logging.WARNING
                self._untold.add(measure.name)  # Prometheus asks every few seconds
                logger.log(level, "%s cannot be told: %s", measure.name, error)

    def measures(self) -> list[Measure]:
        """All that there is, for the documentation."""
        return list(self._measures)

    def _counter(self, name: str, meaning: str, labels: Labels = (), known: Iterable[str] | None = None) -> Counter:
        counter = Counter(name, meaning, labels, ((),) if known is None else [(each,) for each in known])
        self._measures.append(counter)
        return counter

    def _histogram(self, name: str, meaning: str, bounds: tuple[float, ...], labels: Labels = ()) -> Histogram:
        histogram = Histogram(name, meaning, bounds, labels)
        self._measures.append(histogram)
        return histogram


class Measured:
    """A service provider whose requests are timed: `on_served` gets each that is over, with the seconds that it took."""

    def __init__(self, provider: ServiceProvider, on_served: Callable[[IncomingRequest, float], object]) -> None:
        self._provider = provider
        self._on_served = on_served

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self._provider.transfer_syntaxes(abstract_syntax)

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return self._provider.may_be_scp(abstract_syntax)

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return self._provider.extended_negotiation(abstract_syntax, proposed)

    async def handle(self, request: IncomingRequest) -> None:
        begun = time.perf_counter()
        try:
            await self._provider.handle(request)
        finally:
            self._on_served(request, time.perf_counter() - begun)


def _status_of(request: IncomingRequest) -> str:
    """The class of the final status (PS3.7 Annex C); without one, whether there is still somebody to be told of the failure."""
    if request.final is None:
        return "failure" if request.association.can_answer else "aborted"
    if request.final.status == SUCCESS:
        return "success"
    status = Status(request.final.status)
    return "cancel" if status.is_cancel else "warning" if status.is_warning else "failure"
