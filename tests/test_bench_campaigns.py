"""The campaign simulation in its short form: it finds leaks where the reconciler or the gate is switched off, and explains the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.campaigns import figures, live, told
from bench.campaigns_run import Outcome
from bench.campaigns_world import GATED, TOOLS, Size, Truth, World, draw

SIZE = Size(customers=80, events=400, campaigns=40, days=5)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome]:
    """The history with the reconciler, and without it."""
    directory: Path = tmp_path_factory.mktemp("campaigns")
    return live(SIZE, directory), live(SIZE, directory, False)


def test_with_the_gate_nobody_held_is_reached_and_without_it_somebody_is(lived: tuple[Outcome, Outcome]) -> None:
    on, _ = lived
    assert on.leaks["d", GATED] == 0
    assert on.leaks["d-", GATED] > 0


def test_without_the_reconciler_more_are_reached(lived: tuple[Outcome, Outcome]) -> None:
    on, off = lived
    assert sum(off.leaks["c", tool] for tool in TOOLS) > sum(on.leaks["c", tool] for tool in TOOLS)


def test_each_world_does_better_than_the_one_before(lived: tuple[Outcome, Outcome]) -> None:
    on, _ = lived
    reached = [sum(on.leaks[world, tool] for tool in TOOLS) for world in ("a", "b", "c", "d")]
    assert reached == sorted(reached, reverse=True)
    assert reached[0] > reached[-1]


def test_every_leak_is_explained_and_the_gate_agrees_with_the_history(lived: tuple[Outcome, Outcome]) -> None:
    on, _ = lived
    assert (on.odd, on.disagreed) == ([], 0)
    assert sum(on.causes.values()) == sum(on.leaks[world, tool] for world in ("c", "d") for tool in TOOLS)


def test_the_story_names_every_world_and_a_missed_bound_fails_the_run(lived: tuple[Outcome, Outcome]) -> None:
    on, off = lived
    story = "\n".join(told(SIZE, on))
    assert all(name in story for name in ("no hub", "a flag only", "reconciled holds", "gate and watch"))
    assert all(figure.ok is not False for figure in figures(on, on, off, 1.0))
    broken = replace(on, disagreed=1)
    assert any(figure.ok is False for figure in figures(broken, on, off, 1.0))


def test_a_history_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    def shape(world: World) -> tuple[object, ...]:
        return world.happenings, world.plans, world.troubles, world.known_from

    assert shape(draw(SIZE)) == shape(draw(SIZE))
    assert shape(draw(SIZE)) != shape(draw(replace(SIZE, seed=6)))


def test_the_history_keeps_its_own_book_of_who_is_held() -> None:
    world = draw(SIZE)
    truth = Truth(SIZE)
    for one in world.happenings:
        truth.pass_(one.at)
        truth.note(one, one.at)
    assert any(log for log in truth.log)
    for log in truth.log:
        assert [held for _, held in log] == [number % 2 == 0 for number in range(len(log))], "held, free, held, ..."
