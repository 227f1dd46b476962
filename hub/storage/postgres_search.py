"""The full-text index on PostgreSQL: a table of word vectors, filled after the commit by a watermark over event numbers.

Message ids become visible out of order where many hubs write; event numbers do not, so it is they that say what is indexed.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import asyncpg
from sqlalchemy import text

from hub.storage.postgres import INDEXING
from hub.storage.search import FOUND_FROM, FOUND_TO, STEP, WATERMARK, Search, words

BEHIND = 250  # events
# A vector holds at most 1 MB; longer texts are found by their beginning.
LONGEST = 60_000  # characters

# Without accents, as SQLite's index has it: the base letters that NFD leaves when the marks are taken away.
_FOLDED = "regexp_replace(normalize({0}, NFD), '[\\u0300-\\u036f]', '', 'g')"
# And words end at any sign, as they do there: PostgreSQL's own parser would keep an address, a URL or "-1234" in one piece.
_SIGNS = "[!-/:-@[-`{-~]"
_WORDS = _FOLDED.format(f"left(m.text || ' ' || m.subject || ' ' || m.sender_name, {LONGEST})")
_VECTOR = f"to_tsvector('simple', regexp_replace({_WORDS}, '{_SIGNS}+', ' ', 'g'))"

_UPTO = f"SELECT max(seq) FROM (SELECT seq FROM event WHERE seq > $1 ORDER BY seq LIMIT {STEP}) AS next"  # noqa: S608
_FILL = (
    f"INSERT INTO message_search (message_id, words) SELECT m.id, {_VECTOR} FROM message m WHERE m.id IN ("  # noqa: S608
    "SELECT message_id FROM event WHERE seq > $1 AND seq <= $2 AND message_id IS NOT NULL AND type <> 'message.updated') "
    "ON CONFLICT (message_id) DO NOTHING"
)
_NOTE = "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
REBUILD = (
    "TRUNCATE message_search",
    f"INSERT INTO message_search (message_id, words) SELECT m.id, {_VECTOR} FROM message m",  # noqa: S608
    f"INSERT INTO setting (key, value) SELECT '{WATERMARK}', seq::text FROM event_head "  # noqa: S608
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
)


class SearchIndex:
    """Fills the index one step at a time; of many hubs one does so at any moment."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._watermark = 0

    def behind(self, newest: int) -> bool:
        """Whether so much waits that it should not wait for a quiet moment."""
        return newest - self._watermark >= BEHIND

    async def step(self, newest: int) -> bool:
        """Index what the next few events brought; whether there may be more."""
        if newest <= self._watermark:
            return False
        connection = self._connection
        async with connection.transaction():
            if not await connection.fetchval(f"SELECT pg_try_advisory_xact_lock({INDEXING})"):
                return False  # another hub is at it
            noted = await connection.fetchval("SELECT value FROM setting WHERE key = $1", WATERMARK)
            self._watermark = int(noted or 0)
            upto = await connection.fetchval(_UPTO, self._watermark)
            if upto is None:
                return False
            await connection.execute(_FILL, self._watermark, upto)
            await connection.execute(_NOTE, WATERMARK, str(upto))
            self._watermark = upto
        return bool(self._watermark < newest)


def match_query(typed: str) -> str:
    """What a person typed, as a tsquery of the configuration `simple`: every word quoted, what signs part within it side by side, the
    last one a prefix."""
    found = []
    for word in words(typed):
        parts = [part for part in re.split(f"{_SIGNS}+", _without_accents(word)) if re.search(r"\w", part)]
        if parts:
            found.append(" <-> ".join(f"'{part}'" for part in parts))
    return " & ".join(f"({word})" for word in found[:-1]) + (" & " if found[1:] else "") + f"{found[-1]}:*" if found else ""


def _without_accents(word: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if not "\u0300" <= letter <= "\u036f")


# The newest are found first and only they are marked up: a headline costs more than a look-up.
_FOUND = text(
    "SELECT f.message_id AS id, ts_headline('simple', m.text, to_tsquery('simple', :match), "  # noqa: S608
    f"'StartSel={FOUND_FROM}, StopSel={FOUND_TO}, MinWords=8, MaxWords=18, MaxFragments=1, FragmentDelimiter=…') AS snippet, "
    "m.conversation_id, m.ticket_id, m.direction, m.channel_id, m.created_at, m.subject, c.name, i.kind, i.address "
    "FROM (SELECT message_id FROM message_search WHERE words @@ to_tsquery('simple', :match) ORDER BY message_id DESC LIMIT 50) AS f "
    "JOIN message m ON m.id = f.message_id JOIN customer c ON c.id = m.conversation_id LEFT JOIN identifier i ON i.id = m.identifier_id "
    "ORDER BY f.message_id DESC"
)
_LAG = text(
    "SELECT (SELECT seq FROM event_head) - coalesce((SELECT value::bigint FROM setting WHERE key = 'search.watermark'), 0) AS behind"
)
POSTGRES = Search(match_query, _FOUND, _LAG)
