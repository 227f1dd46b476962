"""Agents' accounts, the one-time links by which their passwords are chosen, and the API tokens of programs.

No function here answers a question of trust with a bool: a coroutine somebody forgot to await is truthy too. Each returns a
typed proof or raises. Only SHA-256 digests of tokens are ever stored. Signing in and staying so: `hub.sessions`.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from hub.keys import digest
from hub.passwords import Verified
from hub.policy import DAY, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Agent, ApiToken, Setting
from hub.storage.tables import metadata
from hub.storage.writer import Writer

ROLES = ("admin", "agent")
LINK_LIFE = DAY
FIRST = 0  # the agent id in the setup link of an installation without agents


LINK_GONE = "This link has been used or has run out."

_agent = metadata.tables["agent"]
_token = metadata.tables["api_token"]
_setting = metadata.tables["setting"]


@dataclass(frozen=True, slots=True)
class ApiPrincipal:
    """A program that showed a live API token."""

    token_id: int
    name: str


def new_token() -> str:
    """256 random bits, safe in a URL and in a cookie."""
    return secrets.token_urlsafe(32)


def canonical_email(raw: str) -> str:
    """An agent's address as it is stored and compared. Raises Refusal."""
    email = unicodedata.normalize("NFC", raw).strip().lower()
    if len(email) > 254 or not re.fullmatch(r"[^@\s\x00-\x1f\x7f<>\",;]+@[^@\s\x00-\x1f\x7f<>\",;]+", email):
        raise Refusal("That is not an e-mail address. Nothing was changed.")
    return email


def check_name(raw: str) -> str:
    """A name for people to read, on one line. Raises Refusal."""
    name = " ".join(raw.split())
    if not name or len(name) > 100 or any(unicodedata.category(c).startswith("C") for c in name):
        raise Refusal("A name needs 1 to 100 visible characters. Nothing was changed.")
    return name


# --- what the writer decides ---------------------------------------------------------------------------------------------


def need_agents(needs: Needs) -> None:
    # Always the whole small table and always by role, so that a batch holds one object a row: with two look-ups of one row,
    # a login and a disabling of the same account in one batch would not see each other.
    for role in ROLES:
        needs.rows.add(("agent", "role", role))


def _agents(facts: Facts) -> list[Agent]:
    return [agent for role in ROLES for agent in facts.found[("agent", "role", role)]]


def find_agent(facts: Facts, agent_id: int) -> Agent:
    for agent in _agents(facts):
        if agent.id == agent_id:
            return agent
    raise Refusal("There is no such agent. Nothing was changed.")


def one(facts: Facts, table: str, column: str, value: Any) -> Any | None:
    rows = facts.found[(table, column, value)]
    return rows[0] if rows else None


def _by(by: int | None) -> str:
    return json.dumps({"by": by})


@dataclass(frozen=True, slots=True)
class CreateAgent:
    """Add an account; its id. Without a password hash it waits for its link. Raises Refusal."""

    email: str
    name: str
    role: str
    password_hash: str = ""
    by: int | None = None  # the agent who did it; None for the command line and the first link

    def needs(self, needs: Needs) -> None:
        need_agents(needs)

    def decide(self, facts: Facts) -> int:
        email, name = canonical_email(self.email), check_name(self.name)
        if self.role not in ROLES:
            raise Refusal(f"A role is one of {', '.join(ROLES)}. Nothing was changed.")
        if any(agent.email == email for agent in _agents(facts)):
            raise Refusal(f"There is already an agent with the address {email}. Nothing was changed.")
        agent = Agent(facts.new_id("agent"), email, name, self.password_hash, self.role, facts.now)
        facts.insert(agent)
        # The open door of an empty installation shuts with its first agent, whichever way that one came in.
        facts.remove("setting", "key", f"setup:{FIRST}")
        facts.emit("agent.added", agent_id=agent.id, data=_by(self.by))
        return agent.id


@dataclass(frozen=True, slots=True)
class IssueFirstLink:
    """Store the digest of the one-time link that makes the first agent; when it runs out, or None when there is an agent already."""

    token_hash: str

    def needs(self, needs: Needs) -> None:
        need_agents(needs)
        needs.rows.add(("setting", "key", f"setup:{FIRST}"))

    def decide(self, facts: Facts) -> int | None:
        return None if _agents(facts) else _store_link(facts, FIRST, self.token_hash)


