"""Hot look-ups on SQLite: asked in the event loop itself, on a connection of their own that can only read.

A point query takes SQLite some 20 microseconds; carrying it to a thread and back costs twenty times that. So it runs where
it is asked, and nothing here may take longer than a millisecond: a long question is cut into parts with a yield between.
Each step of SQLite lets go of the interpreter lock, which a busy writer thread then takes for a while; so a part of
a long one comes back as one row of JSON, not as a row a hit. Single questions of one turn of the loop go together.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hub.storage.hot import REACHING, Checked, Gathered, HoldFact, Key, Program, Question, SessionFact, hand_out, keys_of, refuse
from hub.storage.writer import StorageBusy

PART = 50  # keys of one statement: half a millisecond where their pages are at hand, and a few times that where they are not
# A reader meets a lock only while the database is recovered or closed; then it is better to fail than to hold the loop.
BUSY_MS = 20
CACHE_KIB = 16_384  # of pages: the upper levels of a large database's indexes, and then some

# Twice: the customer who owns the identifier, and whoever claimed it (holding needs less proof than joining).
_FACTS = """
SELECT c.id AS customer_id, i.kind, i.site, i.value, h.id, h.reason, h.scope, h.lease_until, c.hold_version
FROM {asked} CROSS JOIN customer c ON c.id = i.customer_id
LEFT JOIN hold h ON h.customer_id = c.id AND h.released_at IS NULL
UNION ALL
SELECT c.id, i.kind, i.site, i.value, h.id, h.reason, h.scope, h.lease_until, c.hold_version
FROM {asked} CROSS JOIN evidence e ON e.other_id = i.id AND e.withdrawn_at IS NULL AND e.proof IN ({proofs})
CROSS JOIN identifier s ON s.id = e.identifier_id CROSS JOIN customer c ON c.id = s.customer_id
LEFT JOIN hold h ON h.customer_id = c.id AND h.released_at IS NULL
"""
_ONE = "(SELECT ?1 AS value, ?2 AS kind) a CROSS JOIN identifier i ON i.value = a.value AND i.kind = a.kind AND i.ended_at IS NULL"
_SEVERAL = "json_each(?1) a CROSS JOIN identifier i ON i.value = a.value ->> 0 AND i.kind = a.value ->> 1 AND i.ended_at IS NULL"
_ROW = "json_group_array(json_array(customer_id, kind, site, value, id, reason, scope, lease_until, hold_version))"


class Statements:
    """The questions about holds, for the kinds of evidence by which a hold reaches further than its customer's own identifiers."""

    def __init__(self, proofs: Sequence[str]) -> None:
        listed = ", ".join(f"'{proof}'" for proof in proofs)
        self.one = _FACTS.format(asked=_ONE, proofs=listed)
        # The token's row among them, known by its empty kind: a second statement costs as much as all of this.
        self.checked = (
            f"{self.one} UNION ALL SELECT id, '', '', name, NULL, NULL, NULL, NULL, 0 "  # noqa: S608
            "FROM api_token WHERE token_hash = ?3 AND revoked_at IS NULL"
        )
        self.many = f"SELECT {_ROW} FROM ({_FACTS.format(asked=_SEVERAL, proofs=listed)})"  # noqa: S608


PROGRAM = "SELECT id, name FROM api_token WHERE token_hash = ? AND revoked_at IS NULL"
SESSION = (
    "SELECT a.id, a.email, a.name, a.role, s.csrf, s.seen_at, s.expires_at, a.disabled_at "
    "FROM agent_session s JOIN agent a ON a.id = s.agent_id WHERE s.token_hash = ?"
)


class SqliteHot:
    """`HotReads` on one SQLite file. Autocommit: no snapshot stays open between two questions."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1_000, cached_statements=16)
        for pragma in ("query_only=ON", "wal_autocheckpoint=0", "mmap_size=0", f"cache_size=-{CACHE_KIB}"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._about = Statements(REACHING)
        self._gathered = Gathered()

    def reach(self, proofs: Sequence[str]) -> None:
        self._about = Statements(proofs)

    async def hold_facts(self, keys: Sequence[Key]) -> list[HoldFact]:
        if len(keys) == 1:
            return [HoldFact._make(row) for row in self._rows(self._about.one, keys[0])]
        found: list[HoldFact] = []
        for start in range(0, len(keys), PART):
            if start:
                await asyncio.sleep(0)
            found += self._several(keys[start : start + PART])
        return found

    def _several(self, keys: Sequence[Key]) -> list[HoldFact]:
        [row] = self._rows(self._about.many, (json.dumps(keys),))
        return [HoldFact._make(fact) for fact in json.loads(row[0])]

    def checked(self, token: str, keys: Sequence[Key]) -> asyncio.Future[Checked]:
        return self._gathered.ask(token, keys, self._read_gathered)

    def _read_gathered(self) -> None:
        questions = self._gathered.take()
        for start in range(0, len(questions), PART):
            part = questions[start : start + PART]
            try:
                self._answer(part)
            except Exception as error:
                refuse(part, error)

    def _answer(self, questions: Sequence[Question]) -> None:
        if len(questions) == 1 and len(questions[0].keys) == 1:
            token, [key], _ = questions[0]
            rows = self._rows(self._about.checked, (*key, token))
            program = next(((row[0], row[3]) for row in rows if not row[1]), None)
            hand_out(questions, {token: program} if program is not None else {}, [HoldFact._make(row) for row in rows if row[1]])
            return
        programs = {}
        for token in {question.token for question in questions}:
            for row in self._rows(PROGRAM, (token,)):
                programs[token] = row
        keys = keys_of(questions)
        hand_out(questions, programs, self._several(keys) if keys else [])

    async def api_token(self, digest: str) -> Program | None:
        found = self._rows(PROGRAM, (digest,))
        return found[0] if found else None

    async def session(self, digest: str) -> SessionFact | None:
        found = self._rows(SESSION, (digest,))
        return SessionFact._make(found[0]) if found else None

    def _rows(self, statement: str, parameters: Sequence[str]) -> list[Any]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            # Without its text: it may quote what was asked for.
            raise StorageBusy(f"The database could not be read ({type(error).__name__}). Ask again.") from None

    async def close(self) -> None:
        self._connection.close()
