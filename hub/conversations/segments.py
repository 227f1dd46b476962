"""How many SMS a text takes, what makes it dear, and how a long answer is split so that people can read it in order.

An SMS carries 140 bytes: 160 characters of the GSM alphabet, or 70 units of UCS-2 as soon as one character lies outside it. A longer
text is sent as several, each of which gives 7 characters (3 units) to saying which one it is: 153 (67). Sources: 3GPP TS 23.038
(alphabet and its extension table), 3GPP TS 23.040 section 9.2.3.24.1 (concatenation).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Encoding = Literal["GSM-7", "UCS-2"]

# 3GPP TS 23.038, section 6.2.1: the default alphabet; its 128th place (1B) is the escape to the table after it.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# Section 6.2.1.1: each of these takes two places.
_EXTENSION = frozenset("\f^{}\\[~]|€")

_WHOLE: Mapping[Encoding, int] = {"GSM-7": 160, "UCS-2": 70}
_PART: Mapping[Encoding, int] = {"GSM-7": 153, "UCS-2": 67}

# What word processors and phones put in of themselves, and what people would have typed.
_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2035\u00b4\u0060\u02bc\uff07", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\uff02", '"'),
    **dict.fromkeys("\u2039", "<"),
    **dict.fromkeys("\u203a", ">"),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\u2022\u00b7\u00ad\ufe63\uff0d", "-"),
    **dict.fromkeys("\t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u200b\u2060\ufeff", ""),
    **dict.fromkeys("\u0085\u2028\u2029", "\n"),
    "\u2026": "...",
    "\u2044": "/",
    "\u00d7": "x",
}


@dataclass(frozen=True, slots=True)
class Segments:
    """What a text comes to. `units` are places of the GSM alphabet or UTF-16 units; `left_in_last` is how many more the last SMS has
    room for; `culprits` are the characters, each once in their order, for which the whole text is sent as UCS-2."""

    encoding: Encoding
    units: int
    segments: int
    left_in_last: int
    culprits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replacement:
    """One character that could be written in the GSM alphabet, and how."""

    found: str
    instead: str


def count(text: str) -> Segments:
    """How a text is sent as SMS. An empty one takes none. Pure."""
    culprits = tuple(dict.fromkeys(character for character in text if character not in _BASIC and character not in _EXTENSION))
    encoding: Encoding = "UCS-2" if culprits else "GSM-7"
    widths = [_width(character, encoding) for character in text]
    units = sum(widths)
    if units <= _WHOLE[encoding]:
        return Segments(encoding, units, 1 if text else 0, _WHOLE[encoding] - units, culprits)
    # An escape and what it escapes, or the two halves of a surrogate pair, are never in two SMS: a place may stay empty.
    segments, used = 1, 0
    for width in widths:
        if used + width > _PART[encoding]:
            segments, used = segments + 1, 0
        used += width
    return Segments(encoding, units, segments, _PART[encoding] - used, culprits)


def _width(character: str, encoding: Encoding) -> int:
    if encoding == "GSM-7":
        return 2 if character in _EXTENSION else 1
    return 2 if ord(character) > 0xFFFF else 1


def smart(text: str) -> tuple[Replacement, ...]:
    """The replacements (curly quotes, long dashes, unbreakable spaces) that together bring a text back to the GSM alphabet; none where
    it is in it already, or where no such replacement would do (an emoji, a Cyrillic letter). To be offered, never made unasked. Pure."""
    culprits = count(text).culprits
    if not culprits or any(character not in _PLAIN for character in culprits):
        return ()
    return tuple(Replacement(character, _PLAIN[character]) for character in culprits)


def plain(text: str) -> str:
    """The text with what `smart` offers carried out. Pure."""
    for each in smart(text):
        text = text.replace(each.found, each.instead)
    return text


_PARAGRAPH = re.compile(r"\s*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)]*\s+|(?<=[\u3002\uff01\uff1f])")
_SPACE = re.compile(r"\s+")


def split(text: str, limit: int) -> list[str]:
    """A text in parts of at most `limit` characters, marked `(1/3) `, cut at the end of a paragraph, else of a sentence, else of a
    word; within a word only where it is longer than a part. A text that fits stays as it is. No word is lost: only the white space
    where it was cut is. Raises ValueError where the limit leaves no room beside the marks. Pure."""
    text = text.strip()
    if len(text) <= limit:
        return [text] if text else []
    digits = 1
    while True:
        room = limit - len(f"({'9' * digits}/{'9' * digits}) ")
        if room < 1:
            raise ValueError(f"a limit of {limit} characters leaves no room for parts of {len(text)} characters with their numbers")
        parts = _cut(text, room)
        if len(str(len(parts))) <= digits:
            return [f"({number}/{len(parts)}) {part}" for number, part in enumerate(parts, 1)]
        digits += 1


def _cut(text: str, room: int) -> Sequence[str]:
    parts = []
    while len(text) > room:
        end, following = _boundary(text, room)
        parts.append(text[:end])
        text = text[following:]
    return [*parts, text] if text else parts


def _boundary(text: str, room: int) -> tuple[int, int]:
    """Where the first part ends and where the next begins: the last boundary of the best kind that does not leave the part less than
    half full (of words, wherever it is)."""
    window = text[: room + 1]
    for pattern, least in ((_PARAGRAPH, math.ceil(room / 2)), (_SENTENCE, math.ceil(room / 2)), (_SPACE, 1)):
        for match in reversed(list(pattern.finditer(window))):
            end = len(window[: match.end()].rstrip())
            if least <= end <= room:
                return end, len(text) - len(text[end:].lstrip())
    cut = next((at for at in range(room, 0, -1) if not _clings(text, at)), room)
    return cut, cut


def _clings(text: str, at: int) -> bool:
    """Whether the character at this place belongs to the one before: an accent, a skin tone, the next of a joined emoji."""
    return (
        bool(unicodedata.combining(text[at]))
        or text[at] in "\u200d\ufe0e\ufe0f"
        or text[at - 1] == "\u200d"
        or 0x1F3FB <= ord(text[at]) <= 0x1F3FF
    )
