"""What agents do, and the one doorway out: nothing leaves twice, nothing leaves unseen, notes never leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.agents import CreateAgent
from hub.contract import Proof
from hub.conversations.commands import AddNote, Assign, MarkRead, NewFile, Reopen, Reply, Resolve, Snooze, WakeSnoozed
from hub.conversations.desk import AgentDesk
from hub.policy import DAY, Refusal
from tests.storage import CHAT, ENGINES, MAIL, POLICY, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone
from tests.storage.test_writer import held, queued

ADA = "+12025550123"
AGENT, OTHER = 1, 2


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Ada has asked by SMS: ticket 1, message 1. Two agents work here."""
    async with open_store(tmp_path, engine=request.param) as opened:
        await opened.run(CreateAgent("one@shop.example", "One", "admin", "x"))
        await opened.run(CreateAgent("two@shop.example", "Two", "agent", "x"))
        await opened.run(heard(SMS, message(phone(ADA))))
        yield opened


def out(store: Store) -> list[Any]:
    return store.rows("SELECT * FROM message WHERE direction = 'out' ORDER BY id")


def ticket(store: Store, number: int = 1) -> Any:
    return store.rows("SELECT * FROM ticket WHERE id = ?", number)[0]


def owed(store: Store) -> list[Any]:
    return store.rows("SELECT * FROM delivery WHERE kind = 'reply' ORDER BY id")


async def test_a_reply_and_what_carries_it_commit_together(store: Store) -> None:
    replied = await store.run(Reply(1, AGENT, "Tomorrow.", "draft-1"))
    assert not replied.duplicate
    (sent,) = out(store)
    assert sent["id"] == replied.message_id
    assert (sent["status"], sent["channel_id"], sent["identifier_id"], sent["agent_id"]) == ("queued", SMS, 1, AGENT)
    assert [(row["subject_id"], row["target"], row["state"]) for row in owed(store)] == [(sent["id"], "sms", "queued")]
    assert store.owed[-1], "the outbox is woken"
    assert (ticket(store)["waiting_since"], ticket(store)["preview"]) == (None, "Tomorrow.")


async def test_the_same_draft_again_sends_nothing_twice(store: Store) -> None:
    first = await store.run(Reply(1, AGENT, "Tomorrow.", "draft-1"))
    again = await store.run(Reply(1, AGENT, "Tomorrow.", "draft-1"))
    assert (again.message_id, again.duplicate) == (first.message_id, True)
    async with held(store) as release:  # a double click lands in one batch
        tasks = await queued(store, *(Reply(1, AGENT, "And thanks.", "draft-2") for _ in range(3)))
        release()
        outcomes = await asyncio.gather(*tasks)
    assert [outcome.duplicate for outcome in outcomes] == [False, True, True]
    assert len(out(store)) == len(owed(store)) == 2


async def test_a_draft_that_became_something_else_does_not_pass_for_sent(store: Store) -> None:
    await store.run(AddNote(1, AGENT, "internal", "draft-1"))
    with pytest.raises(Refusal, match="used already"):
        await store.run(Reply(1, AGENT, "Tomorrow.", "draft-1"))
    await store.run(Reply(1, AGENT, "Tomorrow.", "draft-2"))
    with pytest.raises(Refusal, match="used already"):
        await store.run(AddNote(1, AGENT, "internal", "draft-2"))
    await store.run(heard(SMS, message(phone("+12025550199"))))
    with pytest.raises(Refusal, match="used already"):
        await store.run(Reply(2, AGENT, "To somebody else", "draft-2"))
    assert len(out(store)) == 1


@pytest.mark.parametrize("text", ["", "   ", "\n\t "])
async def test_nothing_is_not_sent(text: str, store: Store) -> None:
    for work in (Reply(1, AGENT, text, "d"), AddNote(1, AGENT, text, "d")):
        with pytest.raises(Refusal, match="Write something first"):
            await store.run(work)
    assert not out(store)
    # A file alone is something.
    await store.run(Reply(1, AGENT, text, "d", attachments=(NewFile("a.pdf", "application/pdf", 3, "0" * 64),)))
    assert ticket(store)["preview"] == "Attachment"
    assert store.rows("SELECT message_id, state FROM attachment")[0]["state"] == "stored"


async def test_an_answer_that_has_not_seen_the_newest_message_is_refused(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA), text="Never mind, found it")))
    with pytest.raises(Refusal, match="wrote again"):
        await store.run(Reply(1, AGENT, "We look for it.", "d", seen_message_id=1))
    assert not out(store)
    newest = store.value("SELECT max(id) FROM message")
    await store.run(Reply(1, AGENT, "Glad to hear.", "d", seen_message_id=newest))
    await store.run(Reply(1, AGENT, "Unasked.", "d2"))
    assert len(out(store)) == 2


