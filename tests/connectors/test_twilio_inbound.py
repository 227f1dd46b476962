"""Law: whatever Twilio posts becomes a message, a delivery update or something named as ignored; else it says why not.

Recorded bodies: ../shared/fixtures/webhooks_twilio (parameter sets of real requests; see SOURCE.txt there).
"""

import json
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from connectors.shared.twilio import TwilioMessaging
from connectors.shared.twilio_words import ERRORS, EVENTS, NEVER, STATUSES
from connectors.twilio_sms import TwilioSms
from connectors.twilio_whatsapp import TwilioWhatsApp
from hub.contract import (
    STATUS_AFTER,
    Attachment,
    Claim,
    DeliveryEvent,
    DeliveryUpdate,
    Ignored,
    Inbound,
    InboundMessage,
    MessageStatus,
    Place,
    Proof,
    Request,
    Unparseable,
    Verdict,
)
from tests.shared_data import shared

FORM = "application/x-www-form-urlencoded"
URL = "https://hub.example/in/twilio"
TOKEN = "0123456789abcdef"
S, E = MessageStatus, DeliveryEvent


def channel(kind: type[TwilioMessaging], address: str = "+15555550100") -> TwilioMessaging:
    settings = kind.Settings(type="twilio", address=address, account_sid="AC1", auth_token=TOKEN)  # type: ignore[call-arg]
    return kind(settings, Place("main", URL, b"k"))  # type: ignore[arg-type]


def posted(body: str | bytes, query: str = "", content_type: str = FORM) -> Request:
    body = body.encode() if isinstance(body, str) else body
    return Request("POST", URL + query, {"content-type": content_type}, body)


def one(kind: type[TwilioMessaging], fields: dict[str, str], query: str = "") -> Inbound:
    [found] = channel(kind).parse(posted(urlencode(fields), query))
    return found


@cache
def bodies() -> dict[str, str]:
    found: dict[str, str] = json.loads(shared("webhooks_twilio", "bodies.json").read_text())
    assert len(found) == 15
    return found


WA = (Claim("phone", "+15555550101", Proof.CHANNEL),)
NL = (Claim("phone", "+31612345678", Proof.CHANNEL),)


def said(
    sid: str, claims: tuple[Claim, ...], text: str, name: str = "", attachments: tuple[Attachment, ...] = (), **more: Any
) -> InboundMessage:
    return InboundMessage(
        provider_key=f"in:{sid}", external_id=sid, claims=claims, text=text, sender_name=name, attachments=attachments, **more
    )


def told(sid: str, word: str, status: MessageStatus, event: DeliveryEvent, recipient: str, error: str = "") -> DeliveryUpdate:
    return DeliveryUpdate(
        provider_key=f"status:{sid}:{word}",
        status=status,
        delivery_id=7,
        provider_message_id=sid,
        error=error,
        event=event,
        recipient=recipient,
    )


