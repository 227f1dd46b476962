# ruff: noqa: RUF001  (the dashes people type)
"""What stands below the words of a person: the signature behind "-- ", a phone's or provider's line, contact data, a lawyer's note.

Losing own words is the worse error: a closing formula and the name under it stay with the words, and a block of contact data
is folded only where it says more than a person would type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from connectors.shared.reply.lines import Line
from connectors.shared.reply.phrases import CLOSINGS, DEVICES, DISCLAIMERS, FOOTERS, SECRETS, SENT_FROM, SENT_LAST

LONGEST = 30  # lines that say something behind "-- "
_LONGEST_BARE = 15  # the same behind "--", which people also draw between paragraphs
_PARAGRAPHS = 6  # of a lawyer or a provider, at the end
_RULE = "-_=*~ "
_LABELLED = re.compile(r"\[([^\[\]]{1,100})\]\(https?://[^\s()]{1,300}\)")  # as HTML becomes text
_LINK = re.compile(r"<?https?://[^\s>]{1,300}>?|\[[^\[\]]{1,100}\]\(|<mailto:[^>]{1,100}>")
_CONTACTS = (
    re.compile(r"(?:\+|\b00|\(0|\b0)\d[\d ()/.\-]{6,20}|\(\d{3}\) ?\d{3}|\b\d{3}[-.]\d{3}[-.]\d{4}\b"),  # a telephone
    re.compile(r"[^\s<>@]@[^\s<>@]"),
    re.compile(r"\bwww\.|https?://"),
    re.compile(r"\b(?:GmbH|AG|Ltd|Inc|LLC|S\.?A\.?R\.?L|S\.?r\.?l|S\.?p\.?A|B\.?V|A/S|ApS|Oy|USt-Id|HRB|VAT|SIRET|P\.? ?IVA|KvK)\b"),
    re.compile(r"\b(?:fax|telefax|télécopie|geschäftsführer|managing director|registergericht|amtsgericht)\b", re.IGNORECASE),
)


def signature_lines(lines: Sequence[Line]) -> set[int]:
    """Which of these lines, a stretch of a person's own, are signature; all of them, where it begins with the signature's mark."""
    folded: set[int] = set()
    for at, line in enumerate(lines):
        alone = at == 0 or lines[at - 1].blank or at - 1 in folded or not lines[at - 1].words.strip("-_—– ")
        if _from_a_device(line.words) and (alone or len(line.words.split()) <= 6):
            folded.add(at)
    end = _before_footers(lines, folded)
    start = _delimiter(lines, end)
    if start is None:
        start = _contact_block(lines, end)
    folded.update(range(end if start is None else start, len(lines)))
    return folded


def _from_a_device(words: str) -> bool:
    """ "Sent from my iPhone" and its like, in a line of its own."""
    if not 5 < len(words) <= 300 or words[-1] == "?":
        return False
    said = _LINK.sub(" ", _LABELLED.sub(r"\1", words)).lower().strip("()[]<>*_-–—~ .。")
    if len(said) > 100 or len(said.split()) > 14 or not any(device in said for device in DEVICES):
        return False
    if said.startswith(SENT_FROM):
        return len(said.split()) <= 9 or "app" in said or "mail" in said
    return any(said.startswith(begins) and said.endswith(ends) for begins, ends in SENT_LAST)


def _before_footers(lines: Sequence[Line], folded: set[int]) -> int:
    """Where the words end when the paragraphs of lawyers, providers and devices below them are left away."""
    end = len(lines)
    for _ in range(_PARAGRAPHS):
        stop = end
        while stop and (lines[stop - 1].blank or stop - 1 in folded or not lines[stop - 1].words.strip(_RULE)):
            stop -= 1
        at = stop
        while at and stop - at < 40 and not (lines[at - 1].blank or at - 1 in folded):
            at -= 1
        if not _is_footer(" ".join(line.words for line in lines[at:stop])[:2_000].lower().strip("*_-\"' ")):
            break
        end = at
    return end


def _is_footer(paragraph: str) -> bool:
    if paragraph.startswith(FOOTERS):
        return len(paragraph) < 400
    return paragraph.startswith(DISCLAIMERS) and len(paragraph) >= 60 and any(secret in paragraph for secret in SECRETS)


def _delimiter(lines: Sequence[Line], end: int) -> int | None:
    """The line "-- " (RFC 3676, section 4.3), or "--" where blanks at line ends were lost and what follows looks like a signature."""
    said = 0
    for at in range(end - 1, -1, -1):
        line = lines[at]
        if line.words in ("--", "—") and line.depth == 0:
            below = [other.words for other in lines[at + 1 : end] if not other.blank]
            exact = line.raw.rstrip("\r\n") == "-- "
            if exact or (len(below) <= _LONGEST_BARE and all(len(words) <= 100 and words[-1] != "?" for words in below)):
                return at
            return None
        said += not line.blank
        if said > LONGEST:
            return None
    return None


def _contact_block(lines: Sequence[Line], end: int) -> int | None:
    """A paragraph at the end that names three ways of contact, one of them a web site, a fax or a company's form, below a closing
    formula or a rule. The formula and the name stay."""
    stop = end
    while stop and lines[stop - 1].blank:
        stop -= 1
    at = stop
    while at and stop - at < 14 and not lines[at - 1].blank and len(lines[at - 1].words) <= 100:
        at -= 1
    block = [line.words for line in lines[at:stop]]
    if len(block) < 3 or (at and not lines[at - 1].blank):
        return None
    ruled = not block[0].strip(_RULE)
    first = next((index for index, words in enumerate(block) if any(kind.search(words) for kind in _CONTACTS)), len(block))
    kinds = [any(kind.search(words) for words in block) for kind in _CONTACTS]
    above = [line.words for line in lines[max(0, at - 6) : at] if not line.blank][-3:]
    if first > 5 or sum(kinds) < 3 or not any(kinds[2:]) or (above and above[-1].endswith((":", "："))):
        return None
    if any(words.endswith(("!", "?", ":")) or len(words.split()) > 16 for words in block[first:]):
        return None
    if ruled or any(_is_closing(words) for words in above[:-1]):  # the formula and a name stand above the paragraph
        return at
    return at + max(first, 1) if any(_is_closing(words) for words in [*above, *block[:first]]) else None


def _is_closing(words: str) -> bool:
    return words.lower().startswith(CLOSINGS) and len(words.split()) <= 6
