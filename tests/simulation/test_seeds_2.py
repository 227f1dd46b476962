"""The other half of the seeds: whatever happens in them, every promise holds. Two files, so that two test workers share the seeds."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import CHUNK, SEEDS, chunk


@pytest.mark.parametrize("first", range(SEEDS // 2, SEEDS, CHUNK))
def test_every_promise_holds_whatever_the_seed_brings(first: int) -> None:
    chunk(first)