MEDIA = "https://api.twilio.com/2010-04-01/Accounts"
RECORDED: dict[str, Inbound] = {
    "whatsapp_text": said("SM892512e202b34d4109b10a3893fa9640", NL, "test"),
    "whatsapp_image": said(
        "MM21151abfaadc1fb79b782f8460862a52",
        NL,
        "",
        attachments=(
            Attachment(
                "image-1.jpg",
                "image/jpeg",
                url=f"{MEDIA}/AC1a03647d811fab342c0ad608e382fab2/Messages/MM21151abfaadc1fb79b782f8460862a52/Media/ME5f0afa2336bd0f73ca553fb5a2e3150bc",
            ),
        ),
    ),
    "whatsapp_location_old": said(
        "SM9c871cd9649aa3829298e153ae6a8123",
        NL,
        "Location: Microsoft, Evert van de Beekstraat 354, Schiphol, North Holland 1118 CZ\n"
        "https://www.google.com/maps/search/?api=1&query=52.303898,4.750026",
    ),
    "whatsapp_location_new": said(
        "SMed5ffcfab3da6bbbccdd8866fe793744",
        WA,
        "Location: 25.018766, -77.39595\nhttps://www.google.com/maps/search/?api=1&query=25.018766,-77.39595",
        "Test User",
    ),
    "whatsapp_reply_quoted": said(
        "SM70cd0bbe75ce4540a2a8d0491f924c02", WA, "Nice", "Test User", quoted_id="MM3c146d6483ab26bddabeeedf9565afea"
    ),
    "whatsapp_contact_vcard": said(
        "MM3d3cd4db06d6f0e7b7d4f7012fd99f06",
        WA,
        "",
        "Test User",
        (Attachment("contact-1.vcf", "text/vcard", url=f"{MEDIA}/AC8b/Messages/MM3d/Media/ME60"),),
    ),
    "whatsapp_text_channelmetadata": said("SMf7cbe2cac02a991278c8c0f33d3e19cf", WA, "hello", "Test User"),
    "whatsapp_button_reply": said(
        "SM8824d91645395b17594d92659b878468",
        (*WA, Claim("wa_user_id", "ID.4566546130240823", Proof.CHANNEL)),
        "Konfirmasi",
        "Test User",
        quoted_id="MM5cc44eecf7dab0d48d4529d0fa4af44d",
    ),
    "whatsapp_status_sent": told("SM0cec4ed334e74bcbb64eb8b6684e9654", "sent", S.SENT, E.SENT, "+31612345678"),
    "whatsapp_status_delivered": told("SMdf55df64a2ff4920bb0748193cfbb640", "delivered", S.DELIVERED, E.DELIVERED, "+31612345678"),
    "whatsapp_status_read": told("SMd5cfa9e002d043c18defc777668b08c1", "read", S.READ, E.READ, "+15555550101"),
    "sms_text_us": said("SMe287d7109a5a925f182f0e07fe5b223b", WA, "Msg"),
    "sms_messaging_service": said("SMef9c491e0c81290ef08e0919e7fd0ed4", WA, "Another test."),
    "sms_stop_optout": said(
        "SM123",
        (Claim("phone", "+15555550123", Proof.CHANNEL),),
        "STOP",
        # the recording names no MediaContentType
        attachments=(Attachment("file-1", "application/octet-stream", url="https://example.com/a.jpg"),),
        opts="out",
    ),
    "sms_status_undelivered": told(
        "SM789",
        "undelivered",
        S.FAILED,
        E.BOUNCED,
        "",
        "The phone could not be reached: switched off, out of coverage, or no longer in service. (Twilio error 30003)",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_bodies_become_what_they_say(name: str) -> None:
    assert set(bodies()) == set(RECORDED)
    kind = TwilioWhatsApp if name.startswith("whatsapp") else TwilioSms
    request = posted(bodies()[name], "?delivery=7")
    assert list(channel(kind).parse(request)) == [RECORDED[name]]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_bodies_signed_by_twilios_library_verify(name: str) -> None:
    body = bodies()[name]
    pairs = parse_qsl(body, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs)
    signature = RequestValidator(TOKEN).compute_signature(URL, dict(pairs))
    hub = channel(TwilioSms)
    good = Request("POST", URL, {"content-type": FORM, "x-twilio-signature": signature}, body.encode())
    assert hub.verify(good, 0.0) is Verdict.GOOD
    assert hub.verify(Request("POST", URL, good.headers, body.encode() + b"&Body=more"), 0.0) is Verdict.BAD


@pytest.mark.parametrize("name", RECORDED)
def test_the_other_channel_refuses_a_foreign_senders_message(name: str) -> None:
    other = TwilioSms if name.startswith("whatsapp") else TwilioWhatsApp
    if isinstance(RECORDED[name], DeliveryUpdate):  # a status names our own message; its sender plays no part
        assert list(channel(other).parse(posted(bodies()[name], "?delivery=7"))) == [RECORDED[name]]
        return
    with pytest.raises(Unparseable, match="webhook point at its own channel"):
        channel(other).parse(posted(bodies()[name]))


SMS_SENDERS = {
    "+15555550101": "phone",
    "+447700900123": "phone",
    "+6834000": "phone",  # Niue: seven digits in all
    "+12345": "sender_word",  # a short code in disguise
    "12345": "sender_word",  # short code
    "262966": "sender_word",
    "AMAZON": "sender_word",
    "Bank 24": "sender_word",
    "+1555555010112345": "sender_word",  # over the 15 digits of E.164
    "+٠١٢٣٤٥٦٧٨٩": "sender_word",  # digits, but not of a phone
}


@pytest.mark.parametrize(("sender", "kind"), SMS_SENDERS.items())
def test_only_a_full_number_is_a_phone(sender: str, kind: str) -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "From": sender, "Body": "hi"})
    assert isinstance(found, InboundMessage)
    assert found.claims == (Claim(kind, sender, Proof.CHANNEL),)


