"""Seeds 1000 to 1999: whatever happens in them, every promise holds. Two files, so that two test workers share the seeds."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import CHUNK, chunk


@pytest.mark.parametrize("first", range(1000, 2000, CHUNK))
def test_every_promise_holds_whatever_the_seed_brings(first: int) -> None:
    chunk(first)
