"""What was measured: a line for people, an entry in latest.json, and whether a floor was missed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: the median of its samples, judged against a bound.

    `at_least` and `at_most` are what the figure must hold (missing it fails the run); `goal` is what it is worth striving for.
    """

    name: str
    samples: tuple[float, ...]
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    goal: float | None = None
    void: str = ""  # why these samples count for nothing
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.samples) if self.samples else 0.0

    @property
    def ok(self) -> bool | None:
        """Whether the bound holds; None where the figure is for information only."""
        if self.void:
            return False
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (self.at_most is None or self.value <= self.at_most)

    @property
    def bound(self) -> str:
        parts = [f">= {self.at_least:g}"] if self.at_least is not None else []
        parts += [f"<= {self.at_most:g}"] if self.at_most is not None else []
        parts += [f"goal {self.goal:g}"] if self.goal is not None and self.goal not in (self.at_least, self.at_most) else []
        return ", ".join(parts)

    def entry(self) -> dict[str, object]:
        """The figure as it stands in latest.json; `ok` speaks of the bound, not of the goal."""
        bound = self.at_least if self.at_least is not None else self.at_most
        goal = self.goal if self.goal is not None else bound
        return {"name": self.name, "value": round(self.value, 4), "unit": self.unit, "goal": goal, "ok": self.ok}


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns: median, smallest and largest sample, how many samples, the bound."""
    head = ("figure", "median", "min", "max", "n", "unit", "bound", "")
    verdicts = {None: "", True: "ok", False: "MISSED"}
    rows = [
        (
            figure.name,
            _number(figure.value),
            _number(min(figure.samples, default=0.0)),
            _number(max(figure.samples, default=0.0)),
            str(len(figure.samples)),
            figure.unit,
            figure.bound,
            "VOID" if figure.void else verdicts[figure.ok],
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    right = {1, 2, 3, 4}
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    lines += [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    for reason in dict.fromkeys(figure.void for figure in figures if figure.void):
        names = [figure.name for figure in figures if figure.void == reason]
        lines.append(f"void, since {reason}: {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else ""))
    return "\n".join(line.rstrip() for line in lines)


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write `[{"name", "value", "unit", "goal", "ok"}]`."""
    path.write_text(json.dumps([figure.entry() for figure in figures], indent=2) + "\n", encoding="utf-8")
