"""SendGrid Inbound Parse: recorded requests read as an independent implementation reads them, and nothing unproven let in.

The Event Webhook and the API way out: `test_email_sendgrid_out`."""

import base64
import hashlib
import json
from datetime import datetime
from email import message_from_bytes
from email.policy import default

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from connectors.email.sendgrid import SendgridEmail
from connectors.shared.multipart import MAX_PARTS, read_form
from hub.contract import Channel, InboundMessage, Place, Proof, Refused, Request, Unparseable, Verdict
from tests.shared_data import shared

PLACE = Place(name="support", inbound_url="https://hub.example/in/support", key=b"k" * 32)


def channel(**extra) -> SendgridEmail:
    known = {"type": "sendgrid", "address": "support@hub.example", "smtp": {"host": "smtp.hub.example"}}
    return SendgridEmail(SendgridEmail.Settings(**(known | extra)), PLACE)


def form(fields, boundary="xYzZY") -> Request:
    """`fields`: name -> bytes or str, or (filename, content type, bytes)."""
    body = b""
    for name, value in fields.items():
        filename, kind, data = value if isinstance(value, tuple) else (None, "", value)
        head = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"\r\nContent-Type: {kind}' if kind else "")
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + (data.encode() if isinstance(data, str) else data) + b"\r\n"
    return request(body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")


def request(body: bytes, content_type: str, **headers) -> Request:
    return Request("POST", PLACE.inbound_url, {"content-type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


def only(found) -> InboundMessage:
    (message,) = found
    assert isinstance(message, InboundMessage)
    return message


# --- anymail's recordings --------------------------------------------------------------------------------------------


def recordings():
    found = {}
    for case in json.loads(shared("webhooks_anymail", "sendgrid_inbound.json").read_text()):
        sent = case["request"]
        body = base64.b64decode(sent["body_base64"]) if "body_base64" in sent else sent["body"].encode()
        found[case["test"].rpartition(".")[2]] = (request(body, sent["content_type"]), case["events"])
    assert len(found) == 6
    return found


RECORDED = recordings()
# Where we differ on purpose from the result recorded beside the request.
NOBODYS = ("test_attachments", "test_filtered_attachment_filenames")  # without a From: read all the same, and kept aside by the hub
NO_MESSAGE = {
    "test_not_supported_warning": "`email` is empty",
}
FIELDS = {
    ("test_attachments", "text"): "anymail shows the forwarded mail's text as the message's own; the customer did not write it",
    ("test_attachments", "html"): "the same",
    (
        "test_attachments",
        "attachments",
    ): "anymail parses the forwarded mail and writes it anew, one byte longer; ours are the bytes as they came",
}


def normalised(message: InboundMessage, about: dict) -> dict:
    """Our message in the recording's words, for the fields both have."""

    def file(found):
        return (found.content_type, found.name, found.content_id, hashlib.sha256(found.data).hexdigest())

    expected_recipients = [box["addr_spec"] for box in (about["to"] or []) + (about["cc"] or [])]
    return {
        "from": (message.sender_name, message.claims[0].value),
        "recipients": list(message.recipients) if expected_recipients else [],
        "subject": message.subject,
        "text": message.text,
        "html": message.html,
        "message_id": message.message_id,
        "in_reply_to": message.in_reply_to,
        "sent_at": message.sent_at,
        "attachments": [file(found) for found in message.attachments if not found.inline],
        "inlines": [file(found) for found in message.attachments if found.inline],
    }


def recorded(about: dict) -> dict:
    def file(found):
        return (found["content_type"], found["filename"], (found["content_id"] or "").strip("<>"), found["sha256"])

    return {
        "from": (about["from"]["display_name"], about["from"]["addr_spec"]) if about["from"] else None,
        "recipients": [box["addr_spec"] for box in about["to"] + about["cc"]],
        "subject": about["subject"] or "",
        "text": about["text"] or "",
        "html": about["html"] or "",
        "message_id": about["message_id"] or "",
        "in_reply_to": about["in_reply_to"] or "",
        "sent_at": round(datetime.fromisoformat(about["date"]).timestamp() * 1e6) if about["date"] else None,
        "attachments": [file(found) for found in about["attachments"]],
        "inlines": [file(found) for found in about["inlines"]],
    }


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_requests_read_as_anymail_reads_them(name):
    sent, events = RECORDED[name]
    if name in NO_MESSAGE:
        with pytest.raises(Unparseable):
            channel().parse(sent)
        return
    if name in NOBODYS:  # compared below, once somebody sent them
        assert only(channel().parse(sent)).claims == ()
        return
    (about,) = events
    assert normalised(only(channel().parse(sent)), about) == recorded(about)


def test_recorded_attachments_read_as_anymail_reads_them_once_somebody_sent_them():
    """The recording without a From is given one, so that its attachments can be compared all the same."""
    sent, (about,) = RECORDED["test_attachments"]
    mended = sent.body.replace(b'name="headers"\r\n\r\n', b'name="headers"\r\n\r\nFrom: ana@shop.example\r\n', 1)
    assert mended != sent.body
    message = only(channel().parse(request(mended, sent.content_type)))
    ours, theirs = normalised(message, about), recorded(about)
    differing = {field for field in theirs if field != "from" and ours[field] != theirs[field]}
    assert differing == {field for case, field in FIELDS if case == "test_attachments"}
    assert [found[:3] for found in ours["attachments"]] == [found[:3] for found in theirs["attachments"]]
    rewritten = message_from_bytes(message.attachments[2].data, policy=default).as_bytes()
    assert hashlib.sha256(rewritten).hexdigest() == theirs["attachments"][1][3]


def test_recorded_hostile_file_names_leave_the_files_under_harmless_names():
    sent, _ = RECORDED["test_filtered_attachment_filenames"]
    mended = sent.body.replace(b'name="headers"\r\n\r\n', b'name="headers"\r\n\r\nFrom: ana@shop.example\r\n', 1)
    found = only(channel().parse(request(mended, sent.content_type))).attachments
    assert len(found) == 8  # anymail filters their names; the files themselves are kept
    assert {attachment.content_type for attachment in found} == {"text/pdf"}
    assert [attachment.name for attachment in found] == [f"attachment-{number}" for number in range(1, 9)]


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_request_delivered_five_times_has_one_key(name):
    sent, _ = RECORDED[name]
    if name not in NO_MESSAGE:
        assert len({only(channel().parse(sent)).provider_key for _ in range(5)}) == 1


def test_every_truncation_of_a_recorded_request_is_a_message_or_unparseable():
    sent, _ = RECORDED["test_inbound_basics"]
    outcomes = set()
    for end in range(0, len(sent.body), 7):
        try:
            outcomes.add(type(only(channel().parse(request(sent.body[:end], sent.content_type)))))
        except Unparseable:
            outcomes.add(Unparseable)
    assert outcomes == {Unparseable}  # a cut form is never half a mail


# --- Samples of SendGrid's own Python library ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "subject", "text", "attachments", "raw"),
    [
        ("default_data.txt", "Inbound Parse Test Data", "Hello Twilio SendGrid!\n", [], False),
        ("raw_data.txt", "Inbound Parse Test Raw Data", "Hello Twilio SendGrid!\n", [], True),
        (
            "raw_data_with_attachments.txt",
            "Inbound Parse Test Raw Data with Attachment",
            "Hello Twilio SendGrid!\n",
            ["SendGrid.jpg"],
            True,
        ),
    ],
)
def test_the_vendors_samples(file, subject, text, attachments, raw):
    body = shared("webhooks_sendgrid_python", file).read_bytes().replace(b"\n", b"\r\n")  # published with bare LF
    found = only(channel().parse(request(body, "multipart/form-data; boundary=xYzZY")))
    assert (found.subject, found.text, [item.name for item in found.attachments]) == (subject, text, attachments)
    assert found.claims[0].value == "test@example.com"
    # DKIM passed for sendgrid.com, which says nothing about example.com; SPF passed for the envelope sender test@example.com.
    assert found.claims[0].proof is Proof.DMARC
    assert (found.original is not None) is raw
    with pytest.raises(Unparseable):
        channel().parse(request(body.replace(b"\r\n", b"\n"), "multipart/form-data; boundary=xYzZY"))


def test_the_vendors_empty_sample_is_unparseable():
    assert shared("webhooks_sendgrid_python", "default_data_with_attachments.txt").read_bytes() == b""
    with pytest.raises(Unparseable):
        channel().parse(request(b"", "multipart/form-data; boundary=xYzZY"))


def test_no_byte_string_of_any_folder_raises_anything_but_unparseable():
    """Each published file as the whole request, as the `email` field and as the `headers` field."""
    checked, seen = channel(), 0
    for folder in ("mail_cpython", "mail_django_mailbox", "mail_mailman", "mail_salmon", "mail_bounces_flufl", "webhooks_sendgrid_python"):
        for path in sorted(path for path in shared(folder).rglob("*") if path.is_file()):
            data = path.read_bytes()
            bare = request(data, "multipart/form-data; boundary=xYzZY")
            for sent in (bare, form({"email": data}, "other"), form({"headers": data, "text": data, "html": data, "dkim": data}, "other")):
                seen += 1
                try:
                    only(checked.parse(sent))
                except Unparseable:
                    pass
    assert seen == 3 * 178


@pytest.mark.parametrize(("told", "spam"), [("2.5", {"score": 2.5}), ("", {}), ("nan", {}), ("much", {})])
def test_sendgrids_spam_score_is_told(told, spam):
    assert only(channel().parse(form({"headers": HEADERS, "text": "hi", "spam_score": told}))).spam == spam


# --- Both forms ------------------------------------------------------------------------------------------------------

HEADERS = "From: Ana <ana@shop.example>\r\nSubject: Hello\r\nMessage-ID: <1@shop.example>\r\n"


def test_the_envelope_names_the_token_even_when_the_visible_recipients_do_not():
    envelope = json.dumps({"to": ["support+tok-1@hub.example"], "from": "ana@shop.example"})
    assert only(channel().parse(form({"headers": HEADERS, "text": "hi", "envelope": envelope}))).reply_token == "tok-1"


def test_a_null_envelope_sender_marks_a_machine():
    assert only(channel().parse(form({"headers": HEADERS, "text": "hi", "envelope": '{"to":[],"from":""}'}))).automatic
    assert only(channel().parse(form({"headers": HEADERS, "text": "hi", "envelope": "{}"}))).automatic == ""


@pytest.mark.parametrize("broken", ["[]", "{", "null", '{"to":"x","from":3}', "[" * 100_000])
def test_broken_fields_about_the_mail_lose_nothing_of_it(broken):
    fields = {"headers": HEADERS, "text": "hi", "envelope": broken, "charsets": broken, "attachment-info": broken, "content-ids": broken}
    found = only(channel().parse(form(fields | {"attachment1": ("a.txt", "text/plain", b"x")})))
    assert (found.text, [item.name for item in found.attachments]) == ("hi", ["a.txt"])


def test_html_alone_still_has_words():
    found = only(channel().parse(form({"headers": HEADERS, "html": "<p>Hi</p><p>Ana</p>"})))
    assert (found.text, found.html) == ("Hi\n\nAna", "<p>Hi</p><p>Ana</p>")


def test_dmarc_pass_of_our_own_server_proves_without_sendgrids_fields():
    sent = form({"headers": "Authentication-Results: mx.hub.example; dmarc=pass\r\n" + HEADERS, "text": "hi"})
    assert only(channel().parse(sent)).claims[0].proof is Proof.CLAIMED
    assert only(channel(authserv_id="mx.hub.example").parse(sent)).claims[0].proof is Proof.DMARC


def test_an_unsigned_form_proves_nothing_whatever_verdicts_it_brings():
    headers = "Authentication-Results: mx.hub.example; dmarc=pass\r\n" + HEADERS
    sent = form({"headers": headers, "text": "hi", "dkim": "{@shop.example : pass}", "SPF": "pass"})
    anybody = {"allow_unsigned": True, "authserv_id": "mx.hub.example"}
    assert only(channel(**anybody).parse(sent)).claims[0].proof is Proof.CLAIMED
    assert only(channel(**anybody, basic_auth="sg:pass").parse(sent)).claims[0].proof is Proof.DMARC


def test_dmarc_fail_of_our_own_server_outweighs_sendgrids_fields():
    headers = "Authentication-Results: mx.hub.example; dmarc=fail\r\n" + HEADERS
    fields = {"headers": headers, "text": "hi", "dkim": "{@shop.example : pass}"}
    assert only(channel().parse(form(fields))).claims[0].proof is Proof.DMARC  # no id configured: a stranger's text
    found = only(channel(authserv_id="mx.hub.example").parse(form(fields)))
    assert found.claims[0].proof is Proof.CLAIMED
    assert "DMARC fail" in found.doubt


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nhi\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nhi'),
        ("multipart/form-data; boundary=x", b'--xy\r\nContent-Disposition: form-data; name="a"\r\n\r\nhi\r\n--x--'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\n\r\n--x--'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhi\r\n--x--'),
    ],
)
def test_what_is_no_inbound_parse_form_is_unparseable(content_type, body):
    with pytest.raises(Unparseable):
        channel().parse(request(body, content_type))


