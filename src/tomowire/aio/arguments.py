"""What callers may say where the library begins: what is wrong is told at once, by the name of the argument, with what is allowed.

A check is a function of an argument's name and value that raises `UsageError`; `check` applies a table of them.
"""

from __future__ import annotations

import inspect
from math import isfinite
from numbers import Integral, Real
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from tomowire.errors import UsageError
from tomowire.wire.user_identity import UserIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check: TypeAlias = Callable[[str, Any], None]

_MOST_SHOWN: Final = 60


def check(allowed: Mapping[str, Check], given: Any) -> None:
    """Raises `UsageError` for the first attribute of `given` that its check does not allow."""
    for name, check_one in allowed.items():
        check_one(name, getattr(given, name))


def whole(least: int, most: int | None = None, *, or_none: bool = False, otherwise: str | None = None) -> Check:
    """A whole number from `least` to `most`. `otherwise` is a word that could have been given instead."""
    limits = f"from {least} to {most}" if most is not None else f"of {least} or more"
    words = f"a whole number {limits}{' or None' * or_none}{f' or {otherwise!r}' if otherwise is not None else ''}"

    def allowed(name: str, value: Any) -> None:
        if value is None and or_none:
            return
        if not _is_number(value, Integral) or value < least or (most is not None and value > most):
            raise _not_allowed(name, value, words)

    return allowed


def seconds(*, or_none: bool = False, or_zero: bool = False) -> Check:
    """A time; None, where it is allowed, is no limit."""
    limits = "0 or more" if or_zero else "more than 0"
    words = f"a number of seconds, {limits}{', or None for no limit' * or_none}"

    def allowed(name: str, value: Any) -> None:
        if value is None and or_none:
            return
        if not _is_number(value, Real) or not isfinite(value) or value < 0 or (not value and not or_zero):
            raise _not_allowed(name, value, words)

    return allowed


def function(of: str, *, may_be_async: bool = True) -> Check:
    """A handler that is called with `of`, or None. Not `may_be_async` if its answer counts: a coroutine is as good as a yes."""
    kind = "a function" if may_be_async else "a function without async"

    def allowed(name: str, value: Any) -> None:
        if value is None:
            return
        if not callable(value) or isinstance(value, type):
            raise _not_allowed(name, value, f"{kind} of {of}, or None")
        if not may_be_async and inspect.iscoroutinefunction(value):
            raise UsageError(f"{name} is {kind} of {of}, and not the async function {name_of(value)}")

    return allowed


def identity(name: str, value: Any) -> None:
    """A `UserIdentity`, or None. Anything else may be a passcode, and is not shown."""
    if value is not None and not isinstance(value, UserIdentity):
        raise UsageError(f"{name} is a UserIdentity, or None, and not a {type(value).__name__}")


def tls(kind: Literal["TlsClient", "TlsServer"], who: str) -> Check:
    """An `SSLContext`, a value of `kind`, or None for no TLS."""

    def allowed(_: str, value: Any) -> None:
        if value is None or isinstance(value, SSLContext):
            return
        from tomowire.aio import tls as kinds  # a program without TLS does not need it

        if not isinstance(value, getattr(kinds, kind)):
            raise UsageError(f"{who} needs a {kind} or an SSLContext for TLS, and not a {type(value).__name__}")

    return allowed


def awaited(name: str, handler: Any, result: Any) -> Any:
    """What an asynchronous `handler` has given to be awaited. Raises `UsageError` that names it: `async` was forgotten."""
    if not inspect.isawaitable(result):
        raise UsageError(f"{name} is no async function (`async def`): {name_of(handler)}")
    return result


def not_awaited(name: str, handler: Any, result: Any) -> Any:
    """What a synchronous `handler` has answered. Raises `UsageError` for a coroutine, which would be taken for a yes."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise UsageError(f"{name} must not be asynchronous: {name_of(handler)}")
    return result


def name_of(handler: Any) -> str:
    """A handler's name, with its module."""
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f"{getattr(handler, '__module__', None) or type(handler).__module__}.{name}"


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _not_allowed(name: str, value: Any, words: str) -> UsageError:
    shown = repr(value)
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
    kind = "" if value is None else f" ({type(value).__name__})"
    return UsageError(f"{name} is {words}, and not {shown}{kind}")
