"""How many associations and how much of the window are used: as many as make sending faster, and no more.

The theory is that of climbing a hill in the dark. There is one ladder: first more of the window of one association, doubled each
time, since that costs the peer least; then one association after the other. On each rung the throughput is measured over a number
of objects. A rung that is a good deal faster than the one below is kept and the next one tried; one that is not is left again,
and tried anew after a while, each time a longer one. When the peer becomes slow, a rung below is tried, and kept if that does not
make it slower still. When the peer rejects an association, or is out of resources, a rung is left at once. When it may
not bear several associations (`Company`), there is one.

Nothing here knows a clock: who measures says what time it is.
"""

from __future__ import annotations

from copy import copy
from enum import Enum, auto
from typing import Final, Literal, Protocol, TypeAlias

from tomowire.errors import UsageError
from tomowire.services.company import Company

UNLIMITED_WINDOW: Final = 16
"""How many are outstanding where the peer sets no limit."""
DEFAULT_MOST_ASSOCIATIONS: Final = 8
AUTO: Final = "auto"
Associations: TypeAlias = int | Literal["auto"]

_FIRST_WINDOW: Final = 4
_GAIN: Final = 1.1
"""So much faster a rung has to be than that below it."""
_SLOW: Final = 0.7
"""What is left of the throughput when the peer has become slow."""
_OBJECTS: Final = 8
_BYTES: Final = 64 << 20
_SECONDS: Final = 0.05
"""A measurement takes that many objects, or bytes, and not less time."""
_OBJECT_WORTH: Final = 32 << 10
"""Bytes that the round about one object is worth: small objects and large ones come in any mixture."""
_FIRST_HOLD: Final = 4
_LONGEST_HOLD: Final = 64
"""Measurements until a rung that did not pay is tried again."""


class Pace(Protocol):
    """How many associations and requests are wanted, and who is told what came of it. Times are in seconds, of any clock."""

    @property
    def company(self) -> Company:
        """What is known of whether the peer bears several."""

    @property
    def associations(self) -> int:
        """How many are to be used at once; one or more."""

    @property
    def most(self) -> int:
        """As many as `associations` may ever be."""

    @property
    def window(self) -> int:
        """How many requests are to be outstanding on each; one or more."""

    def opened(self, now: float, window: int) -> None:
        """There is one more association, on which `window` requests may be outstanding; 0 is any number."""

    def answered(self, now: float, size: int, under_way: int) -> bool:
        """An object of `size` bytes has been answered, and `under_way` others have been begun. Whether something else is wanted."""

    def rejected(self, used: int) -> None:
        """The peer does not take another association besides the `used` ones."""

    def short_of_resources(self) -> None:
        """The peer has refused an object because it is out of resources."""

    def interrupted(self) -> None:
        """Nothing was sent for a while because there was nothing to send: that says nothing about the peer."""


class FixedPace:
    """So many `associations`, and all of the window."""

    def __init__(self, associations: int) -> None:
        self.associations = self.most = max(associations, 1)
        self.window = 0xFFFF
        self.company = Company()

    def opened(self, now: float, window: int) -> None:
        pass

    def answered(self, now: float, size: int, under_way: int) -> bool:
        return False

    def rejected(self, used: int) -> None:
        pass

    def short_of_resources(self) -> None:
        pass

    def interrupted(self) -> None:
        pass


class _Phase(Enum):
    CLIMBING = auto()  # measured to see whether it is faster than the rung below
    STAYING = auto()
    DESCENDING = auto()  # measured to see whether it is as fast as the rung above


