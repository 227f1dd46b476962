"""The fault matrix in its short form, on SQLite: the real server dies, is cut off and is starved, and every promise holds.

`make chaos FULL=1` goes further: more of everything, and every point of F1 on both engines, where here each engine is killed at half
of those that are not the database's own. The same on PostgreSQL is in test_chaos_postgresql, so that both run at the same time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chaos.__main__ import SEED, seed_of
from bench.chaos.matrix import PROMISES
from bench.chaos.promise import CannotTry, Promise, Run

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


@pytest.mark.parametrize("promise", [p for p in PROMISES if "sqlite" in p.engines], ids=lambda promise: promise.id)
async def test_promise_is_kept_on_sqlite(promise: Promise, tmp_path: Path) -> None:
    await keep(promise, Run("sqlite", False, seed_of(SEED, promise, "sqlite"), tmp_path))


async def keep(promise: Promise, run: Run) -> None:
    """Nothing lost, nothing doubled, and nothing else broken (that raises BrokenPromise)."""
    try:
        tally = await promise.keep(run)
    except CannotTry as missing:
        pytest.skip(str(missing))
    assert tally.tried, "it was tried on nothing"
    assert (tally.lost, tally.doubled) == (0, 0), tally
