"""Law: everything one of Meta's webhooks tells of this number comes in, once, readable, from who sent it; nothing in it breaks the reader.

Recorded samples: ../shared/fixtures/webhooks_meta_pywa; the other shapes are those of Meta's webhook reference.
"""

import hashlib
import hmac
import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import CHANNELS, load
from connectors.whatsapp_cloud import WhatsAppCloud
from connectors.whatsapp_cloud.words import ERRORS, FIELDS
from hub.abilities import ABILITIES
from hub.contract import (
    Altered,
    Challenged,
    Channel,
    Claim,
    ConsentChanged,
    DeliveryEvent,
    DeliveryUpdate,
    Finds,
    HolderChanged,
    Ignored,
    Inbound,
    InboundMessage,
    KnowsTemplates,
    MessageStatus,
    Place,
    Proof,
    Recovers,
    Request,
    ShowsPresence,
    Unparseable,
    Verdict,
)
from tests.shared_data import shared

NUMBER_ID = "1122334455667"
SECRET = "app-secret"
USER_ID = "US.13491208655302741918"
PHONE = Claim("phone", "+972987654321", Proof.CHANNEL)
USER = Claim("wa_user_id", USER_ID, Proof.CHANNEL)
URL = "https://hub.example/in/wa"


def channel(**more: Any) -> WhatsAppCloud:
    chosen = {"type": "whatsapp_cloud", "phone_number_id": NUMBER_ID, "app_secret": SECRET, "verify_token": "our-word"} | more
    return WhatsAppCloud(WhatsAppCloud.Settings(**chosen), Place("wa", URL, b"k"))  # type: ignore[arg-type]


def request(body: bytes, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", URL, {"content-type": "application/json"} | named, body)


def parse(told: Any, **more: Any) -> list[Inbound]:
    return list(channel(**more).parse(request(json.dumps(told).encode())))


def hook(*messages: dict[str, Any], field: str = "messages", number: str = NUMBER_ID, **value: Any) -> dict[str, Any]:
    """A webhook with these messages."""
    told = {"messaging_product": "whatsapp", "metadata": {"display_phone_number": "972123456789", "phone_number_id": number}}
    told |= ({"messages": list(messages)} if messages else {}) | value
    return {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"value": told, "field": field}]}]}


def message(kind: str = "text", said: Any = None, **more: Any) -> dict[str, Any]:
    base = {"from": "972987654321", "id": "wamid.A", "timestamp": "1700000000", "type": kind}
    return base | ({kind: said} if said is not None else {}) | more


def one(*messages: dict[str, Any], **value: Any) -> Any:
    [only] = parse(hook(*messages, **value))
    return only


# --- the recorded samples ---

