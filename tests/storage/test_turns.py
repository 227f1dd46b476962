"""A turn is one process's at a time, and nobody's for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.storage.turns import LONGEST, GiveTurn, TakeTurn
from tests.delivery import SECOND, ground

# what happened before, in order -> whether "me" gets the turn now
TURNS: dict[str, tuple[list[Any], bool]] = {
    "free": ([], True),
    "somebody has it": ([TakeTurn("t", "other", 60)], False),
    "another one's turn is no matter": ([TakeTurn("u", "other", 60)], True),
    "mine already": ([TakeTurn("t", "me", 60)], True),
    "somebody gave it back": ([TakeTurn("t", "other", 60), GiveTurn("t", "other")], True),
    "only its owner gives it back": ([TakeTurn("t", "other", 60), GiveTurn("t", "third")], False),
    "it ran out": ([TakeTurn("t", "other", 60), 61], True),
    "it has not quite": ([TakeTurn("t", "other", 60), 59], False),
    "it was kept": ([TakeTurn("t", "other", 60), 50, TakeTurn("t", "other", 60), 50], False),
    "taken by a clock that ran a year ahead": ([TakeTurn("t", "other", 365 * 86_400)], True),
}


@pytest.mark.parametrize(("before", "got"), TURNS.values(), ids=TURNS)
async def test_who_gets_the_turn(before: list[Any], got: bool, tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        for step in before:
            if isinstance(step, int):
                at.clock.pass_(step)
            else:
                await at.run(step)
        assert await at.run(TakeTurn("t", "me", 60)) is got


async def test_giving_back_what_was_never_taken_is_no_matter(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.run(GiveTurn("t", "me"))
        assert await at.all("setting") == []
    assert LONGEST == 3_600 * SECOND
