"""What a person wrote this time in a mail: the own words, apart from the quoted mail and the signature. Pure, and never raises.

Three sources decide about each line: its quote marks (RFC 3676), the lines mail programs write above a quote (`reply.marks`), and
the elements they draw around it in HTML (`reply.structure`). Losing own words is the worse error: what cannot be told apart is own.
Work grows with the length of the text: every mark is decided from a few lines of at most 400 characters each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from connectors.shared.reply.lines import Line, read_lines
from connectors.shared.reply.marks import Mark, Marks
from connectors.shared.reply.phrases import ANSWERS_WITHIN
from connectors.shared.reply.signature import signature_lines
from connectors.shared.reply.structure import hints

_TRIED = 50  # lines above a marked one that may be its attribution
_SHORT = 700  # characters of own words, at most, that may announce answers inside of a quote


class Kind(StrEnum):
    """`OWN` is shown first; `SIGNATURE` and `QUOTE` are folded."""

    OWN = "own"
    SIGNATURE = "signature"
    QUOTE = "quote"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of whole lines of the text, of one kind."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A mail's text as stretches in their order. Their texts, joined, are the text of the mail."""

    stretches: tuple[Stretch, ...]

    @property
    def own(self) -> str:
        """The own words, a blank line between two stretches."""
        said = [_without_blank_edges(stretch.text) for stretch in self.stretches if stretch.kind is Kind.OWN]
        return "\n\n".join(text for text in said if text)


def parts(text: str, html: str = "") -> Parts:
    """Split the plain text of a mail into own words, signatures and quotes; `html` is its HTML version, or "".

    Where nothing would be left (a mere quote, a forward without a word, a mere signature), all of it is own. A marked quote on top
    that nothing attributes is own too: the person picked it to answer it.
    """
    lines = read_lines(text)
    return Parts(_stretches(lines, _kinds(lines, hints(lines, html) if html else {})))


def written(text: str, html: str = "") -> str | None:
    """What the person wrote this time, without quoted mail and signature; None where that is all of `text`."""
    found = parts(text, html)
    if all(stretch.kind is Kind.OWN or not stretch.text.strip() for stretch in found.stretches):
        return None
    return found.own or None


def _kinds(lines: Sequence[Line], hinted: dict[int, str]) -> list[Kind]:
    kinds = _apart(lines, _quoted(lines, hinted))
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and kinds[end] is kinds[start]:
            end += 1
        if kinds[start] is Kind.OWN:
            stretch = lines[start:end]
            folded = signature_lines(stretch)
            folded |= {at for at in range(len(stretch)) if hinted.get(start + at) == "signature"}
            for at in folded:
                kinds[start + at] = Kind.SIGNATURE
        start = end
    own = any(kind is Kind.OWN and not line.blank for kind, line in zip(kinds, lines, strict=True))
    return kinds if own else [Kind.OWN] * len(lines)


def _quoted(lines: Sequence[Line], hinted: dict[int, str]) -> list[bool]:
    """Which lines carry a quote mark or stand in a quote of the HTML version. People write some marks themselves, in a line or
    block apart from quotes: ">50 EUR", and the prompt ">>> x = 1"."""
    quoted = [line.depth > 0 or hinted.get(at) == "quote" for at, line in enumerate(lines)]
    start = 0
    while start < len(lines):
        end = start + 1
        if lines[start].depth:
            while end < len(lines) and lines[end].depth:
                end += 1
            block = [line.raw.lstrip() for line in lines[start:end]]
            typed = all(raw.startswith(">>> ") for raw in block) or all(raw[1:2] in "0123456789=-<" for raw in block if raw[1:2])
            if typed and not any(hinted.get(at) == "quote" for at in range(start, end)):
                quoted[start:end] = [False] * (end - start)
        start = end
    return quoted


