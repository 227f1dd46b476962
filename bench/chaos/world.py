"""One hub (or several on one database) as processes, the world around them, and what is stored and sent as seen from outside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from bench.chaos.outside import Agent, Outside, Provider
from bench.chaos.promise import BrokenPromise, Run, Tally
from bench.chaos.warm import Forked, fork
from connectors.sandbox import SandboxActor, SandboxSecrets, SandboxServer
from hub import keys
from hub.app import SANDBOX_AGENT

ROOT = Path(__file__).resolve().parents[2]
SECRETS = SandboxSecrets(
    twilio_account_sid="AC00000000000000000000000000000001",
    twilio_auth_token="chaos-twilio-token",
    mail_username="chaos",
    mail_password="chaos-mail-password",
    slack_signing_secret="chaos-slack-secret",
    slack_bot_token="xoxb-chaos",
    webhook_secret="whsec_Y2hhb3MtY2hhb3MtY2hhb3MtY2hhb3MtY2hhb3M=",
    site_key="chaos-site-key-0123456789abcdef0123456789",
    site_audience="support-hub",
)
UP_AGAIN = 3.0  # seconds from the start of the process until it serves
UP = 30.0  # the same where it is not being judged
# Below the range the system gives to outgoing connections, and each process its own part.
_ports = itertools.cycle(range(28_000 + os.getpid() % 40 * 100, 32_000))


def free_port() -> int:
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("unreachable")


class Hub:
    """The server as a process that can be killed."""

    def __init__(self, config: Path, port: int, name: str = "hub", *, forked: bool = False) -> None:
        """`forked`: from a process that has imported everything (warm), where it is not judged how long a start takes."""
        self.config = config
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = config.parent / f"{name}.log"
        self.forked = forked
        self.process: asyncio.subprocess.Process | Forked | None = None

    async def start(self, *arguments: str, within: float = UP, under: Sequence[str] = ()) -> float:
        """Start it and wait until it serves: the seconds that took. Raises BrokenPromise beyond `within`."""
        began = time.monotonic()
        given = ["--config", str(self.config), *arguments]
        if self.forked and not under:
            self.process = await fork(given, self.log)
        else:
            self.process = await self._fresh(*under, sys.executable, "-m", "bench.chaos.victim", *given)
        try:
            async with asyncio.timeout(UP):
                await self._said(b"Inbox")
        except TimeoutError:
            raise BrokenPromise(f"the hub does not start within {UP:g} s: {self.tail()}") from None
        taken = time.monotonic() - began
        if taken > within:
            raise BrokenPromise(f"the hub took {taken:.1f} s to serve, not {within:g}")
        return taken

    async def _fresh(self, *command: str) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith("HUB_")},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def _said(self, word: bytes) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while word not in (line := await self.process.stdout.readline()):
            if not line:
                raise BrokenPromise(f"the hub ended ({await self.process.wait()}): {self.tail()}")

    async def command(self, **what: object) -> None:
        """Tell the victim something, and wait until it has heard."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        async with asyncio.timeout(10):
            await self._said(b'{"obeyed"')

    def signal(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def ended(self, within: float = 20.0) -> int:
        """Its exit code. Raises BrokenPromise where it lives on."""
        assert self.process is not None
        try:
            async with asyncio.timeout(within):
                return await self.process.wait()
        except TimeoutError:
            self.signal(signal.SIGUSR1)
            await asyncio.sleep(0.5)  # it says what it waits for
            raise BrokenPromise(f"the process was to end and lives on after {within:g} s: {self.tail()}") from None

    async def killed(self, within: float = 20.0) -> None:
        """Wait for a death by SIGKILL. Raises BrokenPromise for any other end, or none."""
        code = await self.ended(within)
        if code != -signal.SIGKILL:
            raise BrokenPromise(f"the hub was to be killed and ended by itself ({code}): {self.tail()}")

    async def kill(self) -> None:
        if self.alive:
            self.signal(signal.SIGKILL)
            await self.ended()

    async def stop(self, within: float = 10.0) -> None:
        """As an operator stops it. Raises BrokenPromise for an exit code other than 0, or beyond `within` seconds."""
        self.signal(signal.SIGTERM)
        if code := await self.ended(within):
            raise BrokenPromise(f"stopped by SIGTERM, the hub exited with {code}: {self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3_000:] if self.log.exists() else ""


@dataclass
class World:
    """A hub that is not started yet, and everything around it."""

    run: Run
    directory: Path
    outside: Outside
    server: SandboxServer
    actor: SandboxActor
    provider: Provider
    hub: Hub
    agent: Agent
    settings: dict[str, Any]
    database_url: str = ""
    hubs: list[Hub] = field(default_factory=list)
    _actors: list[SandboxActor] = field(default_factory=list)
    passed: float = 0.0  # seconds that were made to pass

    def another(self, name: str) -> tuple[Hub, SandboxActor]:
        """A second process on the same database, and the way to it."""
        port = free_port()
        own = {**self.settings, "server": {**self.settings["server"], "port": port}}
        made = Hub(_write(self.directory / f"{name}.yaml", own), port, name, forked=self.hub.forked)
        actor = SandboxActor(self.server, hub_url=made.url, public_url=self.actor.public_url)
        self.hubs.append(made)
        self._actors.append(actor)
        return made, actor

    def rewrite(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Alter the configuration the hub will start with."""
        change(self.settings)
        _write(self.hub.config, self.settings)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement finds in the database, by a connection of our own."""
        if not self.database_url:
            path = self.settings["storage"]["database"]
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
                return connection.execute(sql).fetchall()
        import asyncpg

        connection = await asyncpg.connect(self.database_url)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def until(self, sql: str, wanted: Callable[[list[tuple[Any, ...]]], bool], what: str, patience: float = 20.0) -> None:
        """Ask again until the rows are as wanted. Raises BrokenPromise saying `what` did not come to pass."""
        deadline = time.monotonic() + patience
        while not wanted(rows := await self.rows(sql)):
            if time.monotonic() > deadline:
                raise BrokenPromise(f"{what} did not come to pass within {patience:g} s: {str(rows)[:300]}")
            await asyncio.sleep(0.05)

    async def tickets(self) -> list[int]:
        return [row[0] for row in await self.rows("SELECT id FROM ticket ORDER BY id")]

    async def sign_in(self) -> Agent:
        secret = keys.load_secret(Path(self.settings["storage"]["secret_file"]))
        self.agent.password = base64.b32encode(keys.derive(secret, "sandbox login")).decode().lower()[:16]
        await self.agent.sign_in()
        return self.agent

    async def leases_run_out(self, of: Hub | None = None) -> None:
        """This hub (or the only one) is dead. Where there could be others, its leases end by themselves in 90 s: let that time pass."""
        if not self.database_url:
            return
        import asyncpg

        connection = await asyncpg.connect(self.database_url)
        try:
            dead = (of or self.hub).pid
            await connection.execute(
                "UPDATE delivery SET lease_until = lease_until - 90000000 WHERE state = 'sending' AND starts_with(lease_token, $1)",
                f"{dead} ",
            )
        finally:
            await connection.close()

    async def let_pass(self, seconds: float) -> None:
        """Let this much time pass for the outbox: by the hub's clock, or, where the database's counts, by making all its rows older."""
        self.passed += seconds
        await self.hub.command(passed=seconds)
        if not self.database_url:
            await self.hub.command(clock=self.passed)
            return
        import asyncpg

        connection = await asyncpg.connect(self.database_url)
        try:
            # The id of a webhook is made of when it was owed, which therefore stays.
            await connection.execute(
                "UPDATE delivery SET due_at = due_at - $1, created_at = created_at - CASE WHEN kind = 'reply' THEN $1 ELSE 0 END "
                "WHERE state = 'queued'",
                int(seconds * 1e6),
            )
        finally:
            await connection.close()

    async def drained(self, patience: float = 30.0, *, passing: float = 0.0) -> None:
        """Wait until nothing is owed any more but what is of unknown fate, or given up; so many seconds pass at each look."""
        owed = "SELECT kind, state, error FROM delivery WHERE state IN ('queued', 'sending')"
        deadline = time.monotonic() + patience
        while passing and await self.rows(owed) and time.monotonic() < deadline:
            await self.let_pass(passing)
            await asyncio.sleep(0.05)
        await self.until(owed, lambda rows: not rows, "an empty outbox", patience)

    # --- what is judged ---

    async def timeline(self) -> Tally:
        """Acknowledged is a subset of stored, stored of offered, and nobody reads anything twice."""
        rows = await self.rows("SELECT text, count(*), count(DISTINCT conversation_id) FROM message WHERE direction = 'in' GROUP BY text")
        stored = Counter({text.strip(): count for text, count, _ in rows})
        offered = {offer.text for offer in self.provider.offers.values()}
        lost = [offer.text for offer in self.provider.acknowledged if not stored[offer.text]]
        doubled = sum(count - 1 for count in stored.values())
        if strange := set(stored) - offered:
            raise BrokenPromise(f"{len(strange)} stored messages were never written, such as {min(strange)!r}")
        people = (await self.rows("SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM ticket)"))[0]
        written = {offer.sender for offer in self.provider.offers.values() if offer.text in stored}
        if people != (len(written), len(written)):
            raise BrokenPromise(f"{len(written)} people wrote; there are {people[0]} customers with {people[1]} tickets")
        if kept := await self.rows("SELECT count(*), max(reason) FROM quarantine HAVING count(*) > 0"):
            raise BrokenPromise(f"{kept[0][0]} good messages are in quarantine: {kept[0][1]}")
        notes = [f"lost: {text!r}" for text in lost[:3]] + [f"{count} times: {text!r}" for text, count in stored.items() if count > 1][:3]
        return Tally(len(self.provider.offers), lost=len(lost), doubled=doubled, notes=notes)

    async def sound(self) -> None:
        """The database is whole, and every stored file too. Raises BrokenPromise."""
        if not self.database_url and (found := await self.rows("PRAGMA integrity_check")) != [("ok",)]:
            raise BrokenPromise(f"PRAGMA integrity_check: {found[:3]}")
        from hub.storage.blobs import Blobs

        blobs = Blobs(Path(self.settings["storage"]["files"]))
        import hashlib

        for (digest,) in await self.rows("SELECT sha256 FROM attachment WHERE sha256 <> '' UNION SELECT body_sha256 FROM raw_request"):
            if digest and hashlib.sha256(blobs.get(digest)).hexdigest() != digest:
                raise BrokenPromise(f"the stored file {digest} is not whole")
        events = (await self.rows("SELECT count(*), count(DISTINCT message_id) FROM event WHERE type = 'message.received'"))[0]
        if events[0] != events[1]:
            raise BrokenPromise(f"{events[0]} arrivals were announced for {events[1]} messages")

    async def replies(self) -> Tally:
        """Each reply the hub took is at the provider once, or is shown as of unknown fate; none is there twice."""
        rows = await self.rows("SELECT text, status, error FROM message WHERE direction = 'out'")
        shown = {text: status for text, status, _ in rows}
        received = Counter(message.body for message in self.outside.twilio_messages)
        # What the mail quotes stands below what was written.
        received.update(mail.text.strip().partition("\n")[0].strip() for mail in self.outside.mails)
        certain = ("sent", "delivered", "read")
        lost = [
            text
            for text in self.agent.taken
            if shown.get(text) is None or (not received[text] and shown[text] in certain) or shown[text] not in (*certain, "unknown")
        ]
        unknown = [row for row in rows if row[1] == "unknown"]
        if any(not error for _, _, error in unknown):
            raise BrokenPromise("a reply of unknown fate does not say why")
        if len(shown) != len(rows):
            raise BrokenPromise("a draft became two messages")
        doubled = sum(count - 1 for count in received.values())
        notes = [f"lost: {text!r}, shown as {shown.get(text)}" for text in lost[:3]]
        notes += [f"{count} times at the provider: {text!r}" for text, count in received.items() if count > 1][:3]
        return Tally(len(self.agent.taken), lost=len(lost), doubled=doubled, unresolved=len(unknown), notes=notes)

    async def notices(self) -> Tally:
        """The marketing tool heard of every hold, each under one id for ever."""
        wanted = await self.rows("SELECT customer_id, version FROM hold_ledger")
        ids: dict[tuple[Any, ...], set[str]] = {}
        for hook in self.outside.hooks:
            if not hook.verified:
                raise BrokenPromise(f"a webhook's signature was wrong: {hook.problem}")
            ids.setdefault((hook.data["customer_id"], hook.data["version"]), set()).add(hook.id)
        missing = sorted({tuple(row) for row in wanted} - set(ids))
        notes = [f"customer {customer}'s hold, version {version}, was not told" for customer, version in missing[:3]]
        return Tally(len(wanted), lost=len(missing), doubled=sum(len(found) - 1 for found in ids.values()), notes=notes)


def _write(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def world(run: Run, name: str = "world", *, room: bool = False) -> AsyncIterator[World]:
    """A fresh database, stand-ins that listen, and a hub configured to speak to them. Nothing of it is left afterwards."""
    directory = run.directory / name
    directory.mkdir(parents=True)
    outside = Outside()
    server = SandboxServer(port=0, smtp_port=0, secrets=SECRETS, state=outside)
    await server.start()
    port = free_port()
    public_url = f"http://localhost:{port}"
    url = run.cluster.create_database() if run.engine == "postgresql" and run.cluster is not None else ""
    settings = _settings(directory, server, port, public_url, url, room)
    hub_process = Hub(_write(directory / "config.yaml", settings), port, forked=not run.full)
    actor = SandboxActor(server, hub_url=hub_process.url, public_url=public_url)
    agent = Agent(hub_process.url, SANDBOX_AGENT, "")
    made = World(run, directory, outside, server, actor, Provider(actor), hub_process, agent, settings, url, [hub_process], [actor])
    try:
        yield made
    finally:
        for one in made.hubs:
            await one.kill()
        await agent.close()
        for each in made._actors:
            await each.close()
        await server.stop()
        if url and run.cluster is not None:
            with contextlib.suppress(Exception):  # a cluster that a promise has wrecked
                run.cluster.drop_database(url)


def _settings(directory: Path, server: SandboxServer, port: int, public_url: str, url: str, room: bool) -> dict[str, Any]:
    twilio = {"type": "twilio_sms", "address": "+15550100002", "base_url": server.url}
    twilio |= {"account_sid": SECRETS.twilio_account_sid, "auth_token": SECRETS.twilio_auth_token}
    mail: dict[str, Any] = {"type": "mime", "address": "support@shop.example", "authserv_id": "mx.shop.example"}
    mail |= {"username": SECRETS.mail_username, "password": SECRETS.mail_password}
    mail["smtp"] = {"host": "127.0.0.1", "port": server.smtp_port, "security": "none"}
    settings: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": port, "public_url": public_url},
        "storage": {"database": str(directory / "hub.db"), "files": str(directory / "files"), "secret_file": str(directory / "secret")},
        "channels": {"sms": twilio, "email": mail},
        "destinations": {"marketing": {"type": "webhook", "url": f"{server.url}/marketing/hooks", "secret": SECRETS.webhook_secret}},
        "allowed_hosts": [f"127.0.0.1:{server.port}"],
        # Stand-ins are allowed only beside an enabled sandbox; it listens too and is asked nothing. It also makes the agent.
        "sandbox": {"enabled": True, "port": 0, "smtp_port": 0},
    }
    if url:
        settings["database_url"] = url
    if room:
        slack = {"type": "slack", "channel": "C0SUPPORT", "base_url": f"{server.url}/slack/api/"}
        settings["rooms"] = {"slack": slack | {"bot_token": SECRETS.slack_bot_token, "signing_secret": SECRETS.slack_signing_secret}}
    return settings


def ticket_of(text: str) -> int:
    """The ticket a reply's text names."""
    found = re.search(r"ticket (\d+)", text)
    assert found
    return int(found.group(1))