def test_a_form_keeps_every_byte_of_every_part():
    data = bytes(range(256)) + b"\r\n--xYzZ\r\n\n--xYzZY\r\n\r\n"
    sent = form({"a": b"", "b": ("n.bin", "application/x", data), "c": "ü"})
    empty, part, last = read_form(b"preamble\r\n" + sent.body, 'Multipart/Form-Data; charset=utf-8; boundary="xYzZY"')
    assert (empty.name, empty.data, empty.filename) == ("a", b"", None)
    assert (part.filename, part.content_type, part.data) == ("n.bin", "application/x", data)
    assert (last.name, last.data) == ("c", "ü".encode())


@pytest.mark.parametrize(("count", "readable"), [(MAX_PARTS, True), (MAX_PARTS + 1, False)])
def test_the_number_of_parts_is_capped(count, readable):
    sent = form({f"f{number}": "x" for number in range(count)})
    try:
        assert len(read_form(sent.body, sent.content_type)) == count
        assert readable
    except Unparseable:
        assert not readable


def test_a_million_tiny_parts_are_refused_at_once():
    body = b"--x\r\n\r\n" * 1_000_000
    with pytest.raises(Unparseable):
        read_form(body, "multipart/form-data; boundary=x")


# --- Who may post ----------------------------------------------------------------------------------------------------

