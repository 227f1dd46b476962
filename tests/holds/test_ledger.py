"""Holds: what places, renews and releases them, what the ledger keeps of it, and what destinations are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub import reactions
from hub.contract import Claim, Proof
from hub.conversations.commands import Assign, Reopen, Resolve, Snooze, WakeSnoozed
from hub.holds.ledger import NAMES, OPEN_TICKET, Term, iso, place, release
from hub.holds.renewal import RenewLeases
from hub.policy import DAY, Policy
from hub.storage.records import Agent, Customer, Evidence, Identifier
from tests.delivery import ADA, BEN, CHAT, MAIL, MARKETING, START, Ground, Insert, facts, ground

LEASE = Policy().hold_lease
MAIL_OF_ADA = "ada@example.com"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path, destinations=MARKETING) as laid:
        await laid.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        yield laid


def told(hub: Ground) -> list[dict[str, Any]]:
    """Every hold event, in order."""
    return [{"type": e.type, "customer": e.customer_id, **json.loads(e.data)} for e in hub.events if e.type.startswith("hold.")]


async def ledger(hub: Ground) -> list[tuple[str, str, int]]:
    return [(row.op, row.source, row.version) for row in await hub.all("hold_ledger")]


async def held(hub: Ground, customer: int = 1) -> list[str]:
    """The sources that hold a customer now."""
    return [
        hold.source
        for hold in await hub.all("hold")
        if hold.customer_id == customer and hold.released_at is None and hold.lease_until > hub.clock()
    ]


def because(event: dict[str, Any]) -> dict[str, str]:
    return {one["value"]: one["because"] for one in event["identifiers"]}


# --- one ticket ---

# What happens, one after the other -> what destinations are told of it
LIVES = {
    "a question": (["wrote"], ["placed"]),
    "two questions": (["wrote", "wrote"], ["placed"]),
    "resolved": (["wrote", "resolve"], ["placed", "released"]),
    "written again": (["wrote", "resolve", "wrote"], ["placed", "released", "placed"]),
    "reopened by hand": (["wrote", "resolve", "reopen"], ["placed", "released", "placed"]),
    "a new ticket after a fortnight": (["wrote", "resolve", "a fortnight", "wrote"], ["placed", "released", "placed"]),
    "thanks reopen nothing": (["wrote", "resolve", "thanks"], ["placed", "released"]),
    "thanks release nothing": (["wrote", "thanks"], ["placed"]),
    "a machine places nothing": (["machine"], []),
    "assigned": (["wrote", "assign"], ["placed"]),
    "a snoozed ticket is unresolved": (["wrote", "snooze"], ["placed"]),
    "woken": (["wrote", "snooze", "an hour", "wake"], ["placed"]),
    "resolved asleep": (["wrote", "snooze", "resolve"], ["placed", "released"]),
}


@pytest.mark.parametrize("life", LIVES)
async def test_an_unresolved_ticket_holds_and_a_resolved_one_does_not(hub: Ground, life: str) -> None:
    steps, expected = LIVES[life]
    ticket = 0
    for step in steps:
        hub.clock.pass_(60)
        if step == "wrote":
            ticket = await hub.hears()
        elif step == "thanks":
            await hub.hears(text="Thank you!")
        elif step == "machine":
            await hub.hears(text="I am away", automatic="auto-reply")
        elif step == "a fortnight":
            hub.clock.pass_(14 * 86_400)
        elif step == "an hour":
            hub.clock.pass_(3_601)
        else:
            await hub.run(
                {
                    "resolve": Resolve(ticket, 1),
                    "reopen": Reopen(ticket, 1),
                    "assign": Assign(ticket, 1, 1),
                    "snooze": Snooze(ticket, 1, hub.clock() + 3_600_000_000),
                    "wake": WakeSnoozed(hub.clock()),
                }[step]
            )
    events = told(hub)
    assert [event["type"] for event in events] == [f"hold.{word}" for word in expected]
    assert [event["version"] for event in events] == list(range(1, len(expected) + 1)), "every change has a version of its own"
    assert [op for op, _, _ in await ledger(hub)] == expected, "and its row in the ledger"
    assert bool(await held(hub)) == (expected[-1:] == ["placed"])
    assert [json.loads(row.payload)["data"] for row in await hub.deliveries("hold")] == [
        {name: value for name, value in event.items() if name not in ("type", "customer")} for event in events
    ], "the destination is told each of them, whole"


async def test_what_a_destination_is_told_can_be_acted_on_alone(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.run(Resolve(ticket, 1))
    placed, released = told(hub)
    assert placed == {
        "type": "hold.placed",
        "customer": 1,
        "customer_id": 1,
        "identifiers": [{"kind": "phone", "value": ADA, "because": "verified"}],
        "reasons": ["open_ticket"],
        "scope": {"brands": ["default"], "channels": ["*"]},
        "until": "2027-01-22T08:00:00.000Z",
        "version": 1,
    }
    assert (released["reasons"], released["until"], released["scope"]["brands"]) == ([], None, [])
    assert released["identifiers"] == placed["identifiers"], "whom to let go"


async def test_nothing_of_what_the_customer_said_is_told(hub: Ground) -> None:
    await hub.hears(text="My invoice is wrong", subject="Complaint", sender_name="Ada Okafor")
    (row,) = await hub.deliveries("hold")
    assert not {word for word in ("invoice", "Complaint", "Okafor") if word in row.payload}


# --- several tickets, and joins ---


async def join(hub: Ground) -> int:
    """Ada's phone and her mail are proved together: two customers become one. The ticket of that message."""
    claims = (Claim("phone", ADA, Proof.SIGNED), Claim("email", MAIL_OF_ADA, Proof.SIGNED))
    return await hub.hears("device-1", "It is me", CHAT, claims=claims)


