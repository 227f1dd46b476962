"""Which seeds a file of tests runs, in chunks, and what a failing one says.

The short form runs 600 seeds and 100 in a storm. The long form (two minutes of one core):

    SIMULATION_SEEDS=2000 make test ARGS=tests/simulation
"""

from __future__ import annotations

import os
from typing import Any

from tests.simulation.world import simulate

CHUNK = 25
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "600"))  # half of them in each of two files
STORMS = max(100, SEEDS * 3 // 20)


def chunk(first: int, **changes: Any) -> None:
    """Run a chunk of seeds, all of them. Raises AssertionError naming every one that broke a promise."""
    broken: list[str] = []
    for seed in range(first, first + CHUNK):
        try:
            simulate(seed, **changes)
        except AssertionError as error:
            broken.append(str(error))
    assert not broken, "\n".join([f"{len(broken)} of {CHUNK} seeds:", *broken[:5]])
