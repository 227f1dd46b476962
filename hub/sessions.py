"""Signing in and staying signed in: the throttle in front of a password, and the sessions behind it.

No function here answers a question of trust with a bool: a coroutine somebody forgot to await is truthy too. Each returns a
typed proof (`Attempt`, `Principal`) or raises. Only SHA-256 digests of tokens are ever stored.
"""

from __future__ import annotations

import hmac
import ipaddress
import unicodedata
from dataclasses import dataclass

from sqlalchemy import or_, select

from hub.agents import canonical_email, find_agent, need_agents, one
from hub.keys import digest
from hub.passwords import NO_MATCH, Attempt, Verified
from hub.policy import DAY, SECOND, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.hot import HotReads
from hub.storage.reader import Reader
from hub.storage.records import AgentSession, LoginAttempt
from hub.storage.tables import metadata
from hub.storage.writer import Writer

SESSION_IDLE = 8 * 3_600 * SECOND
SESSION_LIFE = 7 * DAY
SESSION_TOUCH = 60 * SECOND
LOGIN_WINDOW = 60 * SECOND
LOGINS_PER_ACCOUNT = 5
LOGINS_PER_ADDRESS = 20

_session = metadata.tables["agent_session"]
_attempt = metadata.tables["login_attempt"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A signed-in agent. `csrf` must come back with every unsafe request of this session."""

    agent_id: int
    email: str
    name: str
    role: str
    session: str  # SHA-256 of the session token
    csrf: str

    @property
    def id(self) -> int:
        return self.agent_id


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many failed logins; `retry_after` is in whole seconds."""

    retry_after: int


def account_key(typed: str) -> str:
    """The throttle's key of an account, known or not. A digest: people type passwords into the wrong field."""
    return "account:" + digest(unicodedata.normalize("NFC", typed).strip().lower())


def address_key(peer: str | None) -> str:
    """The throttle's key of a client address; an IPv6 client owns its whole /64."""
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return "address:local"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"address:{address.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((address, 64), strict=False)}"
    return f"address:{address}"


# --- what the writer decides ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BeginLogin:
    """Count a login against its account and its address before the password is looked at, so that a hundred at once are counted too."""

    email: str
    peer: str | None

    def _keys(self) -> tuple[str, str]:
        return account_key(self.email), address_key(self.peer)

    def _stored(self) -> str:
        try:
            return canonical_email(self.email)
        except Refusal:
            return ""  # no account has it

    def needs(self, needs: Needs) -> None:
        for key in self._keys():
            needs.rows.add(("login_attempt", "key", key))
        needs.rows.add(("agent", "email", self._stored()))

    def decide(self, facts: Facts) -> Attempt | Throttled:
        keys = self._keys()
        limits = (LOGINS_PER_ACCOUNT, LOGINS_PER_ADDRESS)
        rows = [one(facts, "login_attempt", "key", key) for key in keys]
        for row, limit in zip(rows, limits, strict=True):
            # `since` in the future: the clock was set back; such a window counts as over.
            if row is not None and row.count >= limit and 0 <= facts.now - row.since < LOGIN_WINDOW:
                return Throttled(-(-(row.since + LOGIN_WINDOW - facts.now) // SECOND))
        for row, key in zip(rows, keys, strict=True):
            if row is None:
                facts.insert(LoginAttempt(key, facts.now, 1))
                continue
            if not 0 <= facts.now - row.since < LOGIN_WINDOW:
                row.since, row.count = facts.now, 0
            row.count += 1
            facts.change(row)
        agent = one(facts, "agent", "email", self._stored())
        if agent is None or agent.disabled_at is not None:
            return Attempt(None, "", keys)
        return Attempt(agent.id, agent.password_hash, keys)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Turn a proof into a session, and give back what the throttle counted. Raises Refusal when the account changed meanwhile."""

    proof: Verified
    token_hash: str
    csrf: str
    replaces: str | None = None  # the session this browser had until now

    def needs(self, needs: Needs) -> None:
        need_agents(needs)
        for key in self.proof.keys:
            needs.rows.add(("login_attempt", "key", key))

    def decide(self, facts: Facts) -> Principal:
        agent = find_agent(facts, self.proof.agent_id)
        if agent.disabled_at is not None or not hmac.compare_digest(agent.password_hash.encode(), self.proof.password_hash.encode()):
            raise Refusal(NO_MATCH)
        if self.proof.rehash is not None:
            agent.password_hash = self.proof.rehash
            facts.change(agent)
        for key in self.proof.keys:
            row = one(facts, "login_attempt", "key", key)
            if row is not None:
                row.count = 0 if key.startswith("account:") else max(0, row.count - 1)
                facts.change(row)
        if self.replaces is not None:
            facts.remove("agent_session", "token_hash", self.replaces)
        facts.insert(AgentSession(self.token_hash, agent.id, self.csrf, facts.now, facts.now, facts.now + SESSION_LIFE))
        facts.emit("agent.signed_in", agent_id=agent.id)
        return Principal(agent.id, agent.email, agent.name, agent.role, self.token_hash, self.csrf)


@dataclass(frozen=True, slots=True)
class TouchSession:
    """Note that a session is in use. One that has just ended stays ended."""

    token_hash: str

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("agent_session", "token_hash", self.token_hash))

    def decide(self, facts: Facts) -> None:
        row = one(facts, "agent_session", "token_hash", self.token_hash)
        if row is not None and facts.now - row.seen_at >= SESSION_TOUCH:
            row.seen_at = facts.now
            facts.change(row)


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Sign out."""

    token_hash: str

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("agent_session", "token_hash", self.token_hash))

    def decide(self, facts: Facts) -> None:
        row = one(facts, "agent_session", "token_hash", self.token_hash)
        if row is not None:
            facts.remove("agent_session", "token_hash", self.token_hash)
            facts.emit("agent.signed_out", agent_id=row.agent_id)


@dataclass(frozen=True, slots=True)
class ForgetLogins:
    """Delete sessions that ended and login counts whose window is over, unless they came to life again since they were listed."""

    sessions: tuple[str, ...]
    attempts: tuple[str, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("agent_session", "token_hash", key) for key in self.sessions)
        needs.rows.update(("login_attempt", "key", key) for key in self.attempts)

    def decide(self, facts: Facts) -> None:
        for key in self.sessions:
            session = one(facts, "agent_session", "token_hash", key)
            if session is not None and (session.expires_at <= facts.now or session.seen_at <= facts.now - SESSION_IDLE):
                facts.remove("agent_session", "token_hash", key)
        for key in self.attempts:
            attempt = one(facts, "login_attempt", "key", key)
            if attempt is not None and attempt.since <= facts.now - LOGIN_WINDOW:
                facts.remove("login_attempt", "key", key)


# --- what is read --------------------------------------------------------------------------------------------------------


async def session_of(hot: HotReads, token_hash: str, now: int) -> tuple[Principal, int] | None:
    """The agent a live session stands for and when it was last seen; None when it ended, idled out, or its agent is disabled."""
    found = await hot.session(token_hash)
    if found is None or found.disabled_at is not None or found.expires_at <= now or found.seen_at <= now - SESSION_IDLE:
        return None
    return Principal(found.agent_id, found.email, found.name, found.role, token_hash, found.csrf), found.seen_at


async def sweep_logins(reader: Reader, writer: Writer, now: int) -> int:
    """Delete what ended, at most 200 rows of a kind; how many were listed. For the hub's hourly round."""
    ended = or_(_session.c.expires_at <= now, _session.c.seen_at <= now - SESSION_IDLE)
    sessions = await reader.all(select(_session.c.token_hash).where(ended).limit(200))
    attempts = await reader.all(select(_attempt.c.key).where(_attempt.c.since <= now - LOGIN_WINDOW).limit(200))
    if sessions or attempts:
        await writer.run(ForgetLogins(tuple(row[0] for row in sessions), tuple(row[0] for row in attempts)))
    return len(sessions) + len(attempts)