async def test_joined_customers_are_held_by_the_union_of_their_holds(hub: Ground) -> None:
    by_sms, by_mail = await hub.hears(), await hub.hears(MAIL_OF_ADA, channel=MAIL)
    assert [event["customer_id"] for event in told(hub)] == [1, 2]
    before = len(told(hub))
    await join(hub)
    gone, event = told(hub)[before:]
    assert (gone["type"], gone["customer_id"], gone["version"]) == ("hold.released", 2, 2), "the number that is no more is let go"
    assert (gone["joined_into"], gone["identifiers"]) == (1, []), "and takes no identifier with it"
    assert (event["type"], event["customer_id"], event["version"]) == ("hold.renewed", 1, 2), "told once, however much was learned"
    assert because(event) == {ADA: "verified", MAIL_OF_ADA: "verified"}
    assert await held(hub) == [f"ticket:{by_sms}", f"ticket:{by_mail}"]

    await hub.run(Resolve(by_sms, 1))
    assert await held(hub) == [f"ticket:{by_mail}"]
    assert (told(hub)[-1]["type"], told(hub)[-1]["reasons"]) == ("hold.renewed", ["open_ticket"]), "one reason is left: still held"
    await hub.run(Resolve(by_mail, 1))
    assert await held(hub) == []
    last = told(hub)[-1]
    assert (last["type"], last["reasons"], last["version"]) == ("hold.released", [], 4)
    assert [op for op, _, _ in await ledger(hub)][-2:] == ["released", "released"]


async def test_versions_only_grow_for_each_identifier_whichever_customer_it_came_from(hub: Ground) -> None:
    await hub.hears()
    by_mail = await hub.hears(MAIL_OF_ADA, channel=MAIL)
    for _ in range(3):
        await hub.run(Resolve(by_mail, 1))
        await hub.hears(MAIL_OF_ADA, channel=MAIL)
    highest = max(event["version"] for event in told(hub))
    assert highest == 7
    await join(hub)
    assert told(hub)[-1]["version"] == 8


