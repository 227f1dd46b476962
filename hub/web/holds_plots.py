"""The plots of the pages about holds as numbers for inline SVG: worked out here, only written down by templates.

Each is 100 wide and stretched to its place, so no text stands in it: it would shrink with it on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH = 100.0


class Bar(NamedTuple):
    """One bar; `y` is its upper end, `slot` the left end of the slice of the plot that is its own, `wide` how wide that is."""

    x: float
    y: float
    width: float
    height: float
    slot: float
    wide: float
    label: str
    value: int


def bars(values: Sequence[tuple[str, int]], height: float = 40.0, gap: float = 0.25) -> list[Bar]:
    """Upright bars side by side, the highest as high as the plot. Pure."""
    top = max((value for _, value in values), default=0)
    slot = WIDTH / max(1, len(values))
    drawn = []
    for at, (label, value) in enumerate(values):
        tall = value / top * height if top else 0.0
        left, wide = at * slot, slot * (1 - gap)
        drawn.append(Bar(_cut(left + slot * gap / 2), _cut(height - tall), _cut(wide), _cut(tall), _cut(left), _cut(slot), label, value))
    return drawn


class Spot(NamedTuple):
    """One value of a line at (`at`, `y`); `x` and `width` are the slice of the plot that is its own."""

    x: float
    width: float
    at: float
    y: float
    label: str
    value: int


@dataclass(frozen=True, slots=True)
class Line:
    spots: tuple[Spot, ...]
    line: str  # points of a polyline
    area: str  # points of the polygon below it
    top: int  # the value at the upper end
    mark: float | None  # the height of the line drawn across; None: it lies above the plot
    height: float


def line(values: Sequence[tuple[str, int]], mark: float = 0.0, height: float = 40.0) -> Line:
    """A line through its values, with another drawn across at `mark` where that is within three times the highest. Pure."""
    highest = max((value for _, value in values), default=0)
    shown = 0 < mark <= 3 * highest
    top = max(1.0, 1.1 * highest, 1.1 * mark if shown else 0.0)
    slot, last = WIDTH / max(1, len(values)), max(1, len(values) - 1)
    spots = tuple(
        Spot(_cut(at * slot), _cut(slot), _cut(at / last * WIDTH), _cut(height - value / top * height), label, value)
        for at, (label, value) in enumerate(values)
    )
    points = " ".join(f"{spot.at:g},{spot.y:g}" for spot in spots)
    area = f"0,{height:g} {points} {WIDTH:g},{height:g}"
    return Line(spots, points, area, round(top), _cut(height - mark / top * height) if shown else None, height)


def full(value: float, whole: float) -> float:
    """How much of a bar that lies down is full, 0 to 100. Pure."""
    return _cut(WIDTH * min(1.0, value / whole)) if whole else 0.0


def _cut(number: float) -> float:
    return round(number, 2)
