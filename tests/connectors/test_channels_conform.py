"""Law: every registered channel keeps what `channel_conformance` asks of a channel. Each class tells how its provider speaks."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import connectors
from connectors import CHANNELS
from connectors.email.taken_in import SIGNATURE as TAKEN_IN
from connectors.email.taken_in import request_of
from connectors.shared.signatures import twilio_signature
from hub.contract import Place, Request, Verdict
from tests.connectors import amazon_messages as amazon
from tests.connectors.channel_conformance import NOW, PNG, TEMPTATIONS, URL, ChannelConformance

PLACE = Place("main", URL, b"k" * 32)
ODD = "test_an_authentic_body_with_one_thing_odd_is_unparseable_at_most"
FORM = "application/x-www-form-urlencoded"
MADE_UP = "a-made-up-secret-0123456789"


def test_every_registered_channel_is_held_to_the_laws():
    ours = [one for one in globals().values() if isinstance(one, type) and one.__module__ == __name__]
    held = {one.type for one in ours if issubclass(one, ChannelConformance) and hasattr(one, "type")}
    assert held == set(CHANNELS), "add a class for the new channel: connectors/ADDING.md says how"


# --- The example of connectors/ADDING.md -----------------------------------------------------------------------------

ADDING = Path(connectors.__file__).parent / "ADDING.md"
EXAMPLE, ITS_CLASS = re.findall(r"^```python\n(.*?)^```", ADDING.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@cache
def example() -> ModuleType:
    """The document's connector, as the module it would be."""
    made = ModuleType("connectors.acme_sms")
    sys.modules[made.__name__] = made  # where pydantic looks up the names of annotations
    exec(compile(EXAMPLE, str(ADDING), "exec"), made.__dict__)
    return made


def documented() -> type[ChannelConformance]:
    """The document's test class, as it would stand in this file."""
    names: dict[str, Any] = {**globals(), "__name__": "connectors.ADDING"}
    exec(compile(ITS_CLASS, str(ADDING), "exec"), names)
    made: type[ChannelConformance] = names["TestAcmeSms"]
    return made


class TestTheExampleOfTheDocument(documented()):
    __module__ = "connectors.ADDING"

    def load(self) -> Any:
        return example().AcmeSms

    def test_it_imports_what_a_connector_may(self) -> None:
        modules = {one.module or "" for one in ast.walk(ast.parse(EXAMPLE)) if isinstance(one, ast.ImportFrom)}
        ours = {name for name in modules if name.partition(".")[0] in ("hub", "connectors")}
        assert ours == {"hub.contract", "connectors.shared.loopback", "connectors.shared.retry_after"}

    def test_the_document_names_files_that_are_there(self) -> None:
        named = re.findall(r"`((?:hub|connectors|tests|docs)/[\w/.]+)`", ADDING.read_text(encoding="utf-8"))
        assert len(named) > 8
        assert [name for name in named if not (ADDING.parents[1] / name).exists()] == []


