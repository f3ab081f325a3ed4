"""Sizes in bytes, as a person types them: `512M`, `2G`."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:i?B)?", re.IGNORECASE)


class Size(click.ParamType[int]):
    """A number of bytes, with a unit if one likes: K, M, G or T, powers of 1024. At least `least`."""

    name = "size"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(
                f"{value!r} is no size: write a number of bytes, or one with a unit, as in 512M or 2G", param, ctx
            )
        size = int(float(match[1]) * _UNITS[match[2].upper()])
        if size < self._least:
            self.fail(f"{value} is too little: {self._least >> 20}M is the least", param, ctx)
        return size
