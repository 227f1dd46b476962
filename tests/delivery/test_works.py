"""The outbox's units of work, against the real writer: lanes, leases, crashes, cards and files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Claim, DeliveryUpdate, MessageStatus, Proof
from hub.conversations.commands import Assign, Resolve
from hub.conversations.ingest import Ingest, item
from hub.delivery.outbox import PATIENCE
from hub.delivery.retry import SCHEDULES
from hub.delivery.works import Claim as ClaimDue
from hub.delivery.works import Discard, Finish, ReleaseLeases, Retry, finish
from hub.policy import Policy, Refusal
from hub.storage.records import Agent, ChannelState, Delivery
from tests.delivery import ADA, BEN, CHAT, MAIL, MARKETING, SMS, START, TOKEN, Ground, Insert, ground

POLICY = Policy()
CARA = "+12025550125"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path) as laid:
        yield laid


@pytest.fixture
async def team(tmp_path: Path) -> AsyncIterator[Ground]:
    """A hub with a room and a destination."""
    async with ground(tmp_path, rooms=("slack",), destinations=MARKETING) as laid:
        await laid.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        yield laid


async def texts(hub: Ground, claimed: list[Delivery]) -> list[str]:
    said = {row.id: row.text for row in await hub.all("message")}
    return [said[row.subject_id] for row in claimed]


async def ends(hub: Ground, row: Delivery, outcome: Any = "done", **told: Any) -> bool:
    return bool(await hub.run(finish(row, outcome, **told)))


async def status(hub: Ground, message_id: int) -> tuple[str, str]:
    row = await hub.row("message", message_id)
    return row.status, row.error


# --- lanes ---


async def test_answers_of_one_conversation_and_channel_leave_in_the_order_they_were_written(hub: Ground) -> None:
    ticket = await hub.hears()
    for text in ("one", "two", "three"):
        await hub.answers(ticket, text)
    order = []
    while due := await hub.claims():
        assert len(due) == 1, "only the head of a lane"
        assert await hub.claims() == [], "and nothing behind it while that is under way"
        order += await texts(hub, due)
        await ends(hub, due[0])
    assert order == ["one", "two", "three"]


async def test_a_lane_that_waits_for_its_next_try_keeps_what_is_behind_it(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.answers(ticket, "one")
    await hub.answers(ticket, "two")
    (first,) = await hub.claims()
    await ends(hub, first, "later", error="busy", retry_after=60)
    hub.clock.pass_(59)
    assert await hub.claims() == []
    hub.clock.pass_(10)
    assert await texts(hub, await hub.claims()) == ["one"]


async def test_lanes_do_not_wait_for_each_other(hub: Ground) -> None:
    ada, ben = await hub.hears(ADA), await hub.hears(BEN)
    ada_by_mail = await hub.hears("ada@example.com", channel=MAIL)
    for ticket, text in ((ada, "to Ada"), (ben, "to Ben"), (ada_by_mail, "by mail")):
        await hub.answers(ticket, text)
        await hub.answers(ticket, text + ", again")
    assert sorted(await texts(hub, await hub.claims())) == ["by mail", "to Ada", "to Ben"]


@pytest.mark.parametrize("way", ["done", "failed"])
async def test_the_next_of_a_lane_follows_when_its_head_is_over(hub: Ground, way: str) -> None:
    ticket = await hub.hears()
    await hub.answers(ticket, "one")
    await hub.answers(ticket, "two")
    (first,) = await hub.claims()
    await ends(hub, first, way, error="refused" if way == "failed" else "")
    assert await texts(hub, await hub.claims()) == ["two"]


async def test_a_send_of_unknown_fate_shuts_its_lane_for_the_stated_time_and_no_other(hub: Ground) -> None:
    ada, ben = await hub.hears(ADA), await hub.hears(BEN)
    for text in ("one", "two"):
        await hub.answers(ada, text)
    (first,) = await hub.claims()
    await ends(hub, first, "unknown", error="The answer was lost.")
    await hub.answers(ben, "to Ben")
    (to_ben,) = await hub.claims()
    assert await texts(hub, [to_ben]) == ["to Ben"]
    await ends(hub, to_ben)
    hub.clock.now = START + POLICY.unknown_blocks - 1
    assert await hub.claims() == []
    hub.clock.now += 1
    assert await texts(hub, await hub.claims()) == ["two"], "the unknown one itself is never claimed again"
    assert (await hub.row("delivery", first.id)).state == "unknown"


async def test_the_rows_claimed_are_bounded_by_the_limit(hub: Ground) -> None:
    for number in range(5):
        await hub.answers(await hub.hears(f"+1202555013{number}"))
    assert [len(await hub.claims(hands=2)) for _ in range(4)] == [2, 2, 1, 0]


async def test_answers_keep_their_order_when_two_people_turn_out_to_be_one(hub: Ground) -> None:
    await hub.run(Insert((ChannelState(SMS.id, SMS.name), ChannelState(CHAT.id, CHAT.name))))
    signed = Claim("user_id", "u1", Proof.SIGNED, "shop")
    home = await hub.hears("home", channel=CHAT, claims=(signed,))
    phone = await hub.hears("phone", channel=CHAT)
    by_sms = await hub.hears(ADA)
    await hub.answers(phone, "one")
    await hub.answers(phone, "two")
    await hub.answers(by_sms, "to Ada")
    await hub.answers(home, "three")
    before = {row.lane for row in await hub.deliveries()}
    await hub.hears("phone", channel=CHAT, claims=(signed,))
    lanes = [row.lane for row in await hub.deliveries()]
    assert len(before) == 3
    assert lanes == [lanes[3], lanes[3], "reply:3:1", "reply:1:3"], "one lane, and nobody else's is touched"
    await hub.answers(home, "four")
    order = []
    while due := [row for row in await hub.claims() if row.target == CHAT.name]:
        assert len(due) == 1
        order += await texts(hub, due)
        await ends(hub, due[0])
    assert order == ["one", "two", "three", "four"]


# --- a worker's own rows ---


async def test_what_a_worker_carries_is_never_taken_from_it_whatever_the_clock_says(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    for jump in (POLICY.delivery_lease, 86_400_000_000, -86_400_000_000):
        hub.clock.now += jump
        assert await hub.claims(carried=(row.id,)) == []
        assert await status(hub, sent) == ("sending", "")
    assert await ends(hub, row)


async def test_a_row_put_off_is_not_tried_again_while_its_earlier_end_is_still_being_said(hub: Ground) -> None:
    """Its COMMIT was reported as lost: said again, it would settle the next try, which bears the same worker's token."""
    await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, "later", error="busy")
    hub.clock.pass_(60)
    assert await hub.claims(carried=(row.id,)) == []
    assert not await ends(hub, row, "later", error="busy"), "said again: it counts for nothing"
    (again,) = await hub.claims()
    assert (again.id, again.attempt) == (row.id, 2)