async def test_joining_somebody_held_holds_the_older_customer_too(hub: Ground) -> None:
    await hub.run(Resolve(await hub.hears(), 1))
    await hub.hears(MAIL_OF_ADA, channel=MAIL)
    before = len(told(hub))
    await join(hub)
    assert len(told(hub)) > before
    assert set(because(told(hub)[-1])) == {ADA, MAIL_OF_ADA}
    assert await held(hub, 1)
    assert not await held(hub, 2)


async def test_joining_people_nobody_holds_tells_nobody(hub: Ground) -> None:
    for ticket in (await hub.hears(), await hub.hears(MAIL_OF_ADA, channel=MAIL)):
        await hub.run(Resolve(ticket, 1))
    hub.clock.pass_(30 * 86_400)
    before = len(told(hub))
    claims = (Claim("phone", ADA, Proof.SIGNED), Claim("email", MAIL_OF_ADA, Proof.SIGNED))
    await hub.hears("device-1", "Thanks!", CHAT, claims=claims)
    assert [event["type"] for event in told(hub)[before:]] == []


# --- identifiers ---


async def test_an_identifier_learned_while_held_is_told_at_once_and_claimed_ones_are_marked(hub: Ground) -> None:
    await hub.hears()
    await hub.hears(claims=(Claim("email", "claimed@example.com", Proof.CLAIMED), Claim("user_id", "u-7", Proof.SIGNED, site="shop")))
    assert [event["type"] for event in told(hub)] == ["hold.placed", "hold.renewed"]
    assert told(hub)[1]["identifiers"] == [
        {"kind": "email", "value": "claimed@example.com", "because": "claimed"},
        {"kind": "external_id", "value": "u-7", "because": "verified", "site": "shop"},
        {"kind": "phone", "value": ADA, "because": "verified"},
    ]


async def test_the_same_claim_again_is_not_told_again(hub: Ground) -> None:
    for _ in range(3):
        await hub.hears(claims=(Claim("email", "claimed@example.com", Proof.CLAIMED),))
    assert [event["type"] for event in told(hub)] == ["hold.placed"]


async def test_a_claim_by_one_person_does_not_hold_the_other(hub: Ground) -> None:
    """The claimed address is covered by the claimer's hold, and its owner's own standing is not touched."""
    await hub.run(Resolve(await hub.hears(MAIL_OF_ADA, channel=MAIL), 1))
    await hub.hears(BEN, claims=(Claim("email", MAIL_OF_ADA, Proof.CLAIMED),))
    assert await held(hub, 1) == []
    assert because(told(hub)[-1]) == {BEN: "verified", MAIL_OF_ADA: "claimed"}


@pytest.mark.parametrize("proof", [Proof.SEEN])
async def test_an_address_merely_seen_is_not_covered(hub: Ground, proof: Proof) -> None:
    await hub.hears(claims=(Claim("email", "cc@example.com", proof),))
    assert because(told(hub)[-1]) == {ADA: "verified"}


@pytest.mark.parametrize(("kind", "name"), [("device", None), ("sender_word", None), *NAMES.items()])
def test_only_what_a_marketing_tool_can_address_is_told(kind: str, name: str | None) -> None:
    known, customer = person()
    known.identifiers_of[1] = [Identifier(1, kind, "", "value", "proven", 0, 1, Proof.CHANNEL, "value", 0, 0)]
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    assert [one["kind"] for one in json.loads(known.events[0].data)["identifiers"]] == ([name] if name else [])


# own standing, proof -> because
MARKS = [
    ("proven", Proof.CHANNEL, "verified"),
    ("proven", Proof.DMARC, "verified"),
    ("asserted", Proof.RECORD, "record"),
    ("asserted", Proof.CLAIMED, "claimed"),
    ("asserted", Proof.SEEN, "claimed"),
]


