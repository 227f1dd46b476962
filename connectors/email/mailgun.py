"""Mailgun: mails by a route that forwards them, news of mails sent by its webhooks; answers leave by SMTP.

https://documentation.mailgun.com/docs/mailgun/user-manual/receive-forward-store/receive-http,
https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks. A route whose address ends in `mime` posts whole mails: prefer
it, only there the hub keeps the mail as it was written. Webhooks are JSON; the forms they were until 2018 are read too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import ConfigDict, SecretStr

from connectors.shared.delivery_mark import NAME, delivery_of
from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_headers import Headers, clean, decode_text, mailboxes
from connectors.shared.mail_posted import digest_of, headers_of, inner, news, number, read_object, text
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import (
    MAX_PARTS,
    Body,
    check_sender,
    make_body,
    media_type,
    named,
    read_mail,
    safe_name,
    to_message,
)
from connectors.shared.multipart import Part, read_form
from connectors.shared.signatures import form_pairs
from hub.contract import (
    Answers,
    Attachment,
    ChannelSettings,
    Checked,
    DeliveryEvent,
    Inbound,
    InboundMessage,
    Lookup,
    Request,
    Unparseable,
    Verdict,
)

# https://documentation.mailgun.com/docs/mailgun/user-manual/events/event-types; the last three are those of the old forms.
EVENTS: Mapping[str, DeliveryEvent] = {
    "accepted": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "failed": DeliveryEvent.BOUNCED,
    "rejected": DeliveryEvent.REJECTED,
    "opened": DeliveryEvent.OPENED,
    "clicked": DeliveryEvent.CLICKED,
    "unsubscribed": DeliveryEvent.UNSUBSCRIBED,
    "complained": DeliveryEvent.COMPLAINED,
    "bounced": DeliveryEvent.BOUNCED,
    "dropped": DeliveryEvent.REJECTED,
    "sent": DeliveryEvent.SENT,
}
# There is no such mailbox, or Mailgun itself sends there no more (605).
GONE = frozenset({"550", "551", "553", "605", "5.1.1", "5.1.2", "5.1.3", "5.1.10"})


class MailgunSettings(EmailSettings):
    """`signing_key`: Mailgun's HTTP webhook signing key (Settings, API security), which signs routes and webhooks alike."""

    model_config = ConfigDict(hide_input_in_errors=True)

    signing_key: SecretStr = SecretStr("")


