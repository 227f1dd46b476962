"""The simulation itself: a seed comes out the same every time, it meets all it is there for, and it catches what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hub import reactions
from hub.conversations.ingest import Ingest
from hub.delivery import owed, states, works
from hub.storage.facts import Facts
from hub.storage.records import Dedupe, Event
from tests.conftest import ROOT
from tests.simulation.store import SimulatedWriter
from tests.simulation.world import POLICY, simulate

FEW = range(5_000, 5_100)
ENOUGH = 300  # seeds within which a mistake must be caught


def test_a_seed_comes_out_the_same_every_time_whatever_the_order_of_sets() -> None:
    script = "from tests.simulation.world import simulate; print([simulate(s).digest() for s in range(7_000, 7_012)])"
    told = []
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        told.append(done.stdout)
    assert told[0] == told[1]
    assert len(set(eval(told[0]))) == 12, "other seeds, other worlds"


def test_the_seeds_meet_all_that_they_are_there_for() -> None:
    seen: Counter[str] = Counter()
    joins = reopened = 0
    for seed in FEW:
        world = simulate(seed)
        seen += world.seen
        joins += len(world.model.rows("SELECT 1 FROM join_log"))
        reopened += len(world.model.rows("SELECT 1 FROM event WHERE type = 'ticket.reopened'"))
    wanted = (
        *("commit stored", "commit refused", "commit lost", "commit crash after", "death", "restart", "storage outage", "clock jump"),
        *("long absence", "double click", "delivered again", "answer lost on the way", "retried by a person", "agent refused"),
        *(f"{kind}: {temper}" for kind in ("reply", "card", "hold", "media") for temper in ("takes it", "asks to wait", "is slow")),
        *("reply: takes it, answer lost", "reply: takes it, never answers", "reply: refuses"),
        *(f"message {status}" for status in ("sending", "sent", "delivered", "read", "failed", "unknown")),
    )
    assert [what for what in wanted if not seen[what]] == []
    assert joins > 10
    assert reopened > 10


class _Forgetful(set[Any]):
    def __contains__(self, key: object) -> bool:
        return False


def _no_dedupe(patch: pytest.MonkeyPatch) -> None:
    decide, insert = Ingest.decide, Facts.insert

    def without(self: Ingest, facts: Facts) -> Any:
        facts.dedupe = _Forgetful()
        return decide(self, facts)

    patch.setattr(Ingest, "decide", without)
    patch.setattr(Facts, "insert", lambda self, row: None if isinstance(row, Dedupe) else insert(self, row))


def _sends_again_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(works, "_lost", lambda row, facts: works._queue(row, facts))


def _gives_lost_answers_another_try(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(works, "_unknown", lambda row, error, facts: works._queue(row, facts))


def _forgets_to_release_holds(patch: pytest.MonkeyPatch) -> None:
    left = tuple(reaction for reaction in reactions.REACTIONS["ticket.resolved"] if reaction.__name__ != "on_ticket")
    patch.setitem(reactions.REACTIONS, "ticket.resolved", left)


def _keeps_releases_to_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(reactions.REACTIONS, "hold.released", ())


def _sends_in_any_order(patch: pytest.MonkeyPatch) -> None:
    owe = owed._owe

    def alone(facts: Facts, *, lane: str, subject_id: int, **given: Any) -> None:
        owe(facts, lane=f"{lane}:{subject_id}", subject_id=subject_id, **given)

    def send_reply(facts: Facts, event: Event) -> None:
        patch.setattr(owed, "_owe", alone)
        owed.send_reply(facts, event)
        patch.setattr(owed, "_owe", owe)

    patch.setitem(reactions.REACTIONS, "message.queued", (send_reply,))


def _believes_the_latest_report(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(states, "advance", lambda current, reported: reported)


def _calls_a_lost_answer_sent(patch: pytest.MonkeyPatch) -> None:
    def hopeful(row: Any, error: str, facts: Facts) -> None:
        row.state = "done"
        facts.change(row)
        works._tell_message(row, "sent", "", facts)

    patch.setattr(works, "_unknown", hopeful)


def _answers_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    feed = SimulatedWriter._feed

    def early(self: SimulatedWriter) -> None:
        for unit in self._waiting:
            if isinstance(unit.work, Ingest) and not unit.future.done():
                unit.future.set_result(None)
        feed(self)

    patch.setattr(SimulatedWriter, "_feed", early)


def _notes_a_card_without_its_version(patch: pytest.MonkeyPatch) -> None:
    decide = works.Finish.decide

    def whatever(self: Any, facts: Facts) -> bool:
        row = facts.deliveries.get(self.delivery_id)
        return decide(replace(self, version=row.version) if row is not None else self, facts)

    patch.setattr(works.Finish, "decide", whatever)


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "duplicates are not looked for": _no_dedupe,
    "what a dead worker left is sent again": _sends_again_after_a_crash,
    "a lost answer is sent again": _gives_lost_answers_another_try,
    "a lost answer passes for sent": _calls_a_lost_answer_sent,
    "a resolved ticket goes on holding": _forgets_to_release_holds,
    "destinations do not hear of releases": _keeps_releases_to_itself,
    "each answer has a lane of its own": _sends_in_any_order,
    "the latest report wins": _believes_the_latest_report,
    "a webhook is answered before the commit": _answers_before_the_commit,
    "a card that changed meanwhile is done": _notes_a_card_without_its_version,
}


def _caught(**changes: Any) -> tuple[int, str]:
    """The first seed that fails, and what it says."""
    for seed in range(9_000, 9_000 + ENOUGH):
        try:
            simulate(seed, **changes)
        except AssertionError as error:
            return seed - 9_000 + 1, str(error)
    pytest.fail(f"{ENOUGH} seeds, and none of them noticed")


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_mistake_in_the_hub_is_caught(mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    seeds, said = _caught()
    sys.stdout.write(f"caught by seed {seeds}: {said}\n")


def test_leases_that_nobody_heeds_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = works.Claim.decide

    def heedless(self: works.Claim, facts: Facts) -> Any:
        for row in facts.claimable:
            row.state = "queued"  # whoever has it in hand
            row.due_at = min(row.due_at, facts.now)
        return decide(self, facts)

    monkeypatch.setattr(works.Claim, "decide", heedless)
    seeds, said = _caught(policy=replace(POLICY, delivery_lease=1))
    sys.stdout.write(f"caught by seed {seeds}: {said}\n")