@pytest.mark.parametrize(("standing", "proof", "mark"), MARKS)
def test_each_identifier_says_why_it_is_covered_and_the_best_reason_stands(standing: str, proof: Proof, mark: str) -> None:
    known, customer = person()
    own = Identifier(1, "email", "", "a@b.example", standing, 0, 1, proof, "a@b.example", 0, 0)
    twin = Identifier(2, "email", "", "a@b.example", "asserted", 0, None, Proof.CLAIMED, "a@b.example", 0, 0)
    known.identifiers_of[1], known.identifiers_by_id[2] = [own], twin
    known.evidence_of[1] = [Evidence(1, 1, 2, Proof.CLAIMED, "message:1", 0)]
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    assert [one["because"] for one in json.loads(known.events[0].data)["identifiers"]] == [mark]


# --- leases ---


def person() -> tuple[Any, Customer]:
    known = facts()
    customer = Customer(1, "Ada", START)
    known.customers[1] = customer
    known.identifiers_of[1], known.tickets_of[1], known.holds_of[1] = [], [], []
    return known, customer


async def renew(hub: Ground) -> int:
    return int(await hub.run(RenewLeases(hub.clock() + Policy().hold_renew_under)))


async def test_a_lease_is_renewed_in_time_while_the_ticket_is_open(hub: Ground) -> None:
    await hub.hears()
    hub.clock.pass_(3 * 86_400)
    assert await renew(hub) == 0, "more than three days are left"
    hub.clock.pass_(2 * 86_400)
    assert await renew(hub) == 1
    assert await renew(hub) == 0, "once"
    event = told(hub)[-1]
    assert (event["type"], event["version"], event["until"]) == ("hold.renewed", 2, iso(hub.clock() + LEASE))
    assert await ledger(hub) == [("placed", "ticket:1", 1), ("renewed", "ticket:1", 2)]


async def test_a_lease_ends_by_itself_when_the_hub_is_away_and_is_placed_again_when_it_is_back(hub: Ground) -> None:
    await hub.hears()
    hub.clock.now += LEASE
    assert await held(hub) == []
    assert await renew(hub) == 1
    assert await held(hub) == ["ticket:1"]
    assert told(hub)[-1]["type"] == "hold.placed", "for whoever let it lapse it is a new one"


async def test_a_hold_whose_reason_is_gone_is_released_at_its_renewal(hub: Ground) -> None:
    await hub.hears()

    class Forget:
        def needs(self, needs: Any) -> None:
            needs.tickets.add(1)

        def decide(self, facts: Any) -> None:
            facts.tickets[1].status = "resolved"
            facts.change(facts.tickets[1])

    await hub.run(Forget())
    hub.clock.pass_(5 * 86_400)
    assert await renew(hub) == 1
    assert await held(hub) == []
    assert told(hub)[-1]["type"] == "hold.released"
    assert [op for op, _, _ in await ledger(hub)] == ["placed", "released"]


async def test_two_holds_of_one_customer_are_renewed_with_one_event(hub: Ground) -> None:
    await hub.hears()
    await hub.hears(MAIL_OF_ADA, channel=MAIL)
    await join(hub)
    hub.clock.pass_(5 * 86_400)
    before = len(told(hub))
    assert await renew(hub) == 2
    assert [event["type"] for event in told(hub)[before:]] == ["hold.renewed"]
    assert (await ledger(hub))[-2:] == [("renewed", "ticket:1", 3), ("renewed", "ticket:2", 3)]


async def test_many_leases_are_settled_bit_by_bit_until_none_is_left(hub: Ground) -> None:
    for number in range(3):
        await hub.hears(f"+1202555013{number}")
    hub.clock.pass_(5 * 86_400)
    assert [await renew(hub), await renew(hub)] == [3, 0]


async def test_a_lease_shorter_than_its_renewal_time_is_not_renewed_for_ever(tmp_path: Path) -> None:
    async with ground(tmp_path, destinations=MARKETING, hold_lease=DAY, hold_renew_under=3 * DAY) as hub:
        await hub.hears()
        for _ in range(3):
            hub.clock.pass_(1)
            assert await renew(hub) == 0
        hub.clock.pass_(0.6 * 86_400)
        assert [await renew(hub), await renew(hub)] == [1, 0], "at half of it"


# --- the same once more ---


