"""What a returned mail or a complaint tells of the mails we sent: which address, which mail, for good or for now, and why.

Reports by the standards are read here: delivery status (RFC 3464, RFC 6533) and feedback reports (RFC 5965). The many that follow none
are left to flufl.bounce, GNU Mailman's collection (https://fluflbounce.readthedocs.io), which sees a copy cut to what its patterns
read in linear time. A report is a mail like any other, so anybody may have written it: what it may change is for the hub to judge.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32

from connectors.shared.mail_headers import Headers, address_spec, clean, decode_text, decode_words, mailboxes, message_ids
from hub.contract import STATUS_AFTER, Attachment, DeliveryEvent, DeliveryUpdate

MOST_REPORTS = 100
MAX_REPORT = 64_000  # bytes of a delivery status or a returned mail's header lines that are read
MAX_SCANNED = 128_000  # bytes the library sees
MAX_LINE = 500  # and of each line: some of its patterns take time that grows with the square of a line's length
MAX_LINES = 2_500

STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
FEEDBACK_TYPE = "message/feedback-report"
_RETURNED_TYPES = ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers")

# RFC 3463: what the two last numbers of a status code say.
_PLAIN = {
    "1.0": "there is something wrong with the address",
    "1.1": "the address does not exist",
    "1.2": "the domain of the address does not exist",
    "1.3": "the address is not written correctly",
    "1.4": "the address is ambiguous",
    "1.6": "the mailbox has moved",
    "1.10": "the domain takes no mail",
    "2.0": "the mailbox cannot take it",
    "2.1": "the mailbox is disabled",
    "2.2": "the mailbox is full",
    "2.3": "the mail is too big for the mailbox",
    "2.4": "the mailing list could not take it",
    "3.1": "the mail server is full",
    "3.2": "the mail server takes no mail now",
    "3.4": "the mail is too big for the mail server",
    "4.1": "the mail server does not answer",
    "4.2": "the connection to the mail server broke",
    "4.3": "the mail server could not be looked up",
    "4.4": "no way to the mail server is known",
    "4.6": "the mail went round in a circle",
    "4.7": "the mail server was tried for too long",
    "5.3": "the mail has too many recipients",
    "6.0": "the mail server did not like the content",
    "7.0": "the mail server's rules refuse it",
    "7.1": "the mail server's rules refuse it",
    "7.25": "the sending server's name does not fit its address",
    "7.26": "the sender could not be proved (SPF, DKIM)",
}
# Of a mail that failed for good, what says nothing against the address: full, too big, the content, the sender, the server's rules.
_NOT_THE_ADDRESS = ("1.7", "1.8", "1.9", "2.2", "2.3", "2.4", "3.", "4.1", "4.2", "4.3", "4.5", "4.6", "4.7", "5.", "6.", "7.")
_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_SMTP_REPLY = re.compile(r"(?<![\d.-])([45])[0-5]\d(?=[ -](?!\d{3}-))")  # RFC 5321 section 4.2.1; not a telephone number
_OUR_ID = re.compile(r"^[>\s]{0,20}Message-ID:[ \t]{0,20}(?:\n?[ \t]{1,20})?(<[!-;=?-~]{1,300}>)", re.IGNORECASE | re.MULTILINE)

# The library's complaints quote the mail.
_SILENT = logging.getLogger("flufl.bounce")
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Failures:
    """Addresses that could not be reached: for now, and for good."""

    temporary: tuple[str, ...] = ()
    permanent: tuple[str, ...] = ()


def guess(raw: bytes) -> Failures:
    """The addresses flufl.bounce finds in a returned mail. Never raises."""
    from flufl.bounce import all_failures  # some twenty modules, for a mail in a thousand

    cut = b"\n".join(line[:MAX_LINE] for line in raw[:MAX_SCANNED].replace(b"\r\n", b"\n").split(b"\n", MAX_LINES)[:MAX_LINES])
    try:
        message = BytesParser(policy=_SHORT).parsebytes(cut)
        if "@" not in str(message.get("from", "")):  # one of the detectors takes for granted that there is one
            del message["from"]
            message["from"] = "postmaster@unknown.invalid"
        temporary, permanent = all_failures(message)
    except Exception:  # seventeen detectors over a stranger's bytes: whatever one of them raises, it found nothing
        return Failures()
    good = sorted(_addresses(permanent))
    return Failures(tuple(address for address in sorted(_addresses(temporary)) if address not in good), tuple(good))


class _Short(Compat32):
    """Header values capped for the library's parameter parser, whose time grows with the square of their length."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:2_000]


_SHORT = _Short()


def _addresses(found: frozenset[bytes]) -> Iterator[str]:
    for address in list(found)[:MOST_REPORTS]:
        text = clean(decode_text(address), 320)
        if "@" in text:
            yield text


