"""Bytes of a mail -> its headers, texts and attachments. The only place that reads MIME; a pure function of the bytes.

The parser is the standard library's under the compat32 policy: with `email.policy.default` a 40 KB Content-Type takes 18 s
and 20 KB of opening brackets exhaust the stack, because it parses every header it touches with a recursive grammar.
Headers are read by `mail_headers` in one pass instead. Whatever cannot be read raises Unparseable and nothing else.
"""

from __future__ import annotations

import hashlib
import html as html_words
import mimetypes
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from email.feedparser import BytesFeedParser
from email.message import Message
from email.policy import Compat32

from connectors.shared import bounces, calendar, forwarding, tnef
from connectors.shared.html_text import html_to_text, nesting
from connectors.shared.machine_mail import automatic_kind, may_be_returned
from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_headers import (
    Headers,
    Mailbox,
    clean,
    decode_text,
    decode_words,
    message_ids,
    raw_text,
    sent_at,
    token_behind_plus,
)
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mail_signature import check_signature, is_signed
from hub.contract import Attachment, Checked, Claim, DeliveryUpdate, InboundMessage, Lookup, Proof, Unparseable

MAX_PARTS = 200
MAX_DEPTH = 50
MAX_TEXT = 256_000  # characters of text, and of HTML, kept for display; the hub keeps the original whole
MAX_HTML_READ = 1_000_000  # characters of HTML that are searched for words where a mail has no plain text
MAX_NESTING = 1_000  # open HTML tags: sanitisers are quadratic in depth (nh3: 20,000 pairs take 4.9 s)
MAX_HEADERS = 1_000
MAX_LINES = 700_000  # the parser holds each line as an object of its own: 30 MB of short ones would take a gigabyte
MAX_BLOCKS = 1_000  # every part, and every block of a delivery status, which the parser makes a part of
MAX_EFFORT = 3_000_000  # lines times open multiparts: the parser holds each line against every boundary that may end there
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
    "message/global-delivery-status": ".txt",
    "message/feedback-report": ".txt",
    "text/rfc822-headers": ".txt",
    "message/global": ".eml",
    "application/ics": ".ics",
    "application/pgp-signature": ".asc",
    "application/pgp-encrypted": ".txt",
    "application/pgp-keys": ".asc",
    "application/pkcs7-signature": ".p7s",
    "application/x-pkcs7-signature": ".p7s",
    "application/pkcs7-mime": ".p7m",
    "application/x-pkcs7-mime": ".p7m",
    "text/vcard": ".vcf",
    "text/x-vcard": ".vcf",
}
_CALENDARS = ("text/calendar", "application/ics")
_SEALED = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_OUTLOOK = ("application/ms-tnef", "application/vnd.ms-tnef")
SMIME = (
    "[This mail is sealed by S/MIME (encrypted, or signed as one block): its text is in {name}, which a mail program can open. It is kept.]"
)
PGP = "[This mail is encrypted with PGP: its text is in {name}, which only the holder of the key can read. It is kept.]"
OUTLOOK = "[Outlook put this mail's contents into {name}. It is kept{files}.]"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")


@dataclass(frozen=True, slots=True)
class Body:
    """What a mail says. `fingerprint` digests the whole text (before it is cut for display) and every attachment."""

    text: str
    html: str
    attachments: tuple[Attachment, ...]
    fingerprint: str
    failures: bounces.Failures | None = None  # what was found where a mail server may have written it; None: nobody has looked


