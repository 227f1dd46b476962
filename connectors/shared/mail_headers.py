"""The header words of a mail: decoding, address lists, message ids and dates.

Every reader here is a single pass over the text. The standard library's structured headers (`email.policy.default`)
take 18 s for a 40 KB Content-Type and recurse on nested comments, and before Python 3.11.10 its address parser can be
led to the wrong address (CVE-2023-27043); a stranger writes these lines, so they are read by hand.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import quopri
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

import idna

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Bidirectional overrides make "gpj.exe" read as "exe.jpg"; in a name or a subject they have no honest use.
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_ENCODED_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?]*)\?=")  # RFC 2047 section 2, RFC 2231 section 5
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,300}>")
# RFC 5321 section 4.5.3.1.1 allows 64; addresses with a token or a bounce's return path go beyond.
_LOCAL = re.compile(r'[^\s()<>@,;:\\"\[\]\x00-\x20\x7f]{1,200}|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~]){0,62}"')

# Labels people's mailers use -> the codec that reads them. Without an entry, Python's own name is tried.
_CHARSETS = {
    "iso-8859-1": "cp1252",  # as browsers do: the C1 controls are never meant, the curly quotes are
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "iso-8859-8-i": "iso-8859-8",
    "gb2312": "gb18030",
    "x-gbk": "gb18030",
    "ks_c_5601-1987": "cp949",
    "unicode-1-1-utf-7": "utf-7",
    "unicode-1-1-utf-8": "utf-8",
    "utf8mb4": "utf-8",
    "gbk": "gb18030",
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "euc-kr": "cp949",
    "windows-874": "cp874",
    "windows-31j": "cp932",
    "iso-8859-8-e": "iso-8859-8",
    "x-mac-roman": "mac-roman",
    "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
}
# Python text codecs that are not charsets of mail: slow on purpose-made input (punycode is quadratic) or not byte text.
_NO_CHARSET = frozenset({"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"})


def decode_text(data: bytes, charset: str = "") -> str:
    """Decode bytes by their declared charset, else as UTF-8, else Windows-1252; what still fails becomes U+FFFD. Never raises."""
    codec = charset.strip().strip("\"'").lower()
    codec = _CHARSETS.get(codec, codec)
    try:
        info = codecs.lookup(codec) if codec.isascii() and codec else None
    except (LookupError, ValueError):
        info = None
    known = info is not None and info.name.replace("-", "_") not in _NO_CHARSET
    if not codec:
        codec = _undeclared(data)
        known = bool(codec)
    for name in ([codec] if known else []) + ["utf-8"]:
        try:
            return data.decode(name)
        except (LookupError, ValueError):
            continue
    if known and info is not None and info.name != "utf-8":
        try:
            return data.decode(codec, "replace")
        except (LookupError, ValueError):  # LookupError: a bytes codec such as "zlib", which decode() refuses
            pass
    text = data.decode("utf-8", "replace")
    spoilt = text.count("\ufffd")
    # One cut character must not turn a whole UTF-8 text into Windows-1252 gibberish, nor the other way round.
    return text if spoilt * 2 <= len(_NOT_ASCII.findall(text)) else data.decode("cp1252", "replace")


def _undeclared(data: bytes) -> str:
    """The charset of bytes without one, where their first bytes or escapes say it; empty where they do not."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "iso-2022-jp" if b"\x1b$" in data[:10_000] else ""  # Japanese mail, older than charset labels (RFC 1468)


def _word_bytes(encoding: str, text: str) -> bytes | None:
    data = text.encode("utf-8", "replace")
    if encoding in "qQ":
        return quopri.decodestring(data.replace(b"_", b" "))
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=False)
    except (binascii.Error, ValueError):
        return None


