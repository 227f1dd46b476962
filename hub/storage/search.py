"""The full-text index over messages: filled after the commit, by a watermark, in small steps.

Indexing inside the ingest transaction would cost about 55 microseconds a message (docs/performance.md); instead the writer
catches up when it is idle or 250 messages behind. A search says so when the index lags.
"""

from __future__ import annotations

import re
import sqlite3

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


def match_expression(typed: str) -> str:
    """What a person typed, as an FTS5 query: every word quoted (raw text can be a syntax error), the last one a prefix."""
    # FTS5 reads the expression up to its first NUL, and half of a surrogate pair cannot be handed over at all.
    words = [word.replace('"', '""') for word in _UNSEARCHABLE.sub(" ", typed).split()][:12]
    if not words:
        return ""
    return " ".join(f'"{word}"' for word in words) + "*"
