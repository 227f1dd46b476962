"""Accounts: the rules by table, the decisions through the real writer, also when many come in one batch."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from hub import agents, sessions
from hub.keys import digest
from hub.passwords import (
    LANES,
    MEMORY_KIB,
    NOBODY,
    PASSES,
    WAITING,
    Attempt,
    Passwords,
    PasswordsBusy,
    Verified,
    WrongPassword,
    _hasher,
    check_password,
)
from hub.policy import DAY, SECOND, Policy, Refusal
from hub.sessions import Principal, Throttled
from hub.storage.reader import Reader, sqlite_reader
from hub.storage.sqlite_hot import SqliteHot
from hub.storage.sqlite_writer import SqliteWriter
from tests.storage import fresh_database

START = 1_800_000_000_000_000


class Held:
    """A unit of work that holds the writer until told to go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        self.reached.set()
        self.go_on.wait(20)


class Desk:
    """A writer, a reader and a clock over one database."""

    def __init__(self, path: Path) -> None:
        self.now = START
        self.path = path
        self.writer = SqliteWriter(path, Policy(), lambda facts, event: None, clock=lambda: self.now)
        self.reader: Reader = sqlite_reader(path)
        self.hot = SqliteHot(path)

    async def run(self, work: Any) -> Any:
        return await self.writer.run(work)

    async def together(self, *works: Any) -> list[Any]:
        """All in one batch: they gather while the writer is held at another unit."""
        held = Held()
        first = asyncio.create_task(self.writer.run(held))
        await asyncio.to_thread(held.reached.wait, 20)
        waiting = [asyncio.create_task(self.writer.run(work)) for work in works]
        await asyncio.sleep(0)
        held.go_on.set()
        await first
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def session(self, token: str) -> tuple[Principal, int] | None:
        return await sessions.session_of(self.hot, digest(token), self.now)

    def rows(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


@pytest.fixture(autouse=True)
def cheap_passwords() -> None:
    """Not here: what is shipped is judged."""


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    path = fresh_database(tmp_path)
    desk = Desk(path)
    yield desk
    await desk.writer.close()
    await desk.reader.close()
    await desk.hot.close()


def opened(agent_id: int, token: str, password_hash: str = "h", **more: Any) -> sessions.OpenSession:
    return sessions.OpenSession(Verified(agent_id, password_hash, **more), digest(token), "csrf-" + token)


# --- rules ---


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ("Ada@Example.COM ", "ada@example.com"),
        ("a+b@x", "a+b@x"),
        ("\u0041\u030angstr\u00f6m@x.se", "\u00e5ngstr\u00f6m@x.se"),  # composed, so that one address is one account
        ("", None),
        ("ada", None),
        ("a@b@c", None),
        ("a b@c", None),
        ("a@b\nBcc: x@y", None),
        ("a,b@c", None),  # two recipients to some mail programs
        ("x" * 250 + "@example.com", None),
    ],
)
def test_an_account_has_one_spelling(raw: str, stored: str | None) -> None:
    if stored is None:
        with pytest.raises(Refusal):
            agents.canonical_email(raw)
    else:
        assert agents.canonical_email(raw) == stored


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        ("correct horse battery", True),
        ("пароль из слов", True),
        ("x" * 11 + "y", False),  # two characters
        ("short-one-1", False),  # eleven
        ("ada.lovelace", False),  # part of the address
        ("ADA.lovelace123456", False),
        ("a1b2c3d4e5f6" * 22, False),  # 264 characters
    ],
)
def test_a_password_is_long_and_not_the_address(password: str, fits: bool) -> None:
    if fits:
        assert check_password(password, "ada.lovelace@example.com") == password
    else:
        with pytest.raises(Refusal):
            check_password(password, "ada.lovelace@example.com")


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("192.0.2.7", "address:192.0.2.7"),
        ("::ffff:192.0.2.7", "address:192.0.2.7"),  # one client, however the socket spells it
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "address:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "address:fe80::/64"),
        (None, "address:local"),
        ("", "address:local"),
    ],
)
def test_a_client_address_is_counted_once(peer: str | None, key: str) -> None:
    assert sessions.address_key(peer) == key


@pytest.mark.parametrize("stored", [None, "", "{}", '{"hash": ""}', '{"hash": null, "expires_at": 9}', '{"hash": "' + "a" * 63 + '"}'])
def test_an_empty_link_opens_nothing(stored: str | None) -> None:
    for token_hash in ("", "a" * 63, digest("")):
        with pytest.raises(Refusal):
            agents.check_link(stored, token_hash, 0)


# --- passwords ---


async def test_at_most_two_passwords_are_checked_at_once() -> None:
    passwords, meet, lock, running, most = Passwords(), threading.Barrier(2, timeout=20), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meet.wait()  # passes only when two really run side by side
        with lock:
            running -= 1

    await asyncio.gather(*(passwords._run(work) for _ in range(8)))
    assert most == 2


