"""The pictures of docs/architecture.md: the layers, as the import contract has them, and the way of one object through them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from svg import NOTE, QUIET, Point, arrow, box, picture, text

_PROJECT: Final = Path(__file__).parents[2] / "pyproject.toml"
_MEANING: Final[Mapping[str, str]] = {
    "cli": "one thin file per command",
    "testing": "peers that misbehave, for tests",
    "web": "the REST API, health, metrics",
    "server": "the archive; app.py puts the parts together",
    "services": "one file per service class of PS3.4, SCU and SCP side by side",
    "aio": "transports, buffers, backpressure, connect, listen; takes no protocol decision",
    "protocol": "the states of PS3.8 as one table, negotiation, DIMSE messages",
    "wire": "PDUs and their items, PDV headers, command sets, Part 10 file meta",
    "errors": "every exception",
    "uids": "SOP classes, transfer syntaxes",
}
_ROOM: Final = 84


def contract() -> list[list[str]]:
    """The layers from the top, each with those that stand side by side in it."""
    contracts = tomllib.loads(_PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["id"] == "layers")
    rows = [
        [part.strip(" ()").removeprefix("tomowire.") for part in row.replace("|", ":").split(":")] for row in layers
    ]
    return [[name for name in row if not name.startswith("_")] for row in rows]


def layer_diagram() -> str:
    """A row for each layer, an arrow for what it may import."""
    rows = contract()
    parts: list[str] = []
    for place, names in enumerate(rows):
        y = 40 + place * _ROOM
        if place:
            parts.append(arrow([(330, y - _ROOM + 26), (330, y - 26)]))
        meanings = [_MEANING[name] for name in names if name in _MEANING]
        parts.append(box((330, y), (620, 48), [", ".join(names), "; ".join(meanings)]))
    line = 40 + (rows.index(["services"]) + 0.5) * _ROOM
    parts.append(f'<line x1="20" y1="{line:g}" x2="640" y2="{line:g}" stroke="{QUIET}" stroke-dasharray="5 4"/>')
    parts.append(text((640, line - 5), "below: a data set is opaque bytes", anchor="end", halo=True))
    return picture(660, 40 + len(rows) * _ROOM - 24, "The layers of tomowire: imports go down", parts)


_ROLES: Final = ("kernel", "aio", "protocol", "services/storage", "server/ingest")
_STEPS: Final = (
    ("kernel", "aio", "bytes, into a reused block"),
    ("aio", "protocol", "the bytes and the time"),
    ("protocol", "aio", "events: slices of the same block"),
    ("aio", "services/storage", "the command set (C-STORE-RQ)"),
    ("services/storage", "server/ingest", "what it is, and the stream"),
    ("aio", "server/ingest", "data, not copied, as blocks fill"),
    ("server/ingest", "aio", "no free block: stop reading (backpressure)"),
    ("server/ingest", "server/ingest", "scan the header, journal, write and sync the file, commit the index"),
    ("server/ingest", "services/storage", "stored"),
    ("services/storage", "protocol", "C-STORE-RSP, Success"),
    ("protocol", "kernel", "bytes to send"),
)


def way_in() -> str:
    """Who hands what to whom while one object is stored, from top to bottom."""
    at: dict[str, float] = {role: 90 + 205 * number for number, role in enumerate(_ROLES)}
    bottom = 110 + 44 * len(_STEPS)
    parts = [f'<line x1="{x}" y1="60" x2="{x}" y2="{bottom}" stroke="{QUIET}"/>' for x in at.values()]
    parts += [box((x, 40), (150, 36), [role]) for role, x in at.items()]
    for number, (giver, taker, what) in enumerate(_STEPS):
        parts.append(_step((at[giver], 104 + 44 * number), at[taker], what))
    return picture(1000, bottom + 16, "The way of one object into the archive", parts)


def _step(start: Point, end: float, what: str) -> str:
    x, y = start
    if x == end:
        return box((x - 150, y), (440, 28), [what], fill=NOTE).replace('class="strong"', 'class="small"')
    return "\n".join([arrow([(x, y), (end, y)]), text(((x + end) / 2, y - 5), what, halo=True)])
