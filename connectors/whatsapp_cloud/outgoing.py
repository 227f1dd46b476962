"""What Meta is asked to send, and what it would refuse, checked before anything leaves. Pure.

https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages
"""

from __future__ import annotations

import re
from typing import Any

from connectors.shared.loopback import is_loopback_url
from connectors.whatsapp_cloud.incoming import USER_ID, delivery_tag
from hub.contract import OutboundAttachment, OutboundMessage, Refused, TemplateUse

MAX_TEXT = 4_096
MAX_CAPTION = 1_024
MAX_FILES = 1

# Kinds, types and sizes in bytes: https://developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media
KINDS = {
    **dict.fromkeys(("image/jpeg", "image/png"), "image"),
    **dict.fromkeys(("audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"), "audio"),
    **dict.fromkeys(("video/mp4", "video/3gpp"), "video"),
}
# Whatever is none of these goes as a document: WhatsApp shows its name and opens it with the phone's own program.
LIMITS = {"image": 5_000_000, "audio": 16_000_000, "video": 16_000_000, "document": 100_000_000}

_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")
# A template's file, by what its header is.
_HEADER_FILES = {"<image>": "image", "<video>": "video", "<document>": "document"}
_TEMPLATE_NAME = re.compile(r"[a-z0-9_]{1,512}")
_BUTTON = re.compile(r"button_([0-9])_(url|code)")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")
HEADER = "header_"  # before a header's variables: Meta counts those of header and body apart, each from 1


def kind_of(file: OutboundAttachment) -> str:
    """As what WhatsApp takes a file."""
    return KINDS.get(file.content_type.partition(";")[0].strip().lower(), "document")


def payload(message: OutboundMessage, *, sandbox: bool = False) -> dict[str, Any]:
    """The body of the call that sends this message. Raises Refused for what WhatsApp would refuse, cut or drop."""
    body: dict[str, Any] = {"messaging_product": "whatsapp", "recipient_type": "individual", **_recipient(message.to)}
    if message.quoted_id and message.template is None:
        body["context"] = {"message_id": message.quoted_id}
    body["biz_opaque_callback_data"] = delivery_tag(message.delivery_id, message.to)
    if len(message.attachments) > MAX_FILES:
        raise Refused(f"Not sent: {len(message.attachments)} files; one WhatsApp message carries {MAX_FILES}. Send them one by one.")
    if message.template is not None:
        file = message.attachments[0] if message.attachments else None
        return body | {"type": "template", "template": _template(message.template, file, sandbox=sandbox)}
    if message.attachments:
        file = message.attachments[0]
        kind = kind_of(file)
        return body | {"type": kind, kind: _media(file, kind, message.text, sandbox=sandbox)}
    if not message.text.strip():
        raise Refused("Not sent: the message is empty.")
    if len(message.text) > MAX_TEXT:
        raise Refused(f"Not sent: {len(message.text)} characters; WhatsApp carries {MAX_TEXT}. Split the text.")
    return body | {"type": "text", "text": {"body": message.text, "preview_url": False}}


def _recipient(to: str) -> dict[str, str]:
    """A number stands in `to`, with its plus (without it Meta puts the business's own country before it); a business-scoped user id in
    `recipient`: in `to` it would be taken for a number, and the message be lost without an error."""
    if _NUMBER.fullmatch(to):
        return {"to": f"+{to.removeprefix('+')}"}
    if USER_ID.fullmatch(to):
        return {"recipient": to}
    raise Refused("Not sent: this address is neither a number nor a WhatsApp user id. Answer on another channel.")


def _link(file: OutboundAttachment, *, sandbox: bool) -> str:
    if not file.public_url or (is_loopback_url(file.public_url) and not sandbox):
        raise Refused(
            "Not sent: WhatsApp fetches files by their address, and cannot reach this hub's. Set the hub's public URL and send again."
        )
    return file.public_url


def _media(file: OutboundAttachment, kind: str, text: str, *, sandbox: bool) -> dict[str, str]:
    if file.size > LIMITS[kind]:
        raise Refused(
            f"Not sent: {file.name} has {file.size / 1_000_000:.1f} MB; WhatsApp takes {LIMITS[kind] // 1_000_000} MB of this kind "
            f"({kind}). Send a smaller one, or a link."
        )
    made = {"link": _link(file, sandbox=sandbox)}
    if text and kind == "audio":
        raise Refused(f"Not sent: WhatsApp drops text that accompanies sound like {file.name}. Send them one after the other.")
    if len(text) > MAX_CAPTION:
        raise Refused(
            f"Not sent: {len(text)} characters beside a file; WhatsApp carries {MAX_CAPTION} there. Send them one after the other."
        )
    if text:
        made["caption"] = text
    if kind == "document":
        made["filename"] = file.name
    return made


def _template(used: TemplateUse, file: OutboundAttachment | None, *, sandbox: bool) -> dict[str, Any]:
    """https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/overview"""
    if not _TEMPLATE_NAME.fullmatch(used.id) or not used.language:
        raise Refused("Not sent: this is not one of Meta's templates (a name in small letters, and a language). Fetch the templates again.")
    for name, value in used.variables.items():
        # Error 132018.
        if not value.strip() or re.search(r"[\n\r\t]| {5}", value):
            raise Refused(
                f"Not sent: variable {name} of the template is empty, or has a line break, a tab or more than four spaces in a row, "
                "which WhatsApp does not take. Write it in one line."
            )
    in_header = set(_VARIABLE.findall(used.header)) & {name for name in used.variables if name.startswith(HEADER)}
    header = [name for name in used.variables if name in in_header]
    buttons = {name: found for name in used.variables if (found := _BUTTON.fullmatch(name))}
    body = [name for name in used.variables if name not in in_header and name not in buttons]
    if all(name.isdigit() for name in body):
        body.sort(key=int)
    components: list[dict[str, Any]] = []
    wanted = _HEADER_FILES.get(used.header)
    if wanted is not None:
        components.append({"type": "header", "parameters": [_header_file(wanted, file, sandbox=sandbox)]})
    elif file is not None:
        raise Refused("Not sent: this template carries no file. Send the file later.")
    if header:
        components.append({"type": "header", "parameters": [_text(name.removeprefix(HEADER), used.variables[name]) for name in header]})
    if body:
        components.append({"type": "body", "parameters": [_text(name, used.variables[name]) for name in body]})
    for name, found in sorted(buttons.items()):
        value = used.variables[name]
        if found[2] == "code":
            kind, filled = "copy_code", {"type": "coupon_code", "coupon_code": value}
        else:
            kind, filled = "url", {"type": "text", "text": value}
        components.append({"type": "button", "sub_type": kind, "index": found[1], "parameters": [filled]})
    made: dict[str, Any] = {"name": used.id, "language": {"code": used.language, "policy": "deterministic"}}
    return made | {"components": components} if components else made


def _text(name: str, value: str) -> dict[str, str]:
    """A variable: those with a number go by their place, the others by their name."""
    return {"type": "text", "text": value} if name.isdigit() else {"type": "text", "parameter_name": name, "text": value}


def _header_file(wanted: str, file: OutboundAttachment | None, *, sandbox: bool) -> dict[str, Any]:
    noun = {"image": "a picture (JPEG or PNG)", "video": "a video (MP4)", "document": "a document"}[wanted]
    if file is None or (wanted != "document" and kind_of(file) != wanted):
        raise Refused(f"Not sent: this template begins with {noun}. Attach one and send again.")
    return {"type": wanted, wanted: _media(file, wanted, "", sandbox=sandbox)}
