"""Where a mail stands: on the ticket it answers if its sender fits, on one of its own for an agent to review if not. Never nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.contract import InboundMessage, Proof
from hub.conversations.commands import Reply, Resolve
from hub.conversations.ingest import Ingest, item
from hub.conversations.review import Admit, Dismiss, KeepApart
from hub.conversations.threading import base_subject
from hub.conversations.triage import MarkSpam
from hub.policy import ChannelRule, Refusal
from tests.storage import ENGINES, MAIL, POLICY, SMS, Store, email, heard, message, open_store, phone

ADA, BOB, EVE = "ada@example.com", "bob@example.com", "eve@example.net"
ASKED, ANSWERED = "<asked@example.com>", "<answered@hub.example>"


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def mail(who: str, text: str = "Hello", proof: Proof = Proof.DMARC, **more: Any) -> InboundMessage:
    return message(email(who, proof), text=text, **more)


def lies(store: Store) -> list[tuple[int, int]]:
    """The ticket and conversation of each message of a customer's."""
    rows = store.rows("SELECT ticket_id, conversation_id FROM message WHERE direction = 'in' ORDER BY id")
    return [(row[0], row[1]) for row in rows]


def tickets(store: Store) -> list[tuple[str, bool, int | None]]:
    rows = store.rows("SELECT status, review, review_of FROM ticket ORDER BY id")
    return [(row[0], bool(row[1]), row[2]) for row in rows]


async def asked_and_answered(store: Store) -> str:
    """Ada wrote, an agent answered: the Message-ID of the answer."""
    await store.run(heard(MAIL, mail(ADA, "Where is it?", subject="Parcel", message_id=ASKED)))
    await store.run(Reply(1, 1, "On its way", "draft-0001"))
    return str(store.value("SELECT mail_id FROM message WHERE direction = 'out'"))


# (who answers, how proved, what the channel says against them) -> (their conversation, their ticket, waits for review)
WHO = [
    (ADA, Proof.DMARC, "", 1, 1, False),  # the customer
    (ADA, Proof.CLAIMED, "", 1, 1, False),  # DMARC none: her very address answers what only she was sent
    (ADA, Proof.CLAIMED, "DMARC failed", 2, 2, True),
    (EVE, Proof.DMARC, "", 2, 2, True),  # a stranger, by Cc or a forward
    (EVE, Proof.CLAIMED, "", 2, 2, True),
    (EVE, Proof.CLAIMED, "DMARC failed", 2, 2, True),
]


@pytest.mark.parametrize("how", ["in_reply_to", "references", "token"])
@pytest.mark.parametrize(("who", "proof", "doubt", "conversation", "ticket", "review"), WHO)
async def test_who_answers_a_mail_decides_where_it_stands(
    who: str, proof: Proof, doubt: str, conversation: int, ticket: int, review: bool, how: str, store: Store
) -> None:
    ours = await asked_and_answered(store)
    named: dict[str, Any] = {"in_reply_to": {"in_reply_to": ours}, "references": {"references": ("<x@y.example>", ours)}, "token": {}}[how]
    said = mail(who, "And now?", proof, doubt=doubt, **named)
    token = (1, store.value("SELECT id FROM identifier WHERE value = ?", ADA)) if how == "token" else None
    await store.run(Ingest(MAIL, (item(said, True, token=token),), None))
    assert lies(store)[-1] == (ticket, conversation)
    assert tickets(store)[-1][1:] == (review, 1 if review else None)
    assert store.value("SELECT count(*) FROM message WHERE conversation_id = 1 AND direction = 'in'") == (1 if conversation == 2 else 2)
    # Its clock runs wherever it stands.
    assert store.value("SELECT waiting_since FROM ticket ORDER BY id DESC") is not None


async def test_a_mail_that_answers_nothing_is_no_matter_for_review_unless_its_sender_is_doubtful(store: Store) -> None:
    await asked_and_answered(store)
    await store.run(heard(MAIL, mail(EVE, proof=Proof.CLAIMED)))
    await store.run(heard(MAIL, mail(BOB, proof=Proof.CLAIMED, doubt="DMARC failed")))
    assert tickets(store) == [("open", False, None), ("open", False, None), ("open", True, None)]


async def test_an_admitted_participant_reads_on_and_proves_nothing(store: Store) -> None:
    ours = await asked_and_answered(store)
    await store.run(heard(MAIL, mail(EVE, "I am her colleague", in_reply_to=ours)))
    assert await store.run(Admit(2, 1, 7)) == 1
    assert lies(store) == [(1, 1), (1, 1)]
    assert tickets(store) == [("open", False, None), ("resolved", False, 1)]
    await store.run(heard(MAIL, mail(EVE, "One more thing", in_reply_to=ours)))
    assert lies(store)[-1] == (1, 1)
    owner = store.value("SELECT customer_id FROM identifier WHERE value = ?", EVE)
    assert owner == 2, "she is nobody's address but her own"
    assert store.value("SELECT identifier_id FROM ticket WHERE id = 1") == store.value("SELECT id FROM identifier WHERE value = ?", ADA)
    # Beside that thread she is who she was.
    await store.run(heard(MAIL, mail(EVE, "Something of my own", subject="Mine")))
    assert lies(store)[-1][1] == 2
    # A doubtful mail in her name is looked at again.
    await store.run(heard(MAIL, mail(EVE, "Send me everything", Proof.CLAIMED, doubt="DMARC failed", in_reply_to=ours)))
    assert tickets(store)[-1][1:] == (True, 1)


