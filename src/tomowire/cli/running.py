"""What every command does around its work: logging, the event loop, and the exit code that an error means."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from tomowire.errors import (
    AssociationError,
    ConnectFailed,
    NoAcceptedContext,
    OperationTimeout,
    TomowireError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine


class ExitCode(IntEnum):
    """The same for all commands; documented in `tomowire --help` and docs/commands.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_CONNECT = 3
    ASSOCIATION = 4
    NO_CONTEXT = 5
    TIMEOUT = 6
    INTERRUPTED = 130


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code that an error means."""
    for kind, code in (
        (KeyboardInterrupt, ExitCode.INTERRUPTED),
        (UsageError, ExitCode.USAGE),
        (ConnectFailed, ExitCode.CANNOT_CONNECT),
        (OperationTimeout, ExitCode.TIMEOUT),
        (NoAcceptedContext, ExitCode.NO_CONTEXT),
        (AssociationError, ExitCode.ASSOCIATION),
    ):
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command's coroutine to its end and leave the process with its exit code; a known error becomes one line on stderr."""
    # What has been imported lives as long as the process: no collection needs to look at it again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        code = _run(work)
    except KeyboardInterrupt:
        complain("interrupted")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise  # nobody reads the output any more: click ends the process without a word
    except (TomowireError, OSError) as error:
        complain(explain(error))
        code = exit_code_of(error)
    sys.exit(int(code))


def explain(error: Exception) -> str:
    """What went wrong, without the numbers that Python puts before it."""
    if isinstance(error, OSError) and not isinstance(error, TomowireError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def complain(text: str) -> None:
    """One line on stderr, with the program's name, for what went wrong."""
    print(f"tomowire: {text}", file=sys.stderr, flush=True)


def set_up_logging(verbose: int) -> None:
    """Log to stderr: warnings, with -v what happens, with -vv everything. UIDs and AE titles are named, patients never."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if verbose < 3:
        logging.getLogger("asyncio").setLevel(logging.WARNING)


def _run(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop  # the extra "fast"
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)