class AdaptivePace:
    """Finds its `Pace` by measuring; never more than `most` associations, never less than one."""

    def __init__(self, most: int = DEFAULT_MOST_ASSOCIATIONS) -> None:
        if most < 1:
            raise UsageError(f"at least one association is needed: {most}")
        self.most = most
        self.company = Company()
        self._allowed = most  # since the peer has rejected one more
        self._window = 0  # of each association; not known yet
        self._ladder = self._rungs()
        self._rung = 0
        self._phase = _Phase.CLIMBING
        # The throughput to compare with: of the rung below or above, where this one came from, or of this one before.
        self._reference: float | None = None
        self._hold = _FIRST_HOLD
        self._held = 0  # measurements since the last try
        self._was_slow = False
        self._began: float | None = None  # this measurement; None before it has
        self._to_pass_over = 0  # answers to what was begun on another rung
        self._objects = 0
        self._bytes = 0

    def resumed(self, most: int) -> AdaptivePace:
        """Another that begins where this one is, and uses never more than `most`."""
        other = copy(self)
        if most != self.most:
            other.most = most
            other._allowed = most if self._allowed == self.most else min(self._allowed, most)
            other._climb_ladder_anew()
        other.company.begin_anew()
        other.interrupted()
        return other

    @property
    def associations(self) -> int:
        return self._ladder[self._rung][0]

    @property
    def window(self) -> int:
        return self._ladder[self._rung][1]

    def opened(self, now: float, window: int) -> None:
        window = window or UNLIMITED_WINDOW
        if window != self._window:
            self._window = window
            self._climb_ladder_anew()
        self._measure_anew(0)

    def answered(self, now: float, size: int, under_way: int) -> bool:
        if self.company.is_avoided and self.associations > 1:
            self._go_down_to(1)
            return True
        if self._to_pass_over:
            self._to_pass_over -= 1
        elif self._began is None:
            self._began = now
        else:
            self._objects += 1
            self._bytes += size
            if self._is_enough and now - self._began >= _SECONDS:
                before = self._rung
                self._judge((self._bytes + self._objects * _OBJECT_WORTH) / (now - self._began))
                self._measure_anew(under_way if self._rung != before else 0)
                return self._rung != before
        return False

    def rejected(self, used: int) -> None:
        self._allowed = max(used, 1)
        self._go_down_to(self._allowed)

    def short_of_resources(self) -> None:
        if self._phase is not _Phase.STAYING or self._held:  # once for all objects that are refused together
            self._rung = max(self._rung - 1, 0)
            self._stay()

    def interrupted(self) -> None:
        self._measure_anew(0)

    def _go_down_to(self, associations: int) -> None:
        while self.associations > associations:
            self._rung -= 1
        self._stay()

    def _climb_ladder_anew(self) -> None:
        """The rungs are others: begin with the highest that is within the one before."""
        first, self._ladder = self._ladder[self._rung], self._rungs()
        below = [number for number, rung in enumerate(self._ladder) if rung[0] <= first[0] and rung[1] <= first[1]]
        self._rung = below[-1] if below else 0
        self._phase, self._reference = _Phase.CLIMBING, None

    def _rungs(self) -> list[tuple[int, int]]:
        """Associations and window of each rung; before the window is known there is one."""
        if not self._window:
            return [(1, _FIRST_WINDOW)]
        windows = [1]
        while windows[-1] < self._window:
            windows.append(min(windows[-1] * 2, self._window))
        return [(1, each) for each in windows] + [(each, self._window) for each in range(2, self.most + 1)]

    @property
    def _is_enough(self) -> bool:
        return self._objects >= max(_OBJECTS, self.associations * self.window) or (
            self._bytes >= _BYTES and self._objects >= 2 * self.associations
        )

    def _measure_anew(self, under_way: int) -> None:
        self._began = None
        self._to_pass_over = under_way
        self._objects = self._bytes = 0

    def _judge(self, throughput: float) -> None:
        """A measurement on this rung is done."""
        reference = self._reference
        match self._phase:
            case _Phase.CLIMBING if reference is None or throughput >= reference * _GAIN:
                self._hold = _FIRST_HOLD
                self._climb(throughput)
            case _Phase.CLIMBING:
                self._rung = max(self._rung - 1, 0)
                self._stay(reference)
            case _Phase.DESCENDING if reference is not None and throughput < reference:
                self._rung = min(self._rung + 1, len(self._ladder) - 1)
                self._stay(reference)
            case _Phase.DESCENDING:
                self._descend(throughput)
            case _Phase.STAYING:
                self._look_around(throughput)

    def _look_around(self, throughput: float) -> None:
        """Stay on this rung, unless the peer has become slow, or it is time to try more again."""
        self._held += 1
        is_slow = self._reference is not None and throughput < self._reference * _SLOW
        if is_slow and self._was_slow:  # twice in a row: one may be chance
            self._descend(throughput)
            return
        self._was_slow = is_slow
        if not is_slow:
            self._reference = throughput if self._reference is None else (self._reference + throughput) / 2
        if self._held >= self._hold:
            self._hold = min(self._hold * 2, _LONGEST_HOLD)
            self._allowed = self.most
            self._climb(throughput)

    def _climb(self, throughput: float) -> None:
        """Try the next rung, if there is one."""
        allowed = 1 if self.company.is_avoided else self._allowed
        if self._rung + 1 < len(self._ladder) and self._ladder[self._rung + 1][0] <= allowed:
            self._rung += 1
            self._phase, self._reference, self._was_slow = _Phase.CLIMBING, throughput, False
        else:
            self._stay(throughput)

    def _descend(self, throughput: float) -> None:
        """Try the rung below, if there is one."""
        if self._rung:
            self._rung -= 1
            self._phase, self._reference, self._was_slow = _Phase.DESCENDING, throughput, False
        else:
            self._stay(throughput)

    def _stay(self, throughput: float | None = None) -> None:
        """On this rung, which has been seen to give that `throughput`."""
        self._phase, self._reference, self._was_slow, self._held = _Phase.STAYING, throughput, False, 0
        self._measure_anew(0)
