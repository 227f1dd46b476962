"""SIGKILL in the middle of the work, three times over: what was acknowledged is there once, and nothing is sent twice.

The server is the real one, in a process of its own; the providers and their customers live here and survive it. kill -9 does
not prove anything about a power cut: that is what `synchronous=FULL` is for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import re
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from connectors.sandbox import SandboxActor, SandboxServer, SandboxState
from hub import keys
from hub.app import sandbox_secrets
from hub.config import Settings, load
from hub.serving import SANDBOX_AGENT
from tests.conftest import ROOT, sandbox_config

pytestmark = pytest.mark.process

CYCLES = 3
CUSTOMERS = 200  # who all write at once
MESSAGES = 2  # each, a cycle
REPLIES = 40  # a cycle


@dataclass
class Server:
    """`hub serve` as a process that can be killed. Its own sandbox runs too, and nobody speaks to that one."""

    config: Path
    settings: Settings
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.server.port}"

    async def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        log = self.config.parent / "stderr.log"
        with log.open("ab") as stderr:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hub", "serve", "--config", str(self.config)),
                cwd=ROOT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        # It listens by the time it prints its welcome.
        async with asyncio.timeout(20):
            while b"Inbox" not in (line := await self.process.stdout.readline()):
                assert line, f"the server did not start: {log.read_text()[-3000:]}"

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.buried()

    async def buried(self) -> None:
        assert await self.process.wait() == -signal.SIGKILL, "it was to die by our hand and no other"
        self.process = None

    async def stop(self) -> None:
        """As an operator stops it: what is under way ends first."""
        self.process.send_signal(signal.SIGTERM)
        assert await self.process.wait() == 0
        self.process = None

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self.settings.storage.database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()


class Stand(SandboxState):
    """The stand-ins' state; it can kill the hub at the very moment a message was taken and before the answer leaves."""

    victim: Server | None = None
    at = 0

    def kill_at(self, count: int, victim: Server) -> None:
        self.at, self.victim = count, victim

    def changed(self) -> None:
        if self.victim is not None and len(self.twilio_messages) >= self.at:
            self.victim.process.send_signal(signal.SIGKILL)
            self.victim = None
        super().changed()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, SandboxActor]]:
    config = sandbox_config(tmp_path)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    own = load(config, clean)
    outside = SandboxServer(port=0, smtp_port=0, secrets=sandbox_secrets(own), state=Stand())
    await outside.start()
    # The channels call the stand-ins of this process, which outlive the server; those it starts itself stay idle.
    before, _, sandbox = config.read_text().partition("\nsandbox:")
    before = before.replace(f":{own.sandbox.port}", f":{outside.port}").replace(
        f"port: {own.sandbox.smtp_port}", f"port: {outside.smtp_port}"
    )
    before = before.replace("allowed_hosts: []", f'allowed_hosts: ["127.0.0.1:{outside.port}"]')
    config.write_text(f"{before}\nsandbox:{sandbox}")
    built = Server(config, load(config, clean))
    actor = SandboxActor(outside, hub_url=built.url, public_url=own.server.public_url)
    try:
        yield built, actor
    finally:
        if built.process is not None:
            await built.kill()
        await actor.close()
        await outside.stop()


def number(customer: int) -> str:
    return f"+1202555{customer:04d}"


class Provider:
    """Delivers each customer's messages in turn, all customers at once; what was not acknowledged is offered again, same id."""

    def __init__(self, actor: SandboxActor) -> None:
        self._actor = actor
        self.acknowledged: set[str] = set()
        self.kill_at: tuple[int, Server] | None = None

    async def deliver(self, messages: dict[str, tuple[str, str]]) -> None:
        """{sid: (from, text)} until each is acknowledged, or the hub is gone."""
        in_turn: dict[str, list[tuple[str, str]]] = {}
        for sid, (sender, text) in messages.items():
            if sid not in self.acknowledged:
                in_turn.setdefault(sender, []).append((sid, text))
        await asyncio.gather(*(self._offer(sender, said) for sender, said in in_turn.items()))

    async def _offer(self, sender: str, said: list[tuple[str, str]]) -> None:
        for sid, text in said:
            answer = await self._actor.sms(sender, text, sid=sid)
            if answer.status == 0:
                return
            assert answer.status == 200, answer
            self.acknowledged.add(sid)
            if self.kill_at is not None and len(self.acknowledged) >= self.kill_at[0]:
                self.kill_at[1].process.send_signal(signal.SIGKILL)
                self.kill_at = None


