"""How the failure of somebody else's code stands in the log: enough to find its cause, and nothing that a data set holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tomowire
from tomowire.errors import TomowireError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from logging import Logger
    from types import TracebackType

_OURS: Final = str(Path(tomowire.__file__).parent) + os.sep
_MOST_PLACES: Final = 6
_MOST_OTHERS: Final = 3


def log_failure(logger: Logger, what: str, error: BaseException) -> None:
    """Log that `what` failed: with the text of the exception and its traceback only for who asks for it, at level DEBUG."""
    logger.error("%s failed: %s", what, describe_failure(error))
    logger.debug("%s failed", what, exc_info=error)


def describe_failure(error: BaseException) -> str:
    """The kind of an exception, where it was raised, by which calls it came to that, and what it was raised from.

    Its text only if it is one of ours, or the system's (of an `OSError`): any other may quote patient data. Of what it was raised
    from not even that: what a handler raised may be one of ours, with a text of its own.
    """
    text = f": {error}" if isinstance(error, TomowireError) else ""
    told = [_described(error, text)]
    while len(told) <= _MOST_OTHERS and (before := _raised_from(error)) is not None:
        error = before
        told.append(_described(error))
    return "; raised from ".join(told)


def _described(error: BaseException, text: str = "") -> str:
    places = list(_places(error.__traceback__))
    where = f" at {places[0]}" if places else ""
    calls = f", called at {', '.join(places[1:])}" if len(places) > 1 else ""
    return f"{_kind(error)}{text}{where}{calls}{_parts(error)}"


def _kind(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        return f"{kind} ({os.strerror(error.errno)})"
    return kind


def _parts(error: BaseException) -> str:
    """What a group consists of, as far as it is worth a line."""
    if not isinstance(error, BaseExceptionGroup):
        return ""
    told = [_described(each) for each in error.exceptions[:_MOST_OTHERS]]
    more = len(error.exceptions) - len(told)
    return f", of {' | '.join(told)}{f' | and {more} more' if more else ''}"


def _places(trace: TracebackType | None) -> Iterator[str]:
    """File, line and function: where it was raised, and then who called that. Of this library only the first counts."""
    found: list[Any] = []
    while trace is not None:
        found.append((trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    found.reverse()
    callers = [each for each in found[1:] if not each[0].co_filename.startswith(_OURS)]
    for code, line in [*found[:1], *callers][:_MOST_PLACES]:
        yield f"{code.co_filename}:{line} in {code.co_name}"


def _raised_from(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
