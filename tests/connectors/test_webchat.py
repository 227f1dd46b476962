"""Web chat translates: a token says whose message it is, and nothing typed beside it counts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from connectors.webchat import (
    ANONYMOUS_SECONDS,
    CODE_SECONDS,
    MAX_PROOFS,
    MAX_TEXT,
    MAX_TOKEN,
    SIGNED_SECONDS,
    WebChat,
    WebChatSettings,
)
from hub.contract import (
    Channel,
    Claim,
    DeliveryUpdate,
    HttpResponse,
    InboundMessage,
    MessageStatus,
    OutboundMessage,
    Place,
    Proof,
    Refused,
    Request,
    Unparseable,
    Verdict,
)
from hub.customers.visitors import VisitorChannel

NOW = 1_780_000_000.0
DEVICE = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


def chat(name: str = "chat", key: bytes = b"k" * 32, **settings: Any) -> WebChat:
    return WebChat(WebChatSettings(type="webchat", site="shop", **settings), Place(name, f"https://hub.example/in/{name}", key))


def post(body: object, token: str = "", **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {}), **headers}
    return Request("POST", "https://hub.example/in/chat", sent, data)


def said(body: dict[str, Any], connector: WebChat | None = None, **who: Any) -> InboundMessage:
    connector = connector or chat()
    (message,) = connector.parse(post({"id": "client-uuid-1"} | body, connector.issue(DEVICE, NOW, **who)))
    assert isinstance(message, InboundMessage)
    return message


def test_it_is_a_channel_and_keeps_visitors() -> None:
    assert isinstance(chat(), Channel)
    assert isinstance(chat(), VisitorChannel)


# --- tokens ---


def flip(token: str, at: int) -> str:
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


def repayload(token: str, **changes: object) -> str:
    version, payload, signature = token.split(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) | changes
    return f"{version}.{base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip('=')}.{signature}"


TOKEN = chat().issue(DEVICE, NOW, user_id="ana", email="ana@shop.example", name="Ana")
TAMPERED = [
    ("another device", repayload(TOKEN, d=OTHER)),
    ("another account", repayload(TOKEN, u="victim")),
    ("another e-mail", repayload(TOKEN, e="victim@shop.example")),
    ("a phone", repayload(TOKEN, p="+447700900123")),
    ("an address proved by code", repayload(TOKEN, o=[["email", "victim@shop.example", 9_999_999_999]])),
    ("a longer life", repayload(TOKEN, x=int(NOW) + 10**9)),
    ("the first letter of the payload", flip(TOKEN, 4)),
    ("the last letter of the signature", flip(TOKEN, len(TOKEN) - 1)),
    ("the version", "v2" + TOKEN[2:]),
    ("no version", TOKEN[3:]),
    ("no signature", TOKEN.rpartition(".")[0] + "."),
    ("a shortened signature", TOKEN[:-4]),
    ("a padded signature", TOKEN + "="),
    ("the signature in capitals", TOKEN[:-43] + TOKEN[-43:].upper()),
    ("spaces inside", TOKEN[:10] + " " + TOKEN[10:]),
    ("two tokens in one", TOKEN + TOKEN),
    ("letters beyond ASCII", TOKEN + "é"),
    ("only dots", ".."),
    ("a site's own JWT", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1NzcifQ.c2lnbmF0dXJl"),
    ("endless", "v1." + "A" * 100_000 + ".x"),
    ("of another installation", chat(key=b"x" * 32).issue(DEVICE, NOW)),
]


@pytest.mark.parametrize("token", [row[1] for row in TAMPERED], ids=[row[0] for row in TAMPERED])
def test_a_tampered_token_is_nobodys(token: str) -> None:
    connector = chat()
    assert connector.session(token) is None
    assert connector.verify(post({}, token), NOW) is Verdict.BAD
    with pytest.raises(Unparseable):
        connector.parse(post({"id": "client-uuid-1", "text": "hello"}, token))


def test_the_token_they_all_were_made_of_is_good() -> None:
    connector = chat()
    session = connector.session(TOKEN)
    assert session is not None
    assert (session.device, session.user_id, session.email, session.name) == (DEVICE, "ana", "ana@shop.example", "Ana")
    assert connector.verify(post({}, TOKEN), NOW) is Verdict.GOOD


def test_a_place_with_another_key_signs_other_tokens() -> None:
    # The hub derives each channel's key from its name: a token of one channel opens no other.
    assert chat("other", key=b"o" * 32).session(TOKEN) is None


@pytest.mark.parametrize(
    ("who", "seconds", "verdict"),
    [
        ({}, ANONYMOUS_SECONDS - 1, Verdict.GOOD),
        ({}, ANONYMOUS_SECONDS, Verdict.BAD),
        ({"user_id": "ana"}, SIGNED_SECONDS - 1, Verdict.GOOD),
        ({"user_id": "ana"}, SIGNED_SECONDS, Verdict.BAD),
    ],
)
def test_a_token_ends(who: dict[str, str], seconds: int, verdict: Verdict) -> None:
    connector = chat()
    assert connector.verify(post({}, connector.issue(DEVICE, NOW, **who)), NOW + seconds) is verdict


@pytest.mark.parametrize("header", ["", "Basic dXNlcjpwYXNz", "Bearer", "Bearer ", f"Token {TOKEN}"])
def test_a_request_without_a_visitor_token_is_unsigned(header: str) -> None:
    request = post({"id": "client-uuid-1", "text": "hi"}, authorization=header)
    assert chat().verify(request, NOW) is Verdict.UNSIGNED
    with pytest.raises(Unparseable):
        chat().parse(request)


def test_a_token_in_the_url_is_not_looked_at() -> None:
    request = Request("POST", f"https://hub.example/in/chat?token={TOKEN}", {}, b'{"id": "client-uuid-1", "text": "hi"}')
    assert chat().verify(request, NOW) is Verdict.UNSIGNED


# --- who is speaking ---


def test_an_anonymous_visitor_is_known_by_the_browser_alone() -> None:
    assert said({"text": "hi"}).claims == (Claim("device", DEVICE, Proof.CHANNEL),)


def test_a_signed_visitor_is_answered_as_a_person() -> None:
    message = said({"text": "hi"}, user_id="ana", email="ana@shop.example", name="Ana")
    assert message.claims == (
        Claim("user_id", "ana", Proof.SIGNED, "shop"),
        Claim("device", DEVICE, Proof.CHANNEL),
        Claim("email", "ana@shop.example", Proof.SIGNED),
    )
    assert message.sender_name == "Ana"


def test_a_number_the_site_vouches_for_is_signed_like_its_mail() -> None:
    message = said({"text": "hi"}, user_id="ana", phone="+447700900123", email="ana@shop.example")
    assert message.claims[2:] == (
        Claim("email", "ana@shop.example", Proof.SIGNED),
        Claim("phone", "+447700900123", Proof.SIGNED),
    )


@pytest.mark.parametrize("who", [{}, {"user_id": "ana"}], ids=["anonymous", "signed"])
def test_an_address_whose_code_came_back_is_proved_and_answers_still_go_to_the_chat(who: dict[str, str]) -> None:
    connector = chat()
    token = connector.issue(DEVICE, NOW, proofs=[("email", "ana@mail.example"), ("phone", "+447700900123")], **who)  # type: ignore[arg-type]
    (message,) = connector.parse(post({"id": "client-uuid-1", "text": "hi", "email": "victim@mail.example"}, token))
    assert isinstance(message, InboundMessage)
    assert message.claims[0].kind == ("user_id" if who else "device")
    assert message.claims[-3:] == (
        Claim("email", "ana@mail.example", Proof.OTP),
        Claim("phone", "+447700900123", Proof.OTP),
        Claim("email", "victim@mail.example", Proof.CLAIMED),
    )


@pytest.mark.parametrize("who", [{}, {"user_id": "ana"}], ids=["anonymous", "signed"])
def test_a_token_is_good_as_long_as_all_it_says_is_proved(who: dict[str, str]) -> None:
    """The next visitor of a public computer is another person, and a number may pass on: no code counts for longer than a day."""
    connector = chat()
    first = connector.session(connector.issue(DEVICE, NOW, proofs=[("email", "ana@mail.example")], **who))  # type: ignore[arg-type]
    assert first is not None
    assert first.good_until == NOW + CODE_SECONDS <= first.expires_at
    later = NOW + CODE_SECONDS - 10
    token = connector.issue(DEVICE, later, proofs=[*first.proofs, ("phone", "+447700900123")], until=first.expires_at, **who)
    second = connector.session(token)
    assert second is not None
    assert (second.good_until, second.expires_at) == (first.good_until, first.expires_at), "another proof makes none last longer"
    assert connector.verify(post({}, token), first.good_until - 1) is Verdict.GOOD
    assert connector.verify(post({}, token), first.good_until) is Verdict.BAD
    third = connector.session(connector.issue(DEVICE, first.good_until, proofs=second.proofs, until=first.expires_at, **who))
    assert third is not None
    assert [proof[:2] for proof in third.proofs] == [("phone", "+447700900123")]


def test_the_latest_proofs_fit_into_a_token_and_one_address_counts_once() -> None:
    connector = chat()
    long = [("email", f"{'a' * 60}{n}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example") for n in range(9)]
    token = connector.issue(DEVICE, NOW, user_id="u" * 256, name="\u00e9" * 100, email="e" * 250, phone="+447700900123", proofs=long)
    assert len(token) <= MAX_TOKEN
    session = connector.session(token)
    assert session is not None
    assert [proof[:2] for proof in session.proofs] == long[-MAX_PROOFS:]
    again = connector.session(connector.issue(DEVICE, NOW + 60, proofs=[*session.proofs, long[-2]]))
    assert again is not None
    assert [(proof.value, proof.until) for proof in again.proofs] == [
        *((proof.value, proof.until) for proof in session.proofs if proof.value != long[-2][1]),
        (long[-2][1], NOW + 60 + CODE_SECONDS),
    ]


# A1 to A3 of the attacks on identity: what is typed or sent beside the token stays a claim.
BESIDE = [
    ("a victim's e-mail", {"email": "victim@mail.example"}, (Claim("email", "victim@mail.example", Proof.CLAIMED),)),
    ("with spaces", {"email": " victim@mail.example "}, (Claim("email", "victim@mail.example", Proof.CLAIMED),)),
    ("not an address", {"email": "victim"}, ()),
    ("an empty address", {"email": ""}, ()),
    ("null", {"email": None}, ()),
    ("a list", {"email": ["victim@mail.example"]}, ()),
    ("a number", {"email": 7}, ()),
    ("an endless address", {"email": "v" * 300 + "@mail.example"}, ()),
    ("a header smuggled in", {"email": "a@b.example\r\nBcc: v@mail.example"}, ()),
    ("a victim's account", {"user_id": "victim", "u": "victim", "sub": "victim"}, ()),
    ("another browser", {"device": OTHER, "d": OTHER}, ()),
    ("half a surrogate pair, which no database takes", {"email": "\ud800@mail.example"}, ()),
    ("a victim's phone", {"phone": "+447700900123"}, (Claim("phone", "+447700900123", Proof.CLAIMED),)),
    ("a phone as dialled at home", {"phone": " (212) 555-0142 "}, (Claim("phone", "(212) 555-0142", Proof.CLAIMED),)),
    ("words for a phone", {"phone": "call me"}, ()),
    ("a number with a command", {"phone": "+44770\n0900123"}, ()),
    ("both, one unusable", {"email": "nobody", "phone": "+447700900123"}, (Claim("phone", "+447700900123", Proof.CLAIMED),)),
    ("proofs of its own", {"o": [["email", "victim@mail.example", 9999999999]], "proofs": ["victim@mail.example"]}, ()),
    (
        "a flag of its own",
        {"email": "victim@mail.example", "email_verified": True},
        (Claim("email", "victim@mail.example", Proof.CLAIMED),),
    ),
]


@pytest.mark.parametrize(("typed", "claims"), [row[1:] for row in BESIDE], ids=[row[0] for row in BESIDE])
@pytest.mark.parametrize("who", [{}, {"user_id": "ana"}], ids=["anonymous", "signed"])
def test_what_is_typed_proves_nothing(typed: dict[str, Any], claims: tuple[Claim, ...], who: dict[str, str]) -> None:
    message = said({"text": "hi"} | typed, **who)
    proved = chat().claims(chat().session(chat().issue(DEVICE, NOW, **who)))  # type: ignore[arg-type]
    assert message.claims == proved + claims
    assert message.text == "hi"  # a slip in a form costs nobody a message


def test_a_typed_name_does_not_replace_a_signed_one() -> None:
    assert said({"text": "hi", "name": "The Boss"}, user_id="ana", name="Ana").sender_name == "Ana"
    assert said({"text": "hi", "name": " The\x07 Boss\n"}).sender_name == "The Boss"


# --- what is said ---


def test_the_same_message_posted_twice_has_one_key() -> None:
    first, second = said({"text": "hi"}), said({"text": "hi again"})
    assert first.provider_key == second.provider_key == f"{DEVICE}:client-uuid-1"
    assert said({"id": "client-uuid-2", "text": "hi"}).provider_key != first.provider_key
    connector = chat()
    (elsewhere,) = connector.parse(post({"id": "client-uuid-1", "text": "hi"}, connector.issue(OTHER, NOW)))
    assert elsewhere.provider_key != first.provider_key  # nobody can take another visitor's key


GARBAGE = [
    ("nothing", b""),
    ("not JSON", b"{"),
    ("not UTF-8", b'{"id": "client-uuid-1", "text": "\xff"}'),
    ("a list", b"[]"),
    ("null", b"null"),
    ("a number of a million digits", b"1" * 1_000_000),
    ("nested without end", b"[" * 200_000),
    ("no id", b'{"text": "hi"}'),
    ("an id of a number", b'{"id": 12345678, "text": "hi"}'),
    ("a short id", b'{"id": "1", "text": "hi"}'),
    ("an id with a colon", b'{"id": "client:uuid", "text": "hi"}'),
    ("an id that ends a line", b'{"id": "client-uuid-1\\n", "text": "hi"}'),
    ("an endless id", json.dumps({"id": "x" * 65, "text": "hi"}).encode()),
    ("text of a list", b'{"id": "client-uuid-1", "text": ["hi"]}'),
    ("text of null", b'{"id": "client-uuid-1", "text": null}'),
    ("empty text", b'{"id": "client-uuid-1", "text": " \\n "}'),
    ("too much text", json.dumps({"id": "client-uuid-1", "text": "x" * (MAX_TEXT + 1)}).encode()),
    ("an unknown type", b'{"type": "admin", "id": "client-uuid-1", "text": "hi"}'),
    ("read of nothing", b'{"type": "read"}'),
    ("read of an empty list", b'{"type": "read", "refs": []}'),
    ("read of numbers", b'{"type": "read", "refs": [1]}'),
    ("read of too many", json.dumps({"type": "read", "refs": ["chat-abcdefgh"] * 101}).encode()),
    ("files of text", b'{"id": "client-uuid-1", "files": "x"}'),
    ("a file of text", b'{"id": "client-uuid-1", "files": ["x"]}'),
    ("a file without data", b'{"id": "client-uuid-1", "files": [{"name": "a"}]}'),
    ("a file of null", b'{"id": "client-uuid-1", "files": [{"data": null}]}'),
    ("a file that is not base64", b'{"id": "client-uuid-1", "files": [{"data": "***"}]}'),
    ("eleven files", json.dumps({"id": "client-uuid-1", "files": [{"data": "eA=="}] * 11}).encode()),
]


@pytest.mark.parametrize("body", [row[1] for row in GARBAGE], ids=[row[0] for row in GARBAGE])
def test_garbage_is_refused_by_name_and_never_by_a_crash(body: bytes) -> None:
    connector = chat()
    with pytest.raises(Unparseable):
        connector.parse(post(body, connector.issue(DEVICE, NOW)))


def test_the_longest_text_arrives_whole() -> None:
    assert said({"text": "é" * MAX_TEXT}).text == "é" * MAX_TEXT


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("  hello\r\nworld \n", "hello\nworld"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),  # text is text; who shows it escapes it
        ("nul\x00byte", "nulbyte"),
        ("half a pair \ud83d here", "half a pair ? here"),
        ("👩‍👩‍👧 עברית", "👩‍👩‍👧 עברית"),
    ],
)
def test_text_is_kept_as_written(typed: str, text: str) -> None:
    assert said({"text": typed}).text == text


def test_files_come_with_their_message() -> None:
    data = bytes(range(256))
    message = said({"files": [{"name": "../../etc/receipt.png", "type": "IMAGE/PNG", "data": base64.b64encode(data).decode()}]})
    (file,) = message.attachments
    assert (file.name, file.content_type, file.data) == ("receipt.png", "image/png", data)


@pytest.mark.parametrize(
    ("name", "kind", "called", "typed"),
    [
        (None, None, "file-1", "application/octet-stream"),
        ("..", "nonsense", "file-1", "application/octet-stream"),
        ("a\r\nb.txt", "text/plain\r\nx: y", "ab.txt", "application/octet-stream"),
        ("C:\\secret\\b.pdf", "application/pdf", "b.pdf", "application/pdf"),
        (7, ["text/html"], "file-1", "application/octet-stream"),
    ],
)
def test_a_files_name_and_type_are_only_words(name: object, kind: object, called: str, typed: str) -> None:
    (file,) = said({"files": [{"name": name, "type": kind, "data": "eA=="}]}).attachments
    assert (file.name, file.content_type) == (called, typed)


def test_files_have_a_limit_together() -> None:
    half = base64.b64encode(b"x" * 2_500_000).decode()
    assert len(said({"files": [{"data": half}, {"data": half}]}).attachments) == 2
    with pytest.raises(Unparseable, match="bytes of files"):
        said({"files": [{"data": half}, {"data": half}, {"data": "eA=="}]})


# --- answers ---


class NoNetwork:
    async def request(self, method: str, url: str, **rest: object) -> HttpResponse:
        raise AssertionError("web chat calls nobody")


async def test_an_answer_calls_nobody_and_has_one_name_on_every_try() -> None:
    connector = chat()
    sent = [
        await connector.send(OutboundMessage(delivery_id=n, to=to, text="x"), NoNetwork())
        for n, to in [(1, "ana"), (1, "ana"), (2, "ana"), (1, "ben")]
    ]
    names = [one.provider_message_id for one in sent]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert all(one.status is MessageStatus.SENT for one in sent)
    # Two installations name them differently: the name cannot be worked out from the number of a delivery.
    elsewhere = await chat(key=b"x" * 32).send(OutboundMessage(delivery_id=1, to="ana", text="x"), NoNetwork())
    assert elsewhere.provider_message_id not in names


async def test_an_answer_seen_is_reported_read_under_the_name_it_was_sent_by() -> None:
    connector = chat()
    ref = (await connector.send(OutboundMessage(delivery_id=9, to=DEVICE, text="x"), NoNetwork())).provider_message_id
    updates = connector.parse(post({"type": "read", "refs": [ref, ref]}, connector.issue(DEVICE, NOW)))
    assert list(updates) == [DeliveryUpdate(provider_key=f"read:{DEVICE}:{ref}", status=MessageStatus.READ, provider_message_id=ref)]


async def test_an_endless_answer_is_refused_in_words() -> None:
    with pytest.raises(Refused, match="Split"):
        await chat().send(OutboundMessage(delivery_id=1, to=DEVICE, text="x" * (MAX_TEXT + 1)), NoNetwork())


def test_it_is_harmless_beside_the_sandbox() -> None:
    assert (WebChat.live, WebChat.idempotent, chat().is_sandbox()) == (False, True, False)


# --- what goes with a message ---

ASKED = [
    {"name": "email"},
    {"name": "name"},
    {"name": "order_number", "label": {"en": "Order number", "de": "Bestellung"}},
    {"name": "why"},
]


def test_what_was_asked_before_the_chat_stands_below_the_first_message_and_proves_nothing() -> None:
    fields = {"email": "a@mail.example", "name": "Ana", "order_number": "12\n3 " + "x" * 300, "why": " ", "never_asked": "spam", "phone": 7}
    message = said({"text": "Where is it?", "fields": fields}, chat(prechat=ASKED))
    assert message.text == "Where is it?\n\n\u2063Before the chat: Order number: 123 " + "x" * 196
    assert message.sender_name == "Ana"
    assert message.claims[1:] == (Claim("email", "a@mail.example", Proof.CLAIMED),)
    assert said({"text": "Second", "fields": {}}, chat(prechat=ASKED)).text == "Second"


@pytest.mark.parametrize("fields", [None, [], "x", {"order_number": {"a": 1}}, {"order_number": ["x"]}])
def test_a_slip_in_a_field_costs_no_message(fields: object) -> None:
    assert said({"text": "hello", "fields": fields}, chat(prechat=ASKED)).text == "hello"


PAGES = [
    ({"url": "https://shop.example/lamp", "title": "Lamp"}, "On the page Lamp (https://shop.example/lamp)"),
    ({"url": "https://shop.example/reset?token=secret#also"}, "On the page https://shop.example/reset"),
    ({"url": "https://user:secret@shop.example/"}, "On the page https://shop.example/"),
    ({"url": "javascript:alert(1)", "title": "x"}, ""),
    ({"url": "https://[half", "title": "x"}, ""),
    ({"url": 7}, ""),
    ("https://shop.example", ""),
    ({"url": "https://shop.example/" + "a" * 900, "title": "t" * 900}, f"On the page {'t' * 100} (https://shop.example/{'a' * 279})"),
]


@pytest.mark.parametrize(("page", "shown"), PAGES)
def test_the_page_is_named_without_what_its_address_may_keep_secret(page: object, shown: str) -> None:
    assert said({"text": "hello", "page": page}).subject == shown


@pytest.mark.parametrize(
    ("at", "sent"),
    [(1_780_000_000_000, 1_780_000_000_000_000), (True, None), (-1, None), (1 << 60, None), ("1", None), (1.5, None), (None, None)],
)
def test_when_the_browser_says_it_was_written_is_kept_if_it_can_be(at: object, sent: int | None) -> None:
    assert said({"text": "hello", "at": at, "language": ["de"]}).sent_at == sent


def test_an_answer_that_arrived_is_reported_and_reading_it_is_another_report() -> None:
    connector = chat()
    updates = connector.parse(post({"type": "delivered", "refs": ["chat-abcdefgh"]}, connector.issue(DEVICE, NOW)))
    expected = DeliveryUpdate(
        provider_key=f"delivered:{DEVICE}:chat-abcdefgh", status=MessageStatus.DELIVERED, provider_message_id="chat-abcdefgh"
    )
    assert list(updates) == [expected]


def test_a_browser_whose_chat_a_link_opened_is_claimed_by_nobody() -> None:
    connector = chat()
    session = connector.session(connector.issue(DEVICE, NOW, proofs=[("email", "a@mail.example"), ("device", OTHER)]))
    assert session is not None
    assert connector.claims(session) == (Claim("device", DEVICE, Proof.CHANNEL), Claim("email", "a@mail.example", Proof.OTP))


def test_a_channel_may_take_smaller_files() -> None:
    file = {"name": "a", "type": "text/plain", "data": base64.b64encode(b"x" * 11).decode()}
    with pytest.raises(Unparseable, match="11 bytes of files; 10 are accepted"):
        said({"text": "", "files": [file]}, chat(max_file_bytes=10))
