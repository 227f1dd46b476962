"""A mail as people read it: the answer in paragraphs, the channel's footer, and the words it answers, as HTML and as text."""

from __future__ import annotations

import re
from dataclasses import replace

import jinja2
from markupsafe import Markup, escape

from hub.contract import OutboundAttachment, OutboundMessage

SIGNATURE = "-- "  # with its blank: what mail programs know a signature by (RFC 3676 section 4.3)
MAX_QUOTED = 20_000  # characters of the words answered; the thread has them all

# Only what a browser opens as a page. What follows is text again: no tag, quote or blank belongs to an address.
_LINK = re.compile(r"https?://[^\s<>\"'\x00-\x1f]{1,2000}", re.IGNORECASE)
_TRAILING = ".,;:!?*_"
_PAIRS = {")": "(", "]": "[", "}": "{"}


def dress(environment: jinja2.Environment, footer: str, mail: OutboundMessage) -> OutboundMessage:
    """The mail with its HTML from `templates/mail/reply.html`, and with the footer and who is quoted in its text. Pure."""
    footer = footer.strip()
    quoted = mail.quoted.replace("\r\n", "\n").strip("\n")[:MAX_QUOTED]
    by = f"{mail.to} wrote:" if quoted else ""
    html = environment.get_template("mail/reply.html").render(
        paragraphs=paragraphs(mail.text),
        images=[one for one in mail.attachments if shown(one)],
        footer=linked(footer),
        quoted=paragraphs(quoted),
        by=by,
    )
    text = mail.text.rstrip()
    if footer:
        text += f"\n\n{SIGNATURE}\n{footer}"
    if by:  # the quoted lines themselves are put below it where the mail is built
        text += f"\n\n{by}"
    return replace(mail, text=text, html=html, quoted=quoted)


def shown(attachment: OutboundAttachment) -> bool:
    """Whether a file is an image that stands within the mail."""
    return bool(attachment.content_id) and attachment.content_type.lower().startswith("image/")


def paragraphs(text: str) -> list[Markup]:
    """Text as safe paragraphs: split at blank lines, line breaks kept, addresses of pages made links."""
    pieces = re.split(r"\n[ \t]*\n\s*", text.replace("\r\n", "\n").replace("\r", "\n").strip())
    return [linked(piece) for piece in pieces if piece.strip()]


def linked(text: str) -> Markup:
    """Text as safe HTML with line breaks and links. What is shown of a link is where it leads, letter by letter."""
    out, at = Markup(), 0
    for found in _LINK.finditer(text):
        url = _bare(found[0])
        if url.endswith("/") and url.count("/") == 2:
            continue  # no host: the words stay words
        out += _lines(text[at : found.start()]) + Markup('<a href="{0}" rel="noopener noreferrer">{0}</a>').format(url)
        at = found.start() + len(url)
    return out + _lines(text[at:])


def _lines(text: str) -> Markup:
    return Markup("<br>\n").join(escape(line) for line in text.split("\n"))


def _bare(url: str) -> str:
    """An address without the full stop or bracket of the sentence around it."""
    while url:
        last = url[-1]
        if last in _TRAILING or (last in _PAIRS and url.count(last) > url.count(_PAIRS[last])):
            url = url[:-1]
        else:
            break
    return url
