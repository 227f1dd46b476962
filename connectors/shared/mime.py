"""Bytes of a mail -> its headers, texts and attachments. The only place that reads MIME; a pure function of the bytes.

The parser is the standard library's under the compat32 policy: with `email.policy.default` a 40 KB Content-Type takes 18 s
and 20 KB of opening brackets exhaust the stack, because it parses every header it touches with a recursive grammar.
Headers are read by `mail_headers` in one pass instead. Whatever cannot be read raises Unparseable and nothing else.
"""

from __future__ import annotations

import hashlib
import html as html_words
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32

from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_headers import (
    Headers,
    Mailbox,
    automatic_kind,
    clean,
    decode_text,
    decode_words,
    mailboxes,
    message_ids,
    raw_text,
    sent_at,
    token_behind_plus,
)
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mail_signature import check_signature, is_signed
from hub.contract import Attachment, Checked, Claim, InboundMessage, Lookup, Proof, Unparseable

MAX_PARTS = 200
MAX_DEPTH = 50
MAX_TEXT = 256_000  # characters of text, and of HTML, kept for display; the hub keeps the original whole
MAX_HTML_READ = 1_000_000  # characters of HTML that are searched for words where a mail has no plain text
MAX_NESTING = 1_000  # open HTML tags: sanitisers are quadratic in depth (nh3: 20,000 pairs take 4.9 s)
MAX_HEADERS = 1_000
CUT = "\n\n[This mail is longer. The original is kept whole.]"
SEVERAL_SENDERS = "The mail names more than one sender. It is kept; answers go to the first address, so check it before answering."

_EXTENSIONS = {
    "application/pdf": ".pdf",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "message/rfc822": ".eml",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/plain": ".txt",
    "message/delivery-status": ".txt",
    "text/rfc822-headers": ".txt",
}
_HIDDEN = ("style", "script", "head", "title", "noscript", "template", "svg", "math")  # elements whose content nobody reads
_LINE_BREAKS = frozenset(
    ["br", "p", "div", "tr", "li", "ul", "ol", "table", "blockquote", "pre", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "section"]
)
# Not counted as open: void elements, and those whose end tag may be left out.
_VOID = ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
_NEVER_OPEN = frozenset([*_VOID, "p", "li", "td", "th", "tr", "dt", "dd", "option", "tbody", "thead"])
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,15})")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")


@dataclass(frozen=True, slots=True)
class Body:
    """What a mail says. `fingerprint` digests the whole text (before it is cut for display) and every attachment."""

    text: str
    html: str
    attachments: tuple[Attachment, ...]
    fingerprint: str