def test_placing_twice_changes_nothing_and_releasing_what_is_not_held_neither() -> None:
    known, customer = person()
    release(customer, OPEN_TICKET, "ticket:1", known)
    assert known.events == []
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    assert len(known.holds_of[1]) == len(known.events) == 1
    release(customer, OPEN_TICKET, "ticket:2", known)
    release(customer, "complaint", "ticket:1", known)
    assert len(known.events) == 1, "another source, another reason"
    release(customer, OPEN_TICKET, "ticket:1", known)
    release(customer, OPEN_TICKET, "ticket:1", known)
    assert [event.type for event in known.events] == ["hold.placed", "hold.released"]


def test_placing_what_ran_out_takes_up_the_same_hold() -> None:
    known, customer = person()
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    (hold,) = known.holds_of[1]
    hold.lease_until = known.now
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    assert known.holds_of[1] == [hold]
    assert hold.lease_until == known.now + LEASE
    assert [event.type for event in known.events] == ["hold.placed", "hold.placed"]
    assert [row.op for row in known.inserted["hold_ledger"]] == ["placed", "renewed"]


def test_two_reasons_are_two_holds_and_both_are_named() -> None:
    known, customer = person()
    place(customer, OPEN_TICKET, "ticket:1", Term("default"), known)
    place(customer, "complaint", "agent:1", Term("outlet"), known)
    last = json.loads(known.events[-1].data)
    assert (known.events[-1].type, last["reasons"]) == ("hold.renewed", ["complaint", "open_ticket"])
    assert last["scope"]["brands"] == ["default", "outlet"]


def test_times_are_told_in_utc_to_the_millisecond() -> None:
    assert iso(1_800_000_000_123_456) == "2027-01-15T08:00:00.123Z"


# --- what follows from what ---

# A fact -> what it makes us do. A change here changes what the product owes; a fact not named owes nothing.
OWED = {
    "message.queued": ["send_reply", "on_answer"],
    "attachment.announced": ["fetch_media"],
    "message.unchecked": ["check_sender"],
    "ticket.opened": ["on_ticket", "show_card"],
    "ticket.reopened": ["on_ticket", "show_card"],
    "ticket.resolved": ["on_ticket", "show_card", "on_resolved_survey", "mark_customer"],
    "ticket.assigned": ["show_card"],
    "ticket.snoozed": ["on_ticket", "show_card"],
    "ticket.woken": ["on_ticket", "show_card"],
    "ticket.tagged": ["on_ticket", "show_card"],
    "ticket.prioritised": ["on_ticket", "show_card"],
    "ticket.spam": ["on_ticket", "show_card", "mark_customer"],
    "survey.answered": ["on_score", "mark_customer"],
    "mark.drifted": ["mark_again"],
    "optout.recorded": ["tell_opt_out", "mark_customer"],
    "optout.withdrawn": ["tell_opt_out", "mark_customer"],
    "alarm.raised": ["post_alarm"],
    "alarm.ended": ["post_alarm"],
    "customer.identified": ["on_identity"],
    "ticket.moved": ["on_parted", "show_cards"],
    "customer.merged": ["tell_hearers", "on_joined", "show_cards"],
    "customer.unmerged": ["tell_hearers", "on_parted", "show_cards"],
    "customer.split": ["tell_hearers", "on_parted", "show_cards"],
    "hold.placed": ["tell_destinations", "mark_tools"],
    "hold.renewed": ["tell_destinations", "mark_tools"],
    "hold.released": ["tell_destinations", "mark_tools"],
}


def test_the_table_of_reactions() -> None:
    assert {fact: [one.__name__ for one in follows] for fact, follows in reactions.REACTIONS.items()} == OWED


async def test_a_note_and_a_received_message_owe_the_outside_world_nothing(hub: Ground) -> None:
    from hub.conversations.commands import AddNote

    ticket = await hub.hears()
    before = await hub.all("delivery")
    await hub.run(AddNote(ticket, 1, "Careful, an old friend.", "draft of a note"))
    await hub.hears(text="Hello?")
    assert await hub.all("delivery") == before
