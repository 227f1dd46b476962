"""The few look-ups that stand in front of everything: one protocol, hand-written SQL on each engine's raw driver.

Nothing behind it is cached. A stale "not held" is the worst answer there is, and a revoked token must stop at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


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


# By which evidence a hold of who spoke covers what they named: claimed first, since that may be switched off. What a channel proved
# is the speaker's own.
REACHING = ("claimed", "record", "signed", "otp")


class HotReads(Protocol):
    """Point queries that must cost little more than the database's own work. All raise StorageBusy where it cannot be read now."""

    async def hold_facts(self, keys: Sequence[tuple[str, str]]) -> Sequence[HoldFact]:
        """Every unreleased hold, and every customer, behind any of these canonical (value, kind): by their own identifiers, or claimed.

        What is asked of one person (a few keys) is read as of one moment; a long list in parts, each as of one moment.
        """
        ...

    async def checked(self, token: str, keys: Sequence[tuple[str, str]]) -> tuple[tuple[int, str] | None, Sequence[HoldFact]]:
        """`api_token` of this SHA-256 and `hold_facts` of a few keys at once: who asks and what is asked about cost one question."""
        ...

    async def api_token(self, digest: str) -> tuple[int, str] | None:
        """(id, name) of the live API token with this SHA-256, or None."""
        ...

    async def session(self, digest: str) -> SessionFact | None:
        """The session whose token has this SHA-256, or None."""
        ...

    def reach(self, proofs: Sequence[str]) -> None:
        """By which evidence (of `REACHING`) a hold covers more than the customer's own identifiers."""
        ...

    async def close(self) -> None: ...