class _Policy(Compat32):
    """compat32 with header values capped (its parameter parser is quadratic in the length of a Content-Type) and raw bytes
    in them decoded instead of replaced."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[: 4_000 if name[:8].lower() == "content-" else 64_000]

    def header_fetch_parse(self, name: str, value: str) -> str:
        return value if value.isascii() else raw_text(value)


_POLICY = _Policy()


def _parse(raw: bytes, *, headers_only: bool = False) -> Message:
    try:
        # A byte order mark or a blank line on top would end the headers before they begin.
        return BytesParser(policy=_POLICY).parsebytes(raw.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n"), headersonly=headers_only)
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:  # all seen from the parser on torture mails
        raise Unparseable(f"the mail's structure cannot be read ({type(error).__name__})") from error


def _headers_of(message: Message) -> Headers:
    headers = Headers((name, str(value)) for name, value in message.raw_items())
    if len(headers) > MAX_HEADERS:
        raise Unparseable(f"the mail has {len(headers)} header lines, more than {MAX_HEADERS}")
    return headers


def read_headers(raw: bytes) -> Headers:
    """Read a block of header lines. Raises Unparseable."""
    return _headers_of(_parse(raw, headers_only=True))


def read_mail(raw: bytes) -> tuple[Headers, Body]:
    """Read a whole mail. Raises Unparseable, and never anything else."""
    message = _parse(raw)
    headers = _headers_of(message)
    try:
        reader = _Reader()
        pieces = reader.walk(message, 0)
        return headers, make_body(pieces, reader.attachments)
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unparseable(f"a part of the mail cannot be read ({type(error).__name__})") from error


Piece = tuple[str | None, str | None]  # one stretch of the body: its plain text, its HTML, or both as alternatives


class _Reader:
    """One walk over the parts: bodies are returned in order, everything else is collected as an attachment."""

    def __init__(self) -> None:
        self.attachments: list[Attachment] = []
        self.parts = 0

    def walk(self, part: Message, depth: int) -> list[Piece]:
        self.parts += 1
        if depth > MAX_DEPTH or self.parts > MAX_PARTS:
            raise Unparseable(f"the mail has more than {MAX_PARTS} parts or is nested deeper than {MAX_DEPTH}")
        kind = part.get_content_type().lower()
        children = part.get_payload() if part.is_multipart() else None
        if isinstance(children, list) and not kind.startswith("message/"):
            found = [self.walk(child, depth + 1) for child in children if isinstance(child, Message)]
            if kind == "multipart/alternative":
                return _choose(found)
            return [piece for pieces in found for piece in pieces]
        disposition = str(part.get("content-disposition", "")).partition(";")[0].strip().lower()
        name = _filename(part)
        if kind in ("text/plain", "text/html") and disposition != "attachment" and not name:
            text = decode_text(_payload(part), part.get_content_charset("") or "").replace("\r\n", "\n").replace("\x00", "")
            return [(text, None) if kind == "text/plain" else (None, text)]
        data = _inner_bytes(children) if isinstance(children, list) else _payload(part)
        if data or name:  # an empty, nameless part is an artefact of broken boundaries
            content_id = clean(str(part.get("content-id", "")), 250).strip("<> ")
            inline = disposition == "inline" or (bool(content_id) and disposition != "attachment")
            self.attachments.append(named(name, kind, data, len(self.attachments) + 1, content_id, inline=inline))
        return []


def named(name: str, kind: str, data: bytes, number: int, content_id: str = "", *, inline: bool = False) -> Attachment:
    """An attachment under its own name, or one made of its number and type."""
    kind = media_type(kind)
    return Attachment(
        name=name or f"attachment-{number}{_EXTENSIONS.get(kind, '')}", content_type=kind, data=data, content_id=content_id, inline=inline
    )


def _choose(children: Sequence[list[Piece]]) -> list[Piece]:
    """Of alternatives, the last in HTML and the last in plain text (RFC 2046 section 5.1.4: the last is the richest)."""
    rich = next((pieces for pieces in reversed(children) if any(html is not None for _, html in pieces)), [])
    plain = next((pieces for pieces in reversed(children) if pieces and all(html is None for _, html in pieces)), [])
    if not rich:
        return plain
    text = _text_of(plain) if plain and _text_of(plain).strip() else None
    return [(text, _html_of(rich))]


def _text_of(pieces: Sequence[Piece]) -> str:
    return "\n".join(text if text is not None else html_to_text((html or "")[:MAX_HTML_READ]) for text, html in pieces)


def _html_of(pieces: Sequence[Piece]) -> str:
    if all(html is None for _, html in pieces):
        return ""
    return "\n".join(html if html is not None else f"<pre>{html_words.escape(text or '')}</pre>" for text, html in pieces)


def make_body(pieces: Sequence[Piece], attachments: Sequence[Attachment]) -> Body:
    """Put stretches of text and HTML, in their order, into one body, cut to what people can be shown."""
    text, html = _text_of(pieces), _html_of(pieces)
    digest = hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace"))
    for attachment in attachments:
        digest.update(hashlib.sha256(attachment.data or b"").digest())
    return Body(
        text=text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + CUT,
        html="" if nesting(html[:MAX_TEXT]) > MAX_NESTING else html[:MAX_TEXT],
        attachments=tuple(attachments),
        fingerprint=digest.hexdigest(),
    )


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else str(part.get_payload()).encode("utf-8", "surrogateescape")


def _inner_bytes(messages: Iterable[object]) -> bytes:
    """A mail within the mail (or the blocks of a delivery status), as the bytes of a file."""
    return b"\n".join(message.as_bytes(policy=_POLICY.clone(max_line_length=0)) for message in messages if isinstance(message, Message))


def _filename(part: Message) -> str:
    """The part's file name, safe to show; a name encoded as RFC 2047 words, which is against RFC 2231 and common, is read too."""
    try:
        name = part.get_filename("") or ""
    except (ValueError, LookupError, TypeError):
        name = ""
    return safe_name(decode_words(decode_text(name.encode("utf-8", "surrogateescape"))))


def safe_name(name: str) -> str:
    """The last piece of a path, without control characters or overrides, at most 150 characters; empty when nothing is left."""
    last = clean(name, 2_000).replace("\\", "/").rpartition("/")[2].strip()
    if last.strip(". ") == "":
        return ""
    stem, dot, extension = last.rpartition(".")
    return last if len(last) <= 150 else (stem[:130] + dot + extension[:15] if dot else last[:150])


def media_type(kind: str) -> str:
    """A media type as `type/subtype`; anything malformed is `application/octet-stream`."""
    bare = kind.partition(";")[0].strip().lower()
    return bare if _MEDIA_TYPE.fullmatch(bare) else "application/octet-stream"


def nesting(html: str) -> int:
    """The greatest number of HTML elements open at once, over-counted rather than under."""
    depth = deepest = 0
    for match in _TAG.finditer(html):
        if match[2].lower() not in _NEVER_OPEN:
            depth = max(0, depth - 1) if match[1] else depth + 1
            deepest = max(deepest, depth)
    return deepest


