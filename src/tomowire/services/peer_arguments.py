"""What callers of a `Peer` give, looked at where it is given: a `UsageError` that names the argument, at once."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.arguments import seconds
from tomowire.aio.connect import associate
from tomowire.errors import UsageError
from tomowire.services.extended import expanded
from tomowire.services.folder import Folder
from tomowire.services.models import Model
from tomowire.services.timeouts import Timeouts, Unset

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAY_BE_NONE: Final = frozenset({"echo", "find", "retrieve"})


def check_timeouts(given: Any, **of_call: Any) -> None:
    """A `Timeouts` with numbers in it; and those `of_call`, by the names of their arguments."""
    if not isinstance(given, Timeouts):
        raise UsageError(f"timeouts is a Timeouts, such as Timeouts(find=60): not {given!r}")
    for each in fields(given):
        seconds(or_none=each.name in _MAY_BE_NONE, or_zero=True)(f"Timeouts.{each.name}", getattr(given, each.name))
    for name, time in of_call.items():
        if not isinstance(time, Unset):
            seconds(or_none=name == "timeout", or_zero=True)(name, time)


def check_model(given: Any) -> None:
    """A query model, or none."""
    if given is not None and not isinstance(given, Model):
        raise UsageError(f"model is a Model, such as Model.STUDY_ROOT: not {given!r}")


def check_place(given: Any) -> None:
    """Where retrieved objects go."""
    if not (isinstance(given, str | PathLike | Folder) or callable(given)) or given == "":
        raise UsageError(f"into is a folder, its path, or an async function that takes a StoreRequest: not {given!r}")


def association_options(options: Mapping[str, Any], who: str) -> dict[str, Any]:
    """What goes to `associate`. A name that it does not know is told at once, and of `who` got it: not by the first association."""
    for name in options:
        if name not in signature(associate).parameters:
            raise TypeError(f"{who}() got an unexpected keyword argument {name!r}")
    return dict(options) | ({"extended": expanded(options["extended"])} if "extended" in options else {})