async def test_the_first_to_answer_takes_the_ticket_and_keeps_it(store: Store) -> None:
    await store.run(Reply(1, AGENT, "Hello", "d1"))
    assert ticket(store)["assignee_id"] == AGENT
    await store.run(Reply(1, OTHER, "Me too", "d2"))
    assert ticket(store)["assignee_id"] == AGENT
    assert [event.type for event in store.events()].count("ticket.assigned") == 1


async def test_a_last_word_on_a_resolved_ticket_reopens_and_assigns_nothing(store: Store) -> None:
    await store.run(Resolve(1, AGENT))
    await store.run(Reply(1, OTHER, "One more thing: enjoy!", "d1"))
    assert (ticket(store)["status"], ticket(store)["assignee_id"]) == ("resolved", None)
    assert not store.rows("SELECT 1 FROM hold WHERE released_at IS NULL")


async def test_an_answer_goes_where_the_customer_last_wrote_from_unless_told_otherwise(store: Store) -> None:
    await store.run(heard(MAIL, message(email("ada@example.com"), phone(ADA, Proof.OTP))))
    await store.run(Reply(1, AGENT, "By mail", "d1"))
    await store.run(Reply(1, AGENT, "By SMS", "d2", channel_id=SMS))
    await store.run(Reply(1, AGENT, "By WhatsApp", "d3", channel_id=WHATSAPP))
    kinds = {row["id"]: row["kind"] for row in store.rows("SELECT id, kind FROM identifier")}
    assert [(row["channel_id"], kinds[row["identifier_id"]]) for row in out(store)] == [
        (MAIL, "email"),
        (SMS, "phone"),
        (WHATSAPP, "phone"),
    ]
    assert [row["target"] for row in owed(store)] == ["mail", "sms", "whatsapp"]


async def test_a_mail_has_its_message_id_before_it_leaves_and_the_same_on_every_try(store: Store) -> None:
    await store.run(heard(MAIL, message(email("bob@example.com"))))
    await store.run(Reply(2, AGENT, "By mail", "d1"))
    await store.run(Reply(1, AGENT, "By SMS", "d2"))
    first, second = out(store)
    assert first["mail_id"].startswith(f"<{first['id']}.")
    assert first["mail_id"].endswith("@hub.example>")
    assert second["mail_id"] is None


@pytest.mark.parametrize(
    ("channel", "identifier", "words"),
    [
        (MAIL, None, "cannot be reached by E-mail"),  # no address known
        (CHAT, None, "cannot be reached by Chat"),
        (SMS, 2, "cannot be reached by SMS"),  # somebody else's number
        (SMS, 999, "cannot be reached by SMS"),
        (99, None, "no longer configured"),
    ],
)
async def test_a_channel_the_customer_cannot_be_reached_on_is_refused(
    channel: int, identifier: int | None, words: str, store: Store
) -> None:
    await store.run(heard(SMS, message(phone("+12025550199"))))
    with pytest.raises(Refusal, match=words):
        await store.run(Reply(1, AGENT, "Hello", "d", channel_id=channel, identifier_id=identifier))
    assert not out(store)
    assert not owed(store)


async def test_a_claimed_address_is_no_way_out(store: Store) -> None:
    """Typed into a chat by anybody: to write there would tell a stranger what this customer asked."""
    await store.run(heard(CHAT, message(device("d1"), email("victim@example.com", Proof.CLAIMED))))
    with pytest.raises(Refusal, match="cannot be reached by E-mail"):
        await store.run(Reply(2, AGENT, "Hello", "d", channel_id=MAIL))
    claimed = store.value("SELECT id FROM identifier WHERE kind = 'email'")
    with pytest.raises(Refusal, match="cannot be reached by E-mail"):
        await store.run(Reply(2, AGENT, "Hello", "d", channel_id=MAIL, identifier_id=claimed))