PHONE, BSUID = "phone", "wa_user_id"
WA_SENDERS = {
    # From, ExternalUserId, WaId -> claims, the address to answer first
    "Brazil, as delivered": (("+554188887777", "", "554188887777"), [(PHONE, "+554188887777")]),
    "no plus: the country code is there all the same": (("554188887777", "", ""), [(PHONE, "+554188887777")]),
    "number and user id": (
        ("+15555550101", "whatsapp:US.13491208655302741918", "15555550101"),
        [(PHONE, "+15555550101"), (BSUID, "US.13491208655302741918")],
    ),
    "user id alone": (("US.13491208655302741918", "whatsapp:US.13491208655302741918", ""), [(BSUID, "US.13491208655302741918")]),
    "user id of a group of businesses": (("US.ENT.11815799212886844830", "", ""), [(BSUID, "US.ENT.11815799212886844830")]),
    "user id, number still known": (
        ("BR.1A2B3C", "whatsapp:BR.1A2B3C", "5511988887777"),
        [(BSUID, "BR.1A2B3C"), (PHONE, "+5511988887777")],
    ),
    "WaId repeats the user id": (("BR.1A2B3C", "", "BR.1A2B3C"), [(BSUID, "BR.1A2B3C")]),
    "WaId spells the number differently": (("+5541988887777", "", "554188887777"), [(PHONE, "+5541988887777")]),
}


@pytest.mark.parametrize(("sent", "claims"), WA_SENDERS.values(), ids=WA_SENDERS)
def test_whatsapp_senders_are_numbers_or_user_ids(sent: tuple[str, str, str], claims: list[tuple[str, str]]) -> None:
    address, external, wa_id = sent
    fields = {"MessageSid": "SM1", "From": f"whatsapp:{address}", "Body": "hi", "ExternalUserId": external, "WaId": wa_id}
    found = one(TwilioWhatsApp, fields)
    assert isinstance(found, InboundMessage)
    assert [(claim.kind, claim.value) for claim in found.claims] == claims
    assert {claim.proof for claim in found.claims} == {Proof.CHANNEL}


TEXTS = {
    "plain": ({"Body": "a + b\nüñ €"}, "a + b\nüñ €"),
    "empty": ({"Body": ""}, ""),
    "button without a body": ({"Body": "", "ButtonText": "Yes", "ButtonPayload": "p1"}, "Yes"),
    "button with nothing but its payload": ({"Body": "", "ButtonPayload": "p1"}, "p1"),
    "list choice": ({"Body": "", "ListTitle": "Large", "ListId": "L"}, "Large"),
    "words beside a place": (
        {"Body": "here", "Latitude": "1.5", "Longitude": "-2"},
        "here\nLocation: 1.5, -2\nhttps://www.google.com/maps/search/?api=1&query=1.5,-2",
    ),
    "a place off the earth": ({"Body": "", "Latitude": "91", "Longitude": "0", "Label": "Nowhere"}, "Location: Nowhere, 91, 0"),
    "a place that is no number": ({"Body": "", "Latitude": "nan", "Longitude": "x"}, "Location: nan, x"),
    "a button told only in WhatsApp's context": (
        {"Body": "", "ChannelMetadata": json.dumps({"type": "whatsapp", "data": {"context": {"ButtonText": "Yes", "Odd": 1}}})},
        "Yes",
    ),
    "the fields of the form before those of the context": (
        {"Body": "", "ButtonText": "No", "ChannelMetadata": json.dumps({"data": {"context": {"ButtonText": "Yes"}}})},
        "No",
    ),
    "a context that is none": ({"Body": "hi", "ChannelMetadata": '{"data": []}'}, "hi"),
    "a context that is no JSON": ({"Body": "hi", "ChannelMetadata": "{"}, "hi"),
    "a kind Twilio hands over empty": (
        {"Body": "", "NumMedia": "0", "MessageType": "order"},
        "(a WhatsApp message of the kind \u201corder\u201d, whose content Twilio does not hand over)",
    ),
    "half a place": ({"Body": "", "Latitude": "1.5"}, ""),
    "NUL, which no database takes": ({"Body": "a\x00b", "ProfileName": "x"}, "ab"),
}


