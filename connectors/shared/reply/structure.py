"""What a mail's HTML says about its text: which lines stand inside of a quote or a signature that a mail program drew.

One pass over the tags, no tree. The elements: Gmail (gmail_quote, gmail_attr, gmail_signature), Apple Mail and Thunderbird
(blockquote type=cite, moz-cite-prefix, moz-signature), Outlook (divRplyFwdMsg, appendonsend, OLK_SRC_BODY_SECTION,
mail-editor-reference-message-container), Yahoo (yahoo_quoted), Proton (protonmail_quote), GMX and web.de (name=quote), Zoho
(zmail_extra), Zimbra (zwchr), Hotmail (stopSpelling), Roundcube (reply-intro), Tutanota (tutanota_quote).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from connectors.shared.html_text import html_to_text
from connectors.shared.reply.lines import Line

QUOTE, SIGNATURE = "quote", "signature"

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,15})")
_NAMES = re.compile(r"\b(class|id|name|type|cite)\s?=\s?(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))")
_LONGEST_TAG = 1_000
_REST = ("divrplyfwdmsg", "appendonsend", "olk_src_body_section", "stopspelling", "zwchr", "mail-editor-reference-message-container")
_BOXES = ("gmail_quote", "gmail_quote_container", "protonmail_quote", "yahoo_quoted", "zmail_extra", "tutanota_quote")
_QUOTES = ("gmail_attr", "moz-cite-prefix", "reply-intro", "gmail_quote_attribution")
_SIGNATURES = ("gmail_signature", "moz-signature", "protonmail_signature_block", "ms-outlook-mobile-signature", "signature")
_OPEN = {QUOTE: "\ue000", SIGNATURE: "\ue002"}
_CLOSE = {QUOTE: "\ue001", SIGNATURE: "\ue003"}
_WORDS = re.compile(r"[\ue000-\ue003]|\w+")
_AHEAD = 30  # words that one version may have and the other not, such as the address of a link
_MOST_STEPS = 1_000_000  # of looking ahead in one mail


def hints(lines: Sequence[Line], html: str) -> dict[int, str]:
    """Of a mail's lines, those that the HTML version places inside of a quote or a signature: line number -> "quote" or "signature"."""
    spans = find_spans(html)
    return _project(lines, _words_of(html, spans)) if spans else {}


def find_spans(html: str) -> list[tuple[int, int, str]]:
    """The stretches of HTML, in order and apart, that are quote or signature: (start, end, kind)."""
    spans: list[tuple[int, int, str]] = []
    inside = outer = ""  # the tag of the element being skipped, and of the box around
    depth = outer_depth = 0
    start = box = 0
    kind, split = QUOTE, False
    for tag in _TAG.finditer(html):
        name = tag[2].lower()
        step = -1 if tag[1] else 1
        if inside:
            depth += step if name == inside else 0
            if depth <= 0:
                spans.append((start, tag.start(), kind))
                inside = ""
            continue
        if outer and name == outer:
            outer_depth += step
            if outer_depth <= 0:
                if not split:  # a box without a blockquote is a quote as a whole
                    spans.append((box, tag.start(), QUOTE))
                outer = ""
                continue
        if tag[1]:
            continue
        found = _element(name, html[tag.end() : tag.end() + _LONGEST_TAG].partition(">")[0].partition("<")[0])
        if found == "rest":
            spans.append((box if outer and not split else tag.start(), len(html), QUOTE))
            return spans
        if found == "box" and not outer:
            outer, outer_depth, box, split = name, 1, tag.start(), False
        elif found in (QUOTE, SIGNATURE) or (outer and name == "blockquote"):
            if outer and not split:  # what stands before the first blockquote in a box is its attribution
                spans.append((box, tag.start(), QUOTE))
                split = True
            inside, depth, start, kind = name, 1, tag.start(), found if found == SIGNATURE else QUOTE
    if inside:
        spans.append((start, len(html), kind))
    elif outer and not split:
        spans.append((box, len(html), QUOTE))
    return spans


def _element(name: str, tag: str) -> str:
    if "=" not in tag:
        return ""
    values = {found[1]: (found[2] or found[3] or found[4] or "").split() for found in _NAMES.finditer(tag.lower())}
    named = [*values.get("class", []), *values.get("id", [])]
    if name == "blockquote":
        return QUOTE if "cite" in values.get("type", []) or "cite" in values or any(box in word for box in _BOXES for word in named) else ""
    if any(word in _REST for word in named):
        return "rest"
    if any(word in _QUOTES for word in named):
        return QUOTE
    if any(word.endswith(box) for box in _BOXES for word in named) or values.get("name") == ["quote"]:
        return "box"
    if any(word.startswith("protonmail_signature_block") or word in _SIGNATURES for word in named):
        return SIGNATURE if name in ("div", "pre", "span", "td", "table") else ""
    return ""


def _words_of(html: str, spans: Sequence[tuple[int, int, str]]) -> list[tuple[str, str]]:
    """The words a reader of the HTML sees, each with the kind of stretch it stands in."""
    pieces, at = [], 0
    for start, end, kind in spans:
        pieces += [_plain(html[at:start]), _OPEN[kind], _plain(html[start:end])]
        at = end
        pieces.append(_CLOSE[kind])
    pieces.append(_plain(html[at:]))
    words, kind = [], ""
    for found in _WORDS.finditer(html_to_text("".join(pieces))):
        word = found[0]
        if word in _OPEN.values():
            kind = QUOTE if word == _OPEN[QUOTE] else SIGNATURE
        elif word in _CLOSE.values():
            kind = ""
        else:
            words.append((word, kind))
    return words


def _plain(html: str) -> str:
    return html if html.isascii() else re.sub("[\ue000-\ue003]", " ", html)


def _project(lines: Sequence[Line], known: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Carry the kinds of the HTML's words over to the lines of the text, whose words are the same but for links and wrapping."""
    words = [(found[0], at) for at, line in enumerate(lines) for found in _WORDS.finditer(line.raw)]
    counts: dict[int, dict[str, int]] = {}
    left = right = steps = met = 0
    while left < len(words) and right < len(known):
        if words[left][0] != known[right][0]:
            jump = _meet(words, known, left, right) if steps < _MOST_STEPS else None
            steps += 2 * _AHEAD
            left, right = (left + 1, right + 1) if jump is None else jump
            continue
        line = counts.setdefault(words[left][1], {})
        line[known[right][1]] = line.get(known[right][1], 0) + 1
        met += 1
        left, right = left + 1, right + 1
    if met * 2 < min(len(words), len(known)):
        return {}  # the two versions say different things
    sizes: dict[int, int] = {}
    for _, at in words:
        sizes[at] = sizes.get(at, 0) + 1
    found = {}
    for at, kinds in counts.items():
        kind, number = max(kinds.items(), key=lambda item: item[1])
        if kind and number * 5 >= sum(kinds.values()) * 4 and sum(kinds.values()) * 2 >= sizes[at]:
            found[at] = kind
    return found


def _meet(words: Sequence[tuple[str, int]], known: Sequence[tuple[str, str]], left: int, right: int) -> tuple[int, int] | None:
    """Where both versions go on alike for two words, when one of them leaves out a few."""
    for ahead in range(1, _AHEAD + 1):
        for a, b in ((left + ahead, right), (left, right + ahead)):
            if a >= len(words) or b >= len(known) or words[a][0] != known[b][0]:
                continue
            if a + 1 >= len(words) or b + 1 >= len(known) or words[a + 1][0] == known[b + 1][0]:
                return a, b
    return None
