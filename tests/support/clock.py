"""An event loop's clock that a test moves by hand."""

from __future__ import annotations

from collections.abc import Callable


class Handle:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """As much of an event loop as timing needs: `time` and `call_at`."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        handle = Handle(when, callback)
        self.handles.append(handle)
        return handle

    @property
    def pending(self) -> list[Handle]:
        return sorted((each for each in self.handles if not each.is_cancelled), key=lambda each: each.when)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, calling what is due at its time."""
        end = self.now + seconds
        while self.pending and self.pending[0].when <= end:
            handle = self.pending[0]
            self.now = max(self.now, handle.when)
            handle.is_cancelled = True
            handle.callback()
        self.now = end