class _Policy(Compat32):
    """compat32 with header values capped (its parameter parser is quadratic in the length of a Content-Type) and raw bytes
    in them decoded instead of replaced."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[: 4_000 if name[:8].lower() == "content-" else 64_000]

    def header_fetch_parse(self, name: str, value: str) -> str:
        return value if value.isascii() else raw_text(value)


_POLICY = _Policy()
# What the standard library's mail package raises on torture mails; each was seen.
_TORN = (RecursionError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


class _Part(Message):
    """A part that refuses a flood of header lines while it is read, not when they are all in memory."""

    def set_raw(self, name: str, value: str) -> None:
        super().set_raw(name, value)
        if len(self) > MAX_HEADERS:
            raise Unparseable(f"the mail has more than {MAX_HEADERS} header lines in one part")


def _parse(raw: bytes) -> Message:
    # A byte order mark or a blank line on top would end the headers before they begin; a line `From ...` is a mailbox file's.
    raw = raw.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    lines = max(raw.count(b"\n"), raw.count(b"\r"))
    if lines > MAX_LINES:
        raise Unparseable(f"the mail has {lines} lines, more than {MAX_LINES}")
    made = 0

    def part(policy: Compat32 = _POLICY) -> Message:
        nonlocal made
        made += 1
        # The parser's own stack of open parts; test_mime holds that it is there.
        depth = len(parser._msgstack) if made > 1 else 0  # type: ignore[attr-defined]
        if made > MAX_BLOCKS or depth > MAX_DEPTH + 1 or depth * lines > MAX_EFFORT:
            raise Unparseable(
                f"the mail has more than {MAX_BLOCKS} parts, or nests too many lines too deep ({lines} lines, {depth} levels)"
            )
        return _Part(policy=policy)

    try:
        parser = BytesFeedParser(part, policy=_POLICY)
        for start in range(0, len(raw), 65_536):
            parser.feed(raw[start : start + 65_536])
        return parser.close()
    except _TORN as error:
        raise Unparseable(f"the mail's structure cannot be read ({type(error).__name__})") from error


def _headers_of(message: Message) -> Headers:
    return Headers((name, str(value)) for name, value in message.raw_items())


def read_headers(raw: bytes) -> Headers:
    """Read a block of header lines. Raises Unparseable."""
    end = re.search(rb"\r?\n\r?\n|\r\r", raw.lstrip(b"\r\n"))
    return _headers_of(_parse(raw.lstrip(b"\r\n")[: end.end()] if end else raw))


def read_mail(raw: bytes) -> tuple[Headers, Body]:
    """Read a whole mail. Raises Unparseable, and never anything else."""
    message = _parse(raw)
    headers = _headers_of(message)
    try:
        reader = _Reader()
        pieces = reader.walk(message, 0)
        body = make_body(pieces, reader.attachments)
        if may_be_returned(headers, from_address(headers)):
            body = replace(body, failures=bounces.guess(raw))
        return headers, body
    except _TORN as error:
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
            data = _payload(part)
            charset = part.get_content_charset("") or (charset_within(data) if kind == "text/html" else "")
            text = decode_text(data, charset).replace("\r\n", "\n").replace("\x00", "")
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
    plain = "winmail.dat" if kind in _OUTLOOK else f"attachment-{number}{_EXTENSIONS.get(kind, '')}"
    return Attachment(name=name or plain, content_type=kind, data=data, content_id=content_id, inline=inline)


_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)


def charset_within(data: bytes) -> str:
    """The charset an HTML page names itself, for one that came without (https://html.spec.whatwg.org/#determining-the-character-encoding)."""
    found = _META_CHARSET.search(data[:1_024])
    return found[1].decode("ascii") if found else ""


def unpacked(attachments: Sequence[Attachment]) -> list[Attachment]:
    """The attachments, and behind each `winmail.dat` the files in it."""
    out: list[Attachment] = []
    for attachment in attachments:
        out.append(attachment)
        if attachment.content_type in _OUTLOOK or (attachment.name.lower() == "winmail.dat" and attachment.data):
            for file in tnef.files_inside(attachment.data or b""):
                kind = mimetypes.guess_type(name := safe_name(file.name))[0] or "application/octet-stream"
                out.append(named(name, kind, file.data, len(out) + 1))
    return out


def stand_in(attachments: Sequence[Attachment]) -> str:
    """What to show of a mail without words of its own: its invitation in lines, or where its text is and why it is not shown."""
    for attachment in attachments:
        if attachment.content_type in _CALENDARS and (said := calendar.summary(attachment.data or b"")):
            return said
    for number, attachment in enumerate(attachments):
        if attachment.content_type in _SEALED:
            return SMIME.format(name=attachment.name)
        if attachment.content_type == "application/pgp-encrypted":
            sealed = attachments[number + 1] if number + 1 < len(attachments) else attachment
            return PGP.format(name=sealed.name)
        if attachment.content_type in _OUTLOOK:
            inside = [file.name for file in attachments[number + 1 :] if attachment.data and file.data and file.data in attachment.data]
            return OUTLOOK.format(name=attachment.name, files=", with the files in it: " + ", ".join(inside) if inside else "")
    return ""


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
    attachments = unpacked(attachments)
    text, html = _text_of(pieces), _html_of(pieces)
    text = text if text.strip() else stand_in(attachments) or text
    digest = _digest(text)
    for attachment in attachments:
        digest.update(hashlib.sha256(attachment.data or b"").digest())
    return Body(
        text=text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + CUT,
        html="" if nesting(html[:MAX_TEXT]) > MAX_NESTING else html[:MAX_TEXT],
        attachments=tuple(attachments),
        fingerprint=digest.hexdigest(),
    )


def _digest(text: str) -> hashlib._Hash:
    """SHA-256 of the words with one blank between them, a stretch at a time: a list of all words would be fifteen times the text."""
    digest, begun, gap = hashlib.sha256(), False, False
    for start in range(0, len(text), 100_000):
        chunk = text[start : start + 100_000]
        words = chunk.split()
        gap = gap or chunk[0].isspace()
        if words:
            digest.update(b" " if begun and gap else b"")
            digest.update(" ".join(words).encode("utf-8", "replace"))
            begun, gap = True, chunk[-1].isspace()
    return digest


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


# --- To the hub's words ----------------------------------------------------------------------------------------------


def senders(headers: Headers) -> tuple[Mailbox, bool]:
    """The From mailbox, and whether the mail names others beside it. Raises Unparseable when no usable address stands there."""
    values = headers.all("from")
    found, broken = headers.senders()
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
    from connectors.shared.reply_text import written  # which reads HTML by this room's own door

    message_id = (*message_ids(headers.first("message-id")), "")[0]
    known = "\x1f".join([*(headers.first(name) for name in ("from", "date", "subject")), body.fingerprint])
    key = f"{message_id}|{hashlib.sha256(known.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    told = _reports(headers, body, key, null_return_path)
    sender, several = senders(headers) if from_address(headers) else (NOBODY, False)
    proof = Proof.CLAIMED if several or sender is NOBODY else judgement.proof
    author = forwarding.author(headers, sender, proof, mailbox)
    if author.mailbox is not sender:  # what our own machine says of its customer is the customer's claim
        claims: tuple[Claim, ...] = (Claim("email", author.mailbox.address, Proof.CLAIMED),)
    else:
        reply_to = [box.address for box in headers.addresses("reply-to")]
        others = [found for found in dict.fromkeys(reply_to) if found.lower() != sender.address.lower()]
        claims = (Claim("email", sender.address, proof), *(Claim("email", other, Proof.SEEN) for other in others[:3]))
    if sender is NOBODY and not told:
        if not headers and not body.attachments and not body.text.strip():
            raise Unparseable("this is no mail: it is empty")
        claims = ()  # it is read all the same; the hub keeps it aside
    to, cc = (tuple(dict.fromkeys(box.address for box in headers.addresses(name))) for name in ("to", "cc"))
    delivered = [box.address for box in headers.addresses("delivered-to", "x-original-to", "envelope-to", "x-envelope-to")]
    automatic = automatic_kind(
        headers,
        sender.address,
        null_return_path=null_return_path,
        delivery_status=any(attachment.content_type in bounces.STATUS_TYPES for attachment in body.attachments),
        handed_on=author.by == "forwarder",
        form=author.by == "form",
    )
    if told and automatic != "complaint":
        automatic = "bounce"
    return InboundMessage(
        provider_key=key,
        claims=claims,
        text=body.text,
        reply_text=None if automatic else written(body.text, body.html),
        html=body.html,
        subject=clean(decode_words(headers.first("subject"))),
        sender_name=author.mailbox.name,
        attachments=body.attachments,
        sent_at=sent_at(headers.first("date")),
        message_id=message_id,
        in_reply_to=(*message_ids(headers.first("in-reply-to")), "")[0],
        references=message_ids(headers.first("references"))[-100:],
        reply_token=token_behind_plus(mailbox.address, [*envelope_to, *delivered, *to, *cc]),
        to=to[:100],
        cc=cc[:100],
        automatic=automatic,
        reports=told,
        doubt=" ".join(filter(None, [SEVERAL_SENDERS if several else "", judgement.doubt])),
        original=original,
        unchecked=unjudged and not told and not several and proof is Proof.CLAIMED and is_signed(headers, sender.domain),
    )


# Stands for the sender of a mail whose From names none ("Postmaster <>"); RFC 2606 keeps `.invalid` free of owners.
NOBODY = Mailbox("", "mailer-daemon@unknown.invalid")


def from_address(headers: Headers) -> str:
    """The address that stands first in From; empty where none can be read, which a returned mail may do without."""
    found, _ = headers.senders()
    return found[0].address if found else ""


def _reports(headers: Headers, body: Body, key: str, null_return_path: bool) -> tuple[DeliveryUpdate, ...]:
    """What a returned mail or a complaint tells of mails sent; nothing where a person may have written it."""
    if not may_be_returned(headers, from_address(headers), null_return_path=null_return_path):
        return ()
    if any(attachment.content_type == bounces.FEEDBACK_TYPE for attachment in body.attachments):
        return bounces.complaints(headers, body.text, body.attachments, key)
    failures = body.failures if body.failures is not None else bounces.guess_parsed(headers, body.text)
    return bounces.reports(headers, body.text, body.attachments, failures, key)


async def check_sender(said: InboundMessage, mail: bytes, received: float, lookup: Lookup) -> Checked:
    """Check the mail's own signature against its From: see `mail_signature.check_signature`. Raises TryLater."""
    if not said.claims:
        return Checked(said=said, why="The mail names no sender.")
    address = said.claims[0].value
    found = await check_signature(mail, address, received, lookup)
    if not found.domain:
        return Checked(said=said, why=found.why)
    return Checked(said=said, why=found.why, proved=Claim("email", address, Proof.DMARC), source=f"dkim:{found.domain}:{found.selector}")