async def test_an_account_of_another_site_is_no_way_out_of_this_sites_chat(tmp_path: Path) -> None:
    """It would count as sent, and nobody would ever see it."""
    policy = replace(POLICY, channels={**POLICY.channels, CHAT: replace(POLICY.channels[CHAT], site="shop")})
    (tmp_path / "sites").mkdir()
    async with open_store(tmp_path / "sites", policy) as store:
        proved = email("ada@example.com", Proof.SIGNED)
        await store.run(heard(CHAT, message(account("u1", "shop"), proved)))
        await store.run(heard(MAIL, message(account("u2", "outlet"), proved)))
        assert store.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 1
        known = {row["site"]: row["id"] for row in store.rows("SELECT id, site FROM identifier WHERE kind = 'user_id'")}
        assert store.value("SELECT identifier_id FROM ticket") == known["outlet"]
        await store.run(Reply(1, AGENT, "Hello", "d1", channel_id=CHAT))
        assert [row["identifier_id"] for row in out(store)] == [known["shop"]]
        with pytest.raises(Refusal, match="cannot be reached"):
            await store.run(Reply(1, AGENT, "Hello", "d2", channel_id=CHAT, identifier_id=known["outlet"]))


async def test_the_best_address_is_the_one_that_spoke_last(store: Store) -> None:
    await store.run(heard(CHAT, message(account("u1"), email("old@example.com", Proof.SIGNED))))
    store.clock.advance(3 * 86_400)
    await store.run(heard(CHAT, message(account("u1"), email("new@example.com", Proof.SIGNED))))
    await store.run(Reply(2, AGENT, "Hello", "d", channel_id=MAIL))
    assert (
        store.value("SELECT i.value FROM message m JOIN identifier i ON i.id = m.identifier_id ORDER BY m.id DESC LIMIT 1")
        == "new@example.com"
    )


async def test_a_note_never_leaves(store: Store) -> None:
    before = store.value("SELECT count(*) FROM delivery")
    note = await store.run(AddNote(1, AGENT, "She is angry, be kind", "d1"))
    assert await store.run(AddNote(1, AGENT, "She is angry, be kind", "d1")) == note
    kept = store.rows("SELECT * FROM message WHERE id = ?", note)[0]
    assert (kept["direction"], kept["status"], kept["channel_id"], kept["identifier_id"]) == ("note", "noted", None, None)
    assert store.value("SELECT count(*) FROM delivery") == before
    assert store.value("SELECT preview FROM ticket") != "She is angry, be kind"


async def test_a_snoozed_ticket_wakes_in_its_time_and_not_before(store: Store) -> None:
    until = store.clock() + 2 * DAY
    await store.run(Snooze(1, AGENT, until))
    assert (ticket(store)["status"], ticket(store)["snoozed_until"]) == ("snoozed", until)
    assert store.rows("SELECT 1 FROM hold WHERE released_at IS NULL"), "a snooze is no resolve: the hold stays"
    assert await store.run(WakeSnoozed(until - 1)) == 0
    store.clock.at = until
    assert await store.run(WakeSnoozed(until)) == 1
    assert (ticket(store)["status"], ticket(store)["snoozed_until"]) == ("open", None)
    assert await store.run(WakeSnoozed(until + DAY)) == 0
    assert [event.type for event in store.events()].count("ticket.woken") == 1


async def test_a_snooze_into_the_past_or_of_a_resolved_ticket_is_refused(store: Store) -> None:
    with pytest.raises(Refusal, match="has passed"):
        await store.run(Snooze(1, AGENT, store.clock()))
    await store.run(Resolve(1, AGENT))
    with pytest.raises(Refusal, match="cannot be snoozed"):
        await store.run(Snooze(1, AGENT, store.clock() + DAY))
    assert ticket(store)["snoozed_until"] is None


async def test_two_wakes_of_one_batch_wake_once(store: Store) -> None:
    await store.run(Snooze(1, AGENT, store.clock() + 1))
    store.clock.advance(1)
    async with held(store) as release:
        tasks = await queued(store, WakeSnoozed(store.clock()), WakeSnoozed(store.clock()))
        release()
        assert await asyncio.gather(*tasks) == [1, 0]


async def test_resolve_and_reopen(store: Store) -> None:
    await store.run(Resolve(1, AGENT))
    assert (ticket(store)["status"], ticket(store)["resolved_at"]) == ("resolved", store.clock())
    with pytest.raises(Refusal, match="already resolved"):
        await store.run(Resolve(1, AGENT))
    await store.run(Reopen(1, AGENT))
    assert (ticket(store)["status"], ticket(store)["resolved_at"]) == ("open", None)
    with pytest.raises(Refusal, match="already open"):
        await store.run(Reopen(1, AGENT))
    await store.run(Snooze(1, AGENT, store.clock() + DAY))
    await store.run(Reopen(1, AGENT))
    assert (ticket(store)["status"], ticket(store)["snoozed_until"]) == ("open", None)
    types = [event.type for event in store.events() if event.type.startswith("ticket.")]
    assert types == ["ticket.opened", "ticket.resolved", "ticket.reopened", "ticket.snoozed", "ticket.woken"]