# What would be wrong with the example, and the law (a test's name and its arguments) that must notice.
WRONG: dict[str, tuple[str, str, str, tuple[Any, ...]]] = {
    "a lost answer is sent again blindly": (
        "idempotent: ClassVar[bool] = True",
        "idempotent: ClassVar[bool] = False",
        "what_became",
        ("lost",),
    ),
    "too fast is given up": ("answer.status == 429 or ", "", "what_became", ("busy",)),
    "the wait asked for is not told": (", retry_after(answer.headers))", ")", "what_became", ("busy",)),
    "a refusal is tried for ever": ("raise Refused(f", "raise TryLater(f", "what_became", ("refuses",)),
    "each try is another message": ('key = f"', 'import time; key = f"{time.perf_counter_ns()}', "under_the_same_key", ()),
    "all are the same message": ("-{message.delivery_id}", "", "under_the_same_key", ()),
    "any signature will do": ("if hmac.compare_digest(given", "if given or (given", "only_an_authentic", ()),
    "a wrong signature counts as none": ("else Verdict.BAD", "else Verdict.UNSIGNED", "only_an_authentic", ()),
    "without a key all is good": ("else Verdict.NO_KEY", "else Verdict.GOOD", "without_a_key", ()),
    "an odd signature breaks it": ('errors="replace"', '"ascii"', "an_odd_credential", ("\udcff",)),
    "deep nesting breaks it": ("(ValueError, RecursionError)", "ValueError", "a_hostile_body", ("deep lists",)),
    "a list instead of an object breaks it": (" if isinstance(of, dict) else None", "", "one_thing_odd", ()),
    "a number instead of a text goes through": (' if isinstance(value, str) else ""', "", "one_thing_odd", ()),
    "every delivery is another message": (
        'provider_key=f"in:{sid}"',
        "provider_key=f\"in:{id(told)}:{sid}{__import__('secrets').token_hex()}\"",
        "five_times",
        (),
    ),
    "the same words are the same message": ('f"in:{sid}"', "_word(told, 'text')", "five_times", ()),
    "the text is cut": ('_word(told, "text"))', '_word(told, "text")[:100])', "text_comes_in", ("long",)),
    "it says it can and cannot": ('"recovers": "Acme keeps no list of messages"', '"recovers": ""', "can_be_asked", ("recovers",)),
    "it can and says it cannot": ('"delivered": ""', '"delivered": "no"', "what_it_says_it_takes", ("delivered",)),
    "it says it reads and does not": ('"read": "SMS knows no receipts for reading"', '"read": ""', "what_it_says_it_takes", ("read",)),
    "an ability is forgotten": ('"quotes": "SMS has none", ', "", "says_of_each_ability", ()),
    "it says it quotes and does not": ('"quotes": "SMS has none"', '"quotes": ""', "names_what_it_answers", ()),
    "files are dropped without a word": ("if message.attachments:", "if False:", "files_go_out", ()),
    "it takes a stand-in for the real one": ("return is_loopback_url(self.settings.base_url)", "return False", "a_stand_in", ()),
    "the key is logged": (
        "headers = {",
        '__import__("logging").info("%s", self.settings.api_key.get_secret_value()); headers = {',
        "no_secret_is_in_an_error",
        (),
    ),
    "an error tells the key": ('raise TryLater(f"Acme is busy', 'raise TryLater(f"{headers} Acme is busy', "no_secret_is_in_an_error", ()),
    "it fetches from anywhere": (
        'raise Refused("Not fetched: Acme carries no files.")',
        'await http.request("GET", url, headers={"Authorization": "x"}); raise Refused("x")',
        "credentials_go",
        (TEMPTATIONS[0],),
    ),
}