SAMPLES: list[tuple[str, str, type, dict[str, Any]]] = [
    ("message", "text", InboundMessage, {"text": "Body Text", "sender_name": "Test Name", "external_id": "wamid.xyzxyz"}),
    ("message", "image", InboundMessage, {"files": [("image.jpg", "image/jpeg", "media:65463453")]}),
    ("message", "media_with_url", InboundMessage, {"files": [("image.jpg", "image/jpeg", "media:65463453")]}),
    ("message", "video", InboundMessage, {"text": "caption", "files": [("video.mp4", "video/mp4", "media:765756756")]}),
    ("message", "document", InboundMessage, {"files": [("filename.pdf", "application/pdf", "media:1234567890987654321")]}),
    ("message", "audio", InboundMessage, {"files": [("audio.ogg", "audio/ogg", "media:1234567890987654321")]}),
    ("message", "voice", InboundMessage, {"files": [("voice message.ogg", "audio/ogg", "media:1234567890987654321")]}),
    ("message", "static_sticker", InboundMessage, {"files": [("sticker.webp", "image/webp", "media:1234567890987654321")]}),
    ("message", "animated_sticker", InboundMessage, {"files": [("sticker.webp", "image/webp", "media:1234567890987654321")]}),
    ("message", "reaction", Altered, {"what": "reaction", "text": "\U0001f62e", "about": "wamid.yzxyzx="}),
    ("message", "unreaction_empty", Altered, {"what": "reaction", "text": "", "about": "wamid.yzxyzx="}),
    ("message", "unreaction_no_emoji", Altered, {"what": "reaction", "text": "", "about": "wamid.yzxyzx="}),
    ("message", "current_location", InboundMessage, {"has": "query=12.25089,43.90539"}),
    ("message", "chosen_location", InboundMessage, {"has": "Facebook HQ, 1 Hacker Way, Menlo Park, CA 94025 (37.461198, -122.216438)"}),
    ("message", "contacts", InboundMessage, {"has": "Contact: Chandler Bing, +1 555-555-5555\nContact: Monica, +1 666-666-6666"}),
    ("message", "order", InboundMessage, {"has": "3 x HAMBURGER at 30 ILS\n2 x FRENCH_FRIES at 35 ILS"}),
    ("message", "unsupported", InboundMessage, {"text": "(a kind of message WhatsApp does not hand over)"}),
    ("message", "unsupported_with_type", InboundMessage, {"text": "(a kind of message WhatsApp does not hand over: pool)"}),
    ("message", "reply", InboundMessage, {"text": "replied text", "quoted_id": "wamid.xyzxyz=="}),
    ("message", "forwarded", InboundMessage, {"text": "forwarded text", "quoted_id": ""}),
    ("message", "forwarded_many_times", InboundMessage, {"text": "text forwarded many times"}),
    ("message", "interactive_message_with_err", InboundMessage, {"has": "Unsupported webhook payload", "quoted_id": "wamid.gvwegfretge=="}),
    ("message", "referral", InboundMessage, {"has": "BODY\n(They came by an advertisement or a post: “AD_TITLE” AD_OR_POST_FB_URL)"}),
    ("message_status", "sent", DeliveryUpdate, {"status": MessageStatus.SENT, "provider_key": "status:wamid.xyzxyz:sent"}),
    ("message_status", "delivered", DeliveryUpdate, {"status": MessageStatus.DELIVERED, "recipient": "+972987654321"}),
    ("message_status", "read", DeliveryUpdate, {"status": MessageStatus.READ, "error": ""}),
    ("message_status", "played", DeliveryUpdate, {"status": MessageStatus.READ, "event": DeliveryEvent.READ}),
    ("message_status", "failed", DeliveryUpdate, {"status": MessageStatus.FAILED, "event": DeliveryEvent.REJECTED}),
    ("message_status", "with_tracker", DeliveryUpdate, {"status": MessageStatus.SENT, "delivery_id": None}),
    ("message_status", "group", DeliveryUpdate, {"status": MessageStatus.READ}),
    ("callback_button", "button", InboundMessage, {"text": "title", "quoted_id": "wamid.xyzxyz"}),
    ("callback_button", "quick_reply", InboundMessage, {"text": "title", "quoted_id": "wamid.xyzxyz=="}),
    ("callback_button", "quick_reply_without_context", InboundMessage, {"text": "title", "quoted_id": ""}),
    ("callback_selection", "callback", InboundMessage, {"text": "title"}),
    ("callback_selection", "description", InboundMessage, {"text": "title\ndescription"}),
]


def recorded(name: str) -> dict[str, Any]:
    samples: dict[str, Any] = json.loads(shared("webhooks_meta_pywa", f"{name}.json").read_text())
    return samples


@pytest.mark.parametrize(("file", "name", "kind", "wanted"), SAMPLES, ids=[f"{file}: {name}" for file, name, _, _ in SAMPLES])
def test_each_recorded_sample_yields_what_its_type_says(file: str, name: str, kind: type, wanted: dict[str, Any]) -> None:
    [said] = parse(recorded(file)[name], phone_number_id="")
    assert isinstance(said, kind)
    for field, value in wanted.items():
        if field == "files":
            assert [(file.name, file.content_type, file.url) for file in said.attachments] == value
        elif field == "has":
            assert value in said.text
        else:
            assert getattr(said, field) == value
    if isinstance(said, InboundMessage | Altered):
        assert said.claims == (PHONE, USER)
        assert isinstance(said, Altered) or said.text or said.attachments, "never nothing to see"