KEY = ec.generate_private_key(ec.SECP256R1())
DER = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
PUBLIC = base64.b64encode(DER).decode()


def signed(key=KEY, body=b"body", timestamp="1700000000", **changed) -> Request:
    signature = base64.b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    headers = {"x_twilio_email_event_webhook_signature": signature, "x_twilio_email_event_webhook_timestamp": timestamp}
    return request(changed.pop("sent_body", body), "multipart/form-data; boundary=x", **(headers | changed))


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


OTHER = ec.generate_private_key(ec.SECP256R1())
VERDICTS = [
    # nothing configured
    ({}, signed(), Verdict.NO_KEY),
    ({"allow_unsigned": True}, request(b"", ""), Verdict.GOOD),
    # a key
    ({"verification_key": PUBLIC}, signed(), Verdict.GOOD),
    ({"verification_key": PEM}, signed(), Verdict.GOOD),
    ({"verification_key": PUBLIC}, signed(body=b"\x00\xff\r\n"), Verdict.GOOD),
    ({"verification_key": PUBLIC}, signed(sent_body=b"bodY"), Verdict.BAD),
    ({"verification_key": PUBLIC}, signed(x_twilio_email_event_webhook_timestamp="1700000001"), Verdict.BAD),
    ({"verification_key": PUBLIC}, signed(x_twilio_email_event_webhook_timestamp="é"), Verdict.BAD),
    ({"verification_key": PUBLIC}, signed(OTHER), Verdict.BAD),
    ({"verification_key": PUBLIC}, signed(x_twilio_email_event_webhook_signature="no base64!"), Verdict.BAD),
    ({"verification_key": PUBLIC}, signed(x_twilio_email_event_webhook_signature="AAAA"), Verdict.BAD),
    ({"verification_key": PUBLIC}, signed(x_twilio_email_event_webhook_signature=""), Verdict.UNSIGNED),
    ({"verification_key": PUBLIC, "allow_unsigned": True}, request(b"", ""), Verdict.UNSIGNED),  # a key makes signing required
    # credentials in the webhook's URL
    ({"basic_auth": "sg:pass:word"}, request(b"", "", authorization=basic("sg:pass:word")), Verdict.GOOD),
    ({"basic_auth": "sg:ü"}, request(b"", "", authorization=basic("sg:ü")), Verdict.GOOD),
    ({"basic_auth": "sg:pass"}, request(b"", "", authorization=basic("sg:Pass")), Verdict.BAD),
    ({"basic_auth": "sg:pass"}, request(b"", "", authorization="Basic !"), Verdict.BAD),
    ({"basic_auth": "sg:pass"}, request(b"", "", authorization="Bearer x"), Verdict.UNSIGNED),
    ({"basic_auth": "sg:pass"}, request(b"", ""), Verdict.UNSIGNED),
    # both: both must hold
    ({"verification_key": PUBLIC, "basic_auth": "sg:pass"}, signed(authorization=basic("sg:pass")), Verdict.GOOD),
    ({"verification_key": PUBLIC, "basic_auth": "sg:pass"}, signed(), Verdict.UNSIGNED),
    ({"verification_key": PUBLIC, "basic_auth": "sg:pass"}, signed(OTHER), Verdict.BAD),
    ({"verification_key": PUBLIC, "basic_auth": "sg:pass"}, request(b"", "", authorization=basic("sg:pass")), Verdict.UNSIGNED),
]


