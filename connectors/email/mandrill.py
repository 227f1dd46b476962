"""Mailchimp Transactional (Mandrill): mails and news of mails as one form field, `mandrill_events`; answers leave by SMTP.

https://mailchimp.com/developer/transactional/docs/webhooks/ and
https://mailchimp.com/developer/transactional/docs/inbound-email/. One address of ours serves both: the events tell what they are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import SecretStr

from connectors.shared.delivery_mark import NAME, delivery_of
from connectors.shared.mail_auth import Judgement, judge_results, told
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_headers import message_ids
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import check_sender, from_address, read_mail, to_message
from connectors.shared.multipart import read_form
from connectors.shared.signatures import form_pairs
from hub.contract import (
    STATUS_AFTER,
    Answer,
    Answers,
    ChannelSettings,
    Checked,
    DeliveryEvent,
    DeliveryUpdate,
    Ignored,
    Inbound,
    InboundMessage,
    Lookup,
    Request,
    Unparseable,
    Verdict,
)

SIGNATURE = "x-mandrill-signature"
FIELD = "mandrill_events"
MAX_EVENTS = 1_000  # in one batch, says its page
# https://mailchimp.com/developer/transactional/docs/webhooks/#message-event-webhook-format
EVENTS: Mapping[str, DeliveryEvent] = {
    "send": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "deferral": DeliveryEvent.DEFERRED,
    "hard_bounce": DeliveryEvent.BOUNCED,
    "soft_bounce": DeliveryEvent.BOUNCED,
    "reject": DeliveryEvent.REJECTED,
    "spam": DeliveryEvent.COMPLAINED,
    "open": DeliveryEvent.OPENED,
    "click": DeliveryEvent.CLICKED,
    "unsub": DeliveryEvent.UNSUBSCRIBED,
}
_FAULTS = frozenset({DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED})


class MandrillSettings(EmailSettings):
    """`webhook_keys`: the key Mandrill shows beside each webhook and each inbound route (they differ). `webhook_url`: the address as it
    stands at Mandrill, which signs it letter by letter; empty: this channel's own. `authserv_id`: of your own mail server before Mandrill.
    """

    webhook_keys: tuple[SecretStr, ...] = ()
    webhook_url: str = ""
    authserv_id: str = ""


class MandrillEmail(MailChannel):
    """A mailbox whose mails Mandrill posts."""

    Settings: ClassVar[type[ChannelSettings]] = MandrillSettings
    settings: MandrillSettings
    # Anything but 200 counts as a failure at Mandrill, and the batch is tried again; a batch too big would come back in vain.
    answers: ClassVar[Answers] = Answers(bad_signature=403, too_big=200)
    can: ClassVar[Mapping[str, str]] = {**MailChannel.can, "delivered": ""}

    def challenge(self, request: Request) -> Answer:
        """Mandrill asks by HEAD whether the address is there when a webhook is made: it is."""
        return Answer()

    def verify(self, request: Request, now: float) -> Verdict:
        """HMAC-SHA1 over the webhook's URL and the form fields, sorted by name.

        https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/#authenticating-webhook-requests
        """
        keys = [key.get_secret_value() for key in self.settings.webhook_keys if key.get_secret_value()]
        if not keys:
            return Verdict.NO_KEY
        given = request.headers.get(SIGNATURE, "")
        if not given:
            return Verdict.UNSIGNED
        try:
            fields = _form(request)
        except Unparseable:
            return Verdict.BAD
        url = self.settings.webhook_url or request.url
        signed = (url + "".join(name + fields[name] for name in sorted(fields))).encode("utf-8", "surrogatepass")
        made = [base64.b64encode(hmac.digest(key.encode(), signed, hashlib.sha1)) for key in keys]
        judged = [hmac.compare_digest(given.encode("utf-8", "surrogateescape"), one) for one in made]
        return Verdict.GOOD if any(judged) else Verdict.BAD

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Every mail and every piece of news in the batch. Raises Unparseable."""
        field = _form(request).get(FIELD)
        if field is None:
            raise Unparseable(f"the form has no field {FIELD}")
        try:
            events = json.loads(field)
        except (ValueError, RecursionError) as error:
            raise Unparseable(f"{FIELD} is not JSON") from error
        if not isinstance(events, list) or len(events) > MAX_EVENTS or not all(isinstance(event, dict) for event in events):
            raise Unparseable(f"{FIELD} is not a list of at most {MAX_EVENTS} events")
        if not events:  # what Mandrill sends when a webhook is made or tested
            return [Ignored(provider_key="test:" + hashlib.sha256(request.body).hexdigest()[:32], reason="a test without events")]
        return [self._mail(event) if event.get("event") == "inbound" else _update(event) for event in events]

    def _mail(self, event: Mapping[str, Any]) -> InboundMessage:
        msg = event.get("msg")
        raw = msg.get("raw_msg") if isinstance(msg, dict) else None
        if not isinstance(msg, dict) or not isinstance(raw, str):
            raise Unparseable("an inbound event without `msg.raw_msg`")
        original = raw.encode("utf-8", "surrogateescape" if _escaped(raw) else "surrogatepass")
        headers, body = read_mail(original)
        verdicts = headers.all("authentication-results")
        domain = from_address(headers).rpartition("@")[2]
        # Mandrill says whether DKIM was valid and SPF passed, but not for which domain: neither proves From.
        judgement = judge_results(domain, verdicts, self.settings.authserv_id) if self.settings.authserv_id else Judgement()
        dkim = msg.get("dkim")
        invalid = isinstance(dkim, dict) and dkim.get("signed") is True and dkim.get("valid") is False
        address = msg.get("email")
        said = to_message(
            headers,
            body,
            judgement,
            mailbox=self.settings,
            envelope_to=[address] if isinstance(address, str) else [],
            null_return_path=msg.get("sender") == "",
            original=original,
            unjudged=not invalid and not told(verdicts, self.settings.authserv_id),
        )
        report = msg.get("spam_report")
        score = report.get("score") if isinstance(report, dict) else None
        number = isinstance(score, int | float) and not isinstance(score, bool)
        return replace(said, spam={"score": float(score)}) if number and score is not None else said

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        return "every signed mail, unless Mandrill found its signature invalid: Mandrill does not say who signed"

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the mails' own DKIM signatures. Raises Unparseable or TryLater."""
        return [
            await check_sender(said, said.original or b"", received, lookup)
            for said in await asyncio.to_thread(self.parse, request)
            if isinstance(said, InboundMessage)
        ]