def test_no_recorded_sample_is_left_out() -> None:
    for file in {file for file, *_ in SAMPLES}:
        assert set(recorded(file)) == {name for of, name, *_ in SAMPLES if of == file}


# --- the envelope ---


def test_all_messages_of_a_post_come_in_and_those_of_other_numbers_do_not() -> None:
    told = hook(message(id="wamid.1"), message(id="wamid.2"), statuses=[{"id": "wamid.3", "status": "read"}])
    told["entry"][0]["changes"] += hook(message(id="wamid.4"), number="999")["entry"][0]["changes"]
    told["entry"] += hook(message(id="wamid.5"))["entry"]
    said = parse(told)
    assert [item.provider_key for item in said if not isinstance(item, Ignored)] == [
        "in:wamid.1",
        "in:wamid.2",
        "status:wamid.3:read",
        "in:wamid.5",
    ]
    [other] = [item for item in said if isinstance(item, Ignored)]
    assert "999" in other.reason


def test_delivered_five_times_it_bears_the_same_keys() -> None:
    told = hook(
        message(), message("system", {"type": "x", "body": "y"}, id=None), statuses=[{"id": "w", "status": "failed"}, {"status": "sent"}]
    )
    told["entry"] += hook(field="account_update", event="VERIFIED_ACCOUNT")["entry"]
    keys = {tuple(item.provider_key for item in parse(told)) for _ in range(5)}
    assert len(keys) == 1
    assert len(set(*keys)) == 5, "and each its own"


def test_two_states_of_one_message_are_two_keys_and_a_groups_readers_each_their_own() -> None:
    states = [{"id": "w", "status": "sent"}, {"id": "w", "status": "read"}]
    readers = [{"id": "w", "status": "read", "recipient_type": "group", "recipient_participant_user_id": who} for who in ("US.1", "US.2")]
    assert len({item.provider_key for item in parse(hook(statuses=states + readers))}) == 4


@pytest.mark.parametrize("field", [*FIELDS, "something_new", ""])
def test_what_tells_of_the_account_is_ignored_with_a_reason(field: str) -> None:
    told = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": field, "value": {"event": "X"}}]}]}
    [said] = parse(told)
    assert isinstance(said, Ignored)
    assert said.reason


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"object":"page"}', b"\xff", b"[" * 100_000, b'{"object":"whatsapp_business_account"}'],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_webhook_of_whatsapp_is_unparseable(body: bytes) -> None:
    with pytest.raises(Unparseable):
        channel().parse(request(body))


def test_a_message_that_names_no_number_or_no_sender_is_kept_apart() -> None:
    told = hook(message())
    del told["entry"][0]["changes"][0]["value"]["metadata"]
    with pytest.raises(Unparseable, match="number it came to"):
        parse(told)
    with pytest.raises(Unparseable, match="sender"):
        parse(hook(message(**{"from": None})))


# --- who ---

CONTACT = {"profile": {"name": "Ann"}, "wa_id": "972987654321", "user_id": USER_ID}

WHO: list[tuple[str, dict[str, Any], list[dict[str, Any]], tuple[Claim, ...]]] = [
    ("a number alone", {}, [], (PHONE,)),
    ("a number and an id", {"from_user_id": USER_ID}, [], (PHONE, USER)),
    ("the id from the contact", {}, [CONTACT], (PHONE, USER)),
    ("no number shown", {"from": None, "from_user_id": USER_ID}, [], (USER,)),
    ("no number shown, the id only in the contact", {"from": None}, [{"user_id": USER_ID}], (USER,)),
    (
        "of two contacts the one who wrote",
        {"from": None, "from_user_id": "US.2"},
        [CONTACT, {"user_id": "US.2"}],
        (Claim("wa_user_id", "US.2", Proof.CHANNEL),),
    ),
    (
        "another contact's id is not lent",
        {"from": "15550001111"},
        [CONTACT, {"wa_id": "1"}],
        (Claim("phone", "+15550001111", Proof.CHANNEL),),
    ),
    (
        "another contact's number is not lent",
        {"from": None, "from_user_id": "US.2"},
        [CONTACT],
        (Claim("wa_user_id", "US.2", Proof.CHANNEL),),
    ),
]