async def test_a_claim_nobody_heard_of_was_never_sent(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (lost,) = await hub.claims()
    assert await hub.claims() == [], "its lease runs, and nobody said that a claim was lost"
    (again,) = await hub.run(ClaimDue(TOKEN, 5, lost=True)) or await hub.claims()
    assert (again.id, again.attempt) == (lost.id, 1), "no try is counted"
    assert await hub.run(ClaimDue(TOKEN, 5, carried=frozenset({again.id}), lost=True)) == []
    assert await hub.run(ClaimDue("another", 5, lost=True)) == [], "what another worker holds is its own"
    assert await status(hub, sent) == ("sending", "")


async def test_what_is_due_by_a_clock_that_was_set_back_since_is_due_now(hub: Ground) -> None:
    ticket = await hub.hears()
    await hub.answers(ticket, "one")
    await hub.answers(ticket, "two")
    hub.clock.now -= 86_400_000_000
    assert await texts(hub, await hub.claims()) == ["one"]


@pytest.mark.parametrize("state", ["failed", "unknown", "queued"])
async def test_a_person_may_give_it_up_with_a_reason(hub: Ground, state: str) -> None:
    ticket = await hub.hears()
    sent, _ = await hub.answers(ticket, "one"), await hub.answers(ticket, "two")
    (row,) = await hub.claims()
    await ends(hub, row, "back" if state == "queued" else state, error="" if state == "queued" else "No answer.")
    with pytest.raises(Refusal, match="Say why"):
        await hub.run(Discard(row.id, " "))
    await hub.run(Discard(row.id, "The customer called."))
    kept = await hub.row("delivery", row.id)
    assert (kept.state, kept.done_at) == ("discarded", hub.clock.now)
    assert kept.error.endswith("Discarded: The customer called.")
    now, error = await status(hub, sent)
    assert now == ("failed" if state == "queued" else state), "what may have arrived is still said to be in doubt"
    assert ("Discarded" in error) == (state == "queued")
    assert await texts(hub, await hub.claims()) == ["two"], "its lane is free"
    with pytest.raises(Refusal, match="nothing to discard"):
        await hub.run(Discard(row.id, "again"))
    assert [json.loads(event.data)["reason"] for event in hub.events if event.type == "delivery.discarded"] == ["The customer called."]


async def test_what_may_have_arrived_can_be_kept_from_being_tried_again(hub: Ground) -> None:
    await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, "unknown", error="The answer was lost.")
    with pytest.raises(Refusal, match="may have arrived"):
        await hub.run(Retry(row.id, only_failed=True))
    await hub.run(Retry(row.id))
    assert (await hub.row("delivery", row.id)).state == "queued"


