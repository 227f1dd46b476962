"""A mail's own DKIM signature (RFC 6376), checked by us where no server we believe has judged it.

What proves From is a signature that holds, by the From domain itself or one above it, over the one From header and the whole
body. SPF cannot be checked here: it judges the address a mail was sent from (RFC 7208 section 4.1), which a mail that was posted to us
no longer has.

The signature is a stranger's text, and so is the key once the stranger owns a domain: everything is measured before the
library sees it, since several of its patterns, and arithmetic with an absurd key, take time that grows with the square of the length.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connectors.shared.mail_auth import owned
from connectors.shared.mail_headers import Headers, ascii_domain, decode_text, mailboxes
from hub.contract import Lookup, TryLater

MOST_SIGNATURES = 5  # looked up for one mail (RFC 6376 section 6.1 leaves the limit to the verifier)
MAX_SIGNED = 50  # read to see whether any is worth a check
MAX_HEADER = 256_000  # bytes of all header lines
MAX_LINES = 5_000
MAX_SIGNATURE = 8_000  # bytes of one DKIM-Signature
MOST_FIELDS = 200  # signed header fields
MAX_BLANKS = 64  # in a row, within a signature: its folding
MAX_KEY = 1_500  # base64 characters; an RSA key of 8,192 bits has 1,400
SECONDS = 20.0  # for the arithmetic over one mail

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_BLANKS = re.compile(rb"[\t ]+")
_FOLDED = re.compile(rb"\s{%d}" % (MAX_BLANKS + 1))
_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_LABELS = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_KEY_TYPES = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}  # rsa-sha1 must not be believed (RFC 8301 section 3.1)

# The library's complaints quote the mail; ours are in the delivery's record.
_SILENT = logging.getLogger("hub.mail_signature")
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Found:
    """What the signatures came to. `domain` and `selector` name the one that holds (empty: none does), `why` says it in words."""

    why: str
    domain: str = ""
    selector: str = ""


@dataclass(frozen=True, slots=True)
class _Signature:
    """A signature worth a look-up: the how-manieth DKIM-Signature of the mail it is, and what it says of itself."""

    position: int
    domain: str
    selector: str
    key_type: str
    identity: str  # domain of i=, which a key may demand to be d= itself
    relaxed_body: bool


def covers(domain: str, from_domain: str) -> bool:
    """Whether a signing domain may speak for a From domain: it is that domain, or one above it that an organisation can own.

    Narrower than DMARC's relaxed alignment, which also lets a sub-domain vouch for its parent: without the Public Suffix List nobody
    can tell `mail.shop.example` from a stranger's `shop.hoster.example`. Keys of a parent are published by the parent alone.
    """
    one, other = ascii_domain(domain), ascii_domain(from_domain)
    return owned(one) and (one == other or other.endswith("." + one))


def is_signed(headers: Headers, from_domain: str) -> bool:
    """Whether some DKIM-Signature claims to be by a domain that may speak for From: only then there is anything to check."""
    return any(covers(_tags(value[:MAX_SIGNATURE]).get("d", ""), from_domain) for value in headers.all("dkim-signature")[:MAX_SIGNED])


def _tags(text: str) -> dict[str, str]:
    """A tag list (RFC 6376 section 3.2), empty where it is none or says one thing twice."""
    found: dict[str, str] = {}
    pieces = text.split(";")
    for piece in pieces if pieces[-1].strip() else pieces[:-1]:
        match = _TAG.fullmatch(piece)
        if match is None or match[1] in found:
            return {}
        found[match[1]] = match[2].strip()
    return found


async def check_signature(mail: bytes, from_address: str, received: float, lookup: Lookup) -> Found:
    """Check the signatures of a mail as it came. `from_address` is what the hub takes for its sender, `received` (unix seconds) when.

    Raises TryLater where none holds and some key could not be looked up.
    """
    from_domain = ascii_domain(from_address.rpartition("@")[2])
    read = await asyncio.to_thread(_read, mail, from_address, received)
    if isinstance(read, str):
        return Found(read)
    whys: list[str] = []
    later: TryLater | None = None
    for one in read.signatures:
        try:
            key, why = _key(await lookup(f"{one.selector}._domainkey.{one.domain}"), one)
        except TryLater as error:
            later = error
            continue
        if not why:
            why = await _timed(read, one, key)
        if not why:
            return Found(f"Signed by {one.domain} (key {one.selector}): the signature holds.", one.domain, one.selector)
        whys.append(f"{one.domain} (key {one.selector}): {why}")
    if later is not None:
        raise later
    return Found(f"No signature proves {from_domain}. " + "; ".join([*read.refused, *whys]) + ".")


async def _timed(read: _Read, one: _Signature, key: bytes) -> str:
    try:
        async with asyncio.timeout(SECONDS):
            return await asyncio.to_thread(_verify, read, one, key)
    except TimeoutError:
        return f"it takes longer than {SECONDS:g} s to check"


# --- the mail ---


@dataclass(frozen=True, slots=True)
class _Read:
    header: bytes
    body: bytes
    signatures: list[_Signature]
    refused: list[str]


def _read(mail: bytes, from_address: str, received: float) -> _Read | str:
    """The mail's parts and the signatures worth a look-up, or why there can be none."""
    end = _END_OF_HEADERS.search(mail[: MAX_HEADER + 4])
    if end is None and len(mail) > MAX_HEADER:
        return f"Its header lines are longer than {MAX_HEADER // 1_000} kB."
    header, body = (mail[: end.start()], mail[end.end() :]) if end is not None else (mail.rstrip(b"\r\n"), b"")
    if header.count(b"\n") >= MAX_LINES:
        return f"It has more than {MAX_LINES:,} header lines."
    if header.replace(b"\r\n", b"").count(b"\r"):
        # Some readers end a line there and some do not: what is signed would not be what is shown.
        return "Its header has a bare carriage return."
    fields = _fields(header)
    senders = [value for name, value in fields if name == b"from"]
    boxes, broken = mailboxes(_text(senders[0])) if len(senders) == 1 else ([], 0)
    if broken or [box.address for box in boxes] != [from_address]:
        return "It does not name its one sender in one From header."
    signatures: list[_Signature] = []
    refused: list[str] = []
    from_domain = from_address.rpartition("@")[2]
    for position, value in enumerate(value for name, value in fields if name == b"dkim-signature"):
        judged = _judge(position, value, from_domain, received)
        if isinstance(judged, str):
            refused.append(judged)
        elif len(signatures) < MOST_SIGNATURES:
            signatures.append(judged)
    if not refused and not signatures:
        return "It is not signed."
    return _Read(header, body, signatures, refused[:MOST_SIGNATURES])