def decode_words(value: str) -> str:
    """Decode RFC 2047 encoded words; neighbours of one charset are joined first, since mailers split inside a character."""
    out: list[str] = []
    held, held_charset = b"", ""  # decoded bytes waiting for a neighbour
    at = 0
    for match in _ENCODED_WORD.finditer(value):
        data = _word_bytes(match[2], match[3])
        if data is None:
            continue
        between, charset = value[at : match.start()], match[1].lower()
        if held and (between.strip() or charset != held_charset):
            out.append(decode_text(held, held_charset))
            held = b""
        if between.strip() or at == 0:  # blanks between two encoded words are not part of the text
            out.append(between)
        held, held_charset, at = held + data, charset, match.end()
    return "".join([*out, decode_text(held, held_charset), value[at:]])


def clean(text: str, limit: int = 998) -> str:
    """One line for people: no control characters, line breaks or bidirectional overrides, at most `limit` characters."""
    return " ".join(_BIDI.sub("", _CONTROL.sub(" ", text)).split())[:limit]


class Headers:
    """A mail's header lines in their order, unfolded; names are compared without case."""

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        """`lines` as the parser gives them: bytes outside ASCII as surrogates."""
        self._lines = [(name.lower(), " ".join(raw_text(value).split())) for name, value in lines]
        self._senders: tuple[list[Mailbox], int] | None = None

    def all(self, name: str) -> list[str]:
        """Every value of the header, topmost first."""
        return [value for found, value in self._lines if found == name]

    def first(self, name: str) -> str:
        """The topmost value, or an empty string."""
        return next((value for found, value in self._lines if found == name), "")

    def addresses(self, *names: str) -> list[Mailbox]:
        """The readable addresses of these headers, in their order; of a flood of lines the first 64,000 characters are read."""
        found: list[Mailbox] = []
        left = 64_000
        for name in names:
            for value in self.all(name):
                found += mailboxes(value)[0] if len(value) <= left else []
                left -= len(value)
        return found

    def senders(self) -> tuple[list[Mailbox], int]:
        """Who stands in From, as `mailboxes` reads it; read once, since it is asked for at every step."""
        if self._senders is None:
            self._senders = mailboxes(", ".join(self.all("from"))[:64_000])
        return self._senders

    def __len__(self) -> int:
        return len(self._lines)


def raw_text(value: str) -> str:
    """A header value as the parser holds it (bytes outside ASCII as surrogates), decoded."""
    try:
        return decode_text(value.encode("ascii", "surrogateescape"))
    except UnicodeEncodeError:
        return value


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address as it stood in a list; `name` is what its owner calls himself and proves nothing."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def address_spec(text: str) -> str | None:
    """The address with its domain in lower case, or None when it is not exactly one `local@domain` (RFC 5322 section 3.4.1).

    Routes, domain literals, spaces around the @ and encoded words are refused: each has led some parser to another mailbox.
    """
    local, at, domain = text.strip().rpartition("@")
    domain = unicodedata.normalize("NFC", domain).lower()
    labels = domain.split(".")
    if not at or len(domain) > 253 or "=?" in local or not _LOCAL.fullmatch(local) or any(0xD800 <= ord(c) < 0xE000 for c in local):
        return None
    for label in labels:
        if not 1 <= len(label) <= 63 or label[0] == "-" or label[-1] == "-" or not all(c.isalnum() or c == "-" for c in label):
            return None
    return f"{local}@{domain}"


def ascii_domain(domain: str) -> str:
    """A domain in the lower-case ASCII form mail servers use (IDNA 2008); empty where it has none.

    Not Python's own codec: its IDNA 2003 makes one domain of `fa\u00df.de` and `fass.de`, which have two owners.
    """
    domain = domain.strip().rstrip(".").lower()
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain[:253], uts46=True).decode("ascii")
    except UnicodeError:
        return ""


def mailboxes(value: str) -> tuple[list[Mailbox], int]:
    """The readable addresses of a header value, and how many others were there that no one address can be read from.

    A comma in an unquoted name (`Smith, John <j@x.example>`) is a common fault and is forgiven: a piece without an @ is part
    of the next name. Groups (`team: a@x, b@x;`) give their members.
    """
    found: list[Mailbox] = []
    broken = 0
    carried: list[str] = []
    for piece in _pieces(value):
        text = "".join(piece.text).strip()
        if not piece.angles and not piece.has_at:
            carried += [f"{text},"] if text else []
            continue
        words, carried = [*carried, text], []
        if piece.angles:
            address = address_spec(piece.angles[0]) if len(piece.angles) == 1 and not "".join(piece.tail).strip() else None
        else:
            address, words = address_spec("".join(piece.bare)), [piece.comment.strip()]
        name = clean(decode_words(" ".join(words)), 200)
        if address is None:
            broken += 1
        else:
            found.append(Mailbox(name, address))
    return found, broken