async def test_a_flood_of_logins_is_refused_instead_of_queued_for_ever() -> None:
    passwords, gate = Passwords(), threading.Event()
    waiting = [asyncio.create_task(passwords._run(lambda: gate.wait(20))) for _ in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(PasswordsBusy):
        await passwords.hash("x")
    gate.set()
    assert all(await asyncio.gather(*waiting))
    assert (await passwords.hash("now there is room")).startswith("$argon2id$")


async def test_an_unknown_account_costs_the_same_work() -> None:
    # Same parameters, and Argon2 runs to its end: a mismatch, not a malformed hash that is refused at once.
    hasher = _hasher()
    assert not hasher.check_needs_rehash(NOBODY)
    with pytest.raises(VerifyMismatchError):
        hasher.verify(NOBODY, "anything")
    for attempt in (Attempt(None, "", ("a", "b")), Attempt(3, "", ("a", "b"))):  # nobody; invited, no password yet
        with pytest.raises(WrongPassword):
            await Passwords().verify(attempt, "anything")


async def test_a_password_fits_only_its_hash_and_old_parameters_are_renewed(desk: Desk) -> None:
    passwords = Passwords()
    old = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash("correct horse battery")
    agent_id = await desk.run(agents.CreateAgent("ada@example.com", "Ada", "admin", old))
    attempt = await desk.run(sessions.BeginLogin("ADA@example.com", "192.0.2.1"))
    with pytest.raises(WrongPassword):
        await passwords.verify(attempt, "correct horse batterie")
    proof = await passwords.verify(attempt, "correct horse battery")
    assert proof.agent_id == agent_id
    principal = await desk.run(sessions.OpenSession(proof, digest("t"), "c"))
    assert (principal.email, principal.role) == ("ada@example.com", "admin")
    again = await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1"))
    assert f"m={MEMORY_KIB},t={PASSES},p={LANES}" in again.password_hash
    assert (await passwords.verify(again, "correct horse battery")).rehash is None


# --- the throttle ---


async def test_a_hundred_guesses_at_once_are_five(desk: Desk) -> None:
    outcomes = await desk.together(*(sessions.BeginLogin("ada@example.com", f"192.0.2.{n}") for n in range(100)))
    assert [type(outcome) for outcome in outcomes].count(Attempt) == sessions.LOGINS_PER_ACCOUNT == 5
    assert {type(outcome) for outcome in outcomes} == {Attempt, Throttled}


async def test_an_address_gets_twenty_guesses_over_all_accounts(desk: Desk) -> None:
    outcomes = [await desk.run(sessions.BeginLogin(f"user{n}@example.com", "192.0.2.1")) for n in range(25)]
    assert [isinstance(outcome, Attempt) for outcome in outcomes] == [True] * 20 + [False] * 5
    assert isinstance(await desk.run(sessions.BeginLogin("other@example.com", "192.0.2.2")), Attempt)


async def test_the_window_opens_again_after_a_minute_and_says_when(desk: Desk) -> None:
    for _ in range(5):
        assert isinstance(await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1")), Attempt)
    desk.now += 20 * SECOND
    assert await desk.run(sessions.BeginLogin("Ada@Example.com ", "192.0.2.1")) == Throttled(40)
    desk.now += 40 * SECOND - 1
    assert await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1")) == Throttled(1)
    desk.now += 1
    assert isinstance(await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1")), Attempt)


async def test_a_clock_set_back_locks_nobody_out(desk: Desk) -> None:
    for _ in range(6):
        await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1"))
    desk.now -= DAY
    assert isinstance(await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1")), Attempt)


async def test_a_right_password_gives_its_count_back(desk: Desk) -> None:
    agent_id = await desk.run(agents.CreateAgent("ada@example.com", "Ada", "admin", "h"))
    for n in range(30):
        attempt = await desk.run(sessions.BeginLogin("ada@example.com", "192.0.2.1"))
        assert isinstance(attempt, Attempt), n
        await desk.run(opened(agent_id, f"t{n}", keys=attempt.keys))


async def test_nothing_typed_is_stored_by_the_throttle(desk: Desk) -> None:
    await desk.run(sessions.BeginLogin("my secret passphrase", "192.0.2.1"))
    assert "secret" not in json.dumps(desk.rows("SELECT * FROM login_attempt"))


# --- accounts ---


async def test_two_accounts_never_share_an_address(desk: Desk) -> None:
    outcomes = await desk.together(*(agents.CreateAgent(email, "Ada", "agent", "h") for email in ("a@x.y", "A@x.y", " a@X.y")))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Refusal", "Refusal", "int"]
    with pytest.raises(Refusal):
        await desk.run(agents.CreateAgent("b@x.y", "Ben", "owner", "h"))


async def test_the_last_administrator_stays_even_when_two_go_at_once(desk: Desk) -> None:
    ada = await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    bob = await desk.run(agents.CreateAgent("bob@x.y", "Bob", "admin", "h"))
    await desk.run(agents.CreateAgent("new@x.y", "Invited", "admin"))  # cannot sign in yet, so does not count
    outcomes = await desk.together(agents.DisableAgent(ada), agents.DisableAgent(bob))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "Refusal"]
    assert desk.rows("SELECT count(*) FROM agent WHERE role='admin' AND disabled_at IS NULL AND password_hash<>''") == [(1,)]


@pytest.mark.parametrize("disabled_first", [True, False], ids=["disable, login", "login, disable"])
async def test_a_login_beside_the_disabling_of_its_account_opens_nothing(desk: Desk, disabled_first: bool) -> None:
    await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    ben = await desk.run(agents.CreateAgent("ben@x.y", "Ben", "agent", "h"))
    works = [agents.DisableAgent(ben), opened(ben, "t", rehash="h2")]
    await desk.together(*(works if disabled_first else works[::-1]))
    assert await desk.session("t") is None
    assert desk.rows("SELECT disabled_at IS NULL FROM agent WHERE email='ben@x.y'") == [(0,)]
    await desk.run(agents.EnableAgent(ben))
    assert await desk.session("t") is None, "an old session must not come back with the account"


async def test_a_password_changed_while_a_login_was_checked_wins(desk: Desk) -> None:
    ada = await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "new"))
    with pytest.raises(Refusal):
        await desk.run(opened(ada, "t", password_hash="old"))
    with pytest.raises(Refusal):
        await desk.run(opened(99, "t"))
    assert desk.rows("SELECT * FROM agent_session") == []


# --- sessions ---


async def test_a_session_idles_out_after_eight_hours_and_dies_after_seven_days(desk: Desk) -> None:
    ada = await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    await desk.run(opened(ada, "idle"))
    await desk.run(opened(ada, "busy"))
    desk.now += 8 * 3_600 * SECOND - 1
    assert await desk.session("idle") is not None
    await desk.run(sessions.TouchSession(digest("busy")))
    desk.now += 1
    assert await desk.session("idle") is None
    assert await desk.session("busy") is not None
    while desk.now < START + 7 * DAY - 3_600 * SECOND:
        desk.now += 3_600 * SECOND
        await desk.run(sessions.TouchSession(digest("busy")))
    desk.now = START + 7 * DAY - 1
    assert await desk.session("busy") is not None
    desk.now += 1
    assert await desk.session("busy") is None


async def test_a_closed_session_is_not_touched_back_to_life(desk: Desk) -> None:
    ada = await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    await desk.run(opened(ada, "t"))
    desk.now += 120 * SECOND
    await desk.together(sessions.CloseSession(digest("t")), sessions.TouchSession(digest("t")))
    assert desk.rows("SELECT * FROM agent_session") == []


async def test_the_sweep_takes_what_ended_and_nothing_else(desk: Desk) -> None:
    ada = await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    await desk.run(opened(ada, "old"))
    await desk.run(sessions.BeginLogin("ada@x.y", "192.0.2.1"))
    desk.now += 9 * 3_600 * SECOND
    await desk.run(opened(ada, "new"))
    await desk.run(sessions.BeginLogin("bob@x.y", "192.0.2.2"))
    assert await sessions.sweep_logins(desk.reader, desk.writer, desk.now) == 3
    assert desk.rows("SELECT token_hash FROM agent_session") == [(digest("new"),)]
    assert len(desk.rows("SELECT key FROM login_attempt")) == 2
    # Listed as over, but used again before the sweep was decided: it stays.
    await desk.run(sessions.ForgetLogins((digest("new"),), (sessions.account_key("bob@x.y"),)))
    assert len(desk.rows("SELECT key FROM login_attempt")) == 2
    assert await desk.session("new") is not None


# --- one-time links ---


async def first(desk: Desk) -> str:
    link = await agents.first_setup_link(desk.writer, "https://hub.example")
    assert link is not None
    return link.rpartition("/")[2]


def follow(link: str, email: str = "ada@x.y") -> agents.FollowLink:
    agent_id, token_hash = agents.split_link(link)
    return agents.FollowLink(agent_id, token_hash, "h", email, "Ada")


async def test_the_first_link_makes_one_administrator_and_only_once(desk: Desk) -> None:
    link = await first(desk)
    outcomes = await desk.together(*(follow(link, f"a{n}@x.y") for n in range(5)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Refusal"] * 4 + ["Verified"]
    assert desk.rows("SELECT role FROM agent") == [("admin",)]
    assert desk.rows("SELECT * FROM setting WHERE key LIKE 'setup:%'") == []
    assert await agents.first_setup_link(desk.writer, "https://hub.example") is None


async def test_the_first_link_dies_when_an_agent_comes_another_way(desk: Desk) -> None:
    link = await first(desk)
    outcomes = await desk.together(agents.CreateAgent("cli@x.y", "Cli", "agent", "h"), follow(link))
    assert isinstance(outcomes[1], Refusal)
    with pytest.raises(Refusal):
        await desk.run(follow(link))
    assert desk.rows("SELECT email FROM agent") == [("cli@x.y",)]


async def test_a_newer_first_link_ends_the_older_and_a_day_ends_both(desk: Desk) -> None:
    older, newer = await first(desk), await first(desk)
    with pytest.raises(Refusal):
        await desk.run(follow(older))
    desk.now += DAY
    with pytest.raises(Refusal):
        await desk.run(follow(newer))
    newest = await first(desk)
    desk.now += DAY - 1
    assert (await desk.run(follow(newest))).agent_id == 1


async def test_a_password_link_is_its_agents_alone_and_ends_their_sessions(desk: Desk) -> None:
    ada = await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    ben = await desk.run(agents.CreateAgent("ben@x.y", "Ben", "agent", "h"))
    await desk.run(opened(ada, "ada"))
    await desk.run(opened(ben, "ben"))
    token = agents.new_token()
    await desk.run(agents.IssueLink(ben, digest(token)))
    with pytest.raises(Refusal):
        await desk.run(agents.FollowLink(ada, digest(token), "x"))
    with pytest.raises(Refusal):
        await desk.run(agents.FollowLink(0, digest(token), "x", "eve@x.y", "Eve"))
    await desk.run(agents.FollowLink(ben, digest(token), "x", email="eve@x.y"))
    assert desk.rows("SELECT email, password_hash FROM agent ORDER BY id") == [("ada@x.y", "h"), ("ben@x.y", "x")]
    assert await desk.session("ben") is None
    assert await desk.session("ada") is not None
    with pytest.raises(Refusal):
        await desk.run(agents.FollowLink(ben, digest(token), "y"))


async def test_a_disabled_agents_link_is_dead_and_none_is_issued(desk: Desk) -> None:
    await desk.run(agents.CreateAgent("ada@x.y", "Ada", "admin", "h"))
    ben = await desk.run(agents.CreateAgent("ben@x.y", "Ben", "agent", "h"))
    await desk.run(agents.IssueLink(ben, digest("t")))
    await desk.run(agents.DisableAgent(ben))
    for work in (agents.FollowLink(ben, digest("t"), "x"), agents.IssueLink(ben, digest("u"))):
        with pytest.raises(Refusal):
            await desk.run(work)


@pytest.mark.parametrize("raw", ["", "0", "0.", " ", "null", "0.null", "x." + "a" * 43, "0." + "a" * 42, "0." + "a" * 44, "-1." + "a" * 43])
def test_what_is_not_shaped_like_a_link_is_none(raw: str) -> None:
    with pytest.raises(Refusal):
        agents.split_link(raw)


# --- API tokens, and what is kept of secrets ---


async def test_a_revoked_api_token_stands_for_nobody(desk: Desk) -> None:
    token_id = await desk.run(agents.CreateApiToken("Klaviyo", digest("t"), 1))
    found = await agents.token_of(desk.reader, digest("t"))
    assert found is not None
    assert (found.token_id, found.name) == (token_id, "Klaviyo")
    assert await agents.token_of(desk.reader, digest("T")) is None
    await desk.run(agents.RevokeApiToken(token_id, 1))
    assert await agents.token_of(desk.reader, digest("t")) is None
    with pytest.raises(Refusal):
        await desk.run(agents.RevokeApiToken(77, 1))
    with pytest.raises(Refusal):
        await desk.run(agents.CreateApiToken("  ", digest("u"), 1))


async def test_no_byte_of_the_database_holds_a_token_or_a_password(desk: Desk, tmp_path: Path) -> None:
    password, session, api = "canary horse battery", "canary-session-" + agents.new_token(), "hub_canary" + agents.new_token()
    link = await first(desk)
    agent_id, token_hash = agents.split_link(link)
    proof = await desk.run(agents.FollowLink(agent_id, token_hash, await Passwords().hash(password), "ada@x.y", "Ada"))
    await desk.run(sessions.OpenSession(proof, digest(session), "csrf"))
    await desk.run(agents.CreateApiToken("Klaviyo", digest(api)))
    await desk.run(sessions.BeginLogin("ada@x.y", "192.0.2.1"))
    written = b"".join(file.read_bytes() for file in tmp_path.glob("hub.db*"))  # noqa: ASYNC240
    assert b"ada@x.y" in written, "the scan must see what was written"
    for secret in (password, session, api, link.partition(".")[2]):
        assert secret.encode() not in written
