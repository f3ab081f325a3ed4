"""What became of a retrieval, for `retrieve` and `move`: complaints as they come, and a summary at the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.cli.running import ExitCode, complain, exit_code_of, explain, writing_to_stdout
from tomowire.errors import NoAcceptedContext, RetrieveFailed, SubOperationFailed
from tomowire.protocol.explain import is_not_permitted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tomowire.aio.address import PeerAddress
    from tomowire.services.retrieving import Progress

# So often is the same said of different objects before they are only counted.
_SAME_REASON: Final = 3
_STORED: Final = "stored"
_RESUMED: Final = "resumed"
_FAILED: Final = "failed"


def counts_of(progress: Progress) -> tuple[int, int | None]:
    """How many objects are done, well or not, and of how many if the peer says that."""
    done = progress.completed + progress.failed + progress.warning
    return done, None if progress.remaining is None else done + progress.remaining


def _objects(error: Exception) -> int:
    """How many objects an error is about, of which it does not say which they are."""
    if isinstance(error, SubOperationFailed):
        return error.count
    return error.failed or 0 if isinstance(error, RetrieveFailed) else 0


def _is_about_delivery(error: Exception) -> bool:
    """PS3.4 Table C.4-2: A702H and other failures of sub-operations, and A801H, an unknown destination."""
    if isinstance(error, RetrieveFailed):
        return error.status >> 8 in (0xA7, 0xA8)
    return isinstance(error, SubOperationFailed)


@dataclass
class RetrievalReport:
    """Told of each object that came or failed; `finish` ends it and gives the exit code.

    With a `destination` the objects go elsewhere, and nothing is known of those that are well but their number.
    """

    peer: PeerAddress
    method: str
    destination: str | None
    as_json: bool
    verbose: bool
    advice: str = ""
    """What to try where the peer lacks a service."""
    bytes: int = 0
    is_undelivered: bool = False
    """Whether the peer says of something that it could not send it to where it should go."""
    uncounted: int = 0
    """Requests that the peer says are done, without how many objects that were."""
    _began: float = field(default_factory=time.perf_counter)
    _outcomes: dict[str, str] = field(default_factory=dict)
    _facts: dict[str, dict[str, object]] = field(default_factory=dict)
    _reasons: Counter[str] = field(default_factory=Counter)
    _completed: int = 0
    _warnings: int = 0
    _failed: int = 0  # those of which nobody says which they are
    _failed_there: int = 0  # by the peer's count
    _expected: int | None = None  # by the peer's count
    _is_cut: bool = False  # whether something ended before its time
    _error: str | None = None
    _way_around: str = ""
    _told: set[str] = field(default_factory=set)
    _codes: set[ExitCode] = field(default_factory=set)

    def stored(self, sop_instance_uid: str, size: int, **facts: object) -> None:
        """An object that is in the folder now."""
        self.bytes += size
        self._set(sop_instance_uid, _STORED, bytes=size, **facts)

    def resumed(self, paths: Mapping[str, str]) -> None:
        """Objects that were in the folder before: SOP Instance UID -> path."""
        for uid, path in paths.items():
            self._set(uid, _RESUMED, path=path)

    def object_failed(self, sop_instance_uid: str, reason: str) -> None:
        """An object that was not retrieved. Told by us and by the peer it counts once, with what was said first; and not at all if
        it is in the folder."""
        if sop_instance_uid in self._outcomes:
            return
        self._set(sop_instance_uid, _FAILED, reason=reason)
        self._reasons[reason] += 1
        if self.verbose or self._reasons[reason] <= _SAME_REASON:
            complain(f"{sop_instance_uid}: {reason}")

    def counted(self, progress: Progress) -> None:
        """How far it has come, by the peer's count."""
        self._completed, self._warnings = progress.completed, progress.warning
        self._failed_there = progress.failed
        _, expected = counts_of(progress)
        if expected is not None:  # what of it is given up is not counted any more later
            self._expected = max(expected, self._expected or 0)
        if progress.error_comment is not None:
            self._tell(f"{self.peer.ae_title} says {progress.error_comment!r}")

    def failed(self, error: Exception) -> None:
        """An operation ended with an error; a group is about single objects, and its text has what the peer said about them."""
        self.is_undelivered |= _is_about_delivery(error)
        if isinstance(error, ExceptionGroup):
            for each in error.exceptions:
                self.failed(each)
            if any(isinstance(each, SubOperationFailed) for each in error.exceptions):
                self.remark(error.message)
        elif isinstance(error, SubOperationFailed) and error.sop_instance_uid is not None:
            self.object_failed(error.sop_instance_uid, f"{self.peer.ae_title} could not transfer it")
        else:
            self._failed += _objects(error)
            self._is_cut |= not isinstance(error, SubOperationFailed)
            text = explain(error)
            self.remark(text + (self._advice_on(error) if isinstance(error, NoAcceptedContext) else ""))
            self._codes.add(exit_code_of(error))

    @contextmanager
    def finding(self, *, resume: bool = False) -> Iterator[None]:
        """While the block lasts the peer is asked what matches: if it lacks a service, it is C-FIND."""
        before = self.advice
        self.advice = before if self.destination is not None else ""  # of `move` it is about the information model
        without = ", without --resume" if resume else ""
        self._way_around = (
            "; a retrieval by unique keys alone needs no C-FIND: move --study-uid, or retrieve --method move"
            f" --study-uid{without}"
        )
        yield
        self.advice, self._way_around = before, ""  # not after an error: that is still to be told

    def _advice_on(self, error: NoAcceptedContext) -> str:
        """Where this side may not use a service that the peer has, another model and another method are of no use."""
        return ("" if is_not_permitted(error) else self.advice) + self._way_around

    def remark(self, text: str) -> None:
        """Something that went wrong, which is told once."""
        self._tell(text)
        self._error = self._error or text

    def _tell(self, text: str) -> None:
        if text not in self._told and (self.verbose or len(self._told) < _SAME_REASON):
            complain(text)
        self._told.add(text)

    def finish(self, *, interrupted: bool = False) -> int:
        """Print the summary; return the exit code."""
        for reason, count in self._reasons.items():
            if count > _SAME_REASON and not self.verbose:
                complain(f"and {count - _SAME_REASON} more: {reason} (-v names them)")
        self._is_cut |= interrupted
        counts = self._counts()
        left = self._left(counts)
        is_nothing = not (any(counts.values()) or self._codes or interrupted)
        if self.uncounted and self.destination is not None:
            of_what = "" if is_nothing else f" with {self.uncounted} of the requests"
            complain(f"{self.peer} says that it is done{of_what}, and not how many objects it has sent")
        elif is_nothing:
            # For a query that is an answer, for who wants the objects it is a failure.
            self._error = f"{self.peer} has nothing that matches"
            complain(self._error)
            self._codes.add(ExitCode.FAILED)
        if self.as_json:
            with writing_to_stdout():
                click.echo(json.dumps(self._summary(counts, left, interrupted)))
        elif any(counts.values()) or interrupted or left:
            self._say(counts, left)
        if counts[_FAILED]:
            self._codes.add(ExitCode.FAILED)
        return self._exit_code(counts)

    def _counts(self) -> dict[str, int]:
        told = Counter(self._outcomes.values())
        failed = told[_FAILED] + self._failed
        if self._is_cut:  # then nobody says which
            failed = max(failed, self._failed_there)
        if self.destination is None:
            return {_STORED: told[_STORED], _FAILED: failed, _RESUMED: told[_RESUMED]}
        return {"completed": self._completed, _FAILED: failed, "warning": self._warnings}

    def _left(self, counts: dict[str, int]) -> int | None:
        """How many objects the peer has counted of which nothing has become; None where it has not said how many there are."""
        if not self._is_cut:
            return 0
        done = sum(count for what, count in counts.items() if what != _RESUMED)
        return None if self._expected is None else max(self._expected - done, 0)

    def _summary(self, counts: dict[str, int], left: int | None, interrupted: bool) -> dict[str, Any]:
        nothing_known = (
            {"reason": None} if self.destination is not None else {"reason": None, "path": None, "bytes": None}
        )
        rows = [
            {"sop_instance_uid": uid, "outcome": outcome} | nothing_known | self._facts[uid]
            for uid, outcome in self._outcomes.items()
        ]
        return {
            "peer": str(self.peer),
            "method": self.method,
            **({"bytes": self.bytes} if self.destination is None else {"destination": self.destination}),
            **counts,
            **(
                {"not_retrieved": left} if self.destination is None else {"not_sent": left, "uncounted": self.uncounted}
            ),
            "interrupted": interrupted,
            "error": self._error,
            "seconds": round(time.perf_counter() - self._began, 3),
            "objects": rows,
        }

    def _say(self, counts: dict[str, int], left: int | None) -> None:
        seconds = time.perf_counter() - self._began
        if self.destination is None:
            rate = self.bytes / seconds / 1e6
            size = f"{self.bytes / 1e6:.1f} MB in {seconds:.2f} s, {rate:.0f} MB/s"
            parts = [f"{counts[_STORED]} retrieved ({size})"]
        else:
            parts = [f"{self._completed} sent to {self.destination} in {seconds:.2f} s"]
        for what, words in (("warning", "more with a warning"), (_FAILED, "failed"), (_RESUMED, "there before")):
            parts += [f"{counts[what]} {words}"] if counts.get(what) else []
        if left:
            parts.append(f"{left} not {'retrieved' if self.destination is None else 'sent'}")
        goes_on = self.destination is None and left != 0 and (counts[_STORED] or counts[_RESUMED])
        complain(", ".join(parts) + ("; --resume gets the rest" if goes_on else ""))

    def _set(self, sop_instance_uid: str, outcome: str, **facts: object) -> None:
        self._outcomes[sop_instance_uid] = outcome
        if self.as_json:
            self._facts[sop_instance_uid] = facts

    def _exit_code(self, counts: dict[str, int]) -> int:
        """What all failures have in common when nothing else was done, or that some operation failed."""
        if not self._codes:
            return ExitCode.OK
        is_well = self.uncounted or any(count for what, count in counts.items() if what != _FAILED)
        return self._codes.copy().pop() if len(self._codes) == 1 and not is_well else ExitCode.FAILED
