# ruff: noqa: RUF001  (colons and dashes of several scripts)
"""The lines a mail program writes above a quoted mail: attributions, header blocks, separators. Decided from a few lines each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from connectors.shared.reply.lines import Line
from connectors.shared.reply.phrases import FORWARDED, JOINED_VERBS, LABELS, OPENERS, ORIGINAL, PRONOUNS, VERBS, WEEKDAYS

WRAPPED = 6  # lines over which an attribution may be wrapped (a client's 78 columns, a long name, an address in a line of its own)
LONGEST = 500  # characters of a whole attribution
HEADER_LINES = 24  # lines of a header block with long lists of addressees


class Mark(Enum):
    """`LIKELY` is an attribution only above quoted lines; `FORWARD` begins a mail somebody passes on."""

    ATTRIBUTION = "attribution"
    LIKELY = "likely"
    HEADERS = "headers"
    ORIGINAL = "original"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Found:
    """The mark that stands in the lines from `start` up to, not including, `end`."""

    mark: Mark
    start: int
    end: int


def _one_of(words: Sequence[str]) -> str:
    return "|".join(re.escape(word).replace(r"\ ", " ") for word in sorted(set(words), key=len, reverse=True))


# No expression here repeats a group that repeats: each is linear in the few hundred characters it is given.
_VERB = re.compile(f"(?<!\\w)(?:{_one_of(VERBS)})(?!\\w)|{_one_of(JOINED_VERBS)}")
_VERB_LAST = re.compile(f"(?:(?<!\\w)(?:{_one_of(VERBS)})|(?:{_one_of(JOINED_VERBS)})[가-힣]?)[ ]?[:：.]*$")
_ADDRESS = re.compile(r"[^\s<>@]@[^\s<>@]")
_IN_BRACKETS = re.compile(r"[<(\[] ?(?:mailto:)?[^\s<>()\[\]@]{1,100}@[^\s<>()\[\]@]{1,100} ?[<>)\]]")
_DAY = re.compile(
    r"\d{1,2}[./-] ?\d{1,2}[./-] ?\d{2}|\d{4}[./-] ?\d{1,2}|(?<!\d)(?:19|20|25)\d\d(?!\d)|\d年|\d월|\d{1,2}\. \w{3}|\d{1,2} \w{3,9}\.?,? "
)
_HOUR = re.compile(r"\d{1,2}[:.h٫]\d{2}(?!\d)|\d[时時点點시] ?\d|\d ?(?:a\.?m|p\.?m)\b|\d h\b")
_OLD_GMAIL = re.compile(r"(?:19|20)\d\d[-/]\d{1,2}[-/]\d{1,2} \d{1,2}:\d\d (?:gmt|utc)[+-]\d\d:?\d\d \w[^:]{1,60}$")
_YEAR_FIRST = re.compile(r"(?:19|20)\d\d[-/]\d{1,2}[-/]\d{1,2}\b")
_SENTENCE_ENDS = re.compile(r"[^\W\d]{5,}[.!?]$|[!?]$")
_FRAME = "-–—_=*~# \t"


class Marks:
    """Finds marks in the lines of one mail. `tries` counts the windows looked at, and is capped: a mail has few marks."""

    MOST_TRIES = 4_000

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._starts: dict[int, Found | None] = {}
        self.tries = 0

    def at(self, start: int) -> Found | None:
        """The mark that begins in this line, if one does."""
        line = self._lines[start]
        if line.blank:
            return None
        return self._separator(start) or self._headers(start, separated=False) or self._attribution_from(start)

    # --- Separators and header blocks --------------------------------------------------------------------------------

    def _separator(self, start: int) -> Found | None:
        line = self._lines[start]
        words = line.words
        bare = words.strip(_FRAME)
        if not bare:  # a rule, as Outlook draws above its headers
            below = self._next(start + 1, 2)
            return self._widen(start, self._headers(below, separated=True)) if len(words) >= 5 and below is not None else None
        framed = words[:2].strip(_FRAME) == "" and words[-1:] in _FRAME
        phrase = bare.rstrip(":： ").lower()
        if phrase in FORWARDED and (framed or words[-1:] in ":："):
            return Found(Mark.FORWARD, start, start + 1)
        if phrase in ORIGINAL and (framed or words[:2] == "--" or words[-1:] in ":："):
            return Found(Mark.ORIGINAL, start, start + 1)
        # Samsung's plain text has the headers in the same line, behind the closing dashes.
        if (
            words.startswith("-----")
            and (said := words.lstrip("-– ").partition("--")[0].strip().lower())
            and (said in ORIGINAL or said in FORWARDED)
        ):
            return Found(Mark.ORIGINAL, start, start + 1)
        if framed and len(words) < 80:  # in a language not listed: believed above headers
            below = self._next(start + 1, 2)
            return self._widen(start, self._headers(below, separated=True)) if below is not None else None
        return None

    @staticmethod
    def _widen(start: int, found: Found | None) -> Found | None:
        return Found(Mark.ORIGINAL, start, found.end) if found else None

    def _next(self, start: int, blanks: int) -> int | None:
        """The next line that says something, over at most so many empty ones."""
        for at in range(start, min(len(self._lines), start + blanks + 1)):
            if not self._lines[at].blank:
                return at
        return None

    def _headers(self, start: int | None, *, separated: bool) -> Found | None:
        """A block such as From, Sent, To, Subject, plain or with bold stars, its values wrapped or not."""
        if start is None or self.tries >= self.MOST_TRIES or (first := role(self._lines[start].words)) is None:
            return None
        self.tries += 1
        depth = self._lines[start].depth
        roles, addressed, last, strange, blank = {first}, False, start, 0, 0
        for at in range(start, min(len(self._lines), start + HEADER_LINES)):
            line = self._lines[at]
            if line.depth != depth:
                break
            if line.blank:
                blank += 1
                if blank > 1:
                    break
                continue
            found = role(line.words)
            if found is not None:
                roles.add(found)
                last, strange = at, 0
            elif blank and len(roles) >= 3:
                break
            else:
                strange += 1
                if strange > 2 and not ("@" in line.words or ";" in line.words):
                    break
            blank = 0
            addressed = addressed or (at <= last + 2 and "@" in line.words)
        dates = roles & {"sent", "date"}
        whole = "from" in roles and bool(dates) and bool(roles & {"to", "subject"})
        if whole and ("sent" in roles or "subject" in roles or addressed or separated):
            return Found(Mark.HEADERS, start, last + 1)
        known = len(roles) >= 3 and (addressed or separated) and "subject" in roles
        if known or (separated and "from" in roles and len(roles) >= 2):
            return Found(Mark.HEADERS, start, last + 1)
        return None

    # --- Attributions -------------------------------------------------------------------------------------------------

    def _attribution_from(self, start: int) -> Found | None:
        for end in range(start, min(len(self._lines), start + WRAPPED)):
            if end not in self._starts:
                self._starts[end] = self._attribution_to(end)
            found = self._starts[end]
            if found is not None and found.start == start:
                return found
        return None

    def _attribution_to(self, end: int) -> Found | None:
        """The attribution whose last line this is. Of several beginnings the nearest that begins as programs do, else the nearest."""
        last = self._lines[end].words
        if not last or not (last[-1] in ":：-*>" or _VERB_LAST.search(last.lower()) or last[:1].isdigit()):
            return None
        nearest: Found | None = None
        joined = ""
        for start in range(end, max(-1, end - WRAPPED), -1):
            line = self._lines[start]
            if line.depth and not (start == end or "<" in self._lines[start - 1].words):
                break
            if start < end and (_SENTENCE_ENDS.search(line.words) or (line.blank and not joined.startswith(("<", "mailto:")))):
                break
            if line.blank:
                continue
            joined = f"{line.words} {joined}".strip()
            if len(joined) > LONGEST or self.tries >= self.MOST_TRIES:
                break
            if "@" not in joined and not _any_digit(joined) and start < end - 2:
                break
            self.tries += 1
            mark, programs = judge(joined)
            if mark is not None:
                found = Found(mark, start, end + 1)
                if "@" not in joined and joined.partition(" ")[0].lower() not in OPENERS:
                    found = self._wrapped_above(found, joined)
                if programs:
                    return found
                nearest = nearest or found
        return nearest

    def _wrapped_above(self, found: Found, joined: str) -> Found:
        """An attribution whose first line, long as a wrapped line is, holds the name and address: "NAME <ADDRESS>, 6 May" """
        above = self._lines[found.start - 1] if found.start else None
        if above is None or above.depth or len(above.words) < 40 or "@" not in above.words or _SENTENCE_ENDS.search(above.words):
            return found
        mark, _ = judge(f"{above.words} {joined}")
        return Found(mark, found.start - 1, found.end) if mark is Mark.ATTRIBUTION else found


def _any_digit(words: str) -> bool:
    return any(letter.isdigit() for letter in words)


def role(words: str) -> str | None:
    """What a header line names, or None: "from", "sent", "date", "to", "cc" or "subject"."""
    label, colon, _ = words[:40].replace("：", ":").partition(":")
    return LABELS.get(label.strip("*_ \t").lower()) if colon else None


def judge(joined: str) -> tuple[Mark | None, bool]:
    """Whether these words are an attribution, and whether they begin as mail programs begin one (opening word, weekday, date)."""
    words = joined.strip("-*_ ").lower()
    while words[:1] in (">", "|"):
        words = words[1:].lstrip()
    colon = words[-1:] in (":", "：") or joined.endswith("--")
    words = words.rstrip(":： ")
    if len(words) < 5 or words[0] in "<([" or words.startswith("mailto:"):
        return None, False
    verb = _VERB.search(words)
    last = _VERB_LAST.search(words) is not None
    address, bracketed = _ADDRESS.search(words) is not None, _IN_BRACKETS.search(words) is not None
    day, hour = _DAY.search(words) is not None, _HOUR.search(words) is not None
    programs = day and _begins(words)
    if _OLD_GMAIL.match(words) and not address:
        return Mark.ATTRIBUTION, True
    if verb is None:
        # "26.06.2014, 14:41, NAME <ADDRESS>:" (Yandex, Gmail in Russian and Japanese); "2013/10/2 NAME <ADDRESS>" (Gmail once).
        whole = programs and bracketed and words[-1:] == ">"
        if whole and ((hour and colon) or _YEAR_FIRST.match(words)):
            return Mark.ATTRIBUTION, True
        # "Quoting NAME <ADDRESS>:" (Horde, in many languages) is one above marked lines only.
        named = colon and words[-1:] == ">" and len(words.split()) <= 10 and bracketed
        return (Mark.LIKELY if named else None), False
    if last:
        if bracketed and (colon or day):
            return Mark.ATTRIBUTION if colon or programs else Mark.LIKELY, programs
        if programs:  # without an address it may be a person's sentence ("On 3 May at 10:00 your agent wrote:")
            return Mark.LIKELY, True
        named = verb.start() > 0 and PRONOUNS.isdisjoint(words[: verb.start()].replace(",", " ").split())
        return (Mark.LIKELY if colon and named and (address or len(words) <= 80) else None), False
    if not colon:
        return None, False
    if day and bracketed:
        return Mark.ATTRIBUTION, programs
    name = words[verb.end() :].split()
    if programs and 1 <= len(name) <= 5 and name[0].strip(",") not in PRONOUNS:
        return Mark.LIKELY, True
    return (Mark.LIKELY if address or (day and hour) else None), programs


def _begins(words: str) -> bool:
    """Whether only an opening word, a weekday or nothing stands before the first digit."""
    before = ""
    for at, letter in enumerate(words[:40]):
        if letter.isdigit():
            before = words[:at]
            break
    else:
        # "El jueves, 21 de noviembre" has its digit early; "On Thursday, June 27, 2013" later, behind a month.
        return False
    tokens = before.replace(",", " ").replace("„", " ").replace('"', " ").split()
    if not tokens or before.strip() in OPENERS:
        return True
    if tokens[0].strip(".") in WEEKDAYS or tokens[0] in OPENERS or tokens[0].startswith(("בתאריך", "في", "ב-")):
        return len(tokens) <= 5
    return " ".join(tokens[:2]) in OPENERS