def _escaped(text: str) -> bool:
    """Whether every lone surrogate stands for a byte that was no UTF-8 (PEP 383)."""
    return all(not 0xD800 <= ord(char) < 0xE000 or 0xDC80 <= ord(char) <= 0xDCFF for char in text)


def _form(request: Request) -> dict[str, str]:
    """The fields of the form, the first of each name. Raises Unparseable."""
    found: dict[str, str] = {}
    if request.content_type.lower().startswith("multipart/form-data"):
        for part in read_form(request.body, request.content_type):
            found.setdefault(part.name, part.data.decode("utf-8", "replace"))
        return found
    try:
        for name, value in form_pairs(request.body):
            found.setdefault(name, value)
    except ValueError as error:
        raise Unparseable(str(error)) from error
    return found


def _text(of: Mapping[str, Any], name: str, limit: int = 320) -> str:
    value = of.get(name)
    return value[:limit] if isinstance(value, str) else ""


def _update(event: Mapping[str, Any]) -> Inbound:
    """News of a mail sent. Mandrill's events have no id of their own: `_id` is the mail's, so the key digests what tells them apart."""
    kind = _text(event, "event", 40) or _text(event, "type", 40)
    msg = event.get("msg")
    about: Mapping[str, Any] = msg if isinstance(msg, dict) else {}
    digest = hashlib.sha256(
        json.dumps([kind, *(event.get(name) for name in ("_id", "ts", "url", "ip", "action", "reject")), about.get("email")]).encode()
    )
    key = f"event:{digest.hexdigest()}"
    message_id = _text(event, "_id", 200) or _text(about, "_id", 200)
    our = EVENTS.get(kind, DeliveryEvent.OTHER)
    words = [
        _text(about, "bounce_description", 100),
        " ".join(_text(about, "diag", 400).split()),
        _text(event.get("reject") or {}, "reason") if isinstance(event.get("reject"), dict) else "",
    ]
    metadata = about.get("metadata")
    own = about.get("headers")
    own_id = _text(own, "Message-Id") or _text(own, "Message-ID") if isinstance(own, dict) else ""
    return DeliveryUpdate(
        provider_key=key,
        status=STATUS_AFTER[our],
        event=our,
        provider_message_id=message_id,
        mail_id=(*message_ids(own_id), "")[0],
        # Of a change of the reject list, which is about an address and no mail of ours.
        recipient=_text(about, "email") or (_text(event["reject"], "email") if isinstance(event.get("reject"), dict) else ""),
        delivery_id=delivery_of(metadata.get(NAME)) if isinstance(metadata, dict) else None,
        error=f"Mandrill: {': '.join([kind, *filter(None, words)])}" if our in _FAULTS else "",
        # A hard bounce for another reason than the address (a domain without a server may come back) is still final at Mandrill.
        permanent=kind == "hard_bounce",
    )