# --- bulkhead ---


async def test_one_target_never_has_more_hands_than_its_share(hub: Ground) -> None:
    for number in range(5):
        await hub.answers(await hub.hears(f"+1202555013{number}"))
    await hub.answers(await hub.hears("ada@example.com", channel=MAIL))
    due = await hub.claims(hands=3, sms=2)
    assert sorted(row.target for row in due) == ["email", "sms", "sms"], "two hands left for SMS, the mail goes on"
    assert await hub.claims(hands=3, sms=0, email=2) == []


async def test_a_target_whose_hands_are_full_does_not_fill_the_look_ahead(hub: Ground) -> None:
    for number in range(9):
        await hub.answers(await hub.hears(f"+120255501{number + 30}"))
    await hub.answers(await hub.hears("ada@example.com", channel=MAIL))
    assert [row.target for row in await hub.claims(hands=2, sms=0)] == ["email"]


# --- leases ---


async def test_finishing_needs_the_lease(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    for token in ("somebody else", ""):
        assert not await ends(hub, replace(row, lease_token=token), "failed", error="no")
        assert (await hub.row("delivery", row.id)).state == "sending"
        assert await status(hub, sent) == ("sending", "")
    assert await ends(hub, row)
    assert not await ends(hub, row, "failed", error="a second time")
    assert await status(hub, sent) == ("sent", "")
    assert not await hub.run(Finish(999, "worker", 1, "done")), "and a row"


async def test_a_lease_is_longer_than_any_attempt(hub: Ground) -> None:
    assert POLICY.delivery_lease / 1_000_000 > PATIENCE + 10


async def test_a_lease_that_ran_out_is_not_taken_by_two(hub: Ground) -> None:
    await hub.answers(await hub.hears("device-1", channel=CHAT))
    (first,) = await hub.claims(token="one")
    hub.clock.now += POLICY.delivery_lease - 1
    assert await hub.claims(token="two") == []
    hub.clock.now += 1
    (second,) = await hub.claims(token="two")
    assert (second.id, second.attempt) == (first.id, 2), "what may be repeated is repeated"
    assert not await ends(hub, first, "later", error="late")
    assert await ends(hub, second)


async def test_a_lease_that_ran_out_on_what_cannot_be_repeated_becomes_unknown(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    hub.clock.now += POLICY.delivery_lease
    assert await hub.claims(token="another") == []
    state, error = await status(hub, sent)
    assert state == "unknown"
    assert "may have arrived" in error
    # ... and the worker that was only slow says at last that it was taken.
    assert not await ends(hub, row, provider_id="SM1")
    assert await status(hub, sent) == ("sent", "")
    assert (await hub.row("delivery", row.id)).state == "done"


async def test_two_claims_in_one_batch_share_no_row(hub: Ground) -> None:
    for number in range(3):
        await hub.answers(await hub.hears(f"+1202555013{number}"))
    first, second = await asyncio.gather(hub.claims(token="one"), hub.claims(token="two"))
    assert len(first) == 3
    assert second == []
    assert {row.lease_token for row in await hub.deliveries()} == {"one"}


# --- status reports ---


def told(delivery_id: int, word: str, sid: str = "SM1") -> Ingest:
    said = DeliveryUpdate(
        provider_key=f"{sid}:{word}", status=MessageStatus(word), delivery_id=delivery_id, provider_message_id=sid, error="30003"
    )
    return Ingest(SMS.id, (item(said, True),), None)


async def test_a_report_that_overtakes_the_answer_is_not_undone_by_it(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await hub.run(told(row.id, "delivered"))
    assert not await ends(hub, row, provider_id="SM1")
    settled = await hub.row("message", sent)
    assert (settled.status, settled.provider_id) == ("delivered", "SM1")
    assert (await hub.row("delivery", row.id)).state == "done"


@pytest.mark.parametrize(("word", "state"), [("queued", "sent"), ("sent", "sent"), ("read", "read"), ("failed", "failed")])
async def test_an_unknown_send_is_settled_by_any_report_and_opens_its_lane(hub: Ground, word: str, state: str) -> None:
    ticket = await hub.hears()
    sent = await hub.answers(ticket, "one")
    await hub.answers(ticket, "two")
    (row,) = await hub.claims()
    await ends(hub, row, "unknown", error="The answer was lost.")
    assert await status(hub, sent) == ("unknown", "The answer was lost.")
    await hub.run(told(row.id, word))
    assert await status(hub, sent) == (state, "30003" if word == "failed" else "")
    assert await texts(hub, await hub.claims()) == ["two"], "at once"


async def test_a_failure_told_later_is_listed_and_can_be_tried_again(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, provider_id="SM1")
    await hub.run(told(row.id, "failed"))
    assert await status(hub, sent) == ("failed", "30003")
    assert (await hub.row("delivery", row.id)).state == "failed"
    await hub.run(Retry(row.id))
    (again,) = await hub.claims()
    assert (again.id, again.attempt) == (row.id, 1)
    await ends(hub, again, provider_id="SM2")
    await hub.run(told(row.id, "delivered", "SM2"))
    settled = await hub.row("message", sent)
    assert (settled.status, settled.provider_id, settled.error) == ("delivered", "SM2", "")


async def test_what_arrived_after_all_is_not_sent_a_second_time(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, "unknown", error="The answer was lost.")
    await hub.run(Retry(row.id))
    await hub.run(told(row.id, "delivered"))
    assert await hub.claims() == []
    assert (await status(hub, sent))[0] == "delivered"


async def test_a_report_settling_a_row_in_the_batch_of_its_claim_keeps_it_from_being_claimed(hub: Ground) -> None:
    await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, "unknown", error="The answer was lost.")
    await hub.run(Retry(row.id))
    _, claimed = await asyncio.gather(hub.run(told(row.id, "delivered")), hub.claims())
    assert claimed == []


# --- crash ---


async def test_after_a_crash_what_can_be_repeated_is_and_what_cannot_is_shown(hub: Ground) -> None:
    by_sms, by_chat = await hub.answers(await hub.hears()), await hub.answers(await hub.hears("device-1", channel=CHAT))
    waiting = await hub.answers(await hub.hears(BEN))
    await hub.claims(hands=1)
    assert await hub.run(ReleaseLeases()) == 2
    state, error = await status(hub, by_sms)
    assert state == "unknown"
    assert "send it again yourself" in error
    rows = {row.subject_id: row for row in await hub.deliveries()}
    assert [rows[of].state for of in (by_sms, by_chat, waiting)] == ["unknown", "queued", "queued"]
    assert {row.lease_token for row in rows.values()} == {""}
    due = await hub.claims()
    assert {row.subject_id: row.attempt for row in due} == {by_chat: 2, waiting: 1}
    assert await hub.run(ReleaseLeases()) == 2
    assert [event.type for event in hub.events].count("message.updated") == 2, "each unknown is told once"


async def test_a_start_with_nothing_under_way_changes_nothing(hub: Ground) -> None:
    await hub.answers(await hub.hears())
    before = await hub.all("delivery")
    assert await hub.run(ReleaseLeases()) == 0
    assert await hub.all("delivery") == before


# --- trying again ---


async def test_what_is_put_off_says_why_and_is_queued(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, "later", error="Twilio is busy.", jitter=0.0)
    assert await status(hub, sent) == ("queued", "Twilio is busy.")
    assert (await hub.row("delivery", row.id)).due_at == START + 2_500_000
    hub.clock.pass_(3)
    (again,) = await hub.claims()
    await ends(hub, again)
    assert await status(hub, sent) == ("sent", "")


async def test_after_its_last_try_it_is_given_up_and_shown(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    tries = 0
    while due := await hub.claims():
        tries += 1
        await ends(hub, due[0], "later", error="Twilio is busy.")
        hub.clock.pass_(3_600)
    assert tries == SCHEDULES["reply"].attempts
    assert await status(hub, sent) == ("failed", f"Twilio is busy. Given up after {tries} tries.")
    assert [json.loads(event.data)["kind"] for event in hub.events if event.type == "delivery.failed"] == ["reply"]


@pytest.mark.parametrize("outcome", ["failed", "unknown"])
async def test_a_person_may_send_it_again(hub: Ground, outcome: str) -> None:
    sent = await hub.answers(await hub.hears())
    (row,) = await hub.claims()
    await ends(hub, row, outcome, error="no")
    await hub.run(Retry(row.id))
    assert await status(hub, sent) == ("queued", "")
    (again,) = await hub.claims()
    assert (again.id, again.attempt, again.error) == (row.id, 1, ""), "the same delivery id, counted anew"
    await ends(hub, again)
    assert await status(hub, sent) == ("sent", "")


async def test_only_what_failed_or_is_unknown_can_be_sent_again(hub: Ground) -> None:
    await hub.answers(await hub.hears())
    for state in ("queued", "sending", "done"):
        row = (await hub.deliveries())[0]
        assert row.state == state
        with pytest.raises(Refusal, match=state):
            await hub.run(Retry(row.id))
        claimed = await hub.claims()
        if state == "sending":
            await ends(hub, row)
        assert len(claimed) == (state == "queued")
    with pytest.raises(Refusal, match="There is no delivery 99"):
        await hub.run(Retry(99))


# --- cards ---


async def cards(hub: Ground) -> list[Delivery]:
    return await hub.deliveries("card")


async def claim_card(hub: Ground) -> Delivery:
    (row,) = [row for row in await hub.claims() if row.kind == "card"]
    return row


async def test_a_room_and_ticket_have_one_row_for_ever(team: Ground) -> None:
    ticket = await team.hears()
    for _ in range(3):
        row = await claim_card(team)
        await ends(team, row, ref="C1:1.0")
        await team.run(Resolve(ticket, 1))
        await team.hears()
    (row,) = await cards(team)
    assert (row.version, row.state, row.ref) == (7, "queued", "C1:1.0")
    other = await team.hears(BEN)
    assert {card.subject_id for card in await cards(team)} == {ticket, other}
    assert len(await cards(team)) == 2


async def test_a_change_while_a_card_is_under_way_is_shown_afterwards(team: Ground) -> None:
    ticket = await team.hears()
    row = await claim_card(team)
    await team.run(Assign(ticket, 1, 1))
    assert [card.state for card in await cards(team)] == ["sending"], "one at a time"
    assert await ends(team, row, ref="C1:1.0")
    again = await claim_card(team)
    assert (again.version, again.ref, again.attempt) == (2, "C1:1.0", 1)
    await ends(team, again, ref="C1:1.0")
    assert [card.state for card in await cards(team)] == ["done"]
    assert await team.claims() == []


@pytest.mark.parametrize("outcome", ["failed", "unknown"])
async def test_a_change_while_a_card_fails_is_shown_all_the_same(team: Ground, outcome: str) -> None:
    ticket = await team.hears()
    row = await claim_card(team)
    await team.run(Assign(ticket, 1, 1))
    await ends(team, row, outcome, error="no")
    assert (await claim_card(team)).version == 2


async def test_a_post_of_unknown_fate_is_not_posted_again_by_itself_but_by_the_next_change(team: Ground) -> None:
    ticket = await team.hears()
    row = await claim_card(team)
    assert not row.idempotent, "nothing tells the room that a second post is the first one again"
    await ends(team, row, "unknown", error="lost")
    team.clock.pass_(3_600)
    assert "card" not in {due.kind for due in await team.claims()}
    assert [card.state for card in await cards(team)] == ["unknown"]
    await team.run(Assign(ticket, 1, 1))
    assert (await claim_card(team)).version == 2


async def test_a_crash_while_posting_is_unknown_and_while_updating_is_repeated(team: Ground) -> None:
    ticket = await team.hears()
    row = await claim_card(team)
    await team.run(ReleaseLeases())
    (lost,) = await cards(team)
    assert lost.state == "unknown"
    assert "stand in the room" in lost.error
    await team.run(Assign(ticket, 1, 1))
    row = await claim_card(team)
    await ends(team, row, ref="C1:1.0")
    await team.run(Assign(ticket, 1, None))
    row = await claim_card(team)
    assert row.idempotent
    await team.run(ReleaseLeases())
    assert (await claim_card(team)).ref == "C1:1.0"


async def test_a_change_does_not_hurry_a_room_that_asked_for_patience(team: Ground) -> None:
    ticket = await team.hears()
    row = await claim_card(team)
    await ends(team, row, "later", error="busy", retry_after=60)
    await team.run(Assign(ticket, 1, 1))
    assert [card for card in await team.claims() if card.kind == "card"] == []
    team.clock.pass_(70)
    again = await claim_card(team)
    assert (again.version, again.attempt) == (2, 2), "the latest state, at the time agreed"


# --- holds ---


async def test_changes_of_a_hold_are_told_one_after_the_other(team: Ground) -> None:
    ticket = await team.hears()
    await team.run(Resolve(ticket, 1))
    await team.hears(BEN)
    rows = await team.deliveries("hold")
    assert [(json.loads(row.payload)["type"], row.subject_id) for row in rows] == [
        ("hold.placed", 1),
        ("hold.released", 1),
        ("hold.placed", 2),
    ]
    due = [row.id for row in await team.claims() if row.kind == "hold"]
    assert due == [rows[0].id, rows[2].id], "in order for one customer, side by side for two"


# --- files ---


async def test_a_file_fetched_is_kept_with_its_message(hub: Ground) -> None:
    file = await hub.hears_of_picture()
    assert (await hub.row("attachment", file)).state == "pending"
    (row,) = await hub.claims()
    assert row.kind == "media"
    assert await ends(hub, row, sha256="a" * 64, size=9, content_type="image/png")
    kept = await hub.row("attachment", file)
    assert (kept.state, kept.sha256, kept.size, kept.content_type, kept.error) == ("stored", "a" * 64, 9, "image/png", "")
    assert hub.events[-1].type == "message.updated", "the open conversation shows it"


async def test_a_file_that_is_not_to_be_had_says_so_and_may_be_fetched_after_a_fix(hub: Ground) -> None:
    file = await hub.hears_of_picture()
    (row,) = await hub.claims()
    await ends(hub, row, "failed", error="It was deleted there.")
    kept = await hub.row("attachment", file)
    assert (kept.state, kept.error) == ("failed", "It was deleted there.")
    assert (await hub.row("message", kept.message_id)).status == "received", "a question is not marked as a failed answer"
    await hub.run(Retry(row.id))
    (again,) = await hub.claims()
    await ends(hub, again, sha256="b" * 64, size=1)
    kept = await hub.row("attachment", file)
    assert (kept.state, kept.error, kept.content_type) == ("stored", "", "image/jpeg")


async def test_a_file_put_off_stays_pending(hub: Ground) -> None:
    file = await hub.hears_of_picture()
    (row,) = await hub.claims()
    await ends(hub, row, "later", error="busy")
    assert (await hub.row("attachment", file)).state == "pending"
    assert (await hub.row("delivery", row.id)).state == "queued"
