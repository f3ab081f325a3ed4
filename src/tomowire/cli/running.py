"""What every command does around its work: logging, the event loop, and the exit code that an error means."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import sys
import warnings
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tomowire.errors import (
    AssociationError,
    ConnectFailed,
    IndexUnavailable,
    InUse,
    NoAcceptedContext,
    OperationTimeout,
    QueryFailed,
    TomowireError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType

# C0, DEL and C1, and the bytes of C1 in a file name that is no text.
_CONTROLS: Final = {
    code: f"\\x{code & 0xFF:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xDC80, 0xDCA0))
}
_CONTROLS_BUT_NEWLINES: Final = {code: text for code, text in _CONTROLS.items() if code != 0x0A}
_CONTROLS_BUT_LINE_BREAKS: Final = {code: text for code, text in _CONTROLS.items() if code not in (0x0A, 0x0D)}

# How the commands name unique keys.
_OPTIONS: Final = {
    "PatientID": "--patient-id",
    "StudyInstanceUID": "--study-uid",
    "SeriesInstanceUID": "--series-uid",
}


# The same for the arguments that errors of TLS name.
_OF_ARGUMENTS: Final = {
    "(ssl=)": "(--tls)",
    "(authorities=)": "(--tls-ca)",
    "(certificate=)": "(--tls-cert)",
    "(server_hostname=)": "(--tls-server-name)",
}


class ExitCode(IntEnum):
    """The same for all commands; documented in `tomowire --help` and docs/commands.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_CONNECT = 3
    ASSOCIATION = 4
    NO_CONTEXT = 5
    TIMEOUT = 6
    IN_USE = 75  # EX_TEMPFAIL of sysexits.h: to be tried again
    INTERRUPTED = 130
    TERMINATED = 143


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code that an error means."""
    for kind, code in (
        (KeyboardInterrupt, ExitCode.INTERRUPTED),
        (InUse, ExitCode.IN_USE),
        (UsageError, ExitCode.USAGE),
        (ConnectFailed, ExitCode.CANNOT_CONNECT),
        (OperationTimeout, ExitCode.TIMEOUT),
        (NoAcceptedContext, ExitCode.NO_CONTEXT),
        (AssociationError, ExitCode.ASSOCIATION),
    ):
        if isinstance(error, kind):
            return code
    if isinstance(error, IndexUnavailable) and error.is_taken:
        return ExitCode.IN_USE
    if isinstance(error, IndexUnavailable) and error.is_unreachable:
        return ExitCode.CANNOT_CONNECT
    return ExitCode.FAILED


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command's coroutine to its end and leave the process with its exit code; a known error becomes one line on stderr."""
    # What has been imported lives as long as the process: no collection needs to look at it again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    terminated = _end_on_sigterm()
    try:
        code = _runner()(_until_sigterm(work, terminated))
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted")
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise  # nobody reads the output any more: click ends the process without a word
    except (TomowireError, OSError) as error:
        complain(explain(error), "error")
        code = exit_code_of(error)
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process. What could not be written to stdout has been told; Python would try again and end with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(int(code))


def _end_on_sigterm() -> list[int]:
    """Let SIGTERM end the command as Ctrl-C does while there is no event loop; gives a list that is not empty once it has come."""
    seen: list[int] = []

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, on_sigterm)
    return seen


def readable(path: str | os.PathLike[str]) -> str:
    """The name of a file for JSON. It need not be text: bytes that are none become `\\xff`, since lone surrogates are no JSON."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """What goes wrong while the block writes to stdout says so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def explain(error: Exception) -> str:
    """What went wrong, without the numbers that Python puts before it."""
    if isinstance(error, QueryFailed) and (options := [_OPTIONS[key] for key in error.lacking if key in _OPTIONS]):
        return f"{error} ({', '.join(options)})"
    if isinstance(error, OSError) and not isinstance(error, TomowireError) and error.strerror:
        # A copy names its source first, and its target is what is full.
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename2 is not None
        place = error.filename2 if is_full else error.filename
        return f"{place}: {error.strerror}" if place is not None else error.strerror
    return with_options(str(error))


def with_options(text: str) -> str:
    """What the library says, with options where it names its arguments."""
    for argument, option in _OF_ARGUMENTS.items():
        text = text.replace(argument, option)
    return text


def complain(text: str, level: str = "info") -> None:
    """One line on stderr, with the program's name, for what went wrong. A log of JSON lines has it with this level."""
    _print_line(f"tomowire: {printable(text)}", level)


def say(text: str) -> None:
    """Lines on stderr as they are, for what goes well."""
    _print_line(text, "info")


def say_through(print_line: Callable[[str, str], None] | None) -> None:
    """Lines, with their levels, go through `print_line` from now on, as long as there is a progress bar to be kept below them.
    None: to stderr."""
    global _print_line
    _print_line = print_line or _to_stderr


def _to_stderr(line: str, level: str) -> None:
    print(line, file=sys.stderr, flush=True)


_print_line: Callable[[str, str], None] = _to_stderr


def printable(text: str) -> str:
    """`text` without control characters: what a peer or a file's name says must not steer the terminal of who reads it."""
    return text.translate(_CONTROLS)


def printable_lines(text: str) -> str:
    """The same, but line breaks are left: for a format that has a place for them."""
    return text.translate(_CONTROLS_BUT_LINE_BREAKS)


def set_up_logging(verbose: int, *, least: int = logging.WARNING) -> None:
    """Log to stderr: `least`, with -v what happens, with -vv everything. UIDs and AE titles are named, patients never."""
    level = (least, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    if verbose < 3:
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    _silence_pydicom()


def _silence_pydicom() -> None:
    """It logs and warns of what it tolerates in a data set, and quotes that: patients' data has no place in a log."""
    pydicom = logging.getLogger("pydicom")
    pydicom.propagate = False  # its level is set anew when it is imported
    pydicom.addHandler(logging.NullHandler())
    warnings.simplefilter("ignore", UserWarning)


class _Formatter(logging.Formatter):
    """A message is one line and holds no control characters; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class names it
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class names it
        return super().formatException(ei).translate(_CONTROLS_BUT_NEWLINES)


async def _until_sigterm(work: Coroutine[Any, Any, int], terminated: list[int]) -> int:
    """Cancel the work where it waits when SIGTERM comes, as asyncio does for Ctrl-C. A second SIGTERM ends the process at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def on_sigterm() -> None:
        terminated.append(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()

    with suppress(NotImplementedError):  # Windows has no SIGTERM that would come
        loop.add_signal_handler(signal.SIGTERM, on_sigterm)
    return await work


def _runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    """What runs an event loop. The work begins after this has returned: no error of it is chained to the ImportError."""
    try:
        import uvloop  # the extra "fast"
    except ImportError:
        return asyncio.run
    runner: Callable[[Coroutine[Any, Any, int]], int] = uvloop.run  # where it is not installed, its type is not known
    return runner
