"""Every attack and accident of the table on identity, by its number: through the real ingest and agents' commands, on both engines.

What a party may be shown is asked of the one rule for histories, quotes and automatic answers (`disclosure.readable`).
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest

from connectors.email.raw import RawEmail
from connectors.twilio_sms import TwilioSms
from hub.app import lone_channel
from hub.config import SiteSettings
from hub.contract import Claim, HolderChanged, Identified, Ignored, Inbound, OutboundMessage, Place, Proof, Request, Sent
from hub.conversations.commands import AddNote, Reply, Resolve
from hub.conversations.ingest import Ingest, item
from hub.customers import suggestions
from hub.customers.codes import TRIES, AnswerCode, AskCode, Asked, NotAsked
from hub.customers.disclosure import readable, visible_messages
from hub.customers.merging import Merge, Reject, Unmerge
from hub.customers.resolution import NoSender
from hub.customers.visitors import NotIdentified, first_use, identify, next_session, proved_keys
from hub.delivery.carriers import ReplyCarrier
from hub.delivery.works import Claim as Lease
from hub.policy import Refusal
from hub.storage.blobs import Blobs
from tests.storage import CHAT, MAIL, POLICY, RULE_ENGINES, SMS, WHATSAPP, Store, account, device, email, message, open_store, phone

VICTIM, MALLORY = "victim@mail.example", "mallory@evil.example"
NUMBER, WA = "+12125550142", "12125550142"
RULES = replace(POLICY, region="US", own_domains=frozenset({"acme.example"}), own_addresses=frozenset({"help@shared.example"}))
AGENT = 7

# Attack -> tests elsewhere that go deeper into it, or through another door.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "A1": (
        "tests.web.test_chat:test_a1_typing_a_victims_address_joins_nothing_and_shows_nothing",
        "tests.web.test_codes:test_a1_a_stranger_who_types_a_victims_address_and_guesses_sees_nothing_and_joins_nobody",
    ),
    "A2": (
        "tests.web.test_signed_visitors:test_a2_what_a_browser_says_by_itself_is_no_identification",
        "tests.web.test_chat:test_a2_a4_an_unfit_token_leaves_the_visitor_anonymous_and_says_why",
    ),
    "A3": ("tests.web.test_signed_visitors:test_a3_unsigned_email_beside_a_valid_token_counts_for_nothing",),
    "A4": (
        "tests.customers.test_visitors:test_an_unfit_token_proves_nothing_and_the_reason_is_named",
        "tests.web.test_signed_visitors:test_a4_a_replayed_token_proves_nothing_at_another_browser",
        "tests.web.test_signed_visitors:test_a4_several_hubs_on_one_database_count_a_token_once",
    ),
    "A7": ("tests.conversations.test_ingest:test_another_customers_ticket_opens_nothing_whatever_is_quoted",),
    "A8": (
        "tests.connectors.test_email_auth:test_only_our_own_servers_verdict_is_read",
        "tests.connectors.test_email_auth:test_no_text_inside_a_quote_or_comment_becomes_a_verdict",
    ),
    "A17": ("tests.web.test_chat:test_joined_people_still_see_only_what_each_session_proved",),
    "A22": ("tests.web.test_codes:test_a22_a_form_flood_with_a_victims_address_sends_one_rate_limited_code",),
    "A23": (
        "tests.customers.test_resolution:test_sixteen_at_once_with_overlapping_identifiers_make_as_many_customers_as_there_are_people",
    ),
}


@pytest.fixture(params=RULE_ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, RULES, engine=request.param) as opened:
        yield opened


async def hears(store: Store, channel: int, said: Inbound) -> int:
    """Take one thing in; the customer whose message it became (0: it is none)."""
    store.clock.advance(60)
    await store.run(Ingest(channel, (item(said, trusted=True, policy=RULES),), None))
    rows = store.rows("SELECT conversation_id FROM message WHERE direction = 'in' ORDER BY id DESC LIMIT 1")
    return int(rows[0][0]) if rows else 0


def says(*claims: Claim, **more: Any) -> Any:
    return message(*claims, **more)


async def proves(store: Store, *claims: Claim) -> None:
    """A session proves who it is, without saying anything."""
    await hears(store, CHAT, Identified(provider_key=f"p{store.clock()}", claims=claims))


async def sees(store: Store, text: str) -> set[str]:
    """The texts that whoever wrote this one may be shown."""
    reader = store.reader()
    (row,) = store.rows("SELECT identifier_id FROM message WHERE text = ?", text)
    shown = {found[0] for found in await reader.all(readable([row[0]]))}
    await reader.close()
    return {row["text"] for row in store.rows("SELECT id, text FROM message") if row["id"] in shown}


async def widget(store: Store, *claims: Claim) -> list[str]:
    """What the chat shows to a session that proves this."""
    reader = store.reader()
    rows = await reader.all(visible_messages(proved_keys(claims), [CHAT]))
    await reader.close()
    return sorted(row.text for row in rows)


async def suggested(store: Store) -> list[tuple[int, int]]:
    """The pairs of customers an agent is asked about, after the background has looked too."""
    reader = store.reader()
    await suggestions.Suggestions(reader, store.writer).catch_up()
    rows = await reader.all(suggestions.newest(100))
    await reader.close()
    return sorted((row.left_id, row.right_id) for row in rows)


def owner(store: Store, text: str) -> int:
    return int(store.value("SELECT conversation_id FROM message WHERE text = ?", text))


def ticket(store: Store, text: str) -> int:
    return int(store.value("SELECT ticket_id FROM message WHERE text = ?", text))


def joins(store: Store) -> int:
    return int(store.value("SELECT count(*) FROM join_log"))


async def tells(store: Store, question: str, text: str, **more: Any) -> Any:
    """Answer a message; `text` is also the draft's key."""
    return await store.run(Reply(ticket(store, question), AGENT, text, text, **more))