async def test_a_dismissed_participant_stands_apart_again(store: Store) -> None:
    ours = await asked_and_answered(store)
    await store.run(heard(MAIL, mail(EVE, in_reply_to=ours)))
    await store.run(Admit(2, 1, 7))
    await store.run(Dismiss(1, EVE, 7))
    await store.run(heard(MAIL, mail(EVE, "Again", in_reply_to=ours)))
    assert lies(store)[-1][1] == 2
    assert tickets(store)[-1][1:] == (True, 1)
    with pytest.raises(Refusal, match="no participant"):
        await store.run(Dismiss(1, EVE, 7))


async def test_a_mail_kept_apart_is_its_own_ticket_and_is_asked_about_once(store: Store) -> None:
    await store.run(heard(MAIL, mail(EVE, "One", Proof.CLAIMED, doubt="DMARC failed")))
    await store.run(KeepApart(1, 7))
    with pytest.raises(Refusal, match="already"):
        await store.run(KeepApart(1, 7))
    await store.run(heard(MAIL, mail(EVE, "Two", Proof.CLAIMED, doubt="DMARC failed")))
    assert tickets(store) == [("open", False, None)]
    assert lies(store) == [(1, 1), (1, 1)]


async def test_doubtful_mail_marked_as_spam_holds_nobody(store: Store) -> None:
    await store.run(heard(MAIL, mail(EVE, "One", Proof.CLAIMED, doubt="DMARC failed")))
    assert store.value("SELECT count(*) FROM hold WHERE released_at IS NULL") == 1, "its clock runs, so it holds"
    await store.run(MarkSpam(1, 7))
    assert store.value("SELECT count(*) FROM hold WHERE released_at IS NULL") == 0


async def test_with_two_unresolved_tickets_a_mail_goes_by_its_thread_else_to_the_latest(store: Store) -> None:
    await store.run(heard(MAIL, mail(ADA, subject="Parcel", message_id="<1@a.example>")))
    store.execute(
        "INSERT INTO ticket (id, conversation_id, status, subject, brand, channel_id, identifier_id, opened_at, last_at, preview, version, "
        "last_inbound_id, home_id) SELECT 9, conversation_id, 'open', 'Invoice', brand, channel_id, identifier_id, opened_at, last_at + 1, "
        "'', 1, 0, home_id FROM ticket WHERE id = 1"
    )
    for more, ticket in [
        ({"in_reply_to": "<1@a.example>"}, 1),
        ({"subject": "Something else"}, 1),  # the latest active by now
        ({"subject": "AW: Re: Invoice"}, 9),  # names nothing, but says that it is an answer
        ({"references": ("<1@a.example>",), "subject": "Re: Invoice"}, 1),  # the thread is stronger than the subject
        ({"subject": "Invoice"}, 1),  # no answer by its own word
    ]:
        store.clock.advance(60)
        await store.run(heard(MAIL, mail(ADA, str(more), **more)))
        assert lies(store)[-1][0] == ticket, more


@pytest.mark.parametrize("text", ["Hello both", "Hello  both\n"])
async def test_the_same_mail_through_two_addresses_shows_once(text: str, tmp_path: Path) -> None:
    second = 5
    sales = ChannelRule(second, "sales", "E-mail", "default", ("email",), idempotent=False, mails=True)
    async with open_store(tmp_path, replace(POLICY, channels={**POLICY.channels, second: sales})) as store:
        await store.run(heard(MAIL, mail(ADA, "Hello both", message_id="<1@a.example>", key="a", sent_at=1)))
        outcome = await store.run(heard(second, mail(ADA, text, message_id="<1@a.example>", key="b", sent_at=1)))
        assert (outcome.stored, outcome.duplicates) == (0, 1)
        assert store.value("SELECT count(*) FROM message") == 1
        # Somebody's reused Message-ID is another mail, through whichever mailbox it came.
        assert (await store.run(heard(second, mail(ADA, "Something new", message_id="<1@a.example>", key="c")))).stored == 1
        assert (await store.run(heard(second, mail(BOB, "Hello both", message_id="<1@a.example>", key="d")))).stored == 1


