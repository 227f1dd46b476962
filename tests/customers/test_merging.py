"""What agents decide about who is who, and when they are told no."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Identified, Proof
from hub.conversations.commands import AddNote, Reply, Resolve
from hub.customers import merging
from hub.customers.merging import Dismiss, Merge, MoveMessage, MoveTicket, Reject, TakeOut, Unmerge
from hub.policy import Refusal
from hub.storage.channels import RegisterChannels
from tests.customers.identity_laws import check
from tests.storage import CHAT, ENGINES, MAIL, POLICY, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone

ADA, BEN = phone("+12025550101"), phone("+12025550102")
ME = 7
BY = merging.agent(ME)


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        await opened.run(RegisterChannels(tuple((POLICY.channels[n].name, "") for n in (SMS, WHATSAPP, MAIL, CHAT))))
        yield opened
        check(opened.rows)


async def says(store: Store, *claims: Any, text: str, channel: int = SMS, **more: Any) -> None:
    store.clock.advance(1)
    await store.run(heard(channel, message(*claims, text=text, key=text, **more)))


async def two(store: Store) -> None:
    """Customer 1 is Ada, customer 2 Ben; each has an open ticket with the same number."""
    await says(store, ADA, text="I am Ada", sender_name="Ada")
    await says(store, BEN, text="I am Ben", sender_name="Ben")


def lies(store: Store) -> dict[str, tuple[int, int]]:
    return {row[0]: (row[1], row[2]) for row in store.rows("SELECT text, conversation_id, ticket_id FROM message")}


def id_of(store: Store, value: str) -> int:
    return int(store.value("SELECT id FROM identifier WHERE value = ?", value))


def message_id(store: Store, text: str) -> int:
    return int(store.value("SELECT id FROM message WHERE text = ?", text))


def last_told(store: Store, customer: int) -> tuple[str, list[str]]:
    row = store.rows(f"SELECT type, data FROM event WHERE type LIKE 'hold.%' AND customer_id = {customer} ORDER BY seq")[-1]
    return row[0], [one["value"] for one in json.loads(row[1])["identifiers"]]


def codes(*addresses: str) -> Any:
    """Somebody answers with the codes that were sent to these addresses."""
    claims = tuple((phone if address.startswith("+") else email)(address, Proof.OTP) for address in addresses)
    return heard(CHAT, Identified(provider_key=" ".join(addresses), claims=claims))


# --- merge, unmerge, reject ---


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (Merge(1, 99, BY), "no customer 99"),
        (Merge(1, 1, BY), "one customer already"),
        (Unmerge(5, 1, 2, BY), "somebody undid it"),
        (Unmerge(5, 1, 99, BY), "somebody undid it"),
        (Reject(1, 1, BY), "one customer already"),
        (TakeOut(1, 99, BY), "not this customer's"),
        (TakeOut(1, 1, BY), "nothing to take it out of"),
        (Dismiss(1, 99), "Nothing is claimed"),
        (MoveTicket(99, 1), "no ticket 99"),
        (MoveTicket(1, 1), "that customer's already"),
        (MoveTicket(1, 99), "no customer 99"),
        (MoveMessage(99, 1, 2), "no message 99"),
    ],
    ids=str,
)
async def test_what_cannot_be_done_is_refused_in_words_and_changes_nothing(work: Any, words: str, store: Store) -> None:
    await two(store)
    before = store.rows("SELECT seq FROM event")
    with pytest.raises(Refusal, match=words):
        await store.run(work)
    assert store.rows("SELECT seq FROM event") == before


async def test_a_message_is_moved_to_another_customer_there_is(store: Store) -> None:
    await two(store)
    id_ = message_id(store, "I am Ada")
    with pytest.raises(Refusal, match="that customer's already"):
        await store.run(MoveMessage(id_, 1, 1))
    with pytest.raises(Refusal, match="no customer 99"):
        await store.run(MoveMessage(id_, 1, 99))


async def test_a_merge_is_undone_once(store: Store) -> None:
    await two(store)
    merged = await store.run(Merge(1, 2, BY, ME))
    assert merged.customer_id == 1
    undo = Unmerge(merged.join_id, 1, 2, BY, ME)
    parts = await store.run(undo)
    assert (parts.left_id, parts.right_id) == (1, 2)
    with pytest.raises(Refusal, match="somebody undid it"):
        await store.run(undo)


async def test_a_tie_is_named_by_its_own_two_homes(store: Store) -> None:
    """A page that was made up, or is of another tie, undoes nothing."""
    await two(store)
    await says(store, email("cyd@example.com"), text="I am Cyd", channel=MAIL)
    merged = await store.run(Merge(1, 2, BY, ME))
    await store.run(Merge(1, 3, BY, ME))
    with pytest.raises(Refusal, match="somebody undid it"):
        await store.run(Unmerge(merged.join_id, 1, 3, BY, ME))


async def test_an_id_that_leads_on_is_as_good_as_the_one_it_leads_to(store: Store) -> None:
    await two(store)
    await says(store, email("cyd@example.com"), text="I am Cyd", channel=MAIL)
    await store.run(Merge(1, 2, BY, ME))
    assert (await store.run(Merge(3, 2, BY, ME))).customer_id == 1
    with pytest.raises(Refusal, match="one customer already"):
        await store.run(Merge(2, 3, BY, ME))


async def test_proof_that_came_after_a_merge_is_taken_back_with_it(store: Store) -> None:
    """The agent says that these two are two people: whatever ties just them, they are asked when it comes up again."""
    await two(store)
    merged = await store.run(Merge(1, 2, BY, ME))
    await store.run(codes("+12025550101", "+12025550102"))
    assert store.value("SELECT count(*) FROM join_log WHERE op = 'join'") == 1
    parts = await store.run(Unmerge(merged.join_id, 1, 2, BY, ME))
    assert (parts.left_id, parts.right_id) == (1, 2)
    assert store.value("SELECT count(*) FROM join_log WHERE undoes IS NOT NULL") == 2


async def test_a_ring_of_ties_is_taken_back_one_by_one(store: Store) -> None:
    """Each of three is tied to both others: whichever is taken back first, the others still hold them."""
    await two(store)
    await says(store, email("cyd@example.com"), text="I am Cyd", channel=MAIL)
    merged = await store.run(Merge(1, 2, BY, ME))
    await store.run(codes("+12025550102", "cyd@example.com"))
    await store.run(codes("+12025550101", "cyd@example.com"))
    ties = {tuple(sorted(row[1:3])): row[0] for row in store.rows("SELECT id, left_id, right_id FROM join_log")}
    assert ties.keys() == {(1, 2), (2, 3), (1, 3)}
    still = await store.run(Unmerge(merged.join_id, 1, 2, BY, ME))
    assert (still.left_id, still.right_id) == (1, 1)
    assert {where[0] for where in lies(store).values()} == {1}
    assert not store.rows("SELECT id FROM cannot_link"), "nobody is parted yet"
    row = store.rows(f"SELECT id, left_id, right_id FROM join_log WHERE id = {ties[2, 3]}")[0]
    await store.run(Unmerge(*row, BY, ME))
    assert {text: where[0] for text, where in lies(store).items()} == {"I am Ada": 1, "I am Ben": 2, "I am Cyd": 1}


async def test_after_an_undo_proof_asks_a_human_and_joins_nobody(store: Store) -> None:
    await two(store)
    merged = await store.run(Merge(1, 2, BY, ME))
    await store.run(Unmerge(merged.join_id, 1, 2, BY, ME))
    await store.run(codes("+12025550101", "+12025550102"))
    assert not store.rows("SELECT id FROM customer WHERE merged_into IS NOT NULL")
    assert [tuple(row) for row in store.rows("SELECT left_id, right_id, rule FROM suggestion")] == [(1, 2, "proof")]


async def test_what_was_rejected_stays_apart_until_an_agent_says_otherwise(store: Store) -> None:
    await two(store)
    await store.run(Reject(1, 2, BY, ME))
    await store.run(codes("+12025550101", "+12025550102"))
    assert not store.rows("SELECT id FROM customer WHERE merged_into IS NOT NULL")
    await store.run(Merge(1, 2, BY, ME))
    assert store.value("SELECT count(*) FROM cannot_link WHERE ended_at IS NULL") == 0


async def test_a_rejection_said_again_counts_from_then_on(store: Store) -> None:
    await two(store)
    await store.run(Reject(1, 2, BY, ME))
    store.clock.advance(60)
    await store.run(Reject(2, 1, BY, ME))
    rows = store.rows("SELECT at, ended_at FROM cannot_link ORDER BY id")
    assert [(row[0] == store.clock(), row[1] is None) for row in rows] == [(False, False), (True, True)]


# --- take an identifier out ---


async def signed_in(store: Store) -> None:
    """Customer 1 wrote a mail, customer 2 by account; the account's token then holds the mail's address: one person, two homes."""
    await says(store, email("ada@example.com"), text="by mail", channel=MAIL)
    await says(store, account("u1"), device("d1"), text="by chat", channel=CHAT)
    signed = email("ada@example.com", Proof.SIGNED)
    await store.run(heard(CHAT, Identified(provider_key="in", claims=(account("u1"), device("d1"), signed))))


async def test_the_oldest_home_can_be_taken_out_too(store: Store) -> None:
    await signed_in(store)
    now = await store.run(TakeOut(1, id_of(store, "ada@example.com"), BY, ME))
    assert now == 1, "the mail's was the oldest home: it keeps the id, and the rest goes"
    assert {text: where[0] for text, where in lies(store).items()} == {"by mail": 1, "by chat": 2}
    assert [sorted(row) for row in store.rows("SELECT left_id, right_id FROM cannot_link")] == [[1, 2]]


async def test_what_was_taken_out_is_joined_by_no_later_proof(store: Store) -> None:
    await signed_in(store)
    await store.run(TakeOut(1, id_of(store, "ada@example.com"), BY, ME))
    signed = email("ada@example.com", Proof.SIGNED)
    await store.run(heard(CHAT, Identified(provider_key="again", claims=(account("u1"), device("d1"), signed))))
    await says(store, email("ada@example.com"), text="by mail again", channel=MAIL)
    assert lies(store)["by mail again"][0] == 1
    assert lies(store)["by chat"][0] == 2


async def test_an_identifier_that_came_with_others_takes_its_messages_to_a_customer_of_its_own(store: Store) -> None:
    await says(store, account("u1"), device("d1"), email("ada@example.com", Proof.SIGNED), text="by chat", channel=CHAT)
    await says(store, email("ada@example.com"), text="by mail", channel=MAIL, subject="A parcel", sender_name="Ada")
    assert len(set(lies(store).values())) == 1
    now = await store.run(TakeOut(1, id_of(store, "ada@example.com"), BY, ME))
    conversation, ticket = lies(store)["by mail"]
    assert now == conversation != 1
    assert lies(store)["by chat"] == (1, 1)
    assert ticket != 1
    assert store.rows(f"SELECT subject, status FROM ticket WHERE id = {ticket}")[0]["subject"] == "A parcel"
    assert last_told(store, conversation) == ("hold.renewed", ["ada@example.com"])
    assert store.value(f"SELECT name FROM customer WHERE id = {conversation}") == "Ada"


async def test_a_ticket_that_only_this_address_wrote_on_goes_along_with_its_notes_and_its_hold(store: Store) -> None:
    await store.run(
        heard(CHAT, Identified(provider_key="in", claims=(account("u1"), device("d1"), email("ada@example.com", Proof.SIGNED))))
    )
    await says(store, email("ada@example.com"), text="by mail", channel=MAIL)
    await store.run(AddNote(1, ME, "a note", "n1"))
    now = await store.run(TakeOut(1, id_of(store, "ada@example.com"), BY, ME))
    assert lies(store) == {"by mail": (now, 1), "a note": (now, 1)}
    assert [tuple(row) for row in store.rows("SELECT customer_id, home_id FROM hold WHERE released_at IS NULL")] == [(now, now)]
    assert last_told(store, 1)[0] == "hold.released"
    assert last_told(store, now) == ("hold.renewed", ["ada@example.com"])


async def test_an_address_nothing_came_by_is_nobodys(store: Store) -> None:
    await says(store, account("u1"), device("d1"), email("ada@example.com", Proof.SIGNED), text="by chat", channel=CHAT)
    assert await store.run(TakeOut(1, id_of(store, "ada@example.com"), BY, ME)) is None
    row = store.rows("SELECT home_id, customer_id FROM identifier WHERE value = 'ada@example.com'")[0]
    assert tuple(row) == (None, None)
    assert store.value("SELECT count(*) FROM customer") == 1


async def test_what_an_agent_gave_to_somebody_does_not_follow_the_address_it_came_by(store: Store) -> None:
    await says(store, account("u1"), device("d1"), email("ada@example.com", Proof.SIGNED), text="by chat", channel=CHAT)
    await says(store, email("ada@example.com"), text="by mail", channel=MAIL)
    await says(store, BEN, text="I am Ben")
    for to in (2, 1):
        await store.run(MoveTicket(1, to, ME))
    assert await store.run(TakeOut(1, id_of(store, "ada@example.com"), BY, ME)) is None, "all that came by it is where an agent put it"
    assert lies(store)["by mail"] == (1, 1)


async def test_what_an_agent_merged_in_is_taken_back_as_a_whole(store: Store) -> None:
    await two(store)
    await store.run(Merge(1, 2, BY, ME))
    with pytest.raises(Refusal, match="Take that merge back"):
        await store.run(TakeOut(1, id_of(store, "+12025550102"), BY, ME))


async def test_a_claim_can_be_dismissed_and_the_hold_lets_go_of_it(store: Store) -> None:
    await says(store, device("d1"), email("victim@example.com", Proof.CLAIMED), text="hello", channel=CHAT)
    assert last_told(store, 1)[1] == ["victim@example.com"]
    await store.run(Dismiss(1, id_of(store, "victim@example.com"), ME))
    assert last_told(store, 1) == ("hold.renewed", [])
    with pytest.raises(Refusal, match="Nothing is claimed"):
        await store.run(Dismiss(1, id_of(store, "victim@example.com"), ME))


# --- move a ticket or a message ---


async def test_a_ticket_goes_with_all_its_messages_its_hold_and_its_place_in_the_queue(store: Store) -> None:
    await two(store)
    await store.run(AddNote(1, ME, "a note", "n1"))
    await store.run(Reply(1, ME, "an answer", "d1"))
    assert await store.run(MoveTicket(1, 2, ME)) == 2
    assert lies(store) == {"I am Ada": (2, 1), "a note": (2, 1), "an answer": (2, 1), "I am Ben": (2, 2)}
    assert [tuple(row) for row in store.rows("SELECT customer_id, home_id FROM hold WHERE released_at IS NULL")] == [(2, 2), (2, 2)]
    assert store.value("SELECT lane FROM delivery WHERE kind = 'reply'") == f"reply:2:{SMS}"
    assert last_told(store, 1) == ("hold.released", ["+12025550101"])
    await says(store, ADA, text="Ada again")
    assert lies(store)["Ada again"][0] == 1


async def test_a_ticket_moved_to_somebody_no_tool_heard_of_holds_them(store: Store) -> None:
    await says(store, ADA, text="I am Ada")
    await says(store, BEN, text="STOP", opts="out")  # asks for nothing, and holds nobody
    assert not store.rows("SELECT seq FROM event WHERE type LIKE 'hold.%' AND customer_id = 2")
    await store.run(MoveTicket(1, 2, ME))
    assert last_told(store, 2) == ("hold.placed", ["+12025550102"])


async def test_what_was_moved_stays_where_it_was_put_through_merges_and_their_undoing(store: Store) -> None:
    await two(store)
    await says(store, email("cyd@example.com"), text="I am Cyd", channel=MAIL)
    await says(store, ADA, text="really Ben's")
    await store.run(MoveMessage(message_id(store, "really Ben's"), 1, 2, ME))
    before = lies(store)
    assert before["really Ben's"] == (2, 2)
    merged = await store.run(Merge(1, 2, BY, ME))
    other = await store.run(Merge(1, 3, BY, ME))
    await store.run(Unmerge(merged.join_id, 1, 2, BY, ME))
    await store.run(Unmerge(other.join_id, 1, 3, BY, ME))
    assert lies(store) == before


async def test_the_ticket_a_message_left_tells_of_what_is_left(store: Store) -> None:
    await two(store)
    store.clock.advance(60)
    await says(store, ADA, text="really Ben's")
    await store.run(MoveMessage(message_id(store, "really Ben's"), 1, 2, ME))
    left = store.rows("SELECT preview, last_inbound_id, last_at FROM ticket WHERE id = 1")[0]
    assert (left["preview"], left["last_inbound_id"]) == ("I am Ada", message_id(store, "I am Ada"))
    assert left["last_at"] < store.clock() - 30 * 1_000_000
    target = store.rows("SELECT preview, last_inbound_id FROM ticket WHERE id = 2")[0]
    assert tuple(target) == ("really Ben's", message_id(store, "really Ben's"))
    # And who answers is not told that the customer wrote meanwhile.
    seen = message_id(store, "I am Ada")
    assert not (await store.run(Reply(1, ME, "an answer", "d1", seen_message_id=seen))).duplicate


async def test_a_ticket_whose_only_message_left_shows_none_of_it(store: Store) -> None:
    await two(store)
    await store.run(MoveMessage(message_id(store, "I am Ada"), 1, 2, ME))
    left = store.rows("SELECT preview, last_inbound_id, status FROM ticket WHERE id = 1")[0]
    assert tuple(left) == ("Its message stands on #2 now.", None, "open")


async def test_a_message_moved_to_somebody_without_an_open_ticket_opens_one_with_its_own_subject(store: Store) -> None:
    await says(store, email("ada@example.com"), text="first", channel=MAIL, subject="A secret")
    await says(store, BEN, text="I am Ben")
    await store.run(Resolve(2, ME))
    await says(store, ADA, text="really Ben's")  # on customer 3's own ticket
    await store.run(Merge(1, 3, BY, ME))
    await says(store, ADA, text="Ben's too")
    target = await store.run(MoveMessage(message_id(store, "Ben's too"), 1, 2, ME))
    row = store.rows(f"SELECT conversation_id, subject, status, preview FROM ticket WHERE id = {target}")[0]
    assert tuple(row) == (2, "", "open", "Ben's too")
    assert last_told(store, 2)[0] == "hold.placed"


async def test_a_message_of_a_resolved_ticket_opens_nothing(store: Store) -> None:
    await two(store)
    for ticket in (1, 2):
        await store.run(Resolve(ticket, ME))
    target = await store.run(MoveMessage(message_id(store, "I am Ada"), 1, 2, ME))
    assert store.value(f"SELECT status FROM ticket WHERE id = {target}") == "resolved"
    assert not store.rows("SELECT id FROM hold WHERE released_at IS NULL")


async def test_a_note_stays_with_its_ticket(store: Store) -> None:
    await two(store)
    note = await store.run(AddNote(1, ME, "a note", "n1"))
    with pytest.raises(Refusal, match="Move the ticket"):
        await store.run(MoveMessage(note, 1, 2, ME))
