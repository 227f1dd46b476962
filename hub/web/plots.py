"""Plots as numbers for inline SVG: where bars and lines stand. Pure; templates draw them, style sheets colour them.

A plot is 360 units wide, which is about what a column of a page has, so that its letters keep their size on a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 180
TOP, BOTTOM = 18, 22  # room for figures above and names below


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its place, what stands below and above it, and how it is meant (`low`, `mid`, `good`)."""

    x: float
    y: float
    width: float
    height: float
    name: str
    figure: str
    tone: str

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)


def bars(counts: Sequence[tuple[str, int, str]], gap: float = 6) -> list[Bar]:
    """Upright bars for (name, count, tone), the highest as high as there is room. A count of nothing has no bar, but its place."""
    highest = max([count for _, count, _ in counts] or [0]) or 1
    slot, room = WIDTH / max(len(counts), 1), HEIGHT - TOP - BOTTOM
    drawn = []
    for at, (name, count, tone) in enumerate(counts):
        height = max(round(room * count / highest, 1), 2.0) if count else 0.0
        place = (round(at * slot + gap / 2, 1), round(HEIGHT - BOTTOM - height, 1))
        drawn.append(Bar(*place, round(slot - gap, 1), height, name, str(count) if count else "", tone))
    return drawn


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    name: str
    figure: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line over time. Where there is no value the line is broken: `pieces` are lists of points to join, `names` stands below."""

    points: tuple[Point, ...]
    pieces: tuple[tuple[Point, ...], ...]
    names: tuple[Point, ...]
    lowest: str
    highest: str

    def path(self, piece: Sequence[Point]) -> str:
        """The points as an SVG `points` attribute takes them."""
        return " ".join(f"{point.x},{point.y}" for point in piece)


LEFT = 34  # room for the names of the lowest and the highest value
NAMED = 5  # so many names below a line, or they run into each other


def line(values: Sequence[tuple[str, float | None, str]], lowest: float, highest: float) -> Line:
    """A line through (name, value, figure); a value of None is a gap. The scale goes from `lowest` to `highest`."""
    room, width = HEIGHT - TOP - BOTTOM, WIDTH - LEFT - 14
    step = width / max(len(values) - 1, 1)
    places: list[Point | None] = []
    for at, (name, value, figure) in enumerate(values):
        x = LEFT + (at * step if len(values) > 1 else width / 2)
        share = 0.0 if value is None else (value - lowest) / (highest - lowest)
        y = HEIGHT - BOTTOM - room * min(max(share, 0.0), 1.0)
        places.append(None if value is None else Point(round(x, 1), round(y, 1), name, figure))
    pieces: list[list[Point]] = [[]]
    for place in places:
        if place is None:
            pieces.append([])
        else:
            pieces[-1].append(place)
    every = max(-(-len(values) // NAMED), 1)
    names = [
        Point(round(LEFT + (at * step if len(values) > 1 else width / 2), 1), HEIGHT - 6, name, "")
        for at, (name, _, _) in enumerate(values)
        if at % every == 0
    ]
    return Line(
        tuple(place for place in places if place is not None),
        tuple(tuple(piece) for piece in pieces if len(piece) > 1),
        tuple(names),
        f"{lowest:g}",
        f"{highest:g}",
    )


@dataclass(frozen=True, slots=True)
class Share:
    """One part of a bar that lies on its side."""

    x: float
    width: float
    tone: str


def shares(parts: Sequence[tuple[int, str]], width: float = 100) -> list[Share]:
    """A bar of this width in parts of (count, tone); parts of nothing are left out."""
    whole, x = sum(count for count, _ in parts) or 1, 0.0
    drawn = []
    for count, tone in parts:
        if count:
            drawn.append(Share(round(x, 2), round(width * count / whole, 2), tone))
            x += width * count / whole
    return drawn
