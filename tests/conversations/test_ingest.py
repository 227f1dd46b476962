"""The doorway in: what a verified request becomes, through the real writer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.contract import Attachment, DeliveryUpdate, Ignored, Inbound, MessageStatus, Proof
from hub.conversations.commands import Reply, Resolve
from hub.conversations.ingest import Ingest, Raw, StoredFile, item, preview
from hub.customers.resolution import NoSender
from hub.delivery.works import Claim
from hub.policy import DAY, SECOND
from tests.storage import CHAT, ENGINES, MAIL, SMS, WHATSAPP, Store, email, heard, message, open_store, phone

ADA, BOB = "+12025550123", "+12025550124"
WEEK = 7 * DAY / SECOND


@pytest.fixture(params=ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def tickets(store: Store) -> list[tuple[int, str]]:
    return [(row["id"], row["status"]) for row in store.rows("SELECT id, status FROM ticket ORDER BY id")]


def types(store: Store) -> list[str]:
    return [event.type for event in store.events()]


async def test_a_first_message_makes_a_customer_a_ticket_and_what_is_owed(store: Store) -> None:
    outcome = await store.run(heard(SMS, message(phone(ADA), text="Where is my parcel?", sender_name="Ada")))
    assert (outcome.stored, outcome.duplicates) == (1, 0)
    ticket = store.rows("SELECT * FROM ticket")[0]
    assert (ticket["status"], ticket["channel_id"], ticket["preview"], ticket["last_inbound_id"]) == ("open", SMS, "Where is my parcel?", 1)
    assert ticket["waiting_since"] == ticket["opened_at"] == store.clock()
    kept = store.rows("SELECT * FROM message")[0]
    assert (kept["conversation_id"], kept["ticket_id"], kept["direction"], kept["proof"]) == (1, 1, "in", "channel")
    assert types(store) == ["customer.created", "customer.identified", "ticket.opened", "message.received", "hold.placed"]
    assert {row["kind"] for row in store.rows("SELECT kind FROM delivery")} == {"card", "hold"}


async def test_a_repeated_delivery_changes_nothing_at_all(store: Store) -> None:
    said = message(phone(ADA), key="SM1")
    await store.run(heard(SMS, said))
    before = {t: store.rows(f"SELECT * FROM {t}") for t in ("message", "ticket", "event", "raw_request", "evidence", "delivery", "hold")}
    store.clock.advance(400 * 86_400)
    for _ in range(4):
        outcome = await store.run(heard(SMS, said))
        assert (outcome.stored, outcome.duplicates) == (0, 1)
    assert {t: store.rows(f"SELECT * FROM {t}") for t in before} == before


async def test_the_same_key_on_another_channel_is_another_message(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA), key="1")))
    await store.run(heard(WHATSAPP, message(phone(ADA), key="1")))
    assert store.value("SELECT count(*) FROM message") == 2


async def test_a_request_of_several_messages_commits_whole_each_once(store: Store) -> None:
    said: list[Inbound] = [message(phone(ADA), key="a"), message(phone(BOB), key="b"), message(phone(ADA), key="a")]
    said.append(Ignored(provider_key="c", reason="ping"))
    outcome = await store.run(Ingest(SMS, tuple(item(one, True) for one in said), Raw(1, "good", "POST", "http://hub/in/sms", "{}", b"x")))
    assert outcome.stored == 2
    assert store.value("SELECT count(*) FROM message") == 2
    assert store.value("SELECT count(*) FROM raw_request") == 1
    assert [row[0] for row in store.rows("SELECT raw_id FROM message")] == [1, 1]
    outcome = await store.run(heard(SMS, *said, message(phone(BOB), key="d")))
    assert (outcome.stored, outcome.duplicates) == (1, 4)


async def test_within_the_window_a_message_reopens_and_later_it_opens_a_new_ticket(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(Resolve(1, 7))
    store.clock.advance(WEEK)
    await store.run(heard(SMS, message(phone(ADA))))
    assert tickets(store) == [(1, "open")]
    assert types(store).count("ticket.reopened") == 1
    await store.run(Resolve(1, 7))
    store.clock.advance(WEEK + 0.000001)
    await store.run(heard(SMS, message(phone(ADA))))
    assert tickets(store) == [(1, "resolved"), (2, "open")]
    assert store.value("SELECT count(DISTINCT conversation_id) FROM ticket") == 1


@pytest.mark.parametrize("later", [60, 30 * 86_400], ids=["within the window", "long after it"])
async def test_a_bare_thanks_is_recorded_reopens_nothing_and_holds_nothing(later: float, store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(Resolve(1, 7))
    store.clock.advance(later)
    seen = len(store.events())
    await store.run(heard(SMS, message(phone(ADA), text="Thank you! 🙏")))
    assert tickets(store) == [(1, "resolved")]
    assert types(store)[seen:] == ["message.received"]
    assert store.value("SELECT count(*) FROM hold WHERE released_at IS NULL") == 0
    assert store.rows("SELECT ticket_id, text FROM message ORDER BY id DESC")[0]["ticket_id"] == 1, "recorded where it belongs"
    # The negative twin.
    await store.run(heard(SMS, message(phone(ADA), text="Thank you, but it is broken")))
    assert tickets(store)[-1][1] == "open"


async def test_a_thanks_with_a_picture_is_no_bare_thanks(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(Resolve(1, 7))
    await store.run(heard(SMS, message(phone(ADA), text="Thanks", attachments=(Attachment("a.jpg", "image/jpeg", b"x"),))))
    assert tickets(store) == [(1, "open")]


async def test_a_thanks_on_an_open_ticket_leaves_it_open(store: Store) -> None:
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(heard(SMS, message(phone(ADA), text="Thanks")))
    assert tickets(store) == [(1, "open")]


@pytest.mark.parametrize("automatic", ["auto-reply", "list"])
async def test_automatic_mail_never_opens_or_reopens(automatic: str, store: Store) -> None:
    await store.run(heard(MAIL, message(email("ada@example.com"), automatic=automatic)))
    assert tickets(store) == [(1, "resolved")], "from a stranger it stands in a view, and is over"
    assert store.value("SELECT count(*) FROM message WHERE automatic <> ''") == 1
    assert store.value("SELECT count(*) FROM hold") == store.value("SELECT count(*) FROM delivery") == 0, "it holds nobody, calls nobody"
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    await store.run(Resolve(1, 7))
    seen = len(store.events())
    await store.run(heard(MAIL, message(email("ada@example.com"), automatic=automatic)))
    assert tickets(store) == [(1, "resolved")]
    assert types(store)[seen:] == ["message.received"]
    assert store.value("SELECT ticket_id FROM message ORDER BY id DESC LIMIT 1") == 1
    assert store.value("SELECT count(*) FROM hold WHERE released_at IS NULL") == 0


def test_a_bounce_is_kept_aside_and_becomes_nobody() -> None:
    with pytest.raises(NoSender, match="was not delivered"):
        heard(MAIL, message(email("mailer-daemon@mx.example", Proof.CLAIMED), automatic="bounce", in_reply_to="<ours@hub.example>"))


async def test_automatic_mail_wakes_no_snooze_and_moves_no_way_back(store: Store) -> None:
    from hub.conversations.commands import Snooze

    await store.run(heard(SMS, message(phone(ADA), email("ada@example.com", Proof.OTP))))
    await store.run(Snooze(1, 7, store.clock() + DAY))
    await store.run(heard(MAIL, message(email("ada@example.com"), automatic="auto-reply")))
    ticket = store.rows("SELECT * FROM ticket")[0]
    assert (ticket["status"], ticket["channel_id"]) == ("snoozed", SMS)
    await store.run(heard(MAIL, message(email("ada@example.com"))))
    ticket = store.rows("SELECT * FROM ticket")[0]
    assert (ticket["status"], ticket["channel_id"], ticket["snoozed_until"]) == ("open", MAIL, None)
    assert types(store).count("ticket.woken") == 1


async def mail_of(store: Store, address: str, message_id: str) -> None:
    await store.run(heard(MAIL, message(email(address), message_id=message_id)))


async def test_a_quoted_message_id_leads_to_the_ticket_it_belongs_to(store: Store) -> None:
    await mail_of(store, "ada@example.com", "<first@example.com>")
    await store.run(Resolve(1, 7))
    store.clock.advance(WEEK + 1)
    await mail_of(store, "ada@example.com", "<second@example.com>")
    await store.run(Resolve(2, 7))
    store.clock.advance(1)
    await mail_of(store, "ada@example.com", "<third@example.com>")  # reopens the second, the latest
    assert tickets(store) == [(1, "resolved"), (2, "open")]
    assert store.value("SELECT ticket_id FROM message ORDER BY id DESC LIMIT 1") == 2
    for more in ({"in_reply_to": "<third@example.com>"}, {"references": ("<unknown@x>", "<third@example.com>")}):
        await store.run(heard(MAIL, message(email("ada@example.com"), **more)))  # type: ignore[arg-type]
        assert store.value("SELECT ticket_id FROM message ORDER BY id DESC LIMIT 1") == 2


@pytest.mark.parametrize("how", ["in_reply_to", "references", "token"])
@pytest.mark.parametrize("proof", [Proof.DMARC, Proof.CLAIMED], ids=["proved sender", "unproved sender"])
async def test_another_customers_ticket_opens_nothing_whatever_is_quoted(how: str, proof: Proof, store: Store) -> None:
    await mail_of(store, "victim@example.com", "<secret@example.com>")
    await store.run(Resolve(1, 7))
    said = {
        "in_reply_to": message(email("mallory@example.com", proof), in_reply_to="<secret@example.com>"),
        "references": message(email("mallory@example.com", proof), references=("<secret@example.com>",)),
        "token": message(email("mallory@example.com", proof)),
    }[how]
    await store.run(heard(MAIL, said, names=(1, 1) if how == "token" else None))
    assert tickets(store) == [(1, "resolved"), (2, "open")], "it stands on its own, and does not reopen the victim's"
    last = store.rows("SELECT conversation_id, ticket_id FROM message ORDER BY id DESC LIMIT 1")[0]
    assert tuple(last) == (2, 2)


async def test_the_victims_own_name_on_an_unproved_mail_opens_nothing_of_theirs(store: Store) -> None:
    await mail_of(store, "victim@example.com", "<secret@example.com>")
    said = message(email("victim@example.com", Proof.CLAIMED), in_reply_to="<secret@example.com>", doubt="DMARC failed")
    await store.run(heard(MAIL, said, names=(1, 1)))
    last = store.rows("SELECT conversation_id, ticket_id, doubt, proof FROM message ORDER BY id DESC LIMIT 1")[0]
    assert tuple(last) == (2, 2, "DMARC failed", "claimed")


async def test_a_valid_reply_token_leads_to_its_ticket(store: Store) -> None:
    await mail_of(store, "ada@example.com", "<a@example.com>")
    await store.run(Resolve(1, 7))
    store.clock.advance(WEEK + 1)
    await mail_of(store, "ada@example.com", "<b@example.com>")
    await store.run(Resolve(2, 7))
    store.clock.advance(60)
    await store.run(heard(MAIL, message(email("ada@example.com")), names=(2, 1)))
    assert tickets(store) == [(1, "resolved"), (2, "open")]
    await store.run(heard(MAIL, message(email("ada@example.com")), names=(1, 1)))
    assert tickets(store) == [(1, "resolved"), (2, "open")], "too old to be reopened: the open one, not a third"
    await store.run(heard(MAIL, message(email("ada@example.com")), names=(999, 1)))
    assert len(tickets(store)) == 2


def update(status: MessageStatus, key: str = "", **more: object) -> DeliveryUpdate:
    return DeliveryUpdate(provider_key=key or f"{status}:{more}", status=status, **more)  # type: ignore[arg-type]


async def answered(store: Store) -> int:
    """A reply on SMS that is being sent; the id of the delivery that carries it."""
    await store.run(heard(SMS, message(phone(ADA))))
    await store.run(Reply(1, 7, "Tomorrow.", "draft"))
    await store.run(Claim("lease", 9))
    return int(store.value("SELECT id FROM delivery WHERE kind = 'reply'"))


def status(store: Store) -> str:
    return str(store.value("SELECT status FROM message WHERE direction = 'out'"))


async def test_a_report_of_delivery_finds_its_message_by_our_id_or_the_providers(store: Store) -> None:
    delivery = await answered(store)
    await store.run(heard(SMS, update(MessageStatus.SENT, delivery_id=delivery, provider_message_id="SM9")))
    assert status(store) == "sent"
    await store.run(heard(SMS, update(MessageStatus.DELIVERED, provider_message_id="SM9")))
    assert status(store) == "delivered"
    await store.run(heard(SMS, update(MessageStatus.SENT, "late", provider_message_id="SM9")))
    assert status(store) == "delivered", "whatever order they come in"


async def test_a_channel_reports_on_its_own_messages_alone(store: Store) -> None:
    delivery = await answered(store)
    await store.run(heard(SMS, update(MessageStatus.SENT, delivery_id=delivery, provider_message_id="SM9")))
    for forged in (update(MessageStatus.READ, delivery_id=delivery), update(MessageStatus.READ, provider_message_id="SM9")):
        await store.run(heard(CHAT, forged))
        assert status(store) == "sent"
    # The number of a delivery that is no reply names no message, not even one with the same number by chance.
    card = int(store.value("SELECT id FROM delivery WHERE kind = 'card'"))
    await store.run(heard(SMS, update(MessageStatus.FAILED, delivery_id=card), update(MessageStatus.SENT, "again", delivery_id=delivery)))
    assert status(store) == "sent"
    await store.run(heard(SMS, update(MessageStatus.READ, "true", provider_message_id="SM9")))
    assert status(store) == "read"


async def test_an_unproved_report_changes_nothing_and_does_not_stand_in_the_way_of_the_true_one(store: Store) -> None:
    delivery = await answered(store)
    told = update(MessageStatus.FAILED, "status:SM9:failed", delivery_id=delivery)
    await store.run(heard(SMS, told, trusted=False))
    assert status(store) == "sending"
    await store.run(heard(SMS, told))
    assert status(store) == "failed"


async def test_a_report_of_nothing_we_sent_is_taken_quietly(store: Store) -> None:
    for told in (update(MessageStatus.READ, delivery_id=999), update(MessageStatus.READ, provider_message_id="SM404")):
        await store.run(heard(SMS, told))
    assert types(store) == []


async def test_files_stand_with_their_message_and_announced_ones_are_owed(store: Store) -> None:
    files = (
        StoredFile("f1", "a.txt", "text/plain", 5, "0" * 64, "", False, ""),
        StoredFile("f2", "b.jpg", "image/jpeg", 0, "", "", False, "https://provider.example/media"),
    )
    said = message(phone(ADA), text="", attachments=(Attachment("a.txt", "text/plain", b"hello"), Attachment("b.jpg", "image/jpeg")))
    await store.run(Ingest(SMS, (item(said, True, files),), None))
    assert [
        tuple(row) for row in store.rows("SELECT a.id, a.state FROM attachment a JOIN message m ON m.id = a.message_id ORDER BY a.id")
    ] == [
        ("f1", "stored"),
        ("f2", "pending"),
    ]
    media = store.rows("SELECT * FROM delivery WHERE kind = 'media'")
    assert [json.loads(row["payload"]) for row in media] == [{"attachment": "f2"}]
    assert store.value("SELECT preview FROM ticket") == "2 attachments"


@pytest.mark.parametrize(
    ("text", "subject", "files", "line"),
    [
        ("Hello\n\n  there", "", 0, "Hello there"),
        ("", "Order 4711", 2, "Order 4711"),
        ("", "", 1, "Attachment"),
        ("", "", 3, "3 attachments"),
        ("", "", 0, ""),
        ("x" * 140, "", 0, "x" * 140),
        ("x" * 141, "", 0, "x" * 139 + "…"),
    ],
)
def test_a_preview_is_one_line(text: str, subject: str, files: int, line: str) -> None:
    assert preview(text, subject, files) == line
