"""News of messages said before: a bounce marks the mail it answers and the address, and nobody can forge that who never had that mail;
reactions and edits stay beside what they are about; what a customer told the channel of marketing is kept as that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Altered, ConsentChanged, DeliveryEvent, DeliveryUpdate, InboundMessage, MessageStatus, Proof, TemplateUse
from hub.conversations.commands import Reply, Resolve, continued
from hub.conversations.ingest import item
from hub.conversations.proactive import Write
from hub.customers.resolution import NoSender
from hub.policy import ChannelRule, Refusal
from tests.storage import ENGINES, MAIL, POLICY, SMS, WHATSAPP, Store, email, heard, message, open_store, phone

ADA, ADAS_PHONE = "ada@example.com", "+12025550123"
DAY_MS = 86_400 * 1_000_000


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    windowed = ChannelRule(
        WHATSAPP, "whatsapp", "WhatsApp", "default", ("phone", "wa_user_id"), idempotent=False, mails=False, window=DAY_MS
    )
    policy = replace(POLICY, channels={**POLICY.channels, WHATSAPP: windowed})
    async with open_store(tmp_path, policy, engine=request.param) as opened:
        yield opened


async def answered(store: Store) -> str:
    """An answer went to Ada by mail: its Message-ID."""
    await store.run(heard(MAIL, message(email(ADA), message_id="<1@a.example>")))
    await store.run(Reply(1, 1, "On its way", "draft-0001"))
    return str(store.value("SELECT mail_id FROM message WHERE direction = 'out'"))


def bounce(mail_id: str, recipient: str = ADA, key: str = "b1", **more: Any) -> InboundMessage:
    report = DeliveryUpdate(
        **{
            "provider_key": f"report:{key}",
            "status": MessageStatus.FAILED,
            "event": DeliveryEvent.BOUNCED,
            "recipient": recipient,
            "mail_id": mail_id,
            "permanent": True,
            "error": "550 No such user",
        }
        | more
    )
    return InboundMessage(provider_key=key, claims=(email("mailer-daemon@mx.example"),), automatic="bounce", reports=(report,))


def state(store: Store) -> tuple[str, str, bool]:
    out = store.rows("SELECT status, error FROM message WHERE direction = 'out'")[0]
    return out[0], out[1], store.value("SELECT bounced_at FROM identifier WHERE value = ?", ADA) is not None


async def test_a_bounce_marks_the_mail_it_answers_and_the_address_and_opens_nothing(store: Store) -> None:
    mail_id = await answered(store)
    before = store.rows("SELECT status, version, last_at FROM ticket")
    outcome = await store.run(heard(MAIL, bounce(mail_id)))
    assert (outcome.stored, outcome.aside) == (0, ())
    assert state(store) == ("failed", "550 No such user", True)
    assert store.rows("SELECT status, version, last_at FROM ticket") == before
    assert store.value("SELECT count(*) FROM customer") == 1
    with pytest.raises(Refusal, match="came back: 550 No such user"):
        await store.run(Reply(1, 1, "Again", "draft-0002"))
    assert not (await store.run(Reply(1, 1, "Again", "draft-0003", confirmed_way=True))).duplicate
    await store.run(heard(MAIL, message(email(ADA), text="I write, so it works")))
    assert not (await store.run(Reply(1, 1, "Good", "draft-0004"))).duplicate


@pytest.mark.parametrize(
    ("mail_id", "recipient"),
    [("<made-up@hub.example>", ADA), ("", ADA), ("ours", "eve@example.net"), ("ours", "")],
    ids=["a mail we never sent", "no mail named", "sent to somebody else", "no recipient"],
)
async def test_a_bounce_anybody_could_have_written_marks_nothing_and_is_kept_to_be_seen(mail_id: str, recipient: str, store: Store) -> None:
    ours = await answered(store)
    outcome = await store.run(heard(MAIL, bounce(ours if mail_id == "ours" else mail_id, recipient)))
    assert len(outcome.aside) == 1
    assert state(store) == ("queued", "", False)


async def test_a_temporary_bounce_is_no_failure(store: Store) -> None:
    mail_id = await answered(store)
    await store.run(
        heard(MAIL, bounce(mail_id, status=MessageStatus.SENT, event=DeliveryEvent.DEFERRED, permanent=False, error="452 Mailbox full"))
    )
    assert state(store) == ("sent", "452 Mailbox full", False)
    await store.run(heard(MAIL, DeliveryUpdate(provider_key="d", status=MessageStatus.DELIVERED, mail_id=mail_id)))
    assert state(store) == ("delivered", "", False)


async def test_a_notice_that_says_not_which_mail_it_is_about_is_nobodys_message(store: Store) -> None:
    with pytest.raises(NoSender):
        item(InboundMessage(provider_key="x", claims=(email(ADA),), automatic="bounce"), True)


async def test_a_providers_own_report_needs_only_the_address(store: Store) -> None:
    """It is signed by whom we send through; of a mail it says nothing here."""
    await answered(store)
    hard = DeliveryUpdate(
        provider_key="e1",
        status=MessageStatus.FAILED,
        event=DeliveryEvent.BOUNCED,
        recipient="Ada@Example.com",
        permanent=True,
        error="gone",
    )
    await store.run(heard(SMS, hard, trusted=False))
    assert state(store)[2] is False, "not signed, not believed"
    await store.run(heard(MAIL, hard))
    assert state(store) == ("queued", "", True)


async def test_a_complaint_is_shown_and_places_no_hold(store: Store) -> None:
    mail_id = await answered(store)
    holds = store.value("SELECT count(*) FROM hold")
    said = DeliveryUpdate(
        provider_key="c",
        status=MessageStatus.DELIVERED,
        event=DeliveryEvent.COMPLAINED,
        recipient=ADA,
        mail_id=mail_id,
        error="Marked as spam.",
    )
    await store.run(heard(MAIL, said))
    assert state(store) == ("delivered", "Marked as spam.", True)
    assert store.value("SELECT count(*) FROM hold") == holds


async def test_who_unsubscribes_from_our_mails_wants_no_marketing_and_may_be_answered(store: Store) -> None:
    mail_id = await answered(store)
    said = DeliveryUpdate(
        provider_key="u", status=MessageStatus.DELIVERED, event=DeliveryEvent.UNSUBSCRIBED, recipient=ADA, mail_id=mail_id
    )
    await store.run(heard(MAIL, said))
    await store.run(heard(MAIL, replace(said, provider_key="u2")))
    assert [tuple(row) for row in store.rows("SELECT channel_id, value, scope FROM opt_out")] == [(MAIL, ADA, "marketing")]
    assert not (await store.run(Reply(1, 1, "Here it is", "draft-0002"))).duplicate


async def test_what_is_done_to_a_message_stays_beside_it(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE), text="One", external_id="wamid.1")))
    other = "+12025550199"
    for key, who, about, what, text in [
        ("r1", ADAS_PHONE, "wamid.1", "edit", "Once"),
        ("r2", ADAS_PHONE, "wamid.1", "deletion", ""),
        ("r3", other, "wamid.1", "deletion", ""),  # not theirs
        ("r4", ADAS_PHONE, "wamid.9", "reaction", "👍"),  # of nothing we know
    ]:
        await store.run(heard(WHATSAPP, Altered(provider_key=key, claims=(phone(who),), about=about, what=what, text=text)))
    assert [(row[0], row[1]) for row in store.rows("SELECT what, text FROM message_change ORDER BY id")] == [
        ("edit", "Once"),
        ("deletion", ""),
    ]
    assert store.value("SELECT text FROM message WHERE id = 1") == "One", "nothing said is lost"
    assert [event.type for event in store.events()].count("message.altered") == 2
    assert store.value("SELECT count(*) FROM customer") == 1


async def test_they_react_to_what_we_said_and_edit_only_what_they_said(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE))))
    await store.run(Reply(1, 1, "Sent", "draft-0001"))
    store.execute("UPDATE message SET provider_id = 'wamid.out' WHERE direction = 'out'")
    for what in ("reaction", "edit", "deletion"):
        await store.run(heard(WHATSAPP, Altered(provider_key=what, claims=(phone(ADAS_PHONE),), about="wamid.out", what=what, text="🎉")))  # type: ignore[arg-type]
    assert [row[0] for row in store.rows("SELECT what FROM message_change")] == ["reaction"]


async def test_what_they_told_the_channel_of_marketing_is_consent_and_stops_no_answer(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE))))
    for key, opts in (("p1", "out"), ("p2", "out"), ("p3", "in"), ("p4", "out")):
        await store.run(heard(WHATSAPP, ConsentChanged(provider_key=key, claims=(phone(ADAS_PHONE),), opts=opts, words="stop")))  # type: ignore[arg-type]
    rows = store.rows("SELECT scope, ended_at FROM opt_out ORDER BY id")
    assert [(row[0], row[1] is None) for row in rows] == [("marketing", False), ("marketing", True)]
    assert not (await store.run(Reply(1, 1, "Still here", "draft-0001"))).duplicate
    # Of somebody who never wrote it is kept too.
    await store.run(heard(WHATSAPP, ConsentChanged(provider_key="p5", claims=(phone("+12025550199"),), opts="out")))
    assert store.value("SELECT count(*) FROM opt_out WHERE value = '+12025550199'") == 1
    assert store.value("SELECT count(*) FROM customer") == 1


# --- what may leave now ----------------------------------------------------------------------------------------------


async def test_outside_the_window_only_a_template_leaves(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE))))
    store.clock.advance(86_399)
    assert not (await store.run(Reply(1, 1, "In time", "draft-0001"))).duplicate
    store.clock.advance(1)
    with pytest.raises(Refusal, match="24 hours"):
        await store.run(Reply(1, 1, "Too late", "draft-0002"))
    used = TemplateUse("HX1", "en", {"1": "Ada"})
    assert not (await store.run(Reply(1, 1, "Hello Ada, may we go on?", "draft-0003", template=used))).duplicate
    assert '"HX1"' in store.value("SELECT template FROM message WHERE draft_key = 'draft-0003'")
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE), text="Yes")))
    assert not (await store.run(Reply(1, 1, "Good", "draft-0004"))).duplicate


async def test_an_answer_may_quote_what_was_said_between_the_same_two_and_nothing_else(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE), external_id="wamid.1")))
    await store.run(heard(SMS, message(phone(ADAS_PHONE), external_id="SM2")))
    await store.run(Reply(1, 1, "About that", "draft-0001", channel_id=WHATSAPP, quoted_message_id=1))
    await store.run(Reply(1, 1, "About this", "draft-0002", channel_id=WHATSAPP, quoted_message_id=2))
    assert [row[0] for row in store.rows("SELECT quoted_id FROM message WHERE direction = 'out' ORDER BY id")] == ["wamid.1", ""]


async def test_on_another_channel_the_customer_is_told_that_it_goes_on_there(store: Store) -> None:
    await store.run(heard(WHATSAPP, message(phone(ADAS_PHONE), text="Where is my parcel?")))
    await store.run(Reply(1, 1, "On its way.", "draft-0001", channel_id=SMS, continues=True))
    await store.run(Reply(1, 1, "On its way.", "draft-0002", channel_id=WHATSAPP, continues=True))
    texts = [row[0] for row in store.rows("SELECT text FROM message WHERE direction = 'out' ORDER BY id")]
    assert texts == [continued("On its way.", "WhatsApp", "Where is my parcel?"), "On its way."]
    assert texts[0] == "We continue here. You wrote by WhatsApp: \u201cWhere is my parcel?\u201d\n\nOn its way."


def parcel(**more: Any) -> Write:
    return Write(**({"channel_id": SMS, "kind": "phone", "value": ADAS_PHONE, "text": "Your parcel is here.", "key": "order-1"} | more))


async def test_a_message_nobody_asked_for_stands_in_the_one_conversation_once_and_opens_nothing(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADAS_PHONE))))
    first, again = await store.run(parcel()), await store.run(parcel())
    assert (first.customer_id, first.duplicate, again.message_id, again.duplicate) == (1, False, first.message_id, True)
    row = store.rows("SELECT conversation_id, ticket_id, direction, status FROM message ORDER BY id DESC")[0]
    assert tuple(row) == (1, None, "out", "queued")
    assert store.value("SELECT count(*) FROM ticket") == 1
    assert store.value("SELECT count(*) FROM delivery WHERE kind = 'reply'") == 1


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"value": "+12025550199"}, "Nobody is known"),
        ({"channel_id": MAIL}, "does not reach"),
        ({"channel_id": WHATSAPP}, "24 hours"),
        ({"text": " "}, "Write something"),
        ({"marketing": True}, "on hold"),
    ],
)
async def test_a_message_nobody_asked_for_is_refused_where_it_may_not_go(how: dict[str, Any], why: str, store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADAS_PHONE))))
    with pytest.raises(Refusal, match=why):
        await store.run(parcel(**how))
    await store.run(heard(SMS, message(phone(ADAS_PHONE), text="STOP", opts="out")))
    with pytest.raises(Refusal, match="opted out"):
        await store.run(parcel())
    assert store.value("SELECT count(*) FROM message WHERE direction = 'out'") == 0


async def test_advertising_by_a_program_keeps_to_every_hold_on_the_address(store: Store) -> None:
    """Of whoever it is taken for: the proven customer, or one of whom nobody knows."""
    await store.run(heard(MAIL, message(email(ADA))))
    await store.run(Resolve(1, 1))
    await store.run(heard(MAIL, message(email(ADA, Proof.CLAIMED), text="Where is it?")))
    advert = parcel(channel_id=MAIL, kind="email", value=ADA, marketing=True)
    with pytest.raises(Refusal, match="on hold"):
        await store.run(advert)
    assert not (await store.run(replace(advert, marketing=False, key="order-2"))).duplicate
