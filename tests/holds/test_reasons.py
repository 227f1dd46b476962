"""What gives reason for a hold, and for how long: tickets as the rules have them, complaints, answers to surveys, agents and programs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.conversations.commands import Reopen, Resolve, Snooze
from hub.conversations.triage import MarkSpam, SetPriority, SetTags, tidy
from hub.holds.ledger import BY_API, COMPLAINT, COOL_DOWN, LOW_SATISFACTION, OPEN_TICKET
from hub.holds.reasons import EndHold, PlaceHold, reasons_of
from hub.holds.renewal import RenewLeases
from hub.policy import DAY, HoldRules, Policy, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Agent, Hold, Ticket
from tests.delivery import BEN, MARKETING, SECOND, START, Ground, Insert, ground

DAYS = 86_400.0  # seconds
COMPLAINS = ("complaint",)


def a_ticket(status: str = "open", **values: Any) -> Ticket:
    return replace(Ticket(7, 1, status, "", "default", 1, 1, START, START, "", home_id=1), **values)


def a_hold(reason: str, ends_at: int | None) -> Hold:
    return Hold(1, 1, reason, "ticket:7", "{}", START, START + DAY, ends_at=ends_at)


COOLS = HoldRules(resume="cool_down", cool_down=3 * DAY)
# The ticket, whether it was resolved just now, what it gave until now, the rules -> the reasons it gives
CASES: dict[str, tuple[Ticket, bool, dict[str, Hold], HoldRules, dict[str, int | None]]] = {
    "open": (a_ticket(), False, {}, HoldRules(), {OPEN_TICKET: START + 21 * DAY}),
    "what holds keeps its end": (a_ticket(), False, {OPEN_TICKET: a_hold(OPEN_TICKET, 5)}, HoldRules(), {OPEN_TICKET: 5}),
    "spam": (a_ticket(spam_at=START), False, {}, HoldRules(), {}),
    "spam with a complaint": (a_ticket(spam_at=START, tags='["complaint"]'), False, {}, HoldRules(), {}),
    "ended by hand": (a_ticket(hold_ended_at=START), False, {}, HoldRules(), {}),
    "a state that does not hold": (a_ticket("snoozed"), False, {}, HoldRules(statuses=frozenset({"open"})), {}),
    "a tag that holds": (a_ticket(tags='["refund"]'), False, {}, HoldRules(tags=frozenset({"refund"})), {OPEN_TICKET: START + 21 * DAY}),
    "no tag that holds": (a_ticket(tags='["hello"]'), False, {}, HoldRules(tags=frozenset({"refund"})), {}),
    "a tag that frees": (a_ticket(tags='["presales"]'), False, {}, HoldRules(tags_not=frozenset({"presales"})), {}),
    "urgent enough": (a_ticket(priority="high"), False, {}, HoldRules(priorities=frozenset({"high"})), {OPEN_TICKET: START + 21 * DAY}),
    "not urgent enough": (a_ticket(priority="low"), False, {}, HoldRules(priorities=frozenset({"high"})), {}),
    "resolved": (a_ticket("resolved"), True, {OPEN_TICKET: a_hold(OPEN_TICKET, None)}, HoldRules(), {}),
    "cools down": (a_ticket("resolved"), True, {OPEN_TICKET: a_hold(OPEN_TICKET, None)}, COOLS, {COOL_DOWN: START + 3 * DAY}),
    "nothing to cool down from": (a_ticket("resolved"), True, {}, COOLS, {}),
    "still cooling": (a_ticket("resolved"), False, {COOL_DOWN: a_hold(COOL_DOWN, 9)}, COOLS, {COOL_DOWN: 9}),
    "reopened while cooling": (a_ticket(), False, {COOL_DOWN: a_hold(COOL_DOWN, 9)}, COOLS, {OPEN_TICKET: START + 21 * DAY}),
    "a complaint outlives its ticket": (a_ticket("resolved", tags='["complaint"]'), True, {}, HoldRules(), {COMPLAINT: START + 14 * DAY}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_ticket_gives_the_reasons_its_rules_say(case: str) -> None:
    ticket, resolving, present, rules, expected = CASES[case]
    assert {reason: term.ends_at for reason, term in reasons_of(ticket, resolving, present, START, rules).items()} == expected


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path, destinations=MARKETING) as laid:
        await laid.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        yield laid


async def reasons(hub: Ground, customer: int = 1) -> list[str]:
    now = hub.clock()
    return sorted(h.reason for h in await hub.all("hold") if h.customer_id == customer and h.released_at is None and h.lease_until > now)


def told(hub: Ground) -> list[str]:
    return [e.type for e in hub.events if e.type.startswith("hold.")]


async def renew(hub: Ground) -> None:
    while await hub.run(RenewLeases(hub.clock() + Policy().hold_renew_under)):
        pass


async def test_a_ticket_holds_for_three_weeks_at_the_most_and_says_so(hub: Ground) -> None:
    ticket = await hub.hears()
    for _ in range(20):
        hub.clock.pass_(DAYS)
        await renew(hub)
        assert await reasons(hub) == [OPEN_TICKET]
    hub.clock.pass_(DAYS)
    await renew(hub)
    assert await reasons(hub) == []
    assert told(hub)[-1] == "hold.released"
    assert [e.ticket_id for e in hub.events if e.type == "ticket.hold_overdue"] == [ticket]
    await hub.run(SetTags(ticket, 1, ("refund",)))
    await hub.run(Snooze(ticket, 1, hub.clock() + DAY))
    assert await reasons(hub) == [], "nothing but reopening holds again"
    await hub.run(Resolve(ticket, 1))
    await hub.run(Reopen(ticket, 1))
    assert await reasons(hub) == [OPEN_TICKET]


async def test_spam_releases_at_once(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.run(MarkSpam(ticket, 1))
    assert (await reasons(hub), told(hub)) == ([], ["hold.placed", "hold.released"])
    assert (await hub.row("ticket", ticket)).status == "resolved"
    with pytest.raises(Refusal, match="already"):
        await hub.run(MarkSpam(ticket, 1))
    await hub.run(MarkSpam(ticket, 1, spam=False))
    assert await reasons(hub) == [OPEN_TICKET]


async def test_a_tag_and_a_priority_are_kept_tidy_and_said_once(hub: Ground) -> None:
    ticket = await hub.hears()
    assert await hub.run(SetTags(ticket, 1, (" Late  Parcel ", "late-parcel", "VIP")))
    assert not await hub.run(SetTags(ticket, 1, ("vip", "late parcel")))
    assert json.loads((await hub.row("ticket", ticket)).tags) == ["late-parcel", "vip"]
    assert await hub.run(SetPriority(ticket, 1, "urgent"))
    assert not await hub.run(SetPriority(ticket, 1, "urgent"))
    with pytest.raises(Refusal, match="one of"):
        await hub.run(SetPriority(ticket, 1, "asap"))
    for wrong in (("<b>",), ("x" * 41,), tuple(str(n) for n in range(21))):
        with pytest.raises(Refusal):
            tidy(wrong)


async def test_a_complaint_holds_on_after_the_ticket_is_resolved_until_its_time_is_up(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.run(SetTags(ticket, 1, COMPLAINS))
    assert await reasons(hub) == [COMPLAINT, OPEN_TICKET]
    await hub.run(Resolve(ticket, 1))
    assert await reasons(hub) == [COMPLAINT]
    for _ in range(14):
        hub.clock.pass_(DAYS)
        await renew(hub)
    assert await reasons(hub) == []
    assert told(hub)[-1] == "hold.released", "its end is told, though no ticket changed"


async def test_cooling_down_ends_by_itself_to_the_second_and_is_told(tmp_path: Path) -> None:
    async with ground(tmp_path, destinations=MARKETING, hold=HoldRules(resume="cool_down", cool_down=2 * DAY)) as hub:
        ticket = await hub.hears()
        await hub.run(Resolve(ticket, 1))
        assert (await reasons(hub), told(hub)) == ([COOL_DOWN], ["hold.placed", "hold.renewed"])
        [hold] = [h for h in await hub.all("hold") if h.reason == COOL_DOWN]
        assert hold.lease_until == hold.ends_at == hub.clock() + 2 * DAY
        hub.clock.pass_(2 * DAYS)
        assert await reasons(hub) == [], "the gate answers free, whatever runs or does not"
        await renew(hub)
        assert told(hub)[-1] == "hold.released"


class Answered:
    """A customer answered the survey of a ticket."""

    def __init__(self, ticket: int, *, low: bool = False, good: bool = False) -> None:
        self.ticket, self.said = ticket, {"survey": ticket, "kind": "csat", "score": 1 if low else 5, "low": low, "good": good}

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket)

    def decide(self, facts: Facts) -> None:
        facts.emit("survey.answered", customer_id=1, ticket_id=self.ticket, data=json.dumps(self.said))


async def test_a_bad_answer_holds_for_a_week_and_a_better_one_takes_it_back(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.run(Resolve(ticket, 1))
    await hub.run(Answered(ticket, low=True))
    assert await reasons(hub) == [LOW_SATISFACTION]
    await hub.run(Answered(ticket, good=True))
    assert await reasons(hub) == []


async def test_marketing_goes_on_after_a_good_answer_where_it_waits_for_one(tmp_path: Path) -> None:
    async with ground(tmp_path, destinations=MARKETING, hold=HoldRules(resume="good_score", cool_down=5 * DAY)) as hub:
        ticket = await hub.hears()
        await hub.run(Resolve(ticket, 1))
        await hub.run(Answered(ticket))
        assert await reasons(hub) == [COOL_DOWN], "neither good nor bad"
        await hub.run(Answered(ticket, good=True))
        assert await reasons(hub) == []


async def test_an_agent_holds_for_so_many_days_and_another_ends_it(hub: Ground) -> None:
    await hub.run(Resolve(await hub.hears(), 1))
    assert await hub.run(PlaceHold(1, 10, "agent:1", "Bereaved."))
    assert not await hub.run(PlaceHold(1, 10, "agent:1", "Again.")), "the same again changes nothing"
    hub.clock.pass_(DAYS)
    assert await hub.run(PlaceHold(1, 10, "agent:1", "Longer.")), "a later end counts"
    [hold] = [h for h in await hub.all("hold") if h.reason == "agent"]
    assert (hold.ends_at, hold.actor, hold.note) == (START + 11 * DAY, "agent:1", "Bereaved.")
    await hub.run(EndHold(1, hold.id, "agent:1", 1))
    assert await reasons(hub) == []
    with pytest.raises(Refusal, match="over already"):
        await hub.run(EndHold(1, hold.id, "agent:1", 1))


async def test_a_ticket_whose_hold_was_ended_by_hand_holds_nobody_until_it_is_reopened(hub: Ground) -> None:
    ticket = await hub.hears()
    [hold] = await hub.all("hold")
    await hub.run(EndHold(1, hold.id, "agent:1", 1))
    await hub.run(SetTags(ticket, 1, ("refund",)))
    await hub.hears(text="Hello?")
    assert await reasons(hub) == []


async def test_a_hold_without_an_end_is_renewed_for_ever(hub: Ground) -> None:
    await hub.run(Resolve(await hub.hears(), 1))
    await hub.run(PlaceHold(1, None, "program:crm", reason=BY_API, source="case 17"))
    for _ in range(30):
        hub.clock.pass_(2 * DAYS)
        await renew(hub)
        assert await reasons(hub) == [BY_API]


@pytest.mark.parametrize(
    "wrong",
    [{"days": 0.0}, {"days": 366.0}, {"reason": "open_ticket"}, {"customer_id": 99}],
    ids=["no time", "for ever", "not his", "nobody"],
)
async def test_a_hold_that_cannot_be_is_refused(hub: Ground, wrong: dict[str, Any]) -> None:
    await hub.hears()
    given: dict[str, Any] = {"customer_id": 1, "days": 1.0, "actor": "agent:1", **wrong}
    with pytest.raises(Refusal):
        await hub.run(PlaceHold(**given))


async def test_one_persons_reasons_are_not_anothers(hub: Ground) -> None:
    await hub.hears()
    await hub.hears(BEN)
    await hub.run(PlaceHold(2, 5, "agent:1"))
    hub.clock.pass_(60)
    await hub.run(Resolve(1, 1))
    assert (await reasons(hub, 1), await reasons(hub, 2)) == ([], ["agent", OPEN_TICKET])
    assert hub.clock.now == START + 60 * SECOND


async def the_hold(hub: Ground, reason: str) -> Hold:
    return next(hold for hold in await hub.all("hold") if hold.reason == reason)


async def test_a_program_ends_only_complaints_that_programs_placed(hub: Ground) -> None:
    await hub.run(SetTags(await hub.hears(), 1, COMPLAINS))
    hold = await the_hold(hub, COMPLAINT)
    with pytest.raises(Refusal):
        await hub.run(EndHold(1, hold.id, "program:crm", ended=(BY_API, COMPLAINT), of="hand:program:"))
    assert COMPLAINT in await reasons(hub)


async def test_a_complaint_that_was_ended_or_ran_out_begins_anew_only_when_it_is_said_again(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.run(SetTags(ticket, 1, COMPLAINS))
    await hub.run(EndHold(1, (await the_hold(hub, COMPLAINT)).id, "agent:1", 1))
    await hub.run(SetTags(ticket, 1, (*COMPLAINS, "vip")))
    await hub.run(Resolve(ticket, 1))
    assert await reasons(hub) == []
    await hub.run(SetTags(ticket, 1, ()))
    await hub.run(SetTags(ticket, 1, COMPLAINS))
    assert await reasons(hub) == [COMPLAINT]


async def test_a_hold_said_again_without_an_end_lasts_until_it_is_ended(hub: Ground) -> None:
    await hub.run(Resolve(await hub.hears(), 1))
    await hub.run(PlaceHold(1, 2, "program:crm", reason=BY_API, source="case 17"))
    await hub.run(PlaceHold(1, None, "program:crm", reason=BY_API, source="case 17"))
    for _ in range(4):
        hub.clock.pass_(DAYS)
        await renew(hub)
    assert await reasons(hub) == [BY_API]


class ForgetEnds:
    """Holds as they were before they had an end."""

    def needs(self, needs: Needs) -> None:
        needs.customers.add(1)

    def decide(self, facts: Facts) -> None:
        for hold in facts.holds_of[1]:
            hold.ends_at = None
            facts.change(hold)


async def test_a_ticket_from_before_holds_had_an_end_holds_no_longer_than_others(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.run(ForgetEnds())
    for _ in range(22):
        hub.clock.pass_(DAYS)
        await renew(hub)
    await hub.run(SetTags(ticket, 1, ("vip",)))
    assert await reasons(hub) == []