class MailgunEmail(MailChannel):
    """A mailbox whose mails Mailgun posts."""

    Settings: ClassVar[type[ChannelSettings]] = MailgunSettings
    settings: MailgunSettings
    # Mailgun tries again for about eight hours on anything but 200 and 406; 406 drops the mail for good and is never answered.
    answers: ClassVar[Answers] = Answers(bad_signature=401, too_big=200)
    can: ClassVar[Mapping[str, str]] = {**MailChannel.can, "delivered": ""}

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the signature: HMAC-SHA256 over timestamp and token; the body is not signed
        (https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks). Neither an old time nor a token seen
        before is a reason to refuse: a retry may come eight hours later, and the hub's keys make a repeat harmless."""
        key = self.settings.signing_key.get_secret_value()
        if not key:
            return Verdict.NO_KEY
        try:
            timestamp, token, signature = _signed(request)
        except Unparseable:
            return Verdict.UNSIGNED
        if not signature:
            return Verdict.UNSIGNED
        wanted = hmac.new(key.encode(), f"{timestamp}{token}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return Verdict.GOOD if hmac.compare_digest(wanted.encode(), signature.lower().encode("utf-8", "replace")) else Verdict.BAD

    def parse(self, request: Request) -> Sequence[Inbound]:
        """A mail, or news of one sent, told apart by their shape. Raises Unparseable."""
        if _is_json(request):
            found = read_object(request.body)
            event = inner(found, "event-data")
            if not event:
                raise Unparseable("the body has no event-data: it is no webhook of Mailgun")
            return [_news(event, text(inner(found, "signature"), "token"))]
        form = _form(request)
        if "event" in form:
            return [_old_news({name: _text(form, name) for name in form})]
        return [self._mail(form)]

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check a whole mail's own DKIM signature. Raises Unparseable or TryLater."""
        said = [one for one in await asyncio.to_thread(self.parse, request) if isinstance(one, InboundMessage)]
        why = "The mail was posted taken apart, so its signature cannot be checked. Let the route's address end in mime."
        return [
            await check_sender(one, one.original, received, lookup) if one.original is not None else Checked(said=one, why=why)
            for one in said
        ]

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        return "all signed mails, if the route's address ends in mime"

    def _mail(self, form: Mapping[str, Part]) -> InboundMessage:
        original = form["body-mime"].data if "body-mime" in form else None
        if original is not None:
            headers, body = read_mail(original)
        elif "message-headers" in form:
            headers, body = _headers(form), _body(form)
        elif "attachments" in form or "message-url" in form:
            raise Unparseable("the route stores the mail at Mailgun and posts only where it is; let it forward() instead of store()")
        else:
            raise Unparseable("the form has neither message-headers nor body-mime: it is no mail from Mailgun")
        sender = _text(form, "sender")
        said = to_message(
            headers,
            body,
            Judgement(),  # X-Mailgun-Spf proves nothing: nobody says that Mailgun takes out one the sender wrote
            mailbox=self.settings,
            envelope_to=[_text(form, "recipient")] if "recipient" in form else [],
            null_return_path="sender" in form and not sender.strip("<> "),
            original=original,
            unjudged=original is not None,
        )
        score, flag = number(headers.first("x-mailgun-sscore")), headers.first("x-mailgun-sflag").lower()
        spam: dict[str, Any] = {"score": score} if score is not None else {}
        return replace(said, external_id=_text(form, "token")[:200], spam=spam | ({"flagged": flag == "yes"} if flag else {}))


def _is_json(request: Request) -> bool:
    return request.content_type.partition(";")[0].strip().lower() == "application/json"


def _form(request: Request) -> dict[str, Part]:
    """The fields of a form of either kind; of one named twice the first, which is Mailgun's own. Raises Unparseable."""
    found: dict[str, Part] = {}
    if request.content_type.lower().startswith("application/x-www-form-urlencoded"):
        try:
            parts = [Part(name, value.encode("utf-8", "surrogatepass")) for name, value in form_pairs(request.body)]
        except ValueError as error:
            raise Unparseable(str(error)) from error
    else:
        parts = read_form(request.body, request.content_type)
    for part in parts:
        found.setdefault(part.name, part)
    return found


def _text(form: Mapping[str, Part], name: str) -> str:
    part = form.get(name)
    return decode_text(part.data, "utf-8") if part is not None else ""


def _signed(request: Request) -> tuple[str, str, str]:
    """Timestamp, token and signature as posted. Raises Unparseable."""
    if _is_json(request):
        told = inner(read_object(request.body), "signature")
        return text(told, "timestamp"), text(told, "token"), text(told, "signature")
    form = _form(request)
    return _text(form, "timestamp"), _text(form, "token"), _text(form, "signature")


def _headers(form: Mapping[str, Part]) -> Headers:
    try:
        found = json.loads(_text(form, "message-headers") or "[]")
    except (ValueError, RecursionError) as error:
        raise Unparseable("message-headers is not JSON") from error
    lines = found if isinstance(found, list) else []
    return headers_of([(str(line[0]), str(line[1])) for line in lines if isinstance(line, list) and len(line) == 2])


def _body(form: Mapping[str, Part]) -> Body:
    plain, rich = (_text(form, name).replace("\r\n", "\n").replace("\x00", "") for name in ("body-plain", "body-html"))
    return make_body([(plain if plain.strip() or not rich else None, rich or None)], _attachments(form))


def _attachments(form: Mapping[str, Part]) -> list[Attachment]:
    """`attachment-1`, `attachment-2`, … with the content ids that `content-id-map` gives them."""
    try:
        told = json.loads(_text(form, "content-id-map") or "{}")
    except (ValueError, RecursionError):
        told = {}
    ids = {field: content_id for content_id, field in told.items() if isinstance(field, str)} if isinstance(told, dict) else {}
    parts = [part for name, part in form.items() if name.startswith("attachment-") and name[11:].isdecimal()]
    if len(parts) > MAX_PARTS:
        raise Unparseable(f"the mail has {len(parts)} attachments, more than {MAX_PARTS}")
    found: list[Attachment] = []
    for part in sorted(parts, key=lambda part: int(part.name[11:17])):
        content_id = clean(ids.get(part.name, ""), 250).strip("<> ")
        name = safe_name(part.filename or "")
        kind = media_type(part.content_type)
        found.append(named(name, kind, part.data, len(found) + 1, content_id, inline=part.name in ids))
    return found


def _news(event: Mapping[str, Any], token: str) -> Inbound:
    kind = text(event, "event", 40)
    our = EVENTS.get(kind, DeliveryEvent.OTHER)
    if kind == "failed" and text(event, "severity") == "temporary":
        our = DeliveryEvent.DEFERRED
    status = inner(event, "delivery-status")
    code = str(status.get("code", ""))
    said = [code, text(status, "message"), text(status, "description"), text(event, "reason"), text(inner(event, "reject"), "reason")]
    mail_id = text(inner(event, "message", "headers"), "message-id")
    mail_id = f"<{mail_id.strip('<> ')}>" if mail_id else ""
    return news(
        our,
        text(event, "id", 200) or token or digest_of(event),
        recipient=text(event, "recipient") or _addressed(event),
        external_id=mail_id,
        mail_id=mail_id,
        error=f"Mailgun: {', '.join(dict.fromkeys(filter(None, [kind, *said])))}",
        permanent=our is DeliveryEvent.BOUNCED and (text(status, "enhanced-code") or code) in GONE,  # 550 5.7.1: a living address
        delivery_id=delivery_of(inner(event, "user-variables").get(NAME)),
    )


def _addressed(event: Mapping[str, Any]) -> str:
    """Whom a mail was for that Mailgun refused before it had a recipient."""
    to = inner(event, "message").get("recipients")
    if isinstance(to, list) and to and isinstance(to[0], str):
        return to[0]
    found, _ = mailboxes(text(inner(event, "message", "headers"), "to", 2_000))
    return found[0].address if found else ""


def _old_news(fields: Mapping[str, str]) -> Inbound:
    kind = fields.get("event", "")[:40]
    our = EVENTS.get(kind, DeliveryEvent.OTHER)
    mail_id = fields.get("Message-Id") or fields.get("message-id") or ""
    mail_id = f"<{mail_id.strip('<> ')}>" if mail_id else ""
    code = fields.get("code", "")
    said = [kind, code, fields.get("error", ""), fields.get("reason", ""), fields.get("description", "")]
    return news(
        our,
        fields.get("token", "") or digest_of(fields),
        recipient=fields.get("recipient", ""),
        external_id=mail_id,
        mail_id=mail_id,
        error=f"Mailgun: {', '.join(dict.fromkeys(filter(None, said)))}",
        permanent=our is DeliveryEvent.BOUNCED and code in GONE,
        delivery_id=delivery_of(fields.get(NAME)),
    )
