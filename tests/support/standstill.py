"""Whether the machine stood still while a test ran: then a failure proves nothing, and the test runs again.

A virtual machine can be stopped for seconds, and all time-outs of the programs that a test has started end at once when it goes on.
That is measured, and not guessed: a thread sleeps for a moment again and again, and sees how long it took. A test that blocks its
event loop does not hold it up, nor does one that computes; so a test that hangs, or is too slow, fails as ever.

A plugin of pytest, for pytest-rerunfailures.
"""

from __future__ import annotations

import threading
import time
from typing import Final

import pytest

AT_LEAST: Final = 1.0
"""In seconds. What a busy machine takes from a process is less."""

RUNS: Final = 3
"""In all: the last one counts."""

_NAP: Final = 0.1


class BrokenPromise(Exception):
    """What may not happen on any machine: its test is not run again."""


class Watch:
    """How long this process was not let run, at most, since the last `reset`."""

    def __init__(self) -> None:
        self._longest = 0.0

    def start(self) -> None:
        threading.Thread(target=self._look, name="standstill", daemon=True).start()

    def reset(self) -> None:
        self._longest = 0.0

    def saw_a_standstill(self, error: BaseException | None) -> bool:
        """Whether a test that failed with `error` is to run again."""
        return self._longest >= AT_LEAST and not isinstance(error, BrokenPromise)

    def _look(self) -> None:
        while True:
            began = time.monotonic()
            time.sleep(_NAP)
            self._longest = max(self._longest, time.monotonic() - began - _NAP)


watch: Final = Watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.flaky(reruns=RUNS - 1, condition=watch.saw_a_standstill))


def pytest_collection_finish() -> None:
    watch.start()


def pytest_runtest_setup() -> None:
    watch.reset()