@dataclass(frozen=True, slots=True)
class IssueLink:
    """Store the digest of a one-time link with which an agent chooses a password; when it runs out. An older link dies. Raises Refusal."""

    agent_id: int
    token_hash: str
    by: int | None = None

    def needs(self, needs: Needs) -> None:
        need_agents(needs)
        needs.rows.add(("setting", "key", f"setup:{self.agent_id}"))

    def decide(self, facts: Facts) -> int:
        agent = find_agent(facts, self.agent_id)
        if agent.disabled_at is not None:
            raise Refusal(f"{agent.name} is disabled. Enable the account first.")
        facts.emit("agent.invited", agent_id=agent.id, data=_by(self.by))
        return _store_link(facts, agent.id, self.token_hash)


def _store_link(facts: Facts, agent_id: int, token_hash: str) -> int:
    key, expires_at = f"setup:{agent_id}", facts.now + LINK_LIFE
    value = json.dumps({"hash": token_hash, "expires_at": expires_at})
    row = one(facts, "setting", "key", key)
    if row is None:
        facts.insert(Setting(key, value))
    else:
        row.value = value
        facts.change(row)
    return expires_at


def check_link(stored: str | None, token_hash: str, now: int) -> int:
    """When a stored link runs out, if this is its token and it still stands. Raises Refusal."""
    link = json.loads(stored) if stored else {}
    wanted = str(link.get("hash") or "")
    if len(wanted) != 64 or not hmac.compare_digest(wanted.encode(), token_hash.encode()) or link["expires_at"] <= now:
        raise Refusal(LINK_GONE)
    return int(link["expires_at"])


@dataclass(frozen=True, slots=True)
class FollowLink:
    """Use up a one-time link: set the agent's password, or make the first agent an administrator. Ends the agent's other sessions."""

    agent_id: int
    token_hash: str
    password_hash: str
    email: str = ""  # of the first agent; others have theirs
    name: str = ""

    def needs(self, needs: Needs) -> None:
        need_agents(needs)
        needs.rows.add(("setting", "key", f"setup:{self.agent_id}"))

    def decide(self, facts: Facts) -> Verified:
        key = f"setup:{self.agent_id}"
        row = one(facts, "setting", "key", key)
        check_link(row.value if row else None, self.token_hash, facts.now)
        if self.agent_id == FIRST:
            if _agents(facts):
                raise Refusal(LINK_GONE)
            agent_id = CreateAgent(self.email, self.name, "admin", self.password_hash).decide(facts)
            return Verified(agent_id, self.password_hash)
        agent = find_agent(facts, self.agent_id)
        if agent.disabled_at is not None:
            raise Refusal(LINK_GONE)
        agent.password_hash = self.password_hash
        facts.change(agent)
        facts.remove("setting", "key", key)
        facts.remove("agent_session", "agent_id", agent.id)
        facts.emit("agent.password_set", agent_id=agent.id)
        return Verified(agent.id, self.password_hash)


@dataclass(frozen=True, slots=True)
class DisableAgent:
    """Shut an account: its sessions and its link die with the commit. The last administrator stays. Raises Refusal."""

    agent_id: int
    by: int | None = None

    def needs(self, needs: Needs) -> None:
        need_agents(needs)

    def decide(self, facts: Facts) -> None:
        agent = find_agent(facts, self.agent_id)
        if agent.disabled_at is not None:
            return
        # An administrator who has not yet followed the link cannot sign in, so does not count.
        others = [a for a in _agents(facts) if a.role == "admin" and a.disabled_at is None and a.password_hash and a.id != agent.id]
        if agent.role == "admin" and not others:
            raise Refusal(f"{agent.name} is the last administrator who can sign in. Add another one first. Nothing was changed.")
        agent.disabled_at = facts.now
        facts.change(agent)
        facts.remove("agent_session", "agent_id", agent.id)
        facts.remove("setting", "key", f"setup:{agent.id}")
        facts.emit("agent.disabled", agent_id=agent.id, data=_by(self.by))


