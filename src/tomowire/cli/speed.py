"""Options that say how fast is sent: over how many associations, and with how much of the line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.services.adapting import AUTO, DEFAULT_MOST_ASSOCIATIONS, AdaptivePace

if TYPE_CHECKING:
    from tomowire.services.adapting import Pace

_MOST: Final = 64
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class _Associations(click.ParamType["int | Pace"]):
    """A number, or `auto`."""

    name = f"integer or {AUTO}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Pace:
        if value == AUTO:
            return AdaptivePace(DEFAULT_MOST_ASSOCIATIONS)
        number = int(value) if str(value).isdecimal() else 0
        if not 1 <= number <= _MOST:
            self.fail(f"{value!r} is neither a number from 1 to {_MOST} nor {AUTO!r}", param, ctx)
        return number


class _Rate(click.ParamType[float]):
    """Bytes per second, as a person writes them."""

    name = "bytes per second"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _RATE.fullmatch(str(value))
        rate = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
        if not rate:
            self.fail(f"{value!r} is no number of bytes per second: write 500k, 10M or 1.5G", param, ctx)
        return rate


associations_option = click.option(
    "-j",
    "--associations",
    type=_Associations(),
    default="1",
    show_default=True,
    help=f"Associations at the same time; {AUTO} finds out how many make it faster, up to {DEFAULT_MOST_ASSOCIATIONS};"
    " it is one where nothing may be sent twice (--retries 0).",
)
bandwidth_option = click.option(
    "--bandwidth",
    type=_Rate(),
    help="Send no more than so many bytes per second over all associations together, such as 500k or 10M (k, M, G: 1000s).",
)