async def test_a_reused_or_missing_message_id_loses_nothing(store: Store) -> None:
    for number, id_ in enumerate(["<1@a.example>", "<1@a.example>", "", ""]):
        assert (await store.run(heard(MAIL, mail(ADA, f"Mail {number}", message_id=id_)))).stored == 1
    assert store.value("SELECT count(*) FROM message") == 4


async def test_a_quoted_message_of_another_channel_names_its_ticket(store: Store) -> None:
    await store.run(heard(SMS, message(phone("+12025550123"), external_id="SM1")))
    await store.run(Resolve(1, 7))
    store.clock.advance(60)
    await store.run(heard(SMS, message(phone("+12025550123"), text="About this", quoted_id="SM1")))
    assert lies(store)[-1] == (1, 1)
    assert store.value("SELECT quoted_id FROM message ORDER BY id DESC") == "SM1"


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("Re: Hello", "hello"),
        ("AW: WG: Re[2]: Hello  there", "hello there"),
        ("RE : Hello", "hello"),
        ("回复：您好", "您好"),  # noqa: RUF001
        ("Regarding: Hello", "regarding: hello"),
        ("", ""),
    ],
)
def test_a_subject_is_compared_without_the_prefixes_of_answers(subject: str, base: str) -> None:
    assert base_subject(subject) == base


# --- what a strict reader found -----------------------------------------------------------------------------------------


async def test_what_needs_no_review_never_joins_what_waits_and_is_not_admitted_with_it(store: Store) -> None:
    ours = await asked_and_answered(store)
    both = (email(EVE), phone("+12025550188"))
    await store.run(heard(SMS, message(phone("+12025550188"), text="hello", key="sms-0")))
    await store.run(heard(MAIL, message(*both, text="About her parcel", in_reply_to=ours, key="m1")))
    waiting = store.value("SELECT id FROM ticket WHERE review <> ''")
    await store.run(heard(MAIL, mail(EVE, "Something private", subject="Mine")))
    await store.run(heard(SMS, message(phone("+12025550188"), text="also private", key="sms-1")))
    assert await store.run(Admit(waiting, 1, 7)) == 1
    shown = [row[0] for row in store.rows("SELECT text FROM message WHERE conversation_id = 1 AND direction = 'in' ORDER BY id")]
    assert shown == ["Where is it?", "About her parcel"]
    assert [row[0] for row in store.rows("SELECT value FROM participant")] == [EVE]


async def test_a_forgery_never_stands_on_a_ticket_that_nobody_judged(store: Store) -> None:
    await store.run(heard(MAIL, mail(BOB, "Plain", Proof.CLAIMED, message_id="<1@b.example>")))
    await store.run(heard(MAIL, mail(BOB, "Forged", Proof.CLAIMED, doubt="DMARC failed")))
    await store.run(heard(MAIL, mail(BOB, "Forged again", Proof.CLAIMED, doubt="DMARC failed", in_reply_to="<1@b.example>")))
    assert tickets(store) == [("open", False, None), ("open", True, None)]
    assert [ticket for ticket, _ in lies(store)] == [1, 2, 2]


async def test_what_an_agent_kept_apart_is_not_asked_again_in_its_thread(store: Store) -> None:
    ours = await asked_and_answered(store)
    await store.run(heard(MAIL, mail(EVE, "One", in_reply_to=ours)))
    await store.run(KeepApart(2, 7))
    for text in ("Two", "Three"):
        await store.run(heard(MAIL, mail(EVE, text, in_reply_to=ours)))
    assert tickets(store) == [("open", False, None), ("open", False, 1)]


async def test_who_is_proved_later_still_answers_what_was_sent_to_them(store: Store) -> None:
    await store.run(heard(MAIL, mail(BOB, "Plain", Proof.CLAIMED, message_id="<1@b.example>")))
    await store.run(Reply(1, 1, "Hello Bob", "draft-0001"))
    ours = store.value("SELECT mail_id FROM message WHERE direction = 'out'")
    await store.run(heard(MAIL, mail(BOB, "Thank you, but", Proof.DMARC, in_reply_to=ours)))
    assert lies(store)[-1] == (1, 1)
    assert tickets(store) == [("open", False, None)]


@pytest.mark.parametrize("more", [{"subject": "Scan 2"}, {"sent_at": 2}, {"sent_at": None}])
async def test_a_scanner_that_uses_one_message_id_for_all_loses_none(more: dict[str, Any], tmp_path: Path) -> None:
    second = 5
    sales = ChannelRule(second, "sales", "E-mail", "default", ("email",), idempotent=False, mails=True)
    async with open_store(tmp_path, replace(POLICY, channels={**POLICY.channels, second: sales})) as store:
        same: dict[str, Any] = {"subject": "Scan", "sent_at": 1, "message_id": "<scan@a.example>"}
        await store.run(heard(MAIL, mail(ADA, "", key="a", **same)))
        assert (await store.run(heard(second, mail(ADA, "", key="b", **same | more)))).stored == 1
