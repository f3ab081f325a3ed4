"""A few lines of SVG: boxes, arrows and text. A picture has its own ground, so that it can be read on a dark page too."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

Point = tuple[float, float]

INK: Final = "#1b2733"
LINE: Final = "#4a6078"
QUIET: Final = "#9aa9b8"
FILL: Final = "#e8f0f8"
STRONG: Final = "#cfe3d4"
NOTE: Final = "#fbf3dc"

_HEAD: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">
<title>{title}</title>
<style>text {{ font: 13px system-ui, sans-serif; fill: {ink}; }} .small {{ font-size: 11px; }} .strong {{ font-weight: 600; }}
.halo {{ paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }}</style>
<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
<path d="M0 0 10 5 0 10z" fill="{line}"/></marker></defs>
<rect width="100%" height="100%" rx="8" fill="#fff"/>"""


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    head = _HEAD.format(width=width, height=height, title=escape(title), ink=INK, line=LINE)
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def box(centre: Point, size: Point, lines: Sequence[str], *, fill: str = FILL) -> str:
    """A box with lines of text in its middle, the first of them strong."""
    (x, y), (width, height) = centre, size
    first = y - 8 * (len(lines) - 1) + 4
    texts = [text((x, first + 16 * n), line, kind="small" if n else "strong") for n, line in enumerate(lines)]
    frame = f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="6" '
    return "\n".join([f'{frame}fill="{fill}" stroke="{LINE}"/>', *texts])


def text(at: Point, words: str, *, kind: str = "small", anchor: str = "middle", halo: bool = False) -> str:
    """One line; `kind` is `small`, `strong` or empty."""
    style = f"{kind} halo" if halo else kind
    return f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


def arrow(points: Sequence[Point], *, dashed: bool = False) -> str:
    """A line through the points, with its head at the last."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.4"{dash} marker-end="url(#end)"/>'


def border(centre: Point, size: Point, towards: Point) -> Point:
    """Where the line from the middle of a box to `towards` leaves the box."""
    (x, y), dx, dy = centre, towards[0] - centre[0], towards[1] - centre[1]
    scale = min(size[0] / 2 / abs(dx) if dx else 1e9, size[1] / 2 / abs(dy) if dy else 1e9)
    return x + dx * scale, y + dy * scale
