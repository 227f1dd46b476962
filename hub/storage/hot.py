"""The few look-ups that stand in front of everything: one protocol, hand-written SQL on each engine's raw driver.

Nothing behind it is cached. A stale "not held" is the worst answer there is, and a revoked token must stop at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

Key = tuple[str, str]  # canonical (value, kind)


class HoldFact(NamedTuple):
    """One hold (or none: `hold_id` is None) of one customer behind an identifier asked about. Times are microseconds UTC."""

    customer_id: int
    kind: str
    site: str
    value: str
    hold_id: int | None
    reason: str | None
    scope: str | None
    lease_until: int | None
    version: int


class SessionFact(NamedTuple):
    """A session and its agent, as stored: whether it still lives is for whoever asks to judge."""

    agent_id: int
    email: str
    name: str
    role: str
    csrf: str
    seen_at: int
    expires_at: int
    disabled_at: int | None


Program = tuple[int, str]  # a live API token: id and name
Checked = tuple[Program | None, Sequence[HoldFact]]

# By which evidence a hold of who spoke covers what they named: claimed first, since that may be switched off. What a channel proved
# is the speaker's own.
REACHING = ("claimed", "record", "signed", "otp")


class HotReads(Protocol):
    """Point queries that must cost little more than the database's own work. All raise StorageBusy where it cannot be read now."""

    async def hold_facts(self, keys: Sequence[Key]) -> Sequence[HoldFact]:
        """Every unreleased hold, and every customer, behind any of these keys: by their own identifiers, or claimed.

        What is asked of one person (a few keys) is read as of one moment; a long list in parts, each as of one moment.
        """
        ...

    def checked(self, token: str, keys: Sequence[Key]) -> Awaitable[Checked]:
        """`api_token` of this SHA-256 and `hold_facts` of a few keys; what is asked in the same turn of the loop is read together."""
        ...

    async def api_token(self, digest: str) -> Program | None:
        """(id, name) of the live API token with this SHA-256, or None."""
        ...

    async def session(self, digest: str) -> SessionFact | None:
        """The session whose token has this SHA-256, or None."""
        ...

    def reach(self, proofs: Sequence[str]) -> None:
        """By which evidence (of `REACHING`) a hold covers more than the customer's own identifiers."""
        ...

    async def close(self) -> None: ...


class Question(NamedTuple):
    """What one request asks before it is answered: by which token (its SHA-256), about which keys."""

    token: str
    keys: Sequence[Key]
    answer: asyncio.Future[Checked]


class Gathered:
    """Questions of one turn of the event loop, to be read by one statement.

    A single question meets a cold processor: its one statement costs some 50 microseconds, each further key of the same statement 5
    (docs/performance.md). Nothing is kept from one turn to the next, so nothing can be stale.
    """

    def __init__(self) -> None:
        self._waiting: list[Question] = []

    def ask(self, token: str, keys: Sequence[Key], read: Callable[[], None]) -> asyncio.Future[Checked]:
        """Where the answer will be. `read` is called once, when everything of this turn has been asked."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(read)
        answer: asyncio.Future[Checked] = loop.create_future()
        self._waiting.append(Question(token, keys, answer))
        return answer

    def take(self) -> list[Question]:
        """What was asked in this turn and is still waited for."""
        waiting, self._waiting = self._waiting, []
        return [question for question in waiting if not question.answer.done()]


def keys_of(questions: Sequence[Question]) -> list[Key]:
    """Every key asked about, once."""
    return list(dict.fromkeys([key for question in questions for key in question.keys]))


def hand_out(questions: Sequence[Question], programs: dict[str, Program], facts: Sequence[HoldFact]) -> None:
    """Give each question what was found for it."""
    found: dict[Key, list[HoldFact]] = {}
    for fact in facts:
        found.setdefault((fact.value, fact.kind), []).append(fact)
    for token, keys, answer in questions:
        if not answer.done():
            mine = found.get(keys[0], []) if len(keys) == 1 else [fact for key in keys for fact in found.get(key, ())]
            answer.set_result((programs.get(token), mine))


def refuse(questions: Sequence[Question], error: BaseException) -> None:
    """Tell each question that it could not be answered."""
    for question in questions:
        if not question.answer.done():
            question.answer.set_exception(error)
