"""A mail's text as lines, each with how deep it is quoted and what it says without marks nobody sees."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

READ = 400  # characters of a line that are looked at; no mark of a mail program is longer

# Direction marks, joiners, byte order marks: Gmail puts them around names in Arabic and Hebrew, Windows Mail into dates.
_UNSEEN = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, 0x00AD, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


@dataclass(frozen=True, slots=True)
class Line:
    """`raw` with its line end; `words` without quote marks, outer blanks and unseen marks, at most READ characters."""

    raw: str
    words: str
    depth: int

    @property
    def blank(self) -> bool:
        return not self.words and not self.depth


_EMPTY = Line("\n", "", 0)


def read_lines(text: str) -> list[Line]:
    """Split a text at its line feeds. The `raw` of all lines, joined, are the text."""
    pieces = text.split("\n")  # str.splitlines would also cut at U+2028 and others that stand inside of lines
    return [_read(f"{piece}\n") for piece in pieces[:-1]] + ([_read(pieces[-1])] if pieces[-1] else [])


def _read(raw: str) -> Line:
    if raw == "\n":
        return _EMPTY
    seen = raw[:READ]
    if not seen.isascii():
        seen = unicodedata.normalize("NFC", seen.translate(_UNSEEN))
    words = " ".join(seen.split())
    depth = 0
    while words[:1] == ">":
        depth += 1
        words = words[1:].lstrip()
    return Line(raw, words, depth)
