"""SendGrid's own way out: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send. It takes no idempotency key."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from connectors.shared.delivery_mark import NAME
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import media_type, safe_name
from connectors.shared.retry_after import retry_after
from connectors.shared.smtp import MAX_REFERENCES, build, recipient, reply_address
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, OutboundMessage, Refused, Sent, TryLater, Unknown

API = "https://api.sendgrid.com"
MAX_BYTES = 30_000_000  # of a mail with its attachments


def mail_send(message: OutboundMessage, settings: EmailSettings) -> dict[str, Any]:
    """The request's JSON. Its texts are those of the mail SMTP would send, which also checks every header. Raises Refused."""
    mail = message_from_bytes(build(replace(message, attachments=()), settings), _class=EmailMessage, policy=policy.default)
    plain, rich = (_body(mail, kind) for kind in ("plain", "html"))
    references = message.references
    if len(references) > MAX_REFERENCES:
        references = (references[0], *references[-(MAX_REFERENCES - 1) :])
    headers = {
        "Message-ID": message.message_id,
        "In-Reply-To": message.in_reply_to,
        "References": " ".join(references),
        "Auto-Submitted": "auto-generated" if message.automatic else "",
    }
    name = settings.sender_name or message.sender_name
    chosen = {address.lower(): address for address in map(recipient, reversed(message.cc))}  # an address named twice is refused
    copies = [address for key, address in reversed(chosen.items()) if key != recipient(message.to).lower()]
    to: dict[str, Any] = {"to": [{"email": recipient(message.to)}], "custom_args": {NAME: str(message.delivery_id)}}
    asked: dict[str, Any] = {
        "personalizations": [to | ({"cc": [{"email": address} for address in copies]} if copies else {})],
        "from": {"email": settings.address} | ({"name": name} if name else {}),
        "subject": message.subject or "(no subject)",  # SendGrid refuses an empty one
        "content": [{"type": "text/plain", "value": plain}, {"type": "text/html", "value": message.html or rich}],
        "headers": {name: value for name, value in headers.items() if value},
    }
    if message.reply_token:
        asked["reply_to"] = {"email": reply_address(settings.address, message.reply_token)}
    if message.attachments:
        if sum(attachment.size for attachment in message.attachments) > MAX_BYTES:
            raise Refused(f"The mail was not sent: its attachments are larger than the {MAX_BYTES // 1_000_000} MB SendGrid takes.")
        asked["attachments"] = [
            _file(attachment.name, attachment.content_type, attachment.read(), attachment.content_id) for attachment in message.attachments
        ]
    return asked


def _body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    return str(part.get_content()) if part is not None else ""


def _file(name: str, kind: str, data: bytes, content_id: str) -> dict[str, str]:
    name = safe_name(name) or "attachment"
    if not data:
        raise Refused(f"The mail was not sent: {name} is empty, and SendGrid takes no empty files. Remove it and send again.")
    file = {"content": base64.b64encode(data).decode(), "type": media_type(kind), "filename": name, "disposition": "attachment"}
    return file | ({"disposition": "inline", "content_id": content_id} if content_id else {})


async def post(body: Mapping[str, Any], base_url: str, api_key: str, http: Http) -> Sent:
    """Hand the request to SendGrid; 202 is success. Raises Refused, TryLater, or Unknown when the answer was lost."""
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    try:
        answer = await http.request("POST", f"{base_url}/v3/mail/send", headers=headers, body=json.dumps(body).encode(), timeout=60.0)
    except NotSent as error:
        raise TryLater(f"SendGrid could not be reached: {error}. The mail is kept and tried again.") from error
    except NoAnswer as error:
        raise Unknown(f"SendGrid did not answer ({error}): the mail may or may not have gone.") from error
    if answer.status in (200, 202):
        return Sent(provider_message_id=answer.headers.get("x-message-id", "")[:200])
    words = f"{answer.status} {_said(answer)}".strip()
    if answer.status in (401, 403):
        raise Refused(
            f"The mail was not sent: SendGrid refused it ({words}). Check api_key, its Mail Send permission, and the verified sender."
        )
    if answer.status == 429:
        raise TryLater(f"SendGrid asks to try later ({words}).", retry_after(answer.headers))
    if answer.status < 500:
        raise Refused(f"The mail was not sent: SendGrid refused it ({words}).")
    raise Unknown(f"SendGrid failed ({words}): the mail may or may not have gone.")


def _said(answer: HttpResponse) -> str:
    """What stands in the answer's `errors`."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    errors = found.get("errors") if isinstance(found, dict) else None
    words = [str(error.get("message", "")) for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return "; ".join(filter(None, words))[:400]
