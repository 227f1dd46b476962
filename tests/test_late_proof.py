"""From the posted mail to the proven customer: the whole hub, a real name server on loopback, and mails signed with real keys."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from hub import dns
from hub.app import Running
from hub.cli import main
from hub.customers.suggestions import Suggestions
from hub.storage.records import Delivery
from hub.storage.writer import wall_clock
from tests.conftest import configured, sandbox_config
from tests.signed_mail import NameServer, name_server, numbered, record, signed
from tests.storage import ENGINES

NAME = "s1._domainkey.shop.example"


@dataclass
class Shifted:
    """The wall clock, some time ahead."""

    ahead: int = 0

    def __call__(self) -> int:
        return wall_clock() + self.ahead


@dataclass
class Stand:
    running: Running
    dns: NameServer
    clock: Shifted
    session: aiohttp.ClientSession
    password: str

    async def post(self, mail: bytes) -> None:
        credentials = base64.b64encode(f"sandbox:{self.password}".encode()).decode()
        headers = {"Content-Type": "message/rfc822", "Authorization": f"Basic {credentials}"}
        async with self.session.post(f"http://127.0.0.1:{self.running.port}/in/email", data=mail, headers=headers) as answer:
            assert answer.status == 200, await answer.text()

    async def rows(self, sql: str) -> list[Any]:
        return [tuple(row) for row in await self.running.hub.reader.all(text(sql))]

    async def checks(self) -> list[Any]:
        return await self.rows("SELECT state, attempt, ref, error FROM delivery WHERE kind = 'check' ORDER BY id")

    async def until(self, stands: Callable[[Any], bool], count: int = 1, *, hours: int = 0) -> list[Any]:
        """The checks, once the `count`th one stands so; time passes between looks."""
        async with asyncio.timeout(30):
            while len(rows := await self.checks()) < count or not stands(rows[count - 1]):
                self.clock.ahead += hours * 3_700_000_000
                self.running.hub.outbox.wake()
                await asyncio.sleep(0.01)
            return rows

    async def checked(self, count: int = 1) -> str:
        """What the `count`th check found, once it is over."""
        rows = await self.until(lambda row: row[0] not in ("queued", "sending"), count)
        assert rows[count - 1][0] == "done", rows
        return str(rows[count - 1][2])

    async def messages(self) -> list[Any]:
        """(proof, standing of who spoke, whose conversation, whose ticket) of every message."""
        return await self.rows(
            "SELECT m.proof, i.standing, m.conversation_id, t.conversation_id FROM message m JOIN identifier i ON i.id = m.identifier_id "
            "JOIN ticket t ON t.id = m.ticket_id ORDER BY m.id"
        )


@pytest.fixture(params=ENGINES)
async def stand(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    monkeypatch.setattr(dns, "ONE_TRY", 0.1)
    monkeypatch.setattr(dns, "SECONDS", 0.2)
    async with name_server() as server, aiohttp.ClientSession() as session:
        with configured(tmp_path, request.param) as shipped:
            mail = {key: value for key, value in shipped.channels["email"].items() if key != "authserv_id"}
            identity = shipped.identity.model_copy(update={"nameservers": (server.address,)})
            settings = shipped.model_copy(update={"identity": identity, "channels": {**shipped.channels, "email": mail}})
            clock = Shifted()
            running = Running(settings, clock)
            await running.start()
            try:
                yield Stand(running, server, clock, session, str(mail["password"]))
            finally:
                await running.stop()


async def test_a_signed_mail_comes_in_unproven_is_checked_and_proves_its_sender(stand: Stand) -> None:
    stand.dns.records = {NAME: [record()]}
    await stand.post(signed())
    assert await stand.checked() == "Signed by shop.example (key s1): the signature holds."
    ((proof, standing, conversation, ticket),) = await stand.messages()
    assert (proof, standing) == ("dmarc", "proven")
    assert conversation == ticket
    assert await stand.rows("SELECT count(*) FROM customer") == [(1,)]
    updated = await stand.rows("SELECT count(*) FROM event WHERE type = 'message.updated'")
    assert updated == [(1,)], "whoever looks at it sees it change"


async def test_it_is_joined_with_what_its_sender_proved_before_and_a_forger_is_not(stand: Stand) -> None:
    stand.dns.records = {NAME: [record()]}
    await stand.post(signed())
    await stand.checked(1)
    await stand.post(signed(numbered(2)))
    await stand.checked(2)
    await stand.post(signed(numbered(3), key=1))
    assert "does not hold" in await stand.checked(3)
    await stand.post(signed(numbered(4), domain="evil.example"))
    messages = await stand.messages()
    assert [row[:2] for row in messages] == [("dmarc", "proven"), ("dmarc", "proven"), ("claimed", "asserted"), ("claimed", "asserted")]
    assert messages[0][2:] == messages[1][2:]
    assert messages[2][2] == messages[3][2] != messages[0][2]
    assert len(await stand.checks()) == 3, "what cannot prove its sender is not even looked up"
    assert "s1._domainkey.evil.example" not in stand.dns.asked


UNPROVEN = [
    ("tampered", signed(numbered(1)).replace(b"Friday", b"Monday"), [record()], "changed after it was signed"),
    ("l=", signed(numbered(2), selector="s2", length=True) + b"PS: and more\r\n", [record()], "only a part"),
    ("no record", signed(numbered(3), selector="s3"), [], "no such key"),
    ("no name", signed(numbered(4), selector="s4"), None, "no such key"),
    ("testing", signed(numbered(5), selector="s5"), [record(tags="v=DKIM1; t=y; ")], "testing"),
]


async def test_where_it_does_not_hold_the_message_stays_unproven(stand: Stand) -> None:
    for number, (name, mail, records, why) in enumerate(UNPROVEN, 1):
        if records is not None:
            stand.dns.records[f"s{number}._domainkey.shop.example"] = records
        await stand.post(mail)
        assert why in await stand.checked(number), name
    assert {row[:2] for row in await stand.messages()} == {("claimed", "asserted")}
    assert len({row[2] for row in await stand.messages()}) == 1


@pytest.mark.parametrize("how", ["down", "failing"])
async def test_while_the_dns_cannot_say_it_is_asked_again(how: str, stand: Stand) -> None:
    stand.dns.records = {NAME: [record()]}
    setattr(stand.dns, how, True)
    await stand.post(signed())
    ((_, _, _, error),) = await stand.until(lambda row: row[0] == "queued" and row[1] > 0)
    assert "The DNS could not be asked" in error
    assert [row[0] for row in await stand.messages()] == ["claimed"]
    setattr(stand.dns, how, False)
    stand.clock.ahead = 3_600_000_000
    stand.running.hub.outbox.wake()
    assert "holds" in await stand.checked()
    assert [row[:2] for row in await stand.messages()] == [("dmarc", "proven")]


async def test_a_check_done_twice_changes_nothing(stand: Stand) -> None:
    stand.dns.records = {NAME: [record()]}
    await stand.post(signed())
    await stand.checked()
    tables = ("customer", "evidence", "event", "ticket")
    counted = f"SELECT {', '.join(f'(SELECT count(*) FROM {table})' for table in tables)}"
    before = (await stand.messages(), await stand.rows(counted))
    carrier = stand.running.hub.outbox._carriers["check"]
    (row,) = await stand.rows("SELECT id, subject_id, target FROM delivery WHERE kind = 'check'")
    again = Delivery(row[0], f"check:{row[1]}", "check", row[2], row[1], "{}", "sending", True, 0, 0, attempt=1)
    await carrier.carry(again)
    assert (await stand.messages(), await stand.rows(counted)) == before


async def test_a_key_that_can_never_be_looked_up_is_given_up_quietly(stand: Stand) -> None:
    """A stranger's broken name server must fill nobody's list of what failed."""
    stand.dns.failing = True
    await stand.post(signed())
    ((state, attempts, found, _),) = await stand.until(lambda row: row[0] not in ("queued", "sending"), hours=1)
    assert (state, attempts) == ("done", 33)
    assert "Given up after 33 tries" in found
    assert await stand.rows("SELECT count(*) FROM event WHERE type = 'delivery.failed'") == [(0,)]


async def test_correspondence_leaves_nothing_for_an_agent_to_look_through(stand: Stand) -> None:
    """The address as nobody proved it stays behind, empty: no hint that it may be the proven one is left in anybody's list."""
    stand.dns.records = {NAME: [record()]}
    for number in range(1, 4):
        await stand.post(signed(numbered(number)))
        await stand.checked(number)
    hub = stand.running.hub
    suggestions = Suggestions(hub.reader, hub.writer)
    while await suggestions.step():
        pass
    assert await stand.rows("SELECT rule, reason FROM suggestion") == []
    assert len({row[2:] for row in await stand.messages()}) == 1
    assert sorted(await stand.rows("SELECT status, count(*) FROM ticket GROUP BY status")) == [("open", 1), ("resolved", 1)]


def test_check_says_which_channels_check_their_senders_themselves(tmp_path: Path) -> None:
    path = sandbox_config(tmp_path)
    said = CliRunner().invoke(main, ["check", "--config", str(path)]).output
    assert "signed mails without a verdict of mx.shop.example" in said
    assert "this system's name servers" in said
    changed = re.sub(r"\n    authserv_id:.*", "", path.read_text())
    path.write_text(re.sub(r"nameservers: .*", "nameservers: ['192.0.2.1:5353']", changed))
    said = CliRunner().invoke(main, ["check", "--config", str(path)]).output
    assert "every signed mail: no authserv_id is set" in said
    assert "192.0.2.1:5353" in said
    path.write_text(path.read_text().replace("192.0.2.1:5353", "dns.example"))
    refused = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert refused.exit_code == 1
    assert "identity.nameservers: 'dns.example' is not the address of a name server" in refused.output
