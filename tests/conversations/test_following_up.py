"""Follow up when: a promise is kept once, in its own conversation, by a way that is open; whatever forbids it is told to the agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.agents import CreateAgent
from hub.conversations.commands import Resolve
from hub.conversations.following_up import (
    AddFollowUp,
    CancelFollowUp,
    Kept,
    blanks,
    fill,
    keep,
    sweep_follow_ups,
    tidy_key,
    waiting_for,
)
from hub.conversations.triage import MarkSpam
from hub.customers.merging import Merge, Unmerge
from hub.policy import Refusal
from tests.satisfaction import policy
from tests.storage import ENGINES, MAIL, SMS, WHATSAPP, Store, email, heard, message, open_store, phone

ADA, BEN = "+12025550123", "+12025550199"
AGENT = 1
DAY = 86_400
TEXT = "Your order is on its way: {tracking}"


# --- pure ---


@pytest.mark.parametrize(
    ("typed", "key"),
    [("order-1001-shipped", "order-1001-shipped"), ("  Order 1001  shipped ", "order-1001-shipped"), ("sku:9.b", "sku:9.b")],
)
def test_what_is_waited_for_is_one_word(typed: str, key: str) -> None:
    assert tidy_key(typed) == key


@pytest.mark.parametrize("typed", ["", " ", "-a", "a/b", "ä", "x" * 101, "a\x00b", "a?b", "../a"])
def test_what_cannot_be_part_of_an_address_is_refused(typed: str) -> None:
    with pytest.raises(Refusal, match="Name what you wait for"):
        tidy_key(typed)


def test_blanks_are_filled_in_once_and_a_missing_one_is_refused() -> None:
    assert blanks("{a} and {b} and {a}") == ["a", "b"]
    assert fill("{a} and {b}", {"a": "{b}", "b": "2", "more": "x"}) == "{b} and 2", "what a value says is no blank"
    assert fill("no blanks, {} and { a }", {}) == "no blanks, {} and { a }"
    for values in ({}, {"tracking": ""}, {"tracking": "  "}, {"Tracking": "1"}):
        with pytest.raises(Refusal, match=r"wants \{tracking\}"):
            fill(TEXT, values)


# --- over a database ---


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Ada asked by SMS: ticket 1."""
    async with open_store(tmp_path, policy(), engine=request.param) as opened:
        await opened.run(CreateAgent("one@shop.example", "One", "admin", "x"))
        await opened.run(heard(SMS, message(phone(ADA))))
        yield opened


def add(key: str = "order-1001-shipped", text: str = TEXT, **more: Any) -> AddFollowUp:
    return AddFollowUp(more.pop("ticket_id", 1), AGENT, key, text, **more)


async def happens(store: Store, key: str = "order-1001-shipped", **values: str) -> list[Kept]:
    reader = store.reader()
    try:
        return [await store.run(keep(row, values, "program:shop")) for row in await reader.all(waiting_for(key))]
    finally:
        await reader.close()


def sent(store: Store) -> list[Any]:
    return store.rows("SELECT * FROM message WHERE direction = 'out' ORDER BY id")


def stands(store: Store) -> list[tuple[str, str]]:
    return [(row["state"], row["error"]) for row in store.rows("SELECT state, error FROM follow_up ORDER BY id")]


def told(store: Store) -> list[str]:
    return [event.type for event in store.events() if event.type.startswith("follow_up.")]


async def test_a_promise_is_kept_in_its_conversation_and_the_ticket_stays_as_it_is(store: Store) -> None:
    await store.run(add())
    await store.run(Resolve(1, AGENT))
    before = dict(store.rows("SELECT * FROM ticket")[0])
    (kept,) = await happens(store, tracking="1Z999")
    (message_,) = sent(store)
    assert kept == Kept("sent", "", message_["id"])
    assert (message_["text"], message_["ticket_id"], message_["channel_id"]) == ("Your order is on its way: 1Z999", 1, SMS)
    assert (message_["agent_id"], message_["automatic"], message_["status"]) == (AGENT, "follow-up", "queued")
    assert dict(store.rows("SELECT * FROM ticket")[0]) == before, "it reopens nothing"
    assert not store.rows("SELECT 1 FROM hold WHERE released_at IS NULL")
    assert stands(store) == [("sent", "")]
    assert told(store) == ["follow_up.added", "follow_up.sent"]


async def test_told_twice_it_is_sent_once(store: Store) -> None:
    await store.run(add())
    reader = store.reader()
    (row,) = await reader.all(waiting_for("order-1001-shipped"))
    await reader.close()
    outcomes = await asyncio.gather(*(store.run(keep(row, {"tracking": str(n)}, "program:shop")) for n in range(3)))
    assert sorted(kept.outcome for kept in outcomes) == ["already", "already", "sent"]
    assert await happens(store, tracking="later") == []
    assert len(sent(store)) == 1


async def test_one_event_keeps_the_promises_of_several_customers(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(BEN))))
    await store.run(add("boots-back", "They are back."))
    await store.run(add("boots-back", "The boots are back, {size}.", ticket_id=2))
    assert [kept.outcome for kept in await happens(store, "boots-back", size="42")] == ["sent", "sent"]
    assert [(row["channel_id"], row["text"]) for row in sent(store)] == [(SMS, "They are back."), (WHATSAPP, "The boots are back, 42.")]


async def test_a_missing_value_is_told_to_the_agent_and_a_better_call_keeps_the_promise(store: Store) -> None:
    await store.run(add())
    (kept,) = await happens(store)
    assert kept.outcome == "refused"
    assert "wants {tracking}" in kept.why
    assert (sent(store), stands(store)) == ([], [("refused", kept.why)])
    (refused,) = [event for event in store.events() if event.type == "follow_up.refused"]
    assert json.loads(refused.data)["why"] == kept.why
    assert [kept.outcome for kept in await happens(store, tracking="1Z")] == ["sent"]
    assert stands(store) == [("sent", "")]