def _apart(lines: Sequence[Line], quoted: Sequence[bool]) -> list[Kind]:
    """Own words and quotes, line by line. An unmarked quote reaches to the end; above it there must be own words."""
    kinds = [Kind.OWN] * len(lines)
    marks = Marks(lines)
    own = unsettled = False
    at = _chosen(lines, quoted)
    theirs = _first_attribution(lines, quoted, marks)
    while at < len(lines):
        found = marks.at(at) if lines[at].depth == 0 else None
        if quoted[at] and own and at < theirs:  # between own words and the attribution of the real quote: people write such lines too
            at += 1
            continue
        if quoted[at] and (found is None or not _passed_on(found.mark, own=own)):
            kinds[at] = Kind.OWN if unsettled else Kind.QUOTE
            at += 1
            continue
        if found is not None:
            below = next((index for index in range(found.end, min(len(lines), found.end + 6)) if not lines[index].blank), None)
            marked = below is not None and quoted[below]
            if found.mark is Mark.FORWARD and not own:
                return [Kind.OWN] * len(lines)
            if marked or (found.mark is not Mark.LIKELY and (own or found.mark is Mark.ATTRIBUTION)):
                end = len(lines) if own and not marked else found.end
                if end == len(lines) and not marked and _announces_answers(lines, kinds, at):
                    return kinds
                # An attribution on top of unmarked words: theirs and the answer cannot be told apart, so both are shown.
                unsettled = unsettled or not (own or marked)
                kinds[at:end] = [Kind.QUOTE] * (end - at)
                at = end
                continue
            if found.mark in (Mark.HEADERS, Mark.ORIGINAL):  # on top of the mail: a forward, shown with its head
                at = found.end
                continue
        own = own or bool(lines[at].words and not _only_signature(lines[at]))
        at += 1
    return kinds


def _first_attribution(lines: Sequence[Line], quoted: Sequence[bool], marks: Marks) -> int:
    """Where the first attribution stands that marked lines follow; 0 where there is none. An answer among quotes has its attribution on
    top of them."""
    tried = 0
    for at, line in enumerate(lines):
        if line.depth or line.blank or not line.words:
            continue
        following = next((index for index in range(at + 1, min(len(lines), at + 6)) if lines[index].depth), None)
        if following is None:
            continue
        tried += 1
        if tried > _TRIED:
            break
        found = marks.at(at)
        below = None
        if found is not None and found.mark in (Mark.ATTRIBUTION, Mark.LIKELY):
            below = next((index for index in range(found.end, min(len(lines), found.end + 6)) if not lines[index].blank), None)
        if below is not None and quoted[below]:
            return at
    return 0


def _passed_on(mark: Mark, *, own: bool) -> bool:
    """Whether a mark counts inside of a quote that HTML tells: Gmail draws its quote around the head of a forward, not its words."""
    return mark is Mark.FORWARD or (own and mark in (Mark.HEADERS, Mark.ORIGINAL))


def _chosen(lines: Sequence[Line], quoted: Sequence[bool]) -> int:
    """Where the reading begins: behind a quote on top that nothing attributes and words follow. A person put it there to answer it."""
    end = start = next((at for at, line in enumerate(lines) if not line.blank), 0)
    while end < len(lines) and lines[end].depth and quoted[end]:
        end += 1
    answered = any(not line.blank and not mark for line, mark in zip(lines[end:], quoted[end:], strict=True))
    inside = [Line(line.raw, line.words, line.depth - 1) for line in lines[start : start + 8] if line.depth]
    attributed = any(Marks(inside).at(at) is not None for at in range(min(len(inside), 6)))
    return end if answered and not attributed else 0


def _only_signature(line: Line) -> bool:
    return line.words in ("--", "—") or bool(signature_lines((line,)))


def _announces_answers(lines: Sequence[Line], kinds: Sequence[Kind], end: int) -> bool:
    said = " ".join(line.words for line, kind in zip(lines[:end], kinds, strict=False) if kind is Kind.OWN).lower()
    return len(said) < _SHORT and any(phrase in said for phrase in ANSWERS_WITHIN)


def _stretches(lines: Sequence[Line], kinds: Sequence[Kind]) -> tuple[Stretch, ...]:
    """Runs of one kind; empty lines stay with what stands above them."""
    found: list[tuple[Kind, list[str]]] = []
    for line, kind in zip(lines, kinds, strict=True):
        if found and (found[-1][0] is kind or line.blank):
            found[-1][1].append(line.raw)
        else:
            found.append((kind, [line.raw]))
    return tuple(Stretch(kind, "".join(raws)) for kind, raws in found)


def _without_blank_edges(text: str) -> str:
    """Without the empty lines around it; the blanks in front of its first word stay, since they may be an indent."""
    kept = text.rstrip()
    first = len(kept) - len(kept.lstrip())
    return kept[kept.rfind("\n", 0, first) + 1 :]