@pytest.mark.parametrize(("extra", "sent", "expected"), VERDICTS)
def test_who_may_post(extra, sent, expected):
    assert channel(**extra).verify(sent, 1_700_000_000.0) is expected


def test_every_one_byte_change_of_a_signed_body_is_refused():
    sent = signed(body=b"a signed mail")
    checked = channel(verification_key=PUBLIC)
    for at in range(len(sent.body)):
        body = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert checked.verify(Request(sent.method, sent.url, sent.headers, body), 0) is Verdict.BAD


RSA = base64.b64encode(
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
P384 = base64.b64encode(
    ec.generate_private_key(ec.SECP384R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"verification_key": "nonsense"}, "verification_key"),
        ({"verification_key": RSA}, "P-256"),
        ({"verification_key": P384}, "P-256"),
        ({"event_verification_key": "nonsense"}, "verification_key"),
        ({"smtp": None}, "api_key"),
        ({"base_url": "http://api.sendgrid.com"}, "https"),
        ({"basic_auth": "no-colon"}, "user:password"),
        ({"basic_auth": "user:"}, "user:password"),
        ({"address": "not an address"}, "mailbox"),
        ({"address": ""}, "mailbox"),
        ({"sender_name": "Shop\nBcc: x"}, "one line"),
        ({"smtp": {"host": "smtp.hub.example", "security": "none", "password": "s"}}, "readable over the network"),
        ({"verificaton_key": "x"}, "verificaton_key"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_names_itself(extra, words):
    with pytest.raises(ValidationError, match=words):
        channel(**extra)


def test_it_is_a_channel_as_the_contract_says():
    checked = channel(basic_auth="sg:SECRETWORD", smtp={"host": "smtp.hub.example", "username": "u", "password": "SECRETWORD"})
    assert isinstance(checked, Channel)
    assert "SECRETWORD" not in repr(checked.settings)
    answers = checked.answers
    assert (answers.bad_signature, answers.bad_signature_until_verified, answers.too_big) == (403, 503, 200)


@pytest.mark.parametrize(
    ("host", "sandbox"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("localhost.evil.example", False), ("10.0.0.1", False)],
)
def test_it_knows_whether_it_speaks_to_this_machine(host, sandbox):
    assert channel(smtp={"host": host, "port": 8025}).is_sandbox() is sandbox
    assert not channel(smtp={"host": host}).is_sandbox(), "a mail server beside the hub is a real one"


async def test_there_is_nothing_to_fetch():
    with pytest.raises(Refused):
        await channel().fetch("https://evil.example/x", None)  # type: ignore[arg-type]