@pytest.mark.parametrize(("fields", "text"), TEXTS.values(), ids=TEXTS)
def test_text(fields: dict[str, str], text: str) -> None:
    found = one(TwilioWhatsApp, {"MessageSid": "SM1", "From": "whatsapp:+15555550101", **fields})
    assert isinstance(found, InboundMessage)
    assert found.text == text


def test_every_file_of_a_message_is_kept_and_named() -> None:
    kinds = ["image/png", "audio/ogg; codecs=opus", "video/mp4", "application/pdf", "text/x-vcard", "application/x-odd", "IMAGE/HEIC"]
    fields = {"MessageSid": "MM1", "From": "+15555550101", "Body": "", "NumMedia": "7"}
    fields |= {f"MediaUrl{n}": f"https://api.twilio.com/x/Media/ME{n}" for n in range(7)}
    fields |= {f"MediaContentType{n}": kind for n, kind in enumerate(kinds)}
    found = one(TwilioSms, fields)
    assert isinstance(found, InboundMessage)
    assert [file.name for file in found.attachments] == [
        "image-1.png", "audio-2.ogg", "video-3.mp4", "file-4.pdf", "contact-5.vcf", "file-6", "image-7.heic",
    ]  # fmt: skip
    assert [file.url[-3:] for file in found.attachments] == [f"ME{n}" for n in range(7)]
    assert found.attachments[1].content_type == "audio/ogg"
    assert all(file.data is None for file in found.attachments)


STATUS_WORDS = {
    "accepted": S.QUEUED,
    "scheduled": S.QUEUED,
    "queued": S.QUEUED,
    "sending": S.SENDING,
    "sent": S.SENT,
    "partially_delivered": S.SENT,
    "delivered": S.DELIVERED,
    "read": S.READ,
    "undelivered": S.FAILED,
    "failed": S.FAILED,
    "canceled": S.FAILED,
}


@pytest.mark.parametrize(("word", "status"), STATUS_WORDS.items())
def test_every_status_word_is_ours(word: str, status: MessageStatus) -> None:
    for field in ("MessageStatus", "SmsStatus"):
        found = one(TwilioSms, {"MessageSid": "SM1", field: word})
        assert isinstance(found, DeliveryUpdate)
        assert (found.provider_key, found.status, found.provider_message_id) == (f"status:SM1:{word}", status, "SM1")
        assert (found.error == "") is (status is not S.FAILED)


def test_the_api_descriptions_statuses_are_all_known() -> None:
    schema = json.loads(shared("specs_twilio", "twilio_api_v2010.json").read_text())["components"]["schemas"]["message_enum_status"]
    assert set(schema["enum"]) - set(STATUSES) == {"received", "receiving"}  # said of inbound messages only


def test_the_news_leave_a_message_in_the_state_its_status_says() -> None:
    assert {word: STATUS_AFTER[event] for word, event in EVENTS.items()} == {word: STATUSES[word] for word in EVENTS}


def test_a_status_without_a_word_of_ours_changes_nothing() -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "MessageStatus": "Teleported"})
    assert found == Ignored(provider_key="status:SM1:teleported", reason="a message status we have no word for: teleported")


ERROR_TEXTS = {
    "21610": "opted out",
    "30003": "could not be reached",
    "30005": "unknown or no longer in service",
    "30006": "landline",
    "30007": "filtered",
    "30034": "not registered",
    "63003": "Nobody can be reached",
    "63016": "24 hours",
    "63024": "cannot receive WhatsApp",
}