@pytest.mark.parametrize(("why", "more", "contacts", "claims"), WHO, ids=[why for why, *_ in WHO])
def test_a_sender_is_known_by_number_and_user_id(why: str, more: dict[str, Any], contacts: list[Any], claims: tuple[Claim, ...]) -> None:
    assert one(message(said={"body": "hi"}, **more), contacts=contacts).claims == claims


def test_a_number_given_when_asked_is_claimed_and_a_forwarded_one_is_nothing() -> None:
    card = [{"phones": [{"phone": "+1 (555) 000-1111"}]}]
    shown = message("contacts", card, origin="contact_request", from_user_id=USER_ID, **{"from": None})
    assert one(shown).claims == (USER, Claim("phone", "+15550001111", Proof.CLAIMED))
    assert one(shown | {"origin": "other"}).claims == (USER,)


def test_our_own_number_is_an_echo() -> None:
    assert isinstance(one(message(**{"from": "972123456789"})), Ignored)


# --- kinds beyond the samples ---

FORM = {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": '{"flow_token":"t","size":"M","tags":["a"]}'}}

KINDS: list[tuple[str, dict[str, Any], str]] = [
    ("a flow's answers", message("interactive", FORM), 'Form: Sent\nsize: M\ntags: ["a"]'),
    ("a broken flow", message("interactive", {"type": "nfm_reply", "nfm_reply": {"name": "flow", "response_json": "{"}}), "Form: flow"),
    (
        "a call permission",
        message("interactive", {"type": "call_permission_reply", "call_permission_reply": {"response": "accept"}}),
        "(answered whether we may call: accept)",
    ),
    ("a button without a text", message("button", {"payload": "YES"}), "YES"),
    ("vanishing", message("ephemeral"), "(a message that disappears, which WhatsApp does not hand over)"),
    ("in a group", message(said={"body": "hi"}, group_id="g"), "hi\n(written in a WhatsApp group)"),
    (
        "about an article",
        message(said={"body": "hi"}, context={"referred_product": {"product_retailer_id": "S-1"}}),
        "hi\n(They ask about the article S-1)",
    ),
    ("a kind nobody knows", message("hologram", {"x": 1}), "(a WhatsApp message of the kind “hologram” whose content did not come along)"),
    ("no kind", message("unknown", errors=[{"code": 131051}]), "(a kind of message WhatsApp does not hand over)"),
    ("gone", message("unsupported", errors=[{"code": 131060}]), "(a message that is not available at WhatsApp: ask them to send it again)"),
    ("an empty text", message(said={"body": ""}), "(an empty message)"),
    ("half a surrogate pair and NUL", message(said={"body": "a\ud83d\x00b"}), "ab"),
    ("a place off the map", message("location", {"latitude": 1e400, "longitude": 2, "name": "Nowhere"}), "Location: Nowhere, inf, 2"),
    (
        "media without an id",
        message("image", {"mime_type": "image/png"}),
        "(a WhatsApp message of the kind “image” whose content did not come along)",
    ),
]


@pytest.mark.parametrize(("why", "sent", "text"), KINDS, ids=[why for why, *_ in KINDS])
def test_each_kind_of_message_can_be_read(why: str, sent: dict[str, Any], text: str) -> None:
    assert one(sent).text == text


def test_a_file_keeps_no_path_in_its_name_and_no_address_but_its_id() -> None:
    [file] = one(
        message("document", {"id": "5", "filename": "../../etc/pass\\wd.pdf", "mime_type": "Application/PDF; x=1", "url": "http://evil/"})
    ).attachments
    assert (file.name, file.content_type, file.url) == ("wd.pdf", "application/pdf", "media:5")
    assert not one(message("image", {"id": "5/../me?x="})).attachments


def test_a_contact_is_a_vcard_of_its_own() -> None:
    plain, given = [
        {"name": {"formatted_name": "A; B"}, "phones": [{"phone": "1"}], "emails": [{"email": "a@b.c"}]},
        {"vcard": "BEGIN:VCARD\nX"},
    ]
    [made, theirs] = one(message("contacts", [plain, given])).attachments
    assert made.name == "A B.vcf"
    assert b"FN:A\\; B\r\nTEL:1\r\nEMAIL:a@b.c\r\nEND:VCARD" in made.data
    assert theirs.data == b"BEGIN:VCARD\nX"


def test_an_edit_and_a_deletion_name_their_message() -> None:
    edit = one(message("edit", {"original_message_id": "wamid.O", "message": {"type": "text", "text": {"body": "new"}}}))
    caption = one(message("edit", {"original_message_id": "wamid.O", "message": {"type": "image", "image": {"caption": "new"}}}))
    gone = one(message("revoke", {"original_message_id": "wamid.O"}))
    assert [(item.what, item.about, item.text) for item in (edit, caption, gone)] == [
        ("edit", "wamid.O", "new"),
        ("edit", "wamid.O", "new"),
        ("deletion", "wamid.O", ""),
    ]
    assert isinstance(one(message("revoke", {})), Ignored), "a deletion of nothing"
    assert isinstance(one(message("request_welcome")), Ignored)


# --- notices ---

NEW = Claim("wa_user_id", "US.2", Proof.CHANNEL)
NUMBER = Claim("phone", "+15557654321", Proof.CHANNEL)

NOTICES: list[tuple[str, dict[str, Any], tuple[Claim, ...], tuple[Claim, ...]]] = [
    ("a new number", {"type": "user_changed_number", "wa_id": "15557654321"}, (PHONE,), (NUMBER,)),
    ("a new number and id", {"type": "user_changed_number", "wa_id": "15557654321", "user_id": "US.2"}, (PHONE,), (NUMBER, NEW)),
    (
        "both known",
        {"type": "user_changed_number", "wa_id": "15557654321", "user_id": "US.2", "previous_user_id": USER_ID},
        (PHONE, USER),
        (NUMBER, NEW),
    ),
    ("an id, by its field", {"type": "user_changed_user_id", "user_id": "US.2", "previous_user_id": USER_ID}, (USER,), (NEW,)),
    (
        "an id, by the sentence",
        {"type": "user_changed_user_id", "user_id": "US.2", "body": f"User X changed from {USER_ID} to US.2"},
        (USER,),
        (NEW,),
    ),
    (
        "a name that plays the sentence",
        {"type": "user_changed_user_id", "user_id": "US.2", "body": f"User changed from US.VICTIM to US.2 changed from {USER_ID} to US.2"},
        (USER,),
        (NEW,),
    ),
    ("another holder perhaps", {"type": "customer_identity_changed", "customer": "972987654321"}, (PHONE,), ()),
]


@pytest.mark.parametrize(("why", "system", "previous", "present"), NOTICES, ids=[why for why, *_ in NOTICES])
def test_a_change_of_number_or_id_links_the_old_to_the_new(why: str, system: dict[str, Any], previous: Any, present: Any) -> None:
    said = one(message("system", system))
    assert isinstance(said, HolderChanged)
    assert (said.previous, said.present) == (previous, present)


def test_a_new_user_id_told_twice_is_one_notice() -> None:
    [told] = parse(hook(field="user_id_update", user_id_update=[{"wa_id": "1", "user_id": {"previous": USER_ID, "current": "US.2"}}]))
    system = one(message("system", {"type": "user_changed_user_id", "user_id": "US.2", "previous_user_id": USER_ID}))
    assert told == system


@pytest.mark.parametrize(
    "system",
    [{"type": "user_changed_user_id", "user_id": "US.2", "body": "User changed"}, {"type": "user_changed_number"}, {"type": "news"}, "x"],
    ids=str,
)
def test_a_notice_that_links_nothing_changes_nothing(system: Any) -> None:
    assert isinstance(one(message("system", system)), Ignored)


@pytest.mark.parametrize(("value", "opts"), [("stop", "out"), ("resume", "in")])
def test_a_marketing_preference_is_consent(value: str, opts: str) -> None:
    told = {"wa_id": "972987654321", "detail": "User requested it", "category": "marketing_messages", "value": value, "timestamp": 1}
    [said] = parse(hook(field="user_preferences", user_preferences=[told], contacts=[CONTACT]))
    assert isinstance(said, ConsentChanged)
    assert (said.opts, said.claims, said.words) == (opts, (PHONE, USER), "User requested it")
    [again] = parse(hook(field="user_preferences", user_preferences=[told | {"timestamp": 2}], contacts=[CONTACT]))
    assert again.provider_key != said.provider_key, "said again later it is said anew"
    [other] = parse(hook(field="user_preferences", user_preferences=[told | {"category": "calls"}]))
    assert isinstance(other, Ignored)


# --- statuses ---


def status(**more: Any) -> Any:
    return one(statuses=[{"id": "wamid.A", "status": "failed", "recipient_id": "972987654321"} | more])


def test_a_status_finds_its_delivery_and_whom_it_was_addressed_to() -> None:
    said = status(status="sent", biz_opaque_callback_data="delivery=7 to=US.2")
    assert (said.delivery_id, said.recipient, said.provider_message_id) == (7, "US.2", "wamid.A")
    assert status(status="sent", biz_opaque_callback_data="somebody else's").delivery_id is None
    assert status(recipient_user_id=USER_ID).recipient == "", "which of the two it was addressed to is not told"
    assert status(recipient_id=None, recipient_user_id=USER_ID).recipient == USER_ID


@pytest.mark.parametrize("code", [*ERRORS, "999999", ""])
def test_a_failure_is_told_in_words_with_its_code(code: str) -> None:
    said = status(errors=[{"code": int(code), "title": "T", "error_data": {"details": "D"}}] if code else [])
    assert said.status is MessageStatus.FAILED
    assert said.error.startswith(ERRORS.get(code) or ("D" if code else "Meta gave no reason"))
    assert f"(Meta error {code})" in said.error or not code


def test_a_customer_who_stopped_marketing_is_told_as_such() -> None:
    assert status(errors=[{"code": 131050}]).event is DeliveryEvent.UNSUBSCRIBED
    assert status(errors=[{"code": 131026}]).event is DeliveryEvent.BOUNCED
    assert isinstance(status(status="warning"), Ignored)


# --- who posts ---


def test_only_what_the_app_secret_signed_is_believed() -> None:
    body = json.dumps(hook(message(said={"body": "é"}))).encode()
    good = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    cases = {
        Verdict.GOOD: request(body, x_hub_signature_256=good),
        Verdict.UNSIGNED: request(body),
        Verdict.BAD: request(body + b" ", x_hub_signature_256=good),
    }
    for verdict, asked in cases.items():
        assert channel().verify(asked, 0.0) is verdict
    for wrong in (good[:-1], good.removeprefix("sha256="), "sha1=" + good[7:], "sha256=\udcff", "sha256=", "é"):
        assert channel().verify(request(body, x_hub_signature_256=wrong), 0.0) is not Verdict.GOOD
    assert channel(app_secret="").verify(request(body, x_hub_signature_256=good), 0.0) is Verdict.NO_KEY


ASKED = {"hub.mode": "subscribe", "hub.verify_token": "our-word", "hub.challenge": "1158201444"}


def ask(method: str = "GET", more: dict[str, str] | None = None, **settings: Any) -> Any:
    return channel(**settings).challenge(Request(method, f"{URL}?{urlencode(ASKED | (more or {}))}", {}, b""))


def test_metas_question_is_answered_to_who_knows_the_word() -> None:
    assert (ask().status, ask().body, ask().content_type) == (200, "1158201444", "text/plain")
    for wrong in (
        {"hub.verify_token": "guess"},
        {"hub.verify_token": ""},
        {"hub.mode": "x"},
        {"hub.challenge": "\n"},
        {"hub.verify_token": "é"},
    ):
        assert ask(more=wrong).status == 403
    assert ask("POST").status == 403
    unset = ask(more={"hub.verify_token": ""}, verify_token="")
    assert unset.status == 403
    assert "verify_token" in unset.body, "no word set is no word to guess"


def test_it_is_registered_and_keeps_its_promises() -> None:
    assert load(CHANNELS["whatsapp_cloud"]) is WhatsAppCloud
    made = channel()
    assert all(isinstance(made, what) for what in (Channel, Challenged, KnowsTemplates, ShowsPresence))
    assert set(made.can) == set(ABILITIES)
    assert (not made.can["recovers"], not made.can["finds"]) == (isinstance(made, Recovers), isinstance(made, Finds))
    assert made.to_paste()[0][1] == URL
    assert SECRET not in repr(made.settings)


# --- hostile input ---


def test_nesting_of_any_depth_is_read_or_unparseable() -> None:
    for depth in (10, 300, *range(900, 1_001, 10), 5_000):
        for kind in ("account_update", "messages"):
            body = json.dumps(hook(message(), field=kind, deep=0)).replace('"deep": 0', f'"deep": {"[" * depth}{"]" * depth}')
            if depth == 10:
                assert channel().parse(request(body.encode()))
            else:
                with suppress(Unparseable):
                    channel().parse(request(body.encode()))


_WORDS = st.sampled_from(
    [
        *("messages", "statuses", "errors", "contacts", "type", "id", "from", "body", "context", "referral", "order", "nfm_reply"),
        *("text", "image", "reaction", "edit", "revoke", "location", "button", "interactive", "system", "message", "phones", "name"),
        *("user_changed_number", "user_changed_user_id", "user_id", "wa_id", "status", "sent", "failed", "stop", USER_ID),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
_MESSAGE = st.builds(
    lambda kind, said, more: {"from": "15550001111", "id": "wamid.1", "type": kind, kind: said} | more,
    st.sampled_from(["text", "image", "document", "location", "contacts", "interactive", "button", "order", "sticker"])
    | st.sampled_from(["reaction", "edit", "revoke", "system", "unsupported", "request_welcome"]),
    _JSON,
    st.dictionaries(_WORDS, _JSON, max_size=3),
)


def _reads(told: Any) -> None:
    body = json.dumps(told).encode()
    try:
        said = channel().parse(request(body))
    except Unparseable:
        return
    assert [item.provider_key for item in said] == [item.provider_key for item in channel().parse(request(body))]
    for item in said:
        assert item.provider_key
        item.provider_key.encode()
        if isinstance(item, InboundMessage):
            item.text.encode()
            assert item.text or item.attachments


@settings(max_examples=150, deadline=None)
@given(st.lists(_MESSAGE | _JSON, max_size=3), st.dictionaries(_WORDS, _JSON, max_size=3))
def test_hostile_messages_raise_nothing_but_unparseable(messages: list[Any], more: dict[str, Any]) -> None:
    _reads(hook(**({"messages": messages} | more)))


@settings(max_examples=80, deadline=None)
@given(_JSON, st.sampled_from(["messages", "user_preferences", "user_id_update", "account_update"]))
def test_hostile_webhooks_raise_nothing_but_unparseable(value: Any, field: str) -> None:
    _reads({"object": "whatsapp_business_account", "entry": [{"changes": [{"field": field, "value": value}]}]})
    _reads(hook(field=field, **{field: value, "statuses": value, "contacts": value}))
    _reads({"object": "whatsapp_business_account", "entry": value})


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_hostile_bytes_raise_nothing_but_unparseable(body: bytes) -> None:
    with pytest.raises(Unparseable):
        channel().parse(request(body))