# --- who somebody says to be ---


async def test_a01_a_stranger_who_types_a_victims_address_joins_nothing_and_a_failed_code_changes_nothing(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret"))
    await hears(store, SMS, says(phone(NUMBER), text="secret text"))
    typed = (email(VICTIM, Proof.CLAIMED), phone("(212) 555-0142", Proof.CLAIMED))
    stranger = await hears(store, CHAT, says(device("d"), *typed, text="it is me", sender_name="Victim"))
    assert len({owner(store, "secret"), owner(store, "secret text"), stranger}) == 3
    await store.run(AskCode("c", CHAT, "d", "email", VICTIM, VICTIM, "Shop"))
    before = [tuple(row) for row in store.rows("SELECT id, customer_id, standing FROM identifier ORDER BY id")]
    for _ in range(TRIES):
        assert (await store.run(AnswerCode("c", ("d",), (CHAT,), False))).outcome == "wrong"
    assert (await store.run(AnswerCode("c", ("d",), (CHAT,), True))).outcome == "over"
    assert [tuple(row) for row in store.rows("SELECT id, customer_id, standing FROM identifier ORDER BY id")] == before
    await hears(store, CHAT, says(device("d"), *typed, text="really"))
    assert joins(store) == 0
    assert await sees(store, "really") == {"it is me", "really"}
    assert (owner(store, "secret"), stranger) in await suggested(store), "an agent is asked"


@pytest.mark.parametrize("foreign", [email(VICTIM, Proof.CLAIMED), phone(NUMBER, Proof.CLAIMED), account("ana", proof=Proof.CLAIMED)])
async def test_a02_a_browsers_own_claim_is_kept_as_a_claim(foreign: Claim, store: Store) -> None:
    await hears(store, CHAT, says(account("ana"), device("home"), email(VICTIM, Proof.SIGNED), phone(NUMBER, Proof.SIGNED), text="secret"))
    await hears(store, CHAT, says(device("d"), foreign, text="hello"))
    assert owner(store, "hello") != owner(store, "secret")
    assert (await sees(store, "hello"), await widget(store, device("d"), foreign)) == ({"hello"}, ["hello"])
    kept = store.rows("SELECT e.proof FROM evidence e JOIN identifier i ON i.id = e.other_id WHERE i.standing = 'asserted'")
    assert [row["proof"] for row in kept] == ["claimed"]


@pytest.mark.parametrize("empty", ["", " ", "null", "undefined", "0"])
async def test_a02_an_empty_id_is_nobodys(empty: str, store: Store) -> None:
    for browser in ("one", "two"):
        await hears(store, CHAT, says(device(browser), account(empty), text=browser))
    assert owner(store, "one") != owner(store, "two")
    assert not store.rows("SELECT id FROM identifier WHERE kind = 'user_id'")


async def test_a03_only_what_is_inside_the_token_counts(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret"))
    await hears(store, CHAT, says(account("mallory"), device("d"), email(VICTIM, Proof.CLAIMED), text="hello"))
    assert owner(store, "hello") != owner(store, "secret")
    assert await sees(store, "hello") == {"hello"}


KEY = "k" * 32
SHOP = SiteSettings(key=KEY, audience="support-hub")  # type: ignore[arg-type]


def token(**changes: Any) -> str:
    return jwt.encode({"sub": "victim", "aud": "support-hub", "exp": 1_000 + 600} | changes, changes.pop("key", KEY), "HS256")


@pytest.mark.parametrize(("unfit", "why"), [(token(exp=900), "expired"), (token(aud="another"), "aud"), (token(key="x" * 32), "signature")])
async def test_a04_a_token_that_is_expired_or_for_somebody_else_leaves_the_session_anonymous(unfit: str, why: str) -> None:
    with pytest.raises(NotIdentified, match=why):
        identify(unfit, SHOP, 1_000)
    assert identify(token(), SHOP, 1_000).user_id == "victim"
    following = next_session(None, True, None, "shop", 1_000)
    assert following.identity is None


async def test_a04_a_token_is_used_once(store: Store) -> None:
    entry = item(first_use("shop", "page-1"), trusted=True)
    assert (await store.run(Ingest(CHAT, (entry,), None))).duplicates == 0
    assert (await store.run(Ingest(CHAT, (entry,), None))).duplicates == 1


# --- mail ---

SPOOFED = {"doubt": "DMARC failed"}


async def test_a05_a_spoofed_mail_is_its_own_record_and_no_answer_goes_to_its_reply_to(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret"))
    await hears(store, MAIL, says(email(VICTIM, Proof.CLAIMED), email(MALLORY, Proof.SEEN), text="change my address", **SPOOFED))
    assert owner(store, "change my address") != owner(store, "secret")
    assert await sees(store, "change my address") == {"change my address"}
    diverted = int(store.value("SELECT id FROM identifier WHERE value = ?", MALLORY))
    with pytest.raises(Refusal, match="cannot be reached"):
        await tells(store, "change my address", "no", identifier_id=diverted, confirmed_way=True)
    answered = await tells(store, "change my address", "who are you?")
    told = store.rows(
        "SELECT i.address FROM message m JOIN identifier i ON i.id = m.identifier_id WHERE m.id = ?", answered.message_id
    )  # fmt: skip
    assert [row["address"] for row in told] == [VICTIM]
    await hears(store, MAIL, says(email(MALLORY), text="and now?"))
    assert await sees(store, "and now?") == {"and now?"}


class Post:
    """A mail channel that keeps what it is handed."""

    def __init__(self) -> None:
        self.handed: list[OutboundMessage] = []

    async def send(self, outgoing: OutboundMessage, http: Any) -> Sent:
        self.handed.append(outgoing)
        return Sent("")


async def carried(store: Store, tmp_path: Path) -> list[OutboundMessage]:
    """Every answer that waits, as its channel is handed it."""
    post, reader = Post(), store.reader()
    bound: Any = {
        rule.name: SimpleNamespace(rule=rule, place=Place(rule.name, "https://hub.example", b""), connector=post)
        for rule in RULES.channels.values()
    }
    carrier = ReplyCarrier(bound, reader, Blobs(tmp_path), SimpleNamespace(), lambda t, i: "token", lambda id_: "")  # type: ignore[arg-type]
    while due := await store.run(Lease("worker", 50)):  # of a conversation, one after the other
        for delivery in due:
            if delivery.kind == "reply":
                await store.run(await carrier.carry(delivery))
    await reader.close()
    return post.handed


async def test_a06_whoever_is_in_cc_is_no_participant_and_new_addresses_get_no_quoted_history(store: Store, tmp_path: Path) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret", message_id="<1@v>"))
    await hears(store, MAIL, says(email(VICTIM, Proof.CLAIMED), text="copy him", cc=(MALLORY,), in_reply_to="<1@v>", **SPOOFED))
    await tells(store, "secret", "the code of your door is 1234")
    await tells(store, "copy him", "please write from your own mailbox")
    handed = {one.text: one for one in await carried(store, tmp_path)}
    assert {one.cc for one in handed.values()} == {()}, "nobody is copied but by an agent"
    await hears(store, MAIL, says(email(MALLORY), text="I was copied", in_reply_to="<1@v>"))
    assert owner(store, "I was copied") not in (owner(store, "secret"), owner(store, "copy him"))
    assert await sees(store, "I was copied") == {"I was copied", "copy him"}, "what he was sent, and not what was answered"
    assert await sees(store, "copy him") == {"copy him", "please write from your own mailbox"}
    assert not {pair for pair in await suggested(store) if owner(store, "I was copied") in pair}
    # An agent copies a colleague in: of the question they get what the customer had sent them already, and nothing else.
    await hears(store, MAIL, says(email(VICTIM), text="with Bob", cc=("Bob@b.example",), message_id="<2@v>"))
    await tells(store, "with Bob", "to both", cc=("bob@b.example",))
    await tells(store, "with Bob", "and somebody new", cc=("bob@b.example", "new@n.example"))
    quoted = {one.text: (one.quoted, one.cc) for one in await carried(store, tmp_path)}
    assert quoted["to both"] == ("with Bob", ("bob@b.example",))
    assert quoted["and somebody new"] == ("", ("bob@b.example", "new@n.example"))


@pytest.mark.parametrize("proof", [Proof.DMARC, Proof.CLAIMED])
async def test_a07_quoting_somebody_elses_thread_opens_nothing(proof: Proof, store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret", message_id="<1@v>"))
    await store.run(Resolve(ticket(store, "secret"), AGENT))
    said = says(email(MALLORY, proof), text="as I wrote (#1)", subject="Re: #1", in_reply_to="<1@v>", references=("<1@v>",))
    await store.run(Ingest(MAIL, (item(said, True, (), (ticket(store, "secret"), 1), RULES),), None))
    assert (owner(store, "as I wrote (#1)"), ticket(store, "as I wrote (#1)")) != (owner(store, "secret"), ticket(store, "secret"))
    assert store.value("SELECT status FROM ticket WHERE id = ?", ticket(store, "secret")) == "resolved"
    assert await sees(store, "as I wrote (#1)") == {"as I wrote (#1)"}


@pytest.mark.parametrize(
    ("header", "proved"),
    [("mx.acme.example; dmarc=pass header.from=mail.example", True), ("mx.evil.example; dmarc=pass header.from=mail.example", False)],
    ids=["our own server's word", "a stranger's"],
)
async def test_a08_only_our_own_servers_word_on_a_mail_is_read(header: str, proved: bool, store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret"))
    channel = lone_channel(
        "mime", {"address": "help@acme.example", "authserv_id": "mx.acme.example", "smtp": {"host": "127.0.0.1"}}
    )  # fmt: skip
    assert isinstance(channel, RawEmail)
    raw = f"Authentication-Results: {header}\r\nFrom: {VICTIM}\r\nTo: help@acme.example\r\nMessage-ID: <2@v>\r\n\r\nme again\r\n"
    (said,) = channel.parse(Request("POST", "http://localhost/in/mail", {"content-type": "message/rfc822"}, raw.encode()))
    await hears(store, MAIL, said)
    rows = store.rows("SELECT conversation_id FROM message ORDER BY id")
    assert (rows[0][0] == rows[1][0]) is proved


# --- shared, recycled, odd ---


async def test_a09_what_two_accounts_prove_is_shared_and_bridges_nobody(store: Store) -> None:
    await hears(store, SMS, says(phone(NUMBER), text="from the kitchen"))
    for name in ("ann", "ben"):
        await hears(store, CHAT, says(account(name), device(f"of {name}"), text=name))
        await proves(store, account(name), device(f"of {name}"), phone(NUMBER, Proof.OTP))
    assert len({owner(store, text) for text in ("ann", "ben", "from the kitchen")}) == 3
    assert store.value("SELECT count(*) FROM identifier WHERE shared_at IS NOT NULL") == 1
    await hears(store, SMS, says(phone(NUMBER), text="again"))
    assert owner(store, "again") not in (owner(store, "ann"), owner(store, "ben"))
    await proves(store, account("cleo"), device("of cleo"), phone(NUMBER, Proof.OTP))
    assert [await sees(store, text) for text in ("ann", "ben")] == [{"ann"}, {"ben"}]
    assert await widget(store, account("ann"), device("of ann"), phone(NUMBER, Proof.OTP)) == ["ann"]


async def test_a09_a_public_browser_bridges_nobody(store: Store) -> None:
    for name in ("ann", "ben"):
        await hears(store, CHAT, says(account(name), device("library"), text=name))
    assert owner(store, "ann") != owner(store, "ben")
    assert await widget(store, account("ben")) == ["ben"]


@pytest.mark.parametrize("sign", ["disconnected", "another account"])
async def test_a10_a_recycled_number_has_a_new_holder_without_the_old_history(sign: str, store: Store) -> None:
    await hears(store, WHATSAPP, says(phone(WA), Claim("wa_user_id", "US.1", Proof.CHANNEL), text="old"))
    await tells(store, "old", "old answer")
    if sign == "disconnected":
        await hears(store, SMS, HolderChanged(provider_key="n", previous=(phone(NUMBER),)))
    await hears(store, WHATSAPP, says(phone(WA), Claim("wa_user_id", "US.2", Proof.CHANNEL), text="new"))
    await hears(store, SMS, says(phone(NUMBER), text="new text"))
    assert owner(store, "new") == owner(store, "new text") != owner(store, "old")
    assert (await sees(store, "new"), await sees(store, "old")) == ({"new", "new text"}, {"old", "old answer"})
    assert store.value("SELECT max(epoch) FROM identifier WHERE kind = 'phone'") == 1
    # The old holder's way out is closed: an answer would reach the new one.
    with pytest.raises(Refusal, match="cannot be reached"):
        await tells(store, "old", "by text", channel_id=SMS, confirmed_way=True)


async def test_a11_a_whatsapp_user_is_known_by_their_account_and_followed_by_notice_only(store: Store) -> None:
    one, two, three = (Claim("wa_user_id", f"US.{number}", Proof.CHANNEL) for number in (1, 2, 3))
    await hears(store, WHATSAPP, says(one, text="no number"))
    await hears(store, WHATSAPP, says(one, phone(WA), text="with number"))
    assert owner(store, "no number") == owner(store, "with number")
    await hears(store, WHATSAPP, HolderChanged(provider_key="n", previous=(one, phone(WA)), present=(two, phone("12125550143"))))
    await hears(store, WHATSAPP, says(two, text="moved"))
    await hears(store, SMS, says(phone("+12125550143"), text="moved text"))
    assert owner(store, "moved") == owner(store, "moved text") == owner(store, "no number")
    await hears(store, WHATSAPP, says(three, phone("12125550143"), text="no notice"))
    assert owner(store, "no notice") != owner(store, "moved")
    await hears(store, WHATSAPP, says(one, text="whoever has the old account"))
    assert owner(store, "whoever has the old account") != owner(store, "moved")


async def test_a11_a_notice_about_nobody_makes_nobody(store: Store) -> None:
    await hears(store, WHATSAPP, HolderChanged(provider_key="n", previous=(phone(WA),), present=(phone("12125550143"),)))
    assert store.value("SELECT count(*) FROM customer") == store.value("SELECT count(*) FROM identifier") == 0


async def test_a12_a_landline_does_not_become_a_mobile(store: Store) -> None:
    for text, number in (("landline", "554132345678"), ("with a 9", "5541932345678"), ("old", "554188887777"), ("new", "5541988887777")):
        await hears(store, WHATSAPP, says(phone(number), text=text))
    assert owner(store, "landline") != owner(store, "with a 9")
    assert owner(store, "old") == owner(store, "new"), "and a mobile of before 2016 is the same one"


async def test_a13_extensions_short_codes_and_words_stand_apart_and_bridge_nobody(store: Store) -> None:
    odd = [phone("+12125550100"), phone("+12125550100;ext=1"), phone("+12125550100;ext=2")]
    odd += [Claim("sender_word", "12345", Proof.CHANNEL), Claim("sender_word", "BANK", Proof.CHANNEL)]
    for claim in odd:
        await hears(store, SMS, says(claim, text=claim.value))
        await hears(store, SMS, says(claim, text=f"{claim.value} again"))
        assert owner(store, claim.value) == owner(store, f"{claim.value} again"), "each threads with itself"
    assert len({owner(store, claim.value) for claim in odd}) == len(odd)
    for number, claim in enumerate(odd[1:]):
        await proves(store, account(f"u{number}"), device(f"d{number}"), replace(claim, proof=Proof.SIGNED))
    assert joins(store) == 0
    assert store.value("SELECT count(*) FROM identifier WHERE shared_at IS NOT NULL") == 0


async def test_a14_names_cities_and_look_alikes_prove_nothing(store: Store) -> None:
    people = ["maria.silva@gmail.com", "maria.silva1@gmail.com", "maria.silva@gmai1.com", "maria.silva@gma\u0456l.com"]
    for address in people:
        await hears(store, MAIL, says(email(address), text=address, sender_name="Maria Silva"))
    await hears(store, WHATSAPP, says(phone("5511987650001"), text="5511987650001", sender_name="Maria Silva"))
    await suggested(store)
    assert len({owner(store, text) for text in (*people, "5511987650001")}) == 5
    assert joins(store) == 0
    assert await sees(store, people[0]) == {people[0]}


# --- agents ---


async def test_a15_a_wrong_merge_is_undone_message_by_message_and_stop_stays_where_it_was(store: Store) -> None:
    await hears(store, MAIL, says(email("lee@x.example"), text="mail"))
    await hears(store, SMS, says(phone(NUMBER), text="text"))
    await hears(store, SMS, says(phone(NUMBER), text="STOP", opts="out"))
    before = {text: owner(store, text) for text in ("mail", "text", "STOP")}
    merged = await store.run(Merge(before["mail"], before["text"], "agent:7", AGENT))
    await hears(store, MAIL, says(email("lee@x.example"), text="mail 2"))
    await hears(store, SMS, says(phone(NUMBER), text="text 2"))
    await tells(store, "mail 2", "answer", channel_id=MAIL, identifier_id=1, confirmed_way=True)
    assert len({owner(store, text) for text in (*before, "mail 2", "text 2", "answer")}) == 1
    assert await sees(store, "text 2") == {"text", "STOP", "text 2"}, "a join widens nobody's view"
    with pytest.raises(Refusal, match="stop word"):
        await tells(store, "text 2", "no", channel_id=SMS, confirmed_way=True)
    await store.run(Unmerge(merged.join_id, before["mail"], before["text"], "agent:7", AGENT))
    assert {text: owner(store, text) for text in before} == before
    assert [owner(store, text) for text in ("mail 2", "answer", "text 2")] == [before["mail"], before["mail"], before["text"]]
    assert [(row["channel_id"], row["value"]) for row in store.rows("SELECT * FROM opt_out WHERE ended_at IS NULL")] == [(SMS, NUMBER)]
    assert await suggested(store) == []


async def test_a16_a_rejected_pair_stays_apart_against_later_proof_and_a_person_is_asked_once(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="mail"))
    await hears(store, CHAT, says(device("d"), email(VICTIM, Proof.CLAIMED), text="chat"))
    pair = (owner(store, "mail"), owner(store, "chat"))
    assert await suggested(store) == [pair]
    await store.run(Reject(*pair, "agent:7", AGENT))
    await hears(store, CHAT, says(device("d"), email(VICTIM, Proof.CLAIMED), text="claimed again"))
    assert await suggested(store) == [], "what proves nothing asks nobody again"
    code = Claim("email", VICTIM, Proof.OTP)
    await proves(store, device("d"), code)
    assert await suggested(store) == [pair]
    for text in ("after the code", "and another"):
        await hears(store, CHAT, says(device("d"), code, text=text))
    # Apart, and the visitor goes on in their own conversation: there they see themselves, and there they are answered.
    assert [owner(store, text) for text in ("mail", "after the code", "and another")] == [pair[0], pair[1], pair[1]]
    await tells(store, "and another", "here", channel_id=CHAT)
    assert await widget(store, device("d"), code) == sorted(["chat", "claimed again", "after the code", "and another", "here"])
    assert joins(store) == 0
    assert store.value("SELECT count(*) FROM suggestion WHERE rule = 'proof'") == 1
    await store.run(Reject(*pair, "agent:7", AGENT))
    await hears(store, CHAT, says(device("d"), code, text="once more"))
    assert await suggested(store) == [], "the same proof is no news"


async def test_a17_an_automatic_answer_knows_no_more_than_the_widget_shows(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret"))
    await hears(store, CHAT, says(device("d"), text="who am I?"))
    await store.run(Merge(owner(store, "secret"), owner(store, "who am I?"), "agent:7", AGENT))
    await tells(store, "who am I?", "hello", channel_id=CHAT, confirmed_way=True)
    await store.run(AddNote(ticket(store, "who am I?"), AGENT, "she is the victim, I think", "note"))
    assert await sees(store, "who am I?") == set(await widget(store, device("d"))) == {"who am I?", "hello"}
    # Not even for somebody who proved both is a note, or what did not go out, ever said.
    await proves(store, device("d"), Claim("email", VICTIM, Proof.OTP))
    store.execute("UPDATE message SET status = 'failed' WHERE text = 'hello'")
    assert await sees(store, "who am I?") == {"who am I?"}


async def test_a18_an_answer_by_an_address_that_proved_nothing_stops_before_it_leaves(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="secret"))
    await hears(store, SMS, says(phone(NUMBER), text="text"))
    await store.run(Merge(owner(store, "secret"), owner(store, "text"), "agent:7", AGENT))
    before = store.value("SELECT count(*) FROM delivery")
    with pytest.raises(Refusal, match="Confirm"):
        await tells(store, "secret", "your history", channel_id=SMS)
    assert store.value("SELECT count(*) FROM delivery") == before
    await tells(store, "secret", "your history", channel_id=SMS, confirmed_way=True)
    assert owner(store, "your history") == owner(store, "secret")


async def test_a18_an_address_proved_together_is_answered_without_a_stop(store: Store) -> None:
    await hears(store, MAIL, says(email(VICTIM), text="question"))
    await proves(store, account("u"), email(VICTIM, Proof.SIGNED), phone(NUMBER, Proof.OTP))
    assert (await tells(store, "question", "by text", channel_id=SMS)).message_id


# --- machines, words, floods ---


async def test_a19_what_we_sent_ourselves_is_nobodys_message(store: Store) -> None:
    for address in ("kim@acme.example", "Help@Shared.example"):
        with pytest.raises(NoSender):
            await hears(store, MAIL, says(email(address), text="echo"))
    sms = lone_channel("twilio_sms", {"address": "+15550100002"})
    assert isinstance(sms, TwilioSms)
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body in ("From=%2B15550100002&To=%2B12125550142", "From=%2B15550100002&To=%2B12125550142&Direction=outbound-api"):
        (echo,) = sms.parse(Request("POST", "http://localhost/in/sms", form, f"MessageSid=SM1&Body=hi&{body}".encode()))
        assert isinstance(echo, Ignored)
        assert await hears(store, SMS, echo) == 0
    assert store.value("SELECT count(*) FROM customer") == 0


async def test_a20_a_stop_blocks_exactly_that_address_on_that_channel(store: Store, tmp_path: Path) -> None:
    for channel, number in ((SMS, NUMBER), (WHATSAPP, WA), (SMS, "+12125550143")):
        await hears(store, channel, says(phone(number), text=f"{channel} {number}"))
    await hears(store, SMS, says(phone(NUMBER), text="STOP", opts="out"))
    with pytest.raises(Refusal, match="stop word"):
        await tells(store, "STOP", "no", channel_id=SMS)
    assert (await tells(store, "STOP", "by WhatsApp", channel_id=WHATSAPP)).message_id
    assert (await tells(store, f"{SMS} +12125550143", "to somebody else", channel_id=SMS)).message_id
    (tmp_path / "other").mkdir()
    async with open_store(tmp_path / "other", RULES) as other:  # another business: another database
        await hears(other, SMS, says(phone(NUMBER), text="hello"))
        assert (await tells(other, "hello", "welcome")).message_id


@pytest.mark.parametrize("placeholder", ["0000", "0", "-1", "null", "none", "anonymous", "undefined", "invalid", "---"])
async def test_a21_a_placeholder_ties_nobody_to_anybody(placeholder: str, store: Store) -> None:
    for number, browser in enumerate(("one", "two")):
        claims = (device(browser), account(placeholder), Claim("wa_user_id", placeholder, Proof.CHANNEL), phone(placeholder, Proof.OTP))
        await hears(store, CHAT, says(*claims, text=browser))
        await hears(store, MAIL, says(email(f"p{number}@x.example"), account(placeholder), text=f"mail {number}"))
    assert len({owner(store, text) for text in ("one", "two", "mail 0", "mail 1")}) == 4
    assert (joins(store), await suggested(store)) == (0, [])


async def test_a22_a_flood_of_forms_with_a_victims_address_sends_one_code_and_nothing_else(store: Store) -> None:
    for number in range(30):
        await hears(store, CHAT, says(device(f"d{number}"), email(VICTIM, Proof.CLAIMED), text=f"hello {number}"))
    store.clock.advance(3_600)
    asked = [await store.run(AskCode(f"c{number}", CHAT, f"d{number}", "email", VICTIM, VICTIM, "Shop")) for number in range(30)]
    assert [type(one) for one in asked] == [Asked] + [NotAsked] * 29
    assert [row["kind"] for row in store.rows("SELECT kind FROM delivery WHERE kind NOT IN ('card', 'hold')")] == ["code"]
    # An agent's answer goes to the chat; to the typed address it cannot go at all.
    with pytest.raises(Refusal, match="cannot be reached"):
        await tells(store, "hello 3", "here", channel_id=MAIL, confirmed_way=True)


SIX: Sequence[tuple[str, int, tuple[Claim, ...]]] = (
    ("A", WHATSAPP, (phone(WA),)),
    ("A", WHATSAPP, (phone(WA),)),
    ("B", WHATSAPP, (phone(WA), Claim("wa_user_id", "US.1", Proof.CHANNEL))),
    ("C", SMS, (phone(NUMBER),)),
    ("D", WHATSAPP, (Claim("wa_user_id", "US.1", Proof.CHANNEL),)),
    ("E", SMS, (phone("+1 (212) 555-0142"),)),
)


@pytest.mark.parametrize("first", range(6))
async def test_a23_six_webhooks_at_once_are_one_customer(first: int, store: Store) -> None:
    turned = [*SIX[first:], *SIX[:first]]
    works = [Ingest(channel, (item(says(*claims, key=key), trusted=True, policy=RULES),), None) for key, channel, claims in turned]
    outcomes = await asyncio.gather(*(store.run(work) for work in works))
    assert (sum(one.stored for one in outcomes), sum(one.duplicates for one in outcomes)) == (5, 1)
    assert store.value("SELECT count(*) FROM message") == 5
    assert store.value("SELECT count(DISTINCT conversation_id) FROM message") == 1
    assert store.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 1


# --- the table itself ---


def test_every_attack_of_the_table_has_a_test_here() -> None:
    named = {name.split("_")[1] for name in globals() if name.startswith("test_a") and name[6:8].isdigit()}
    assert named == {f"a{number:02}" for number in range(1, 24)}


@pytest.mark.parametrize("attack", ELSEWHERE)
def test_what_is_tested_elsewhere_is_there(attack: str) -> None:
    for name in ELSEWHERE[attack]:
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function, None)), name
