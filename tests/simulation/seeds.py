"""Which seeds a file of tests runs, in chunks that test workers share out, and what a failing one says."""

from __future__ import annotations

from typing import Any

from tests.simulation.world import simulate

CHUNK = 50


def chunk(first: int, **changes: Any) -> None:
    """Run a chunk of seeds, all of them. Raises AssertionError naming every one that broke a promise."""
    broken: list[str] = []
    for seed in range(first, first + CHUNK):
        try:
            simulate(seed, **changes)
        except AssertionError as error:
            broken.append(str(error))
    assert not broken, "\n".join([f"{len(broken)} of {CHUNK} seeds:", *broken[:5]])