def guess_parsed(headers: Headers, text: str) -> Failures:
    """The same for a mail that came taken apart, of which only header lines and text are at hand."""
    message = Message()
    for name in ("from", "subject", "x-failed-recipients", "x-mailer"):
        value = headers.first(name)
        if value:
            message[name] = clean(value, 1_000)
    message.set_payload(text[:MAX_SCANNED].encode("utf-8", "replace"))
    return guess(message.as_bytes())


def reports(headers: Headers, text: str, attachments: Sequence[Attachment], guessed: Failures, key: str) -> tuple[DeliveryUpdate, ...]:
    """What a returned mail says of each address. `guessed` is what the library found, used where the mail has no delivery status;
    `key` names the mail, and is the same whenever it is delivered."""
    mail_id = _returned_id(headers, text, attachments)
    told: list[DeliveryUpdate] = []
    for attachment in attachments:
        if attachment.content_type in STATUS_TYPES:
            told += [_of_status(block, mail_id, key) for block in _blocks(attachment.data or b"") if _recipient(block)]
    if told:
        return _each_once(told)
    code = _ENHANCED.search(text[:20_000])
    reply = _SMTP_REPLY.search(text[:20_000])
    for_now = (code or reply) is not None and (code[1] if code else reply[1] if reply else "5") == "4"
    status = code[0] if code else ""
    for address in guessed.temporary:
        words = _sentence("is delayed", status if status[:1] == "4" else "", _words_of_server(text, address))
        told.append(_report(DeliveryEvent.DEFERRED, address, mail_id, key, words))
    for address in guessed.permanent:
        words = _sentence("could not be delivered", status, _words_of_server(text, address))
        told.append(_report(DeliveryEvent.BOUNCED, address, mail_id, key, words, not for_now and _is_address(status)))
    return _each_once(told)


def complaints(headers: Headers, text: str, attachments: Sequence[Attachment], key: str) -> tuple[DeliveryUpdate, ...]:
    """What a feedback report (RFC 5965) says: who called which mail spam. Of failed authentication (RFC 6591) nothing comes but news."""
    told: list[DeliveryUpdate] = []
    mail_id = _returned_id(headers, text, attachments)
    returned = _returned_headers(attachments)
    for attachment in attachments:
        if attachment.content_type != FEEDBACK_TYPE:
            continue
        fields: dict[str, list[str]] = {}
        for block in _blocks(attachment.data or b""):
            for name, values in block.items():
                fields.setdefault(name, []).extend(values)
        kind = clean((fields.get("feedback-type") or [""])[0], 40).lower()
        named = [*fields.get("original-rcpt-to", ()), *fields.get("removal-recipient", ())]
        boxes = [box.address for value in named for box in mailboxes(value.rpartition(";")[2])[0]]
        boxes += [box.address for value in (returned.all("to") if returned and not boxes else ()) for box in mailboxes(value)[0][:1]]
        event = DeliveryEvent.OTHER if kind in ("auth-failure", "not-spam", "dmarc") else DeliveryEvent.COMPLAINED
        by = clean((fields.get("user-agent") or fields.get("reporting-mta") or [""])[0].rpartition(";")[2], 80)
        words = f"The recipient reported the mail as {_COMPLAINT.get(kind, 'unwanted')} (feedback type {kind or 'not told'})."
        words = f"{words} Told by {by}." if by else words
        for recipient in boxes or [""]:
            told.append(
                _report(event, recipient, mail_id, key, words if event is DeliveryEvent.COMPLAINED else f"A report of type {kind}.")
            )
    return _each_once(told)


_COMPLAINT = {"abuse": "spam", "fraud": "fraud", "virus": "a virus", "opt-out": "unwanted", "opt-out-list": "unwanted"}


def _each_once(told: Sequence[DeliveryUpdate]) -> tuple[DeliveryUpdate, ...]:
    found: dict[str, DeliveryUpdate] = {}
    for update in told[:MOST_REPORTS]:
        found.setdefault(update.provider_key, update)
    return tuple(found.values())


def _report(event: DeliveryEvent, recipient: str, mail_id: str, key: str, error: str = "", permanent: bool = False) -> DeliveryUpdate:
    digest = hashlib.sha256("\x1f".join([key, event, recipient.lower()]).encode("utf-8", "surrogatepass")).hexdigest()
    return DeliveryUpdate(
        provider_key=f"report:{digest[:40]}",
        status=STATUS_AFTER[event],
        event=event,
        recipient=recipient,
        mail_id=mail_id,
        error=error,
        permanent=permanent and event is DeliveryEvent.BOUNCED,
    )


# --- Delivery status -------------------------------------------------------------------------------------------------

Block = dict[str, list[str]]


def _blocks(data: bytes) -> list[Block]:
    """The blocks of header lines in a report, unfolded; names in small letters."""
    blocks: list[Block] = [{}]
    name = ""
    for line in decode_text(data[:MAX_REPORT]).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line.strip():
            name = ""
            if blocks[-1]:
                blocks.append({})
        elif line[0] in " \t" and name:
            blocks[-1][name][-1] += " " + line.strip() if len(blocks[-1][name][-1]) < 2_000 else ""
        else:
            name, colon, value = line.partition(":")
            name = name.strip().lower() if colon else ""
            if name:
                blocks[-1].setdefault(name, []).append(value.strip())
    return blocks


