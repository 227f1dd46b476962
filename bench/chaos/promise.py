"""What a run of one promise is given, and what it finds."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.postgres import Cluster

ENGINES = ("sqlite", "postgresql")


class BrokenPromise(Exception):
    """Something was promised and did not hold; the text says what."""


class CannotTry(Exception):
    """This machine lacks what the fault is injected with; the text says what."""


@dataclass(slots=True)
class Tally:
    """What a promise was tried on. `lost`: acknowledged and gone, or owed and neither sent nor shown as doubtful (a silent
    unknown is a loss). `doubled`: twice in a timeline, at a provider, or under two ids. `unresolved`: shown as of unknown fate."""

    tried: int = 0
    lost: int = 0
    doubled: int = 0
    unresolved: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.tried += other.tried
        self.lost += other.lost
        self.doubled += other.doubled
        self.unresolved += other.unresolved
        self.notes += other.notes


@dataclass(slots=True)
class Run:
    """One promise on one engine: how far it goes, its seed, its directory and, on PostgreSQL, its cluster."""

    engine: str
    full: bool
    seed: int
    directory: Path
    cluster: Cluster | None = None
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def size(self, short: int, full: int) -> int:
        return full if self.full else short


@dataclass(frozen=True, slots=True)
class Promise:
    """`name` begins with the fault's id; `engines` are those it means something on."""

    name: str
    keep: Callable[[Run], Awaitable[Tally]]
    engines: tuple[str, ...] = ENGINES

    @property
    def id(self) -> str:
        return self.name.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one promise stood on one engine."""

    promise: str
    engine: str
    tally: Tally
    seconds: float
    fault: str = ""  # why it is broken apart from the counts
    skipped: str = ""  # why it could not be tried

    @property
    def ok(self) -> bool:
        return not (self.fault or self.tally.lost or self.tally.doubled)

    def line(self) -> str:
        word = "skipped" if self.skipped else "kept" if self.ok else "BROKEN"
        counts = f"tried {self.tally.tried:>6}, lost {self.tally.lost}, doubled {self.tally.doubled}, unresolved {self.tally.unresolved}"
        told = "; ".join(filter(None, (self.skipped, self.fault, *self.tally.notes)))
        return f"{word:<7} {self.engine:<10} {self.promise}: {counts} ({self.seconds:.1f} s)" + (f" -- {told}" if told else "")

    def entry(self) -> dict[str, object]:
        """As it stands in chaos.json; a broken or skipped promise says so in its name."""
        name = self.promise + (f" [BROKEN: {self.fault}]" if self.fault else f" [skipped: {self.skipped}]" if self.skipped else "")
        counts = {key: getattr(self.tally, key) for key in ("tried", "lost", "doubled", "unresolved")}
        return {"promise": name, "engine": self.engine, **counts}
