"""The words of an HTML mail, and how deep its markup is nested: one pass over the text each, without building a tree."""

from __future__ import annotations

import html as html_words
import re

_HIDDEN = ("style", "script", "head", "title", "noscript", "template", "svg", "math")  # elements whose content nobody reads
_LINE_BREAKS = frozenset(
    ["br", "p", "div", "tr", "li", "ul", "ol", "table", "blockquote", "pre", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "section"]
)
# Not counted as open: void elements, and those whose end tag may be left out.
_VOID = ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
_NEVER_OPEN = frozenset([*_VOID, "p", "li", "td", "th", "tr", "dt", "dd", "option", "tbody", "thead"])
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,15})")


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