def html_to_text(html: str) -> str:
    """The words of an HTML body, line by line. One pass without building a tree, so that no markup can make it slow."""
    out: list[str] = []
    at = 0
    while at < len(html):
        start = html.find("<", at)
        if start < 0:
            start = len(html)
        out.append(" ".join(f"|{html[at:start]}|".split())[1:-1])  # source line breaks are blanks; the bars keep the outer ones
        if html.startswith("<!--", start):
            at = _after(html, "-->", start)
            continue
        match = _TAG.match(html, start)
        if match is None:
            out.append(html[start : start + 1] if html[start + 1 : start + 2] not in "!?/" else "")
            at = start + 1 if html[start + 1 : start + 2] not in "!?/" else _after(html, ">", start)
            continue
        name = match[2].lower()
        out.append("\n" if name in _LINE_BREAKS else "\t" if name in ("td", "th") else "")
        at = _after(html, ">", start)
        if name in _HIDDEN and not match[1]:
            at = _after(html, ">", _closing(html, name, at))
    lines = [" ".join(line.split()) for line in html_words.unescape("".join(out)).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _closing(html: str, name: str, start: int) -> int:
    found = re.compile(f"</{name}", re.IGNORECASE).search(html, start)  # not html.lower(): its length may differ
    return found.end() if found else len(html)


def _after(text: str, end: str, start: int) -> int:
    found = text.find(end, start)
    return len(text) if found < 0 else found + len(end)


# --- To the hub's words ----------------------------------------------------------------------------------------------


def senders(headers: Headers) -> tuple[Mailbox, bool]:
    """The From mailbox, and whether the mail names others beside it. Raises Unparseable when no usable address stands there."""
    values = headers.all("from")
    found, broken = mailboxes(", ".join(values))
    if not found:
        raise Unparseable("the mail has no From address" if not values else f"the mail's From is not an address: {clean(values[0], 120)!r}")
    return found[0], len({box.address.lower() for box in found}) > 1 or broken > 0 or len(values) > 1


def to_message(
    headers: Headers,
    body: Body,
    judgement: Judgement,
    *,
    mailbox: EmailSettings,
    envelope_to: Sequence[str] = (),
    null_return_path: bool = False,
    original: bytes | None = None,
    unjudged: bool = False,
) -> InboundMessage:
    """Make the hub's message of a mail read and judged. `mailbox` is the one customers write to; `unjudged`: nobody we believe has
    said who signed it. Raises Unparseable.

    The key is Message-ID and a digest of From, Date, Subject and body: providers reuse Message-IDs or leave them out
    (freescout#5591, #4740), and a mail delivered again arrives with other Received lines.
    """
    sender, several = senders(headers)
    proof = Proof.CLAIMED if several else judgement.proof
    reply_to = [box.address for value in headers.all("reply-to") for box in mailboxes(value)[0]]
    others = [found for found in dict.fromkeys(reply_to) if found.lower() != sender.address.lower()]
    to, cc = (tuple(dict.fromkeys(box.address for value in headers.all(name) for box in mailboxes(value)[0])) for name in ("to", "cc"))
    delivered = [
        box.address
        for name in ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to")
        for value in headers.all(name)
        for box in mailboxes(value)[0]
    ]
    delivery_status = any(attachment.content_type == "message/delivery-status" for attachment in body.attachments)
    message_id = (*message_ids(headers.first("message-id")), "")[0]
    known = "\x1f".join([*(headers.first(name) for name in ("from", "date", "subject")), body.fingerprint])
    return InboundMessage(
        provider_key=f"{message_id}|{hashlib.sha256(known.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}",
        claims=(Claim("email", sender.address, proof), *(Claim("email", other, Proof.SEEN) for other in others[:3])),
        text=body.text,
        html=body.html,
        subject=clean(decode_words(headers.first("subject"))),
        sender_name=sender.name,
        attachments=body.attachments,
        sent_at=sent_at(headers.first("date")),
        message_id=message_id,
        in_reply_to=(*message_ids(headers.first("in-reply-to")), "")[0],
        references=message_ids(headers.first("references"))[-100:],
        reply_token=token_behind_plus(mailbox.address, [*envelope_to, *delivered, *to, *cc]),
        to=to[:100],
        cc=cc[:100],
        automatic=automatic_kind(headers, sender.address, null_return_path=null_return_path, delivery_status=delivery_status),
        doubt=" ".join(filter(None, [SEVERAL_SENDERS if several else "", judgement.doubt])),
        original=original,
        unchecked=unjudged and not several and proof is Proof.CLAIMED and is_signed(headers, sender.domain),
    )


async def check_sender(said: InboundMessage, mail: bytes, received: float, lookup: Lookup) -> Checked:
    """Check the mail's own signature against its From: see `mail_signature.check_signature`. Raises TryLater."""
    address = said.claims[0].value
    found = await check_signature(mail, address, received, lookup)
    if not found.domain:
        return Checked(said=said, why=found.why)
    return Checked(said=said, why=found.why, proved=Claim("email", address, Proof.DMARC), source=f"dkim:{found.domain}:{found.selector}")