@dataclass(frozen=True, slots=True)
class EnableAgent:
    """Open a disabled account again; its password is the old one. Raises Refusal."""

    agent_id: int
    by: int | None = None

    def needs(self, needs: Needs) -> None:
        need_agents(needs)

    def decide(self, facts: Facts) -> None:
        agent = find_agent(facts, self.agent_id)
        if agent.disabled_at is None:
            return
        agent.disabled_at = None
        facts.change(agent)
        facts.emit("agent.enabled", agent_id=agent.id, data=_by(self.by))


@dataclass(frozen=True, slots=True)
class CreateApiToken:
    """Store the digest of a new API token; its id. Raises Refusal."""

    name: str
    token_hash: str
    by: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("api_token", "token_hash", self.token_hash))

    def decide(self, facts: Facts) -> int:
        token = ApiToken(facts.new_id("api_token"), check_name(self.name), self.token_hash, facts.now)
        facts.insert(token)
        facts.emit("agent.token_created", agent_id=self.by, data=json.dumps({"token_id": token.id}))
        return token.id


@dataclass(frozen=True, slots=True)
class RevokeApiToken:
    """End an API token for ever. Raises Refusal."""

    token_id: int
    by: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("api_token", "id", self.token_id))

    def decide(self, facts: Facts) -> None:
        token = one(facts, "api_token", "id", self.token_id)
        if token is None:
            raise Refusal("There is no such token. Nothing was changed.")
        if token.revoked_at is None:
            token.revoked_at = facts.now
            facts.change(token)
            facts.emit("agent.token_revoked", agent_id=self.by, data=json.dumps({"token_id": token.id}))


# --- what pages read -----------------------------------------------------------------------------------------------------


async def token_of(reader: Reader, token_hash: str) -> ApiPrincipal | None:
    """The program a live API token stands for."""
    row = await reader.first(select(_token.c.id, _token.c.name).where(_token.c.token_hash == token_hash, _token.c.revoked_at.is_(None)))
    return None if row is None else ApiPrincipal(row.id, row.name)


async def link_of(reader: Reader, agent_id: int) -> str | None:
    """What is stored of an agent's one-time link, for `check_link`."""
    stored = await reader.value(select(_setting.c.value).where(_setting.c.key == f"setup:{agent_id}"))
    return None if stored is None else str(stored)


async def list_agents(reader: Reader) -> Sequence[Any]:
    """Every agent: id, email, name, role, created_at, disabled_at, waiting (no password chosen yet)."""
    columns = (_agent.c.id, _agent.c.email, _agent.c.name, _agent.c.role, _agent.c.created_at, _agent.c.disabled_at)
    return await reader.all(select(*columns, (_agent.c.password_hash == "").label("waiting")).order_by(_agent.c.name, _agent.c.id))


async def count_agents(reader: Reader) -> int:
    return int(await reader.value(select(func.count()).select_from(_agent)))


async def agent_by_id(reader: Reader, agent_id: int) -> Any | None:
    return await reader.first(select(_agent.c.id, _agent.c.email, _agent.c.name).where(_agent.c.id == agent_id))


async def list_tokens(reader: Reader) -> Sequence[Any]:
    """Every API token, newest first, never its secret."""
    return await reader.all(select(_token.c.id, _token.c.name, _token.c.created_at, _token.c.revoked_at).order_by(_token.c.id.desc()))


async def first_setup_link(writer: Writer, public_url: str) -> str | None:
    """The one-time link to print at start while there is no agent; None once there is one. An earlier link dies."""
    token = new_token()
    issued = await writer.run(IssueFirstLink(digest(token)))
    return None if issued is None else setup_url(public_url, FIRST, token)


def setup_url(public_url: str, agent_id: int, token: str) -> str:
    """Where a one-time link leads."""
    return f"{public_url}/setup/{agent_id}.{token}"


def split_link(raw: str) -> tuple[int, str]:
    """A link's agent id and the digest of its token. Raises Refusal."""
    number, _, token = raw.partition(".")
    if not re.fullmatch(r"[0-9]{1,12}", number) or not re.fullmatch(r"[A-Za-z0-9_-]{43}", token):
        raise Refusal(LINK_GONE)
    return int(number), digest(token)
