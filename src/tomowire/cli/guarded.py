"""Blocking work of a command that has no event loop: a known error becomes one line on stderr, and the exit code that it means."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from tomowire.cli.running import ExitCode, complain, exit_code_of, explain
from tomowire.errors import TomowireError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def guarded(work: Callable[[], T]) -> T:
    """What `work` gives."""
    try:
        return work()
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(ExitCode.INTERRUPTED)
    except (TomowireError, OSError) as error:
        complain(explain(error))
        sys.exit(exit_code_of(error))