@dataclass(slots=True)
class _Piece:
    """Pieces of text are collected in lists: a string that grows a character at a time takes time that grows with its square."""

    text: list[str] = field(default_factory=list)  # the phrase, quoted strings unquoted
    bare: list[str] = field(default_factory=list)  # the same as written, without comments
    tail: list[str] = field(default_factory=list)  # what follows the angle brackets
    comment: str = ""
    angles: list[str] = field(default_factory=list)
    has_at: bool = False  # an @ stands in `bare`

    def write(self, raw: str, text: str) -> None:
        self.bare.append(raw)
        self.text.append(text)
        self.has_at = self.has_at or "@" in raw


def _pieces(value: str) -> list[_Piece]:
    """Cut an address list at its commas, semicolons and group names, minding quotes, comments and angle brackets."""
    pieces, piece, at = [], _Piece(), 0
    while at < len(value):
        char = value[at]
        if char == '"':
            end, inner = quoted_end(value, at)
            piece.write(value[at:end], inner)
        elif char == "(":
            end = comment_end(value, at)
            piece.comment = value[at + 1 : end - 1]
        elif char == "<":
            end = at + 1
            while end < len(value) and value[end] != ">":
                end = quoted_end(value, end)[0] if value[end] == '"' else end + 1
            piece.angles.append(value[at + 1 : end])
            end += 1
        elif char in ",;":
            pieces.append(piece)
            piece, end = _Piece(), at + 1
        elif char == ":" and not piece.angles and not piece.has_at:
            piece, end = _Piece(), at + 1  # the name of a group
        else:
            end = at + 1
            if piece.angles:
                piece.tail.append(char)
            piece.write(char, "" if piece.angles else char)
        at = end
    return [*pieces, piece]


def quoted_end(value: str, start: int) -> tuple[int, str]:
    """Where the quoted string that opens at `start` ends, and its text; one that is never closed reaches to the end."""
    inner: list[str] = []
    at = start + 1
    while at < len(value) and value[at] != '"':
        at += 1 if value[at] == "\\" else 0
        inner.append(value[at : at + 1])
        at += 1
    return at + 1, "".join(inner)


def comment_end(value: str, start: int) -> int:
    """Where the comment that opens at `start` ends, nested comments included; past the end when it is never closed."""
    depth, at = 0, start
    while at < len(value):
        char = value[at]
        at += 2 if char == "\\" else 1
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at
    return len(value) + 1


def message_ids(value: str) -> tuple[str, ...]:
    """The message ids of Message-ID, In-Reply-To or References, with their angle brackets; anything else there is not one."""
    return tuple(dict.fromkeys(_MESSAGE_ID.findall(value)))


def sent_at(value: str) -> int | None:
    """A Date header as microseconds UTC; None when unreadable or outside 1990 to 2100, which no honest clock shows."""
    try:
        moment = parsedate_to_datetime(value[:200])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # "-0000": UTC, place unknown (RFC 5322 section 3.3)
        seconds = moment.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if not 631_152_000 <= seconds < 4_102_444_800:
        return None
    return round(seconds * 1_000_000)


def token_behind_plus(address: str, candidates: Sequence[str]) -> str:
    """What stands behind `local+` in the first candidate that is `address` with a token; empty when none is. Unchecked."""
    local, _, domain = address.lower().rpartition("@")
    for candidate in candidates:
        theirs, _, their_domain = candidate.rpartition("@")
        if local and their_domain.lower() == domain and theirs.lower().startswith(local + "+"):
            return theirs[len(local) + 1 :]
    return ""