async def test_a_stop_word_forbids_it_until_it_is_taken_back(store: Store) -> None:
    await store.run(add())
    await store.run(heard(SMS, message(phone(ADA), text="STOP", opts="out")))
    (kept,) = await happens(store, tracking="1Z")
    assert (kept.outcome, sent(store)) == ("refused", [])
    assert "stop word" in stands(store)[0][1]
    with pytest.raises(Refusal, match="stop word"):
        await store.run(add("another"))  # nor is what cannot be sent promised
    await store.run(heard(SMS, message(phone(ADA), text="START", opts="in")))
    assert [kept.outcome for kept in await happens(store, tracking="1Z")] == ["sent"]


async def test_a_channel_that_takes_nothing_now_is_not_written_on(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(BEN))))
    await store.run(add("here", "It is here.", ticket_id=2))
    store.clock.advance(DAY + 1)
    (kept,) = await happens(store, "here")
    assert kept.outcome == "refused"
    assert "only for 24 hours" in kept.why
    await store.run(heard(WHATSAPP, message(phone(BEN), text="Any news?")))
    assert [kept.outcome for kept in await happens(store, "here")] == ["sent"]


async def test_the_way_an_agent_chose_is_taken_and_an_unproven_one_is_not(store: Store) -> None:
    await store.run(heard(MAIL, message(email("ada@mail.example"))))
    await store.run(Merge(1, 2, "agent:1", 1))
    mail = store.value("SELECT id FROM identifier WHERE kind = 'email'")
    with pytest.raises(Refusal, match="An agent merged"):
        await store.run(add(channel_id=MAIL, identifier_id=mail))
    await store.run(add("by-sms", "It is here.", channel_id=SMS, identifier_id=1))
    await store.run(heard(MAIL, message(email("ada@mail.example"), text="By mail now")))
    assert [kept.outcome for kept in await happens(store, "by-sms")] == ["sent"]
    assert sent(store)[0]["channel_id"] == SMS


async def test_a_promise_goes_with_its_ticket_through_a_merge_and_back(store: Store) -> None:
    await store.run(heard(SMS, message(phone(BEN), text="Boots?")))
    await store.run(add("boots-back", "They are back.", ticket_id=2))
    merged = await store.run(Merge(1, 2, "agent:1", 1))
    assert [kept.outcome for kept in await happens(store, "boots-back")] == ["sent"]
    assert (sent(store)[0]["ticket_id"], sent(store)[0]["conversation_id"]) == (2, 1)
    await store.run(add("boots-gone", "They are gone.", ticket_id=2))
    await store.run(Unmerge(merged.join_id, 1, 2, "agent:1", 1))
    assert [kept.outcome for kept in await happens(store, "boots-gone")] == ["sent"]
    assert sent(store)[1]["conversation_id"] == 2


async def test_nothing_is_sent_to_whoever_wrote_spam(store: Store) -> None:
    await store.run(add("here", "It is here."))
    await store.run(MarkSpam(1, AGENT))
    (kept,) = await happens(store, "here")
    assert (kept.outcome, sent(store)) == ("refused", [])


async def test_a_promise_runs_out_and_is_not_kept_late(store: Store) -> None:
    await store.run(add("here", "It is here.", days=2))
    await store.run(add("there", "It is there.", days=2))
    store.clock.advance(2 * DAY)
    assert [kept.outcome for kept in await happens(store, "here")] == ["expired"]
    reader = store.reader()
    assert await sweep_follow_ups(reader, store.writer, store.clock.at) == 1
    assert await sweep_follow_ups(reader, store.writer, store.clock.at) == 0
    await reader.close()
    assert ([state for state, _ in stands(store)], sent(store)) == (["expired", "expired"], [])
    assert told(store).count("follow_up.expired") == 2


async def test_a_promise_can_be_taken_back_once(store: Store) -> None:
    number = await store.run(add("here", "It is here."))
    await store.run(CancelFollowUp(number, 1, AGENT))
    assert await happens(store, "here") == []
    with pytest.raises(Refusal, match="no longer waiting"):
        await store.run(CancelFollowUp(number, 1, AGENT))
    await store.run(add("here", "It is here."))  # and made anew
    assert [kept.outcome for kept in await happens(store, "here")] == ["sent"]


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (add("a b/c"), "Name what you wait for"),
        (add(text="  "), "Write what"),
        (add(text="x" * 5_001), "5000 is the most"),
        (add(text="It is {Tracking Number}"), "cannot be filled in"),
        (add(text="It is {}"), "cannot be filled in"),
        (add(days=0), "more than none"),
        (add(days=366), "365 days"),
        (add(ticket_id=9), "no ticket 9"),
        (add(channel_id=77), "no longer configured"),
        (add(channel_id=MAIL), "cannot be reached"),
        (add(channel_id=SMS, identifier_id=99), "cannot be reached"),
    ],
)
async def test_what_cannot_be_kept_is_not_promised(work: AddFollowUp, words: str, store: Store) -> None:
    with pytest.raises(Refusal, match=words):
        await store.run(work)
    assert stands(store) == []


async def test_one_ticket_waits_for_a_thing_once(store: Store) -> None:
    await store.run(add())
    with pytest.raises(Refusal, match="already"):
        await store.run(add(" Order-1001-Shipped "))  # a double click, or another spelling
    assert len(stands(store)) == 1
