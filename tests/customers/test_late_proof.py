"""A sender proved after the commit: the one message becomes that of the proven address, and nothing else does (law 6)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Checked, Claim, InboundMessage, Proof
from hub.conversations.commands import AddNote, Assign, Reply, Resolve
from hub.customers.late_proof import prove_sender
from hub.customers.merging import Merge, MoveMessage, Reject, Unmerge
from tests.storage import MAIL, POLICY, RULE_ENGINES, SMS, Store, email, heard, message, open_store, phone

ADA = "ada@shop.example"
DAY = 86_400.0


@pytest.fixture(params=RULE_ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def mail(text: str = "Where is my parcel?", **more: Any) -> InboundMessage:
    return message(email(ADA, Proof.CLAIMED), text=text, unchecked=True, **more)


async def arrives(store: Store, said: InboundMessage) -> int:
    await store.run(heard(MAIL, said))
    return int(store.value("SELECT max(id) FROM message"))


async def prove(store: Store, message_id: int, said: InboundMessage, names: tuple[int, int] | None = None) -> None:
    checked = Checked(said=said, why="it holds", proved=Claim("email", ADA, Proof.DMARC), source="dkim:shop.example:s1")
    reader = store.reader()
    try:
        await prove_sender(message_id, checked, reader, store.writer, POLICY, lambda token: names)
    finally:
        await reader.close()


async def proved(store: Store, said: InboundMessage) -> int:
    """A mail came in and its signature held."""
    message_id = await arrives(store, said)
    await prove(store, message_id, said)
    return message_id


def lies(store: Store) -> list[tuple[int, int, str]]:
    """(conversation, ticket, proof) of every message."""
    return [tuple(row) for row in store.rows("SELECT conversation_id, ticket_id, proof FROM message ORDER BY id")]


def tickets(store: Store) -> list[tuple[int, str]]:
    return [tuple(row) for row in store.rows("SELECT conversation_id, status FROM ticket ORDER BY id")]


def owner(store: Store, standing: str) -> int | None:
    found = store.rows(f"SELECT customer_id FROM identifier WHERE value = '{ADA}' AND standing = '{standing}' AND ended_at IS NULL")
    return found[0][0] if found else None


def held(store: Store) -> set[int]:
    return {row[0] for row in store.rows("SELECT customer_id FROM hold WHERE released_at IS NULL")}


def sound(store: Store) -> None:
    """What is derived agrees with what it is derived from."""
    wrong = store.rows(
        "SELECT m.id FROM message m JOIN identifier i ON i.id = m.identifier_id "
        "WHERE NOT m.placed AND i.customer_id IS NOT NULL AND i.customer_id <> m.conversation_id"
    )
    assert not wrong, "a message lies with its identifier's customer"
    assert not store.rows("SELECT m.id FROM message m JOIN ticket t ON t.id = m.ticket_id WHERE t.conversation_id <> m.conversation_id")
    assert not store.rows("SELECT h.id FROM hold h JOIN ticket t ON h.source = 'ticket:' || t.id "
                          "WHERE h.released_at IS NULL AND (h.customer_id <> t.conversation_id OR t.status = 'resolved')")  # fmt: skip
    assert not store.rows("SELECT t.id FROM ticket t WHERE t.status <> 'resolved' AND NOT EXISTS "
                          "(SELECT 1 FROM hold h WHERE h.source = 'ticket:' || t.id AND h.released_at IS NULL)")  # fmt: skip


async def test_an_unchecked_message_is_owed_a_check_and_any_other_is_not(store: Store) -> None:
    number = await arrives(store, mail())
    await arrives(store, message(email("bob@shop.example", Proof.CLAIMED)))
    rows = store.rows("SELECT lane, kind, target, subject_id, state, idempotent FROM delivery WHERE kind = 'check'")
    assert [tuple(row) for row in rows] == [(f"check:{number}", "check", "mail", number, "queued", True)]


async def test_whoever_nobody_knew_is_whom_their_first_mail_proves(store: Store) -> None:
    await proved(store, mail())
    assert lies(store) == [(1, 1, "dmarc")]
    assert store.value("SELECT count(*) FROM customer") == 1, "nobody is left over"
    assert (owner(store, "proven"), owner(store, "asserted")) == (1, None)
    noted = store.rows("SELECT e.proof, e.source FROM evidence e JOIN identifier i ON i.id = e.identifier_id WHERE i.standing = 'proven'")
    assert [tuple(row) for row in noted] == [("dmarc", "dkim:shop.example:s1")]
    assert store.value("SELECT i.standing FROM ticket t JOIN identifier i ON i.id = t.identifier_id") == "proven", "the way back"
    sound(store)


async def test_unproven_mail_of_that_address_stays_apart_afterwards(store: Store) -> None:
    await proved(store, mail())
    store.clock.advance(60)
    await arrives(store, message(email(ADA, Proof.CLAIMED), text="Send it to my new address"))
    assert [row[0] for row in lies(store)] == [1, 2]
    assert store.value("SELECT reason FROM suggestion").startswith(f"Writes as {ADA} without proof")
    sound(store)


async def test_mail_proved_by_the_provider_meets_mail_proved_by_us(store: Store) -> None:
    await proved(store, mail())
    await arrives(store, message(email(ADA, Proof.DMARC), text="And?"))
    assert lies(store) == [(1, 1, "dmarc")] * 2


async def test_a_known_customers_mail_comes_to_their_open_ticket_and_the_one_it_opened_is_over(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await proved(store, mail("Any news?"))
    assert lies(store) == [(1, 1, "dmarc"), (1, 1, "dmarc")]
    assert tickets(store) == [(1, "open"), (2, "resolved")]
    assert store.value("SELECT preview FROM ticket WHERE id = 1") == "Any news?"
    assert "#1" in store.value("SELECT preview FROM ticket WHERE id = 2")
    assert store.value("SELECT count(*) FROM suggestion") == 0, "that they may be one person is answered"
    assert held(store) == {1}
    sound(store)


async def test_a_correspondence_of_checked_mails_is_one_ticket(store: Store) -> None:
    """However many: no second customer, ticket or hint is left for each."""
    for number in range(5):
        await proved(store, mail(f"Mail {number}"))
        store.clock.advance(3_600)
    assert {row[:2] for row in lies(store)} == {(1, 1)}
    assert store.value("SELECT count(*) FROM customer") == 2
    assert tickets(store) == [(1, "open"), (2, "resolved")]
    assert store.value("SELECT count(*) FROM suggestion") == 0
    assert store.value("SELECT count(*) FROM evidence e JOIN identifier i ON i.id = e.identifier_id WHERE i.standing = 'proven'") == 1
    sound(store)


async def test_it_reopens_what_it_would_have_reopened(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await store.run(Resolve(1, 1))
    store.clock.advance(DAY)
    await proved(store, mail("It still has not come"))
    assert lies(store)[-1] == (1, 1, "dmarc")
    assert tickets(store) == [(1, "open"), (2, "resolved")]
    assert "ticket.reopened" in {event.type for event in store.events()}
    sound(store)


async def test_long_after_it_brings_its_own_ticket_along(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await store.run(Resolve(1, 1))
    store.clock.advance(30 * DAY)
    await proved(store, mail("Another thing"))
    assert lies(store)[-1] == (1, 2, "dmarc")
    assert tickets(store) == [(1, "resolved"), (1, "open")]
    assert held(store) == {1}
    sound(store)


async def test_it_comes_to_the_ticket_it_answers(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC), message_id="<1@shop.example>"))
    await store.run(Resolve(1, 1))
    store.clock.advance(8 * DAY)
    await arrives(store, message(email(ADA, Proof.DMARC), message_id="<2@shop.example>", text="Another thing"))
    await store.run(Resolve(2, 1))
    said = mail("About the other one", in_reply_to="<2@shop.example>", references=("<1@shop.example>", "<2@shop.example>"))
    await proved(store, said)
    assert lies(store)[-1] == (1, 2, "dmarc")
    by_token = mail("About the other one", reply_token="signed")
    message_id = await arrives(store, by_token)
    await prove(store, message_id, by_token, names=(2, 1))
    assert lies(store)[-1] == (1, 2, "dmarc")
    sound(store)


async def test_a_ticket_of_somebody_else_opens_nothing(store: Store) -> None:
    await arrives(store, message(phone("+12025550123"), text="Mine", message_id="<1@x>"))
    await arrives(store, message(email(ADA, Proof.DMARC)))
    said = mail(reply_token="signed", in_reply_to="<1@x>")
    message_id = await arrives(store, said)
    await prove(store, message_id, said, names=(1, 1))
    assert lies(store)[-1][:2] == (2, 3)  # alone, for an agent to judge: it answers what was said to another
    sound(store)


@pytest.mark.parametrize("work", ["answered", "noted", "assigned"])
async def test_what_an_agent_works_on_goes_along_whole(work: str, store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    said = mail("Any news?")
    message_id = await arrives(store, said)
    store.execute("INSERT INTO agent (id, email, name, password_hash, role, created_at) VALUES (1, 'a@b', 'Al', '', 'admin', 0)")
    store.execute(f"INSERT INTO channel (id, name, key_digest) VALUES ({MAIL}, 'mail', '')")
    if work == "answered":
        await store.run(Reply(2, 1, "Tomorrow.", "d1"))
    elif work == "noted":
        await store.run(AddNote(2, 1, "Rang the carrier.", "d1"))
    else:
        await store.run(Assign(2, 1, 1))
    await prove(store, message_id, said)
    assert tickets(store) == [(1, "open"), (1, "open")]
    assert {row[:2] for row in lies(store)[1:]} == {(1, 2)}
    if work == "answered":
        assert (
            store.value("SELECT i.standing FROM message m JOIN identifier i ON i.id = m.identifier_id WHERE m.direction = 'out'")
            == "proven"
        )
        assert store.value("SELECT lane FROM delivery WHERE kind = 'reply'") == f"reply:1:{MAIL}"
    sound(store)


async def test_an_answer_to_whom_nobody_knew_stays_theirs(store: Store) -> None:
    said = mail()
    message_id = await arrives(store, said)
    await store.run(Reply(1, 1, "Tomorrow.", "d1"))
    await prove(store, message_id, said)
    assert lies(store) == [(1, 1, "dmarc"), (1, 1, "")]
    assert store.value("SELECT count(*) FROM customer") == 1
    assert {row[0] for row in store.rows("SELECT i.standing FROM message m JOIN identifier i ON i.id = m.identifier_id")} == {"proven"}
    sound(store)


async def test_what_else_came_unproven_stays(store: Store) -> None:
    """The proof is of one message: a stranger who wrote as Ada before gets nothing of it, and she nothing of theirs."""
    await arrives(store, message(email(ADA, Proof.CLAIMED), text="I am Ada, what do you know of me?"))
    await proved(store, mail("Hello"))
    assert [(row[0], row[2]) for row in lies(store)] == [(1, "claimed"), (2, "dmarc")]
    assert (owner(store, "asserted"), owner(store, "proven")) == (1, 2)
    assert tickets(store) == [(1, "open"), (2, "open")]
    assert store.value("SELECT preview FROM ticket WHERE id = 1").startswith("I am Ada")
    assert held(store) == {1, 2}
    sound(store)


async def test_a_hint_stays_while_something_unproven_is_left(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await arrives(store, message(email(ADA, Proof.CLAIMED), text="I am Ada"))
    assert store.value("SELECT count(*) FROM suggestion") == 1
    store.clock.advance(60)
    await proved(store, mail("Hello"))
    assert store.value("SELECT count(*) FROM suggestion") == 1


async def test_doing_it_again_changes_nothing(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    said = mail("Any news?")
    message_id = await proved(store, said)
    tables = ("customer", "identifier", "evidence", "join_log", "ticket", "message", "hold", "event", "delivery", "suggestion")
    before = [store.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    await prove(store, message_id, said)
    assert [[tuple(row) for row in store.rows(f"SELECT * FROM {table} ORDER BY 1")] for table in tables] == [
        [tuple(row) for row in rows] for rows in before
    ]


async def test_two_people_whom_an_agent_parted_are_not_joined_by_it(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await arrives(store, message(email(ADA, Proof.CLAIMED), text="I am Ada"))
    await store.run(Reject(1, 2, "agent:1"))
    await proved(store, mail("Hello"))
    assert [row[0] for row in lies(store)] == [1, 2, 1]
    assert store.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 2
    sound(store)


async def test_what_an_agent_placed_stays_where_it_was_placed(store: Store) -> None:
    await arrives(store, message(phone("+12025550123"), text="It is me"))
    said = mail()
    message_id = await arrives(store, said)
    await store.run(MoveMessage(message_id, 2, 1))
    await prove(store, message_id, said)
    assert lies(store)[-1] == (1, 1, "dmarc")
    sound(store)


async def test_after_a_merge_it_is_proved_in_place_and_undoing_sends_it_to_the_proven_one(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await arrives(store, message(email(ADA, Proof.CLAIMED), text="I am Ada"))
    merged = await store.run(Merge(1, 2, "agent:1"))
    await proved(store, mail("Hello"))
    assert [row[0] for row in lies(store)] == [1, 1, 1]
    await store.run(Unmerge(merged.join_id, 1, 2, "agent:1"))
    assert [row[0] for row in lies(store)] == [1, 2, 1]
    sound(store)


async def test_a_machines_mail_wakes_nothing(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await store.run(Resolve(1, 1))
    await proved(store, mail("I am away", automatic="auto-reply"))
    assert lies(store)[-1] == (1, 1, "dmarc")
    assert tickets(store) == [(1, "resolved"), (2, "resolved")]
    assert held(store) == set()
    sound(store)


async def test_thanks_reopen_nothing(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await store.run(Resolve(1, 1))
    await proved(store, mail("Thank you!"))
    assert lies(store)[-1] == (1, 1, "dmarc")
    assert tickets(store) == [(1, "resolved"), (2, "resolved")]
    sound(store)


async def test_marketing_hears_of_the_proven_one(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.DMARC)))
    await store.run(Resolve(1, 1))
    store.clock.advance(30 * DAY)
    await proved(store, mail("Another thing"))
    told = [event for event in store.events() if event.type.startswith("hold.") and event.customer_id == 1]
    assert told[-1].type != "hold.released"
    assert '"because": "verified"' in told[-1].data
    empty = [event for event in store.events() if event.type.startswith("hold.") and event.customer_id == 2]
    assert empty[-1].type == "hold.released"


async def test_marketing_hears_of_somebody_new(store: Store) -> None:
    await arrives(store, message(email(ADA, Proof.CLAIMED)))
    await store.run(Resolve(1, 1))
    store.clock.advance(30 * DAY)
    said = mail("Another thing")
    message_id = await arrives(store, said)
    before = max(json.loads(event.data)["version"] for event in store.events() if event.type.startswith("hold."))
    await prove(store, message_id, said)
    assert [row[:2] for row in lies(store)] == [(1, 1), (2, 2)]
    told = [event for event in store.events() if event.type.startswith("hold.") and event.customer_id == 2]
    assert told[-1].type == "hold.renewed", "of a hold that was placed while nobody had proved whom it is about"
    assert json.loads(told[-1].data)["version"] > before, "or a tool that keeps holds by address takes it for old news"
    sound(store)


async def test_a_message_that_is_gone_is_nobodys(store: Store) -> None:
    said = mail()
    await prove(store, 77, said)
    assert store.value("SELECT count(*) FROM customer") == 0


async def test_a_text_message_beside_it_is_left_alone(store: Store) -> None:
    await arrives(store, mail())
    await store.run(heard(SMS, message(phone("+12025550123"))))
    assert store.value("SELECT count(*) FROM delivery WHERE kind = 'check'") == 1