async def broken_law(source: str, law: str, arguments: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> BaseException | None:
    """What one law has against a connector; None where it keeps it."""
    made = ModuleType("connectors.acme_wrong")
    sys.modules[made.__name__] = made
    try:
        exec(compile(source, str(ADDING), "exec"), made.__dict__)
        held = documented()()
        held.load = lambda: made.AcmeSms  # type: ignore[method-assign]
        [name] = [name for name in dir(held) if name.startswith("test_") and law in name]
        found = getattr(held, name)(*((caplog,) if law.startswith("no_secret_is_in_an_error") else arguments))
        if inspect.isawaitable(found):
            await found
    except (Exception, pytest.fail.Exception) as error:
        return error
    finally:
        del sys.modules[made.__name__]
    return None


@pytest.mark.parametrize("fault", WRONG)
async def test_each_law_notices_its_breach(fault, caplog):
    right, wrong, law, arguments = WRONG[fault]
    assert right in EXAMPLE, "the example has changed: mend this table"
    assert await broken_law(EXAMPLE, law, arguments, caplog) is None
    assert await broken_law(EXAMPLE.replace(right, wrong), law, arguments, caplog) is not None


def basic(pair: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def posted_json(body: Any, **headers: str) -> Request:
    return Request("POST", URL, {"content-type": "application/json", **headers}, json.dumps(body).encode())


# --- Messengers ------------------------------------------------------------------------------------------------------


class TestWebChat(ChannelConformance):
    type = "webchat"
    settings: ClassVar = {"site": "shop"}
    keyless = "its key is derived from the hub's own secret"
    credentials = ("authorization",)
    signs_body = False  # the token says who speaks; the connection is theirs

    def post(self, **body: Any) -> Request:
        return posted_json(body, authorization="Bearer " + self.channel().issue("device-1234", NOW))

    def inbound(self, text: str, number: int = 1) -> Request:
        return self.post(id=f"message-{number:04}", text=text)

    def shown(self) -> Mapping[str, Request]:
        file = {"name": "a.png", "type": "image/png", "data": base64.b64encode(PNG).decode()}
        return {
            "files_in": self.post(id="message-9999", text="", files=[file]),
            "delivered": self.post(type="delivered", refs=["chat-abcdefgh"]),
            "read": self.post(type="read", refs=["chat-abcdefgh"]),
        }


class TwilioConformance(ChannelConformance):
    settings: ClassVar = {"address": "+15550100001", "account_sid": "AC" + "a" * 32, "auth_token": MADE_UP}
    keyless: ClassVar = {"auth_token": ""}
    credentials = ("x-twilio-signature",)
    hosts = ("api.twilio.com",)
    takes = (201, json.dumps({"sid": "SM" + "1" * 32, "status": "queued"}).encode())
    prefix = ""

    def post(self, sid: str, **form: str) -> Request:
        fields = {"MessageSid": sid, "From": self.prefix + self.customer, "To": self.prefix + "+15550100001", "AccountSid": "AC", **form}
        signature = twilio_signature(MADE_UP.encode(), URL, tuple(fields.items()))
        return Request("POST", URL, {"content-type": FORM, "x-twilio-signature": signature}, urlencode(fields).encode())

    def inbound(self, text: str, number: int = 1) -> Request:
        return self.post(f"SM{number:032}", Body=text, NumMedia="0")

    def shown(self) -> Mapping[str, Request]:
        media = f"https://api.twilio.com/2010-04-01/Accounts/AC{'a' * 32}/Messages/MM{9:032}/Media/ME{9:032}"
        return {
            "files_in": self.post(f"MM{9:032}", Body="", NumMedia="1", MediaUrl0=media, MediaContentType0="image/png"),
            "delivered": self.post(f"SM{8:032}", MessageStatus="delivered"),
        }


class TestTwilioSms(TwilioConformance):
    type = "twilio_sms"


class TestTwilioWhatsApp(TwilioConformance):
    type = "twilio_whatsapp"
    prefix = "whatsapp:"

    def shown(self) -> Mapping[str, Request]:
        return {**super().shown(), "read": self.post(f"SM{8:032}", MessageStatus="read")}


class TestTelnyxSms(ChannelConformance):
    type = "telnyx_sms"
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    settings: ClassVar = {
        "address": "+15555550100",
        "api_key": MADE_UP,
        "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
    }
    keyless: ClassVar = {"public_key": ""}
    credentials = ("telnyx-signature-ed25519",)
    hosts = ("api.telnyx.com",)
    takes = (200, json.dumps({"data": {"id": "b0c7e8cb-6227-4c74-9f32-c7f80c30934b"}}).encode())

    def post(self, event: str, sid: str, **payload: Any) -> Request:
        known = {
            "id": sid,
            "direction": "inbound",
            "type": "SMS",
            "from": {"phone_number": self.customer},
            "to": [{"phone_number": "+15555550100"}],
        }
        body = json.dumps({"data": {"event_type": event, "payload": known | payload}}).encode()
        signature = base64.b64encode(self.key.sign(f"{int(NOW)}|".encode() + body)).decode()
        return Request("POST", URL, {"telnyx-signature-ed25519": signature, "telnyx-timestamp": str(int(NOW))}, body)

    def inbound(self, text: str, number: int = 1) -> Request:
        return self.post("message.received", f"id-{number}", text=text, received_at="2026-11-20T10:00:00.500+00:00", media=[])

    def shown(self) -> Mapping[str, Request]:
        media = [{"url": "https://media.telnyx.com/a.png", "content_type": "image/png"}]
        to = [{"phone_number": self.customer, "status": "delivered"}]
        return {
            "files_in": self.post("message.received", "id-9", type="MMS", text="", media=media),
            "delivered": self.post("message.finalized", "id-8", direction="outbound", to=to, errors=[]),
        }


class TestWhatsAppCloud(ChannelConformance):
    type = "whatsapp_cloud"
    settings: ClassVar = {"phone_number_id": "1122334455667", "waba_id": "77", "access_token": MADE_UP, "app_secret": MADE_UP[::-1]}
    keyless: ClassVar = {"app_secret": ""}
    credentials = ("x-hub-signature-256",)
    hosts = ("graph.facebook.com", "lookaside.fbsbx.com")
    takes = (200, json.dumps({"messaging_product": "whatsapp", "messages": [{"id": "wamid.SENT"}]}).encode())

    def post(self, **value: Any) -> Request:
        told = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550100001", "phone_number_id": "1122334455667"},
            **value,
        }
        entry = {"id": "77", "changes": [{"field": "messages", "value": told}]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        signed = hmac.new(MADE_UP[::-1].encode(), body, hashlib.sha256).hexdigest()
        return Request("POST", URL, {"content-type": "application/json", "x-hub-signature-256": f"sha256={signed}"}, body)

    def said(self, number: int, kind: str, content: Any, **more: Any) -> Request:
        contact = {"profile": {"name": "Ana"}, "wa_id": "12025550123"}
        one = {"from": "12025550123", "id": f"wamid.{number}", "timestamp": "1790000000", "type": kind, kind: content, **more}
        return self.post(contacts=[contact], messages=[one])

    def inbound(self, text: str, number: int = 1) -> Request:
        return self.said(number, "text", {"body": text})

    def status(self, word: str) -> Request:
        return self.post(statuses=[{"id": "wamid.SENT", "status": word, "timestamp": "1790000000", "recipient_id": "12025550123"}])

    def shown(self) -> Mapping[str, Request]:
        return {
            "files_in": self.said(9, "image", {"id": "1234567890", "mime_type": "image/png", "sha256": "x", "caption": "here"}),
            "delivered": self.status("delivered"),
            "read": self.status("read"),
            "reactions": self.said(8, "reaction", {"message_id": "wamid.SENT", "emoji": "\N{THUMBS UP SIGN}"}),
            "edits": self.said(7, "revoke", {"original_message_id": "wamid.1"}),
        }


# --- E-mail ----------------------------------------------------------------------------------------------------------


class MailConformance(ChannelConformance):
    settings: ClassVar = {"address": "support@hub.example", "smtp": {"host": "smtp.hub.example", "username": "hub", "password": MADE_UP}}
    customer = "ana@shop.example"
    by_smtp = True

    def mail(self, text: str, number: int = 1, *, file: bool = False) -> bytes:
        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = f"Ana <{self.customer}>", "support@hub.example", "My order"
        made["Message-ID"], made["Date"] = f"<{number}@shop.example>", "Fri, 20 Nov 2026 10:00:00 +0000"
        made.set_content(text, cte="base64")
        if file:
            made.add_attachment(PNG, maintype="image", subtype="png", filename="a.png")
        return made.as_bytes()

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        """The mail as the provider posts it."""
        raise NotImplementedError

    def delivered(self) -> Request | None:
        """News that a mail of ours has arrived."""
        return None

    def inbound(self, text: str, number: int = 1) -> Request:
        return self.wrapped(self.mail(text, number), number)

    def shown(self) -> Mapping[str, Request]:
        news = self.delivered()
        return {"files_in": self.wrapped(self.mail("see here", 9, file=True), 9), **({} if news is None else {"delivered": news})}


class TestMime(MailConformance):
    type = "mime"
    settings: ClassVar = {**MailConformance.settings, "password": MADE_UP}
    keyless: ClassVar = {"password": ""}
    credentials = ("authorization",)
    signs_body = False

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        return Request("POST", URL, {"content-type": "message/rfc822", **basic(f"hub:{MADE_UP}")}, mail)


class TestSmtpListener(MailConformance):
    type = "smtp_listener"
    keyless = "what it takes in itself is signed with a key derived from the hub's own secret"
    credentials = (TAKEN_IN,)

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        return request_of(PLACE, mail, envelope_from=self.customer, envelope_to=["support@hub.example"])


class TestImap(TestSmtpListener):
    type = "imap"
    settings: ClassVar = {**MailConformance.settings, "imap": {"host": "imap.hub.example", "username": "support", "password": MADE_UP}}


def signing_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(7, ec.SECP256R1())


class TestSendgrid(MailConformance):
    type = "sendgrid"
    verification = base64.b64encode(signing_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    settings: ClassVar = {"address": "support@hub.example", "verification_key": verification, "api_key": MADE_UP}
    keyless: ClassVar = {"verification_key": ""}
    credentials = ("x-twilio-email-event-webhook-signature",)
    hosts = ("api.sendgrid.com",)
    by_smtp = False
    takes = (202, b"")

    def signed(self, body: bytes, content_type: str) -> Request:
        signature = base64.b64encode(signing_key().sign(b"1790000000" + body, ec.ECDSA(hashes.SHA256()))).decode()
        names = ("x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp")
        return Request("POST", URL, {"content-type": content_type, names[0]: signature, names[1]: "1790000000"}, body)

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        body = b'--xx\r\nContent-Disposition: form-data; name="email"\r\n\r\n' + mail + b"\r\n--xx--\r\n"
        return self.signed(body, "multipart/form-data; boundary=xx")

    def delivered(self) -> Request:
        event = {
            "event": "delivered",
            "sg_event_id": "e1",
            "sg_message_id": "m1.recvd-1",
            "email": self.customer,
            "smtp-id": "<7@hub.example>",
        }
        return self.signed(json.dumps([event]).encode(), "application/json")


class TestMailgun(MailConformance):
    type = "mailgun"
    settings: ClassVar = {**MailConformance.settings, "signing_key": MADE_UP}
    keyless: ClassVar = {"signing_key": ""}
    signs_body = False  # only the time and a token are signed, and stand in the form themselves

    def signature(self, number: int) -> dict[str, str]:
        signed = {"timestamp": "1790000000", "token": f"token{number:045}"}
        return signed | {"signature": hmac.new(MADE_UP.encode(), "".join(signed.values()).encode(), hashlib.sha256).hexdigest()}

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        form = {**self.signature(number), "recipient": "support@hub.example", "sender": self.customer, "body-mime": mail.decode()}
        return Request("POST", URL, {"content-type": FORM}, urlencode(form).encode())

    def without_key(self, request: Request) -> Request:
        return replace(request, body=urlencode([pair for pair in parse_qsl(request.body.decode()) if pair[0] != "signature"]).encode())

    def altered_key(self, request: Request) -> Request:
        return replace(request, body=request.body.replace(b"signature=", b"signature=0"))

    def delivered(self) -> Request:
        event = {"event": "delivered", "id": "e1", "recipient": self.customer, "message": {"headers": {"message-id": "7@hub.example"}}}
        return posted_json({"signature": self.signature(8), "event-data": event})


class TestMailerSend(MailConformance):
    type = "mailersend"
    settings: ClassVar = {**MailConformance.settings, "inbound_secret": MADE_UP, "signing_secret": MADE_UP[::-1]}
    keyless: ClassVar = {"inbound_secret": "", "signing_secret": ""}
    credentials = ("signature",)

    def signed(self, told: Any, secret: str) -> Request:
        made = posted_json(told)
        signature = hmac.new(secret.encode(), made.body, hashlib.sha256).hexdigest()
        return replace(made, headers={**made.headers, "signature": signature})

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        recipients = {"rcptTo": [{"email": "support@hub.example"}]}
        data = {"id": f"in{number}", "recipients": recipients, "sender": {"email": self.customer}, "raw": mail.decode()}
        return self.signed({"type": "inbound.message", "data": data}, MADE_UP)

    def delivered(self) -> Request:
        email = {"message": {"id": "m1"}, "recipient": {"email": self.customer}}
        return self.signed({"type": "activity.delivered", "data": {"id": "e1", "type": "delivered", "email": email}}, MADE_UP[::-1])


class TestPostmark(MailConformance):
    type = "postmark"
    settings: ClassVar = {"address": "support@hub.example", "basic_auth": f"hub:{MADE_UP}", "server_token": MADE_UP[::-1]}
    keyless: ClassVar = {"basic_auth": ""}
    credentials = ("authorization",)
    signs_body = False
    by_smtp = False
    takes = (200, json.dumps({"ErrorCode": 0, "Message": "OK", "MessageID": "m1"}).encode())

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        return posted_json({"MessageID": f"in{number}", "From": self.customer, "RawEmail": mail.decode()}, **basic(f"hub:{MADE_UP}"))

    def delivered(self) -> Request:
        event = {"RecordType": "Delivery", "MessageID": "m1", "Recipient": self.customer, "DeliveredAt": "2026-11-20T10:00:00Z"}
        return posted_json(event, **basic(f"hub:{MADE_UP}"))


class TestResend(MailConformance):
    type = "resend"
    key = b"resend-webhook-secret-012345"
    settings: ClassVar = {"address": "support@hub.example", "webhook_secret": f"whsec_{base64.b64encode(key).decode()}", "api_key": MADE_UP}
    keyless: ClassVar = {"webhook_secret": ""}
    credentials = ("svix-signature",)
    by_smtp = False
    takes = (200, json.dumps({"id": "m1"}).encode())

    def signed(self, told: Any, number: int) -> Request:
        made = posted_json(told)
        head = f"msg_{number}.{int(NOW)}."
        signature = base64.b64encode(hmac.digest(self.key, head.encode() + made.body, hashlib.sha256)).decode()
        headers = {"svix-id": f"msg_{number}", "svix-timestamp": str(int(NOW)), "svix-signature": f"v1,{signature}"}
        return replace(made, headers={**made.headers, **headers})

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        fetched = {"raw_mail": base64.b64encode(mail).decode()}  # as `expand` puts it there
        return self.signed({"type": "email.received", "data": {"email_id": f"in-{number}"}, "fetched": fetched}, number)

    def delivered(self) -> Request:
        return self.signed({"type": "email.delivered", "data": {"email_id": "m1", "to": [self.customer]}}, 8)


class TestBrevo(MailConformance):
    type = "brevo"
    settings: ClassVar = {**MailConformance.settings, "token": MADE_UP, "api_key": MADE_UP[::-1]}
    keyless: ClassVar = {"token": ""}
    credentials = ("authorization",)
    signs_body = False
    hosts = ("api.brevo.com",)

    def post(self, told: Any) -> Request:
        return posted_json(told, authorization=f"Bearer {MADE_UP}")

    def item(self, text: str, number: int, files: list[Any]) -> Request:
        headers = {"From": f"Ana <{self.customer}>", "To": "support@hub.example", "Message-ID": f"<{number}@shop.example>"}
        return self.post({"items": [{"Uuid": [f"in{number}"], "Headers": headers, "RawTextBody": text, "Attachments": files}]})

    def inbound(self, text: str, number: int = 1) -> Request:
        return self.item(text, number, [])

    def shown(self) -> Mapping[str, Request]:
        file = {"Name": "a.png", "ContentType": "image/png", "DownloadToken": "token.of-file"}
        return {
            "files_in": self.item("see here", 9, [file]),
            "delivered": self.post(
                {"event": "delivered", "message-id": "<7@hub.example>", "email": self.customer, "ts_epoch": 1790000000000}
            ),
        }


class TestMandrill(MailConformance):
    type = "mandrill"
    settings: ClassVar = {**MailConformance.settings, "webhook_keys": [MADE_UP]}
    keyless: ClassVar = {"webhook_keys": []}
    credentials = ("x-mandrill-signature",)

    def post(self, event: Any) -> Request:
        field = json.dumps([event])
        signature = base64.b64encode(hmac.digest(MADE_UP.encode(), f"{URL}mandrill_events{field}".encode(), hashlib.sha1)).decode()
        return Request(
            "POST", URL, {"content-type": FORM, "x-mandrill-signature": signature}, urlencode({"mandrill_events": field}).encode()
        )

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        return self.post({"event": "inbound", "ts": 1, "msg": {"raw_msg": mail.decode(), "email": "support@hub.example"}})

    def delivered(self) -> Request:
        return self.post({"event": "delivered", "_id": "m1", "ts": 1, "msg": {"_id": "m1", "email": self.customer}})


@cache
def sns(told: str, number: int) -> bytes:
    """Signed once: RSA takes its time."""
    return json.dumps(amazon.sns(told, MessageId=f"22b80b92-fdea-4c2c-8f9d-{number:012}")).encode()


class TestAmazonSes(MailConformance):
    type = "amazon_ses"
    settings: ClassVar = {
        "address": "support@hub.example",
        "topics": [amazon.TOPIC],
        "region": "eu-central-1",
        "access_key_id": "AKIDEXAMPLE",
    }
    settings = {**settings, "secret_access_key": MADE_UP}
    keyless = "Amazon's key is a certificate, which is fetched: `prepare` asks to come again where that fails"
    hosts = ("email.eu-central-1.amazonaws.com",)
    by_smtp = False
    takes = (200, json.dumps({"MessageId": "m1"}).encode())

    async def verdict(self, channel: Any, request: Request) -> Verdict:
        return await amazon.verdict(request, channel)

    def told(self, told: Any, number: int) -> Request:
        return Request("POST", URL, {"content-type": "text/plain; charset=UTF-8"}, sns(json.dumps(told), number))

    def wrapped(self, mail: bytes, number: int = 1) -> Request:
        receipt = {
            "recipients": ["support@hub.example"],
            "action": {"type": "SNS", "encoding": "BASE64"},
            "spamVerdict": {"status": "PASS"},
        }
        about = {"messageId": f"in{number}", "source": self.customer}
        told = {"notificationType": "Received", "receipt": receipt, "mail": about, "content": base64.b64encode(mail).decode()}
        return self.told(told, number)

    def without_key(self, request: Request) -> Request:
        return replace(request, body=json.dumps({**json.loads(request.body), "Signature": ""}).encode())

    def altered_key(self, request: Request) -> Request:
        told = json.loads(request.body)
        return replace(request, body=json.dumps({**told, "Signature": "AAAA" + told["Signature"][4:]}).encode())

    def delivered(self) -> Request:
        mail = {"messageId": "m1", "destination": [self.customer]}
        return self.told({"eventType": "Delivery", "mail": mail, "delivery": {"recipients": [self.customer]}}, 8)
