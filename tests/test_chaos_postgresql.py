"""The fault matrix in its short form, on PostgreSQL, with the database itself among what is killed (see test_chaos)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.__main__ import SEED, seed_of
from bench.chaos.matrix import PROMISES
from bench.chaos.promise import Promise, Run
from tests.postgres import Cluster, postgresql_missing
from tests.test_chaos import keep

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(postgresql_missing()), reason=postgresql_missing() or "PostgreSQL is there"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One of its own: these tests kill it."""
    with Cluster(fsync=True) as made:
        yield made


@pytest.mark.parametrize("promise", [p for p in PROMISES if "postgresql" in p.engines], ids=lambda promise: promise.id)
async def test_promise_is_kept_on_postgresql(promise: Promise, cluster: Cluster, tmp_path: Path) -> None:
    await keep(promise, Run("postgresql", False, seed_of(SEED, promise, "postgresql"), tmp_path, cluster))