def _fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields, names in lower case and values as they stand, folding included."""
    lines: list[list[bytes]] = []
    for line in header.replace(b"\r\n", b"\n").split(b"\n"):
        if line[:1] in (b" ", b"\t") and lines:
            lines[-1].append(line)
        else:
            lines.append([line])
    found = []
    for folded in lines:
        name, colon, value = b"\n".join(folded).partition(b":")
        if colon:
            found.append((name.strip().lower(), value))
    return found


def _text(value: bytes) -> str:
    """An unfolded header value."""
    return " ".join(decode_text(value).split())


def _judge(position: int, value: bytes, from_domain: str, received: float) -> _Signature | str:
    """A signature worth a look-up, or why it proves nothing whatever its key says."""
    if len(value) > MAX_SIGNATURE or _FOLDED.search(value):
        return "a signature is longer or more folded than any mail program writes it"
    tags = _tags(value.decode("utf-8", "replace"))
    domain, selector = tags.get("d", "").lower(), tags.get("s", "").lower()
    if not domain or not _LABELS.fullmatch(domain) or not _LABELS.fullmatch(selector) or len(domain) + len(selector) > 230:
        return "a signature cannot be read"
    if not covers(domain, from_domain):
        return f"{domain} cannot speak for {ascii_domain(from_domain)}"
    key_type = _KEY_TYPES.get(tags.get("a", "").lower())
    if key_type is None:
        return f"{domain} signed by an algorithm that is not believed"
    if "l" in tags:  # whatever is appended would be shown as theirs (RFC 6376 section 8.2)
        return f"{domain} signed only a part of the text"
    signed = [name.strip().lower() for name in tags.get("h", "").split(":")]
    if "from" not in signed or len(signed) > MOST_FIELDS:  # RFC 6376 section 5.4
        return f"{domain} did not sign the sender's name"
    if "x" in tags and not (tags["x"].isdecimal() and len(tags["x"]) <= 12 and int(tags["x"]) > received):
        return f"the signature of {domain} had run out when the mail came"
    identity = ascii_domain(tags.get("i", domain).rpartition("@")[2])
    relaxed = tags.get("c", "").lower().partition("/")[2].strip() == "relaxed"
    return _Signature(position, domain, selector, key_type, identity, relaxed)


# --- the key ---


def _key(records: Any, one: _Signature) -> tuple[bytes, str]:
    """The public key record among the TXT records of its name, or why there is none to believe (RFC 6376 section 3.6.1)."""
    keys = [(record, tags) for record in records if "p" in (tags := _tags(bytes(record).decode("utf-8", "replace")))]
    if len(keys) != 1:  # of several, which one counts is undefined (section 3.6.2.2)
        return b"", "there is no such key" if not keys else "there are several keys of that name"
    record, tags = keys[0]
    public = "".join(tags["p"].split())
    if not public:
        return b"", "the key was revoked"
    if tags.get("v", "DKIM1") != "DKIM1" or tags.get("k", "rsa").lower() != one.key_type or not _fits(public, one.key_type):
        return b"", "the key does not fit the signature"
    if "h" in tags and "sha256" not in _listed(tags["h"]):
        return b"", "the key is not for this kind of signature"
    if "s" in tags and not {"*", "email"} & _listed(tags["s"]):
        return b"", "the key is not for mail"
    flags = _listed(tags.get("t", ""))
    if "y" in flags:
        return b"", "the domain is only testing its signatures"
    if "s" in flags and one.identity != one.domain:
        return b"", "the key does not speak for sub-domains"
    return record, ""


def _listed(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(":")}


def _fits(public: str, key_type: str) -> bool:
    if len(public) > MAX_KEY:
        return False
    try:
        data = base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(data) == 32 if key_type == "ed25519" else len(data) > 128  # 1,024 bits at least (RFC 8301 section 3.2)


# --- the signature ---


def _verify(read: _Read, one: _Signature, key: bytes) -> str:
    """Why the signature does not hold; empty when it does."""
    import dkim

    # The body as "relaxed" will make it anyway (section 3.4.4): the library's own pattern is quadratic in a run of blanks.
    body = read.body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if one.relaxed_body:
        body = _BLANKS.sub(b" ", body).replace(b" \r\n", b"\r\n")
    body = body.rstrip(b"\r\n") + b"\r\n" if body.endswith(b"\r\n") else body
    try:
        holds = dkim.DKIM(read.header + b"\r\n\r\n" + body, logger=_SILENT, minkey=1_024).verify(one.position, _Known(key))
    except Exception as error:
        # A stranger wrote all that the library reads here. Whatever it stumbles over proves nothing.
        return _STUMBLED.get(type(error).__name__, "it cannot be checked")
    return "" if holds is True else "it does not hold"


_STUMBLED: Mapping[str, str] = {
    "ValidationError": "it does not hold: the mail was changed after it was signed, or the signature has run out",
    "KeyFormatError": "its key is too short or cannot be read",
    "NaClNotFoundError": "it is an Ed25519 signature, and the PyNaCl package is not installed",
}


@dataclass(frozen=True, slots=True)
class _Known:
    """Answers the library's look-up with the record that was looked up before."""

    record: bytes

    def __call__(self, name: bytes, timeout: float = 0) -> bytes:
        return self.record