@pytest.mark.parametrize(("code", "words"), ERROR_TEXTS.items())
def test_known_errors_are_told_in_plain_words_with_their_code(code: str, words: str) -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "MessageStatus": "failed", "ErrorCode": code, "ErrorMessage": "jargon"})
    assert isinstance(found, DeliveryUpdate)
    assert words in found.error
    assert found.error.endswith(f"(Twilio error {code})")
    assert "jargon" not in found.error


@pytest.mark.parametrize(
    ("word", "code", "permanent"),
    [
        ("undelivered", "30005", True),
        ("undelivered", "30006", True),
        ("failed", "21614", True),
        ("failed", "21211", True),
        ("undelivered", "30003", False),  # switched off: tomorrow it may be on
        ("undelivered", "30008", False),
        ("failed", "63024", False),  # no WhatsApp there, which is no reason never to send an SMS
        ("sent", "30005", False),
        ("undelivered", "", False),
    ],
)
def test_only_a_number_that_takes_nothing_is_given_up_for_good(word: str, code: str, permanent: bool) -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "MessageStatus": word, "ErrorCode": code, "To": "+12025550123"})
    assert isinstance(found, DeliveryUpdate)
    assert (found.permanent, found.recipient) == (permanent, "+12025550123")


OTHER_ERRORS = {
    "unknown code, Twilio's text": ({"ErrorCode": "99999", "ErrorMessage": "Odd thing"}, "Odd thing (Twilio error 99999)"),
    "unknown code, no text": ({"ErrorCode": "99999"}, "Twilio gave no reason. (Twilio error 99999)"),
    "no code": ({}, "Twilio gave no reason."),
    "code nought": ({"ErrorCode": "0"}, "Twilio gave no reason."),
}


@pytest.mark.parametrize(("fields", "error"), OTHER_ERRORS.values(), ids=OTHER_ERRORS)
def test_other_errors_fall_back(fields: dict[str, str], error: str) -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "MessageStatus": "failed", **fields})
    assert isinstance(found, DeliveryUpdate)
    assert found.error == error


def test_the_error_table_holds_codes() -> None:
    assert len(ERRORS) > 100
    assert set(ERRORS) >= NEVER
    assert all(code.isdigit() and words.endswith(".") for code, words in ERRORS.items())


DELIVERIES = {
    "?delivery=7": 7,
    "?x=1&delivery=9007199254740993": 9007199254740993,
    "": None,
    "?delivery=": None,
    "?delivery=-7": None,
    "?delivery=7x": None,
    "?delivery=²": None,
    "?delivery=" + "9" * 40: None,
}


@pytest.mark.parametrize(("query", "delivery_id"), DELIVERIES.items())
def test_our_delivery_id_comes_back_in_the_callbacks_query(query: str, delivery_id: int | None) -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "MessageStatus": "sent"}, query)
    assert isinstance(found, DeliveryUpdate)
    assert found.delivery_id == delivery_id


def test_a_message_that_comes_by_the_fallback_is_the_same_message() -> None:
    """https://www.twilio.com/docs/messaging/guides/webhook-request: the fallback is told what was wrong with the first address."""
    fields = {"MessageSid": "SM1", "From": "+15555550101", "To": "+15555550100", "Body": "Hello", "NumMedia": "0", "SmsStatus": "received"}
    late = {"ErrorCode": "11200", "ErrorUrl": "https://hub.example/in/sms"}
    assert one(TwilioSms, fields | late) == one(TwilioSms, fields)
    assert isinstance(one(TwilioSms, fields), InboundMessage)


ECHOES = {
    "from the API": {"Direction": "outbound-api", "From": "+15555550199"},
    "from TwiML": {"Direction": "outbound-reply", "From": "+15555550199"},
    "from our own number": {"From": "+15555550100"},
}


@pytest.mark.parametrize("fields", ECHOES.values(), ids=ECHOES)
def test_echoes_of_our_own_messages_make_no_message(fields: dict[str, str]) -> None:
    found = one(TwilioSms, {"MessageSid": "SM1", "Body": "hi", **fields})
    assert isinstance(found, Ignored)
    assert found.provider_key == "echo:SM1"


