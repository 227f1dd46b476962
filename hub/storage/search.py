"""The full-text index over messages: filled after the commit, by a watermark, in small steps.

Indexing inside the ingest transaction would cost about 55 microseconds a message (docs/performance.md); instead the writer
catches up when it is idle or 250 messages behind. A search says so when the index lags.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import TextClause, text

from hub.storage.facts import Facts

STEP = 200
WATERMARK = "search.watermark"

_UNSEARCHABLE = re.compile(r"[\x00\ud800-\udfff]")

CREATE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS message_search USING fts5("
    "text, subject, sender_name, content='message', content_rowid='id', tokenize='unicode61 remove_diacritics 2')"
)


class SearchIndex:
    """The writer's side of the index: how far behind it is, and one step at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        row = connection.execute("SELECT value FROM setting WHERE key = ?", (WATERMARK,)).fetchone()
        self._watermark = int(row[0]) if row else 0
        self._newest = connection.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()[0]

    @property
    def behind(self) -> int:
        """At most so many messages wait to be indexed."""
        return int(self._newest - self._watermark)

    def note(self, facts: Facts) -> None:
        for message in facts.inserted.get("message", ()):
            self._newest = max(self._newest, message.id)

    def step(self) -> bool:
        """Index the next few messages; whether there were any."""
        upto = min(self._watermark + STEP, self._newest)
        if upto <= self._watermark:
            return False
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute(
            "INSERT INTO message_search(rowid, text, subject, sender_name) "
            "SELECT id, text, subject, sender_name FROM message WHERE id > ? AND id <= ?",
            (self._watermark, upto),
        )
        execute(
            "INSERT INTO setting(key, value) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            (WATERMARK, str(upto)),
        )
        execute("COMMIT")
        self._watermark = upto
        return True


def words(typed: str) -> list[str]:
    """The words a person typed, at most twelve, without what no index can be asked for."""
    # FTS5 reads an expression up to its first NUL, and half of a surrogate pair cannot be handed over at all.
    return _UNSEARCHABLE.sub(" ", typed).split()[:12]


def match_expression(typed: str) -> str:
    """What a person typed, as an FTS5 query: every word quoted (raw text can be a syntax error), the last one a prefix."""
    quoted = [word.replace('"', '""') for word in words(typed)]
    if not quoted:
        return ""
    return " ".join(f'"{word}"' for word in quoted) + "*"


# --- how an engine is asked ---

# Marks around the words found: two control characters, told apart from text when the snippet is cut into pieces.
FOUND_FROM, FOUND_TO = "\x02", "\x03"


@dataclass(frozen=True, slots=True)
class Search:
    """An engine's way of finding messages: the same columns from both, newest first, with a snippet each."""

    match: Callable[[str], str]
    statement: TextClause
    lag: TextClause  # one row, `behind`: about so many messages the index does not know yet

    def found(self, typed: str) -> TextClause | None:
        """The statement that finds what somebody typed; None where there is nothing to look for."""
        match = self.match(typed)
        return self.statement.bindparams(match=match) if match else None


SQLITE = Search(
    match_expression,
    text(
        "SELECT f.rowid AS id, snippet(message_search, 0, char(2), char(3), '…', 18) AS snippet, m.conversation_id, m.ticket_id, "
        "m.direction, m.channel_id, m.created_at, m.subject, c.name, i.kind, i.address FROM message_search f "
        "JOIN message m ON m.id = f.rowid JOIN customer c ON c.id = m.conversation_id LEFT JOIN identifier i ON i.id = m.identifier_id "
        "WHERE message_search MATCH :match ORDER BY f.rowid DESC LIMIT 50"
    ),
    text(
        "SELECT (SELECT coalesce(max(id), 0) FROM message) - coalesce((SELECT CAST(value AS INTEGER) FROM setting "
        "WHERE key = 'search.watermark'), 0) AS behind"
    ),
)