def _recipient(block: Block) -> str:
    """The address of a recipient's block; as we wrote it where that is told, since a forwarding server fails for another."""
    for name in ("original-recipient", "final-recipient", "x-actual-recipient"):
        for value in block.get(name, ()):
            kind, semicolon, rest = value.partition(";")
            if semicolon and kind.strip().lower() not in ("rfc822", "utf-8"):
                continue
            bare = decode_words((rest if semicolon else value).split(";")[0]).strip()
            found = mailboxes(bare)[0]
            address = found[0].address if found else address_spec(bare.strip("<> ")) or ""
            if address:
                return address
    return ""


def _of_status(block: Block, mail_id: str, key: str) -> DeliveryUpdate:
    action = (block.get("action") or [""])[0].strip().lower()
    diagnostic = clean(" ".join(block.get("diagnostic-code", ())).partition(";")[2] or " ".join(block.get("diagnostic-code", ())), 300)
    found = _ENHANCED.search((block.get("status") or [""])[0][:100]) or _ENHANCED.search(diagnostic)
    status = found[0] if found else ""
    recipient = _recipient(block)
    if action.startswith(("delivered", "relayed", "expanded")):
        event = DeliveryEvent.DELIVERED if action.startswith("delivered") else DeliveryEvent.OTHER
        return _report(event, recipient, mail_id, key)
    if action.startswith("delayed") or (not action.startswith(("fail", "error")) and status[:1] == "4"):
        return _report(DeliveryEvent.DEFERRED, recipient, mail_id, key, _sentence("is delayed", status, diagnostic))
    if not action.startswith(("fail", "error")) and status[:1] != "5":
        return _report(DeliveryEvent.OTHER, recipient, mail_id, key)
    reply = _SMTP_REPLY.search(diagnostic)
    for_now = status[:1] == "4" or (not status and reply is not None and reply[1] == "4")
    words = _sentence("could not be delivered", status, diagnostic)
    return _report(DeliveryEvent.BOUNCED, recipient, mail_id, key, words, not for_now and _is_address(status))


def _is_address(status: str) -> bool:
    """Whether a failure speaks against the address itself. One without a code does: the servers that tell none return for good."""
    if status[:1] in ("2", "4"):
        return False
    detail = status[2:]
    return not any(detail == rule or (rule.endswith(".") and detail.startswith(rule)) for rule in _NOT_THE_ADDRESS)


def _sentence(what: str, status: str, diagnostic: str) -> str:
    plain = _PLAIN.get(status[2:], "")
    if not plain and status[2:3] in _CLASS:
        plain = _CLASS[status[2:3]]
    said = f"The mail {what}" + (f": {plain}" if plain else "") + (f" ({status})." if status else ".")
    return f"{said} The server said: {diagnostic}" if diagnostic else said


_CLASS = {
    "1": "there is something wrong with the address",
    "2": "the mailbox cannot take it",
    "3": "the mail server cannot take it",
    "4": "the mail server cannot be reached",
    "5": "the mail servers misunderstood each other",
    "6": "the mail server did not like the content",
    "7": "the mail server's rules refuse it",
}


def _words_of_server(text: str, address: str) -> str:
    """The line for people: the first with a status code, else the one that names the address, with the line after it."""
    lines = [clean(line.lstrip("> "), 200) for line in text[:20_000].split("\n") if line.strip()]
    for line in lines:
        if _ENHANCED.search(line) or _SMTP_REPLY.search(line):
            return line
    for number, line in enumerate(lines):
        if address.lower() in line.lower():
            return " ".join(lines[number : number + 2])
    return ""


# --- The mail that came back -----------------------------------------------------------------------------------------


def _returned_headers(attachments: Sequence[Attachment]) -> Headers | None:
    """The header lines of the mail that came back."""
    for attachment in attachments:
        if attachment.content_type in _RETURNED_TYPES:
            data = (attachment.data or b"")[:MAX_REPORT].lstrip(b"\r\n").replace(b"\r\n", b"\n")
            block = _blocks(data.partition(b"\n\n")[0])[0]
            if block:
                return Headers((name, value) for name, values in block.items() for value in values)
    return None


def _returned_id(headers: Headers, text: str, attachments: Sequence[Attachment]) -> str:
    """The Message-ID of the mail that came back: of its copy, of its header lines quoted in the text, or of the thread."""
    returned = _returned_headers(attachments)
    found = message_ids(returned.first("message-id")) if returned is not None else ()
    if not found:
        quoted = _OUR_ID.search(text[:MAX_SCANNED])
        found = (quoted[1],) if quoted else message_ids(headers.first("in-reply-to")) or message_ids(headers.first("references"))
    return found[0] if found else ""