def test_an_echo_is_seen_with_the_prefix_in_the_settings_or_without() -> None:
    fields = urlencode({"MessageSid": "SM1", "Body": "hi", "From": "whatsapp:+15555550100"})
    for address in ("+15555550100", "whatsapp:+15555550100"):
        [found] = channel(TwilioWhatsApp, address).parse(posted(fields))
        assert isinstance(found, Ignored)


UNUSABLE = {
    "empty": ("", FORM, "empty"),
    "only ampersands": ("&&&", FORM, "empty"),
    "no sid": ("From=%2B15555550101&Body=hi", FORM, "MessageSid"),
    "sid alone": ("MessageSid=SM1", FORM, "without From and Body"),
    "received, and nothing said": ("MessageSid=SM1&SmsStatus=received", FORM, "without From and Body"),
    "blank sender": ("MessageSid=SM1&From=&Body=hi", FORM, "without From and Body"),
    "JSON of another product": ('{"EventType":"onMessageAdded"}', "application/json", "which product posts here"),
    "a call": ("CallSid=CA1&From=%2B15555550101", FORM, "MessageSid"),
    "Messenger": ("MessageSid=SM1&From=messenger%3A1234567&Body=hi", FORM, "a messenger: address"),
    "too many fields": ("a=1&" * 1_001, FORM, "more than 1000 form fields"),
}


@pytest.mark.parametrize(("body", "content_type", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_the_unusable_is_named(body: str, content_type: str, reason: str) -> None:
    with pytest.raises(Unparseable, match=reason):
        channel(TwilioSms).parse(posted(body, content_type=content_type))


def test_whatsapp_without_an_address_is_no_sender() -> None:
    with pytest.raises(Unparseable, match="without From and Body"):
        channel(TwilioWhatsApp).parse(posted("MessageSid=SM1&From=whatsapp%3A&Body=hi"))


@given(body=st.one_of(st.binary(max_size=80), st.text("&=+%SMFrom:.MessageSid1", max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_named_unusable(body: bytes) -> None:
    for kind in (TwilioSms, TwilioWhatsApp):
        try:
            found = len(channel(kind).parse(posted(body)))
        except Unparseable as error:
            found = 1 if str(error) else 0
        assert found == 1


def test_the_answer_is_empty_twiml_and_a_bad_signature_is_403() -> None:
    answers = TwilioSms.answers
    assert (answers.ok.status, answers.ok.body, answers.ok.content_type) == (200, "<Response/>", "text/xml")
    assert answers.bad_signature == 403
    assert answers.bad_signature_until_verified is None


@pytest.mark.parametrize(
    ("fields", "opts"),
    [
        ({"Body": "STOP"}, "out"),
        ({"Body": " stop "}, "out"),
        ({"Body": "Unsubscribe"}, "out"),
        ({"Body": "arrêt", "OptOutType": "STOP"}, "out"),  # words of the account's own, judged by Twilio
        ({"Body": "arrêt."}, "out"),
        ({"Body": "opt out"}, "out"),
        ({"Body": "START"}, "in"),
        ({"Body": "Yes"}, "in"),  # which lifts Twilio's own block
        ({"Body": "STOP", "OptOutType": "HELP"}, ""),  # Twilio's judgement comes first
        ({"Body": "HELP"}, ""),  # opens a ticket like any message
        ({"Body": "Please stop calling"}, ""),  # free text is for people to read
        ({"Body": "HELP", "OptOutType": "HELP"}, ""),
        ({"Body": "Non-stop"}, ""),
    ],
)
def test_the_words_twilio_stops_for_are_heeded_as_whole_messages(fields: dict[str, str], opts: str) -> None:
    posted_by = {"MessageSid": "SM1", "From": "+12025550123", "To": "+15550100002", "AccountSid": "AC1", **fields}
    [found] = channel(TwilioSms, "+15550100002").parse(posted(urlencode(posted_by)))
    assert isinstance(found, InboundMessage)
    assert found.opts == opts
