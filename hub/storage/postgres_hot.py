"""Hot look-ups on PostgreSQL: prepared statements on the raw driver, on a few connections of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import asyncpg

from hub.storage.hot import REACHING, Checked, Gathered, HoldFact, Key, Program, Question, SessionFact, hand_out, keys_of, refuse
from hub.storage.postgres import LOST, POINT_QUERIES
from hub.storage.writer import StorageBusy

PART = 200  # questions of one statement

# Twice: the customer who owns the identifier, and whoever claimed it (holding needs less proof than joining).
_FACTS = """
WITH asked AS MATERIALIZED (
  SELECT i.id, i.kind, i.site, i.value, i.customer_id FROM unnest($1::text[], $2::text[]) a(value, kind)
  JOIN identifier i ON i.value = a.value AND i.kind = a.kind AND i.ended_at IS NULL
)
SELECT c.id AS customer_id, i.kind, i.site, i.value, h.id, h.reason, h.scope, h.lease_until, c.hold_version
FROM asked i JOIN customer c ON c.id = i.customer_id
LEFT JOIN hold h ON h.customer_id = c.id AND h.released_at IS NULL
UNION ALL
SELECT c.id, i.kind, i.site, i.value, h.id, h.reason, h.scope, h.lease_until, c.hold_version
FROM asked i JOIN evidence e ON e.other_id = i.id AND e.withdrawn_at IS NULL AND e.proof IN ({proofs})
JOIN identifier s ON s.id = e.identifier_id JOIN customer c ON c.id = s.customer_id
LEFT JOIN hold h ON h.customer_id = c.id AND h.released_at IS NULL
"""
TOKEN = "SELECT id, name FROM api_token WHERE token_hash = $1 AND revoked_at IS NULL"  # noqa: S105
SESSION = (
    "SELECT a.id, a.email, a.name, a.role, s.csrf, s.seen_at, s.expires_at, a.disabled_at "
    "FROM agent_session s JOIN agent a ON a.id = s.agent_id WHERE s.token_hash = $1"
)


# It tells with a traceback whenever the server cannot be reached; whoever asks meanwhile is told so, and says so.
logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


class PostgresHot:
    """`HotReads` on a PostgreSQL database. `start` it before use."""

    def __init__(self, url: str) -> None:
        self.reach(REACHING)
        self._gathered = Gathered()
        self._reading: set[asyncio.Task[None]] = set()
        self._pool: asyncpg.Pool[Any] = asyncpg.create_pool(
            url,
            min_size=1,
            max_size=4,
            timeout=5,
            command_timeout=5,
            reset=_nothing,  # nothing here leaves anything behind, and resetting costs a crossing
            server_settings={"application_name": "support-hub", "default_transaction_read_only": "on", **POINT_QUERIES},
        )

    def reach(self, proofs: Sequence[str]) -> None:
        self._facts = _FACTS.format(proofs=", ".join(f"'{proof}'" for proof in proofs))
        # The tokens' rows among them, known by their empty kind: each statement is a crossing to the server.
        self._checked = (
            f"{self._facts} UNION ALL SELECT id, '', token_hash, name, NULL, NULL, NULL, NULL, 0 "  # noqa: S608
            "FROM api_token WHERE token_hash = ANY($3::text[]) AND revoked_at IS NULL"
        )

    async def start(self) -> None:
        await self._pool

    async def hold_facts(self, keys: Sequence[Key]) -> list[HoldFact]:
        values, kinds = [value for value, _ in keys], [kind for _, kind in keys]
        return [HoldFact._make(row) for row in await self._rows(self._facts, values, kinds)]

    def checked(self, token: str, keys: Sequence[Key]) -> asyncio.Future[Checked]:
        return self._gathered.ask(token, keys, self._read_gathered)

    def _read_gathered(self) -> None:
        questions = self._gathered.take()
        for start in range(0, len(questions), PART):
            task = asyncio.create_task(self._answer(questions[start : start + PART]), name="hold check")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _answer(self, questions: Sequence[Question]) -> None:
        try:
            keys = keys_of(questions)
            values, kinds = [value for value, _ in keys], [kind for _, kind in keys]
            rows = await self._rows(self._checked, values, kinds, list({question.token for question in questions}))
            programs = {row[2]: (row[0], row[3]) for row in rows if not row[1]}
            hand_out(questions, programs, [HoldFact._make(row) for row in rows if row[1]])
        except asyncio.CancelledError:
            refuse(questions, StorageBusy("The hub is stopping. Ask again."))
            raise
        except Exception as error:
            refuse(questions, error)

    async def api_token(self, digest: str) -> Program | None:
        found = await self._rows(TOKEN, digest)
        return (found[0][0], found[0][1]) if found else None

    async def session(self, digest: str) -> SessionFact | None:
        found = await self._rows(SESSION, digest)
        return SessionFact._make(found[0]) if found else None

    async def _rows(self, statement: str, *arguments: Any) -> Sequence[Any]:
        try:
            async with self._pool.acquire(timeout=2) as connection:
                rows: Sequence[Any] = await connection.fetch(statement, *arguments)
                return rows
        except (*LOST, asyncpg.PostgresError) as error:
            # Without its text: it may quote what was asked for.
            raise StorageBusy(f"The database could not be read ({type(error).__name__}). Ask again.") from None

    async def close(self) -> None:
        for task in tuple(self._reading):
            task.cancel()
        with contextlib.suppress(asyncpg.InterfaceError):  # it could not be started
            self._pool.terminate()


async def _nothing(connection: Any) -> None:
    return None