async def test_acknowledged_messages_survive_kills_and_are_never_doubled(server: tuple[Server, SandboxActor]) -> None:
    hub, actor = server
    dice = random.Random(20_261_122)
    provider = Provider(actor)
    offered: dict[str, tuple[str, str]] = {}
    await hub.start()
    for cycle in range(CYCLES):
        known = len(offered)
        offered |= {
            f"SM{cycle:02d}{turn:02d}{n:028d}": (number(n), f"message {turn} of {n} in cycle {cycle}")
            for turn in range(MESSAGES)
            for n in range(CUSTOMERS)
        }
        provider.kill_at = (known + dice.randrange(1, CUSTOMERS * (MESSAGES - 1)), hub)
        await provider.deliver(offered)
        await hub.buried()
        promised = set(provider.acknowledged)
        assert known < len(promised) < len(offered), "the kill came in the middle"

        await hub.start()
        stored = Counter(text for (text,) in hub.rows("SELECT text FROM message WHERE direction = 'in'"))
        lost = [offered[sid][1] for sid in promised if offered[sid][1] not in stored]
        assert not lost, "a 2xx means it is on disk"
        assert set(stored.values()) == {1}
        await provider.deliver(offered)
        assert provider.acknowledged == set(offered)

    stored = Counter(text for (text,) in hub.rows("SELECT text FROM message WHERE direction = 'in'"))
    assert stored == Counter(text for _, text in offered.values()), "each once, and nothing else"
    people = hub.rows("SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM ticket), count(DISTINCT conversation_id) FROM message")
    assert people == [(CUSTOMERS, CUSTOMERS, CUSTOMERS)], "one person, one conversation, one ticket"
    assert hub.rows("SELECT count(*), count(DISTINCT provider_key) FROM dedupe") == [(len(offered), len(offered))]
    assert hub.rows("SELECT count(*) FROM hold WHERE released_at IS NULL") == [(CUSTOMERS,)]
    assert hub.rows("PRAGMA integrity_check") == [("ok",)]


class Agent:
    """An agent in a browser, who presses Send again until it was taken; the draft keeps its key."""

    def __init__(self, hub: Server, browser: aiohttp.ClientSession) -> None:
        self._hub = hub
        self._browser = browser
        self._csrf = ""

    async def sign_in(self) -> None:
        password = keys.derive(keys.load_secret(self._hub.settings.storage.secret_file), "sandbox login")
        form = {"email": SANDBOX_AGENT, "password": base64.b32encode(password).decode().lower()[:16]}
        async with self._browser.post(f"{self._hub.url}/login", data=form, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
        async with self._browser.get(f"{self._hub.url}/inbox/open") as page:
            text = await page.text()
        found = re.search(r'<meta name="csrf" content="([^"]+)">', text)
        assert found, text[:2_000]
        self._csrf = found.group(1)

    async def reply(self, ticket_id: int, text: str) -> bool:
        """Whether the hub took it."""
        form = {"text": text, "draft_key": f"draft-{ticket_id:08d}"}
        url, headers = f"{self._hub.url}/tickets/{ticket_id}/reply", {"X-CSRF-Token": self._csrf}
        try:
            async with self._browser.post(url, data=form, headers=headers, allow_redirects=False) as answer:
                assert answer.status in (204, 503), await answer.text()
                return answer.status == 204
        except aiohttp.ClientError:
            return False


async def test_no_reply_is_sent_twice_over_kills_and_a_doubtful_one_is_shown(server: tuple[Server, SandboxActor]) -> None:
    hub, actor = server
    dice = random.Random(20_261_123)
    state = actor.state
    assert isinstance(state, Stand)
    provider = Provider(actor)
    await hub.start()
    await provider.deliver({f"SM{n:032d}": (number(n), f"question {n}") for n in range(CYCLES * REPLIES)})
    assert len(provider.acknowledged) == CYCLES * REPLIES
    wanted: dict[int, str] = {}
    cut_off: set[str] = set()
    # IP addresses as cookie hosts: a browser keeps them, aiohttp wants to be told.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        agent = Agent(hub, browser)
        await agent.sign_in()
        for cycle in range(CYCLES):
            batch = {ticket: f"answer {ticket}" for ticket in range(cycle * REPLIES + 1, (cycle + 1) * REPLIES + 1)}
            wanted |= batch
            # The provider takes this one, and the hub dies before it hears so.
            state.kill_at(len(state.twilio_messages) + dice.randrange(1, REPLIES), hub)
            taken = await asyncio.gather(*(agent.reply(ticket, text) for ticket, text in batch.items()))
            await state.wait_for(lambda: state.victim is None)
            await hub.buried()
            cut_off |= {message.body for message in state.twilio_messages[state.at - 1 :]}

            await hub.start()
            kept = {text for (text,) in hub.rows("SELECT text FROM message WHERE direction = 'out'")}
            assert {text for ok, text in zip(taken, batch.values(), strict=True) if ok} <= kept, "an answer taken is an answer kept"
            again = await asyncio.gather(*(agent.reply(ticket, text) for ticket, text in batch.items()))
            assert all(again)
            unknown = {text for (text,) in hub.rows("SELECT text FROM message WHERE status = 'unknown'")}
            # Whatever is not in doubt leaves by itself.
            certain = set(wanted.values()) - unknown
            await state.wait_for(lambda certain=certain: {message.body for message in state.twilio_messages} >= certain)

    await hub.stop()
    received = Counter(message.body for message in state.twilio_messages)
    assert set(received.values()) == {1}, "nothing is sent twice"
    shown = dict(hub.rows("SELECT text, status FROM message WHERE direction = 'out'"))
    assert set(shown) == set(wanted.values())
    assert {shown[text] for text in cut_off} == {"unknown"}, "it arrived, and we cannot know"
    assert all(status in ("sent", "unknown") for status in shown.values()), Counter(shown.values())
    assert {text for text, status in shown.items() if status == "sent"} <= set(received)
    assert {text for text in wanted.values() if text not in received} <= {text for text, status in shown.items() if status == "unknown"}
    doubtful = hub.rows("SELECT state, error FROM delivery WHERE kind = 'reply' AND state <> 'done'")
    assert len(doubtful) == list(shown.values()).count("unknown") >= CYCLES
    assert {state for state, _ in doubtful} == {"unknown"}
    assert all("may have arrived" in str(error) for _, error in doubtful)