async def test_only_an_agent_who_works_here_is_assigned(store: Store) -> None:
    await store.run(Assign(1, AGENT, OTHER))
    assert ticket(store)["assignee_id"] == OTHER
    version = ticket(store)["version"]
    await store.run(Assign(1, AGENT, OTHER))
    assert ticket(store)["version"] == version, "again is nothing"
    with pytest.raises(Refusal, match="no such agent"):
        await store.run(Assign(1, AGENT, 99))
    store.execute("UPDATE agent SET disabled_at = 1 WHERE id = 1")
    with pytest.raises(Refusal, match="no such agent"):
        await store.run(Assign(1, OTHER, AGENT))
    await store.run(Assign(1, AGENT, None))
    assert ticket(store)["assignee_id"] is None


@pytest.mark.parametrize(
    "work",
    [
        Reply(9, AGENT, "x", "d"),
        AddNote(9, AGENT, "x", "d"),
        Assign(9, AGENT, None),
        Snooze(9, AGENT, 2**60),
        Resolve(9, AGENT),
        Reopen(9, AGENT),
    ],
    ids=lambda work: type(work).__name__,
)
async def test_a_ticket_that_is_not_there_is_said_to_be(work: Any, store: Store) -> None:
    with pytest.raises(Refusal, match="no ticket 9"):
        await store.run(work)


async def test_reading_never_goes_backwards_and_is_each_agents_own(store: Store) -> None:
    def markers() -> list[tuple[int, int]]:
        return [(row["agent_id"], row["message_id"]) for row in store.rows("SELECT * FROM read_marker ORDER BY agent_id")]

    await store.run(MarkRead(AGENT, 1, 5))
    await store.run(MarkRead(AGENT, 1, 3))
    assert markers() == [(AGENT, 5)]
    async with held(store) as release:
        tasks = await queued(store, MarkRead(OTHER, 1, 2), MarkRead(OTHER, 1, 1), MarkRead(AGENT, 1, 7), MarkRead(AGENT, 1, 6))
        release()
        await asyncio.gather(*tasks)
    assert markers() == [(AGENT, 7), (OTHER, 2)]


async def test_a_command_changes_the_version_that_rooms_show(store: Store) -> None:
    before = ticket(store)["version"]
    for number, work in enumerate(
        (Reply(1, AGENT, "x", "d"), Snooze(1, AGENT, store.clock() + DAY), Reopen(1, AGENT), Resolve(1, AGENT)), 1
    ):
        await store.run(work)
        assert ticket(store)["version"] >= before + number


async def test_after_a_join_agents_go_on_with_either_ticket(store: Store) -> None:
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(heard(CHAT, replace(message(email("ada@example.com", Proof.OTP), phone(ADA, Proof.OTP)), text="It is me")))
    await store.run(Reply(2, AGENT, "By mail", "d1", channel_id=MAIL))
    await store.run(Reply(2, AGENT, "By SMS", "d2", channel_id=SMS))
    assert {row["conversation_id"] for row in out(store)} == {1}


async def test_the_desk_acts_as_the_agent_and_answers_in_words(store: Store) -> None:
    reader = store.reader()
    try:
        desk = AgentDesk(store.writer, reader)
        assert await desk.agent_for("slack", "U1", " ONE@shop.example ") == AGENT
        assert await desk.agent_for("slack", "U1", "stranger@shop.example") is None
        assert await desk.agent_for("slack", "U1", "") is None
        assert await desk.claim(1, AGENT) == "Ticket #1 is yours."
        assert await desk.claim(1, OTHER) == "Somebody else has ticket #1 already."
        assert ticket(store)["assignee_id"] == AGENT
        assert await desk.resolve(1, AGENT) == "Ticket #1 is resolved."
        assert await desk.resolve(1, AGENT) == "This ticket is already resolved."
        assert await desk.resolve(9, AGENT) == "There is no ticket 9."
        assert [event.agent_id for event in store.events() if event.type == "ticket.resolved"] == [AGENT]
        store.execute("UPDATE agent SET disabled_at = 1 WHERE id = 1")
        assert await desk.agent_for("slack", "U1", "one@shop.example") is None, "who left acts no more"
        await store.writer.close()
        assert "nothing was changed" in await desk.claim(1, OTHER)
    finally:
        await reader.close()
