"""Mails the hub takes in by itself, in a whole hub: through its own SMTP port and out of a real mailbox onto the disk, each once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import aiosmtplib
import pytest
import yaml
from sqlalchemy import select

from hub.app import Running
from hub.config import load
from hub.storage.tables import metadata
from tests.conftest import sandbox_config
from tests.connectors.test_email_imap import PASSWORD, Mailbox, dovecot, mail, mailbox  # noqa: F401  (fixtures)

T = metadata.tables
NOWHERE = {"host": "127.0.0.1", "port": 1, "security": "none"}


async def hub_with(tmp_path: Path, **channel: Any) -> Running:
    path = sandbox_config(tmp_path)
    config = yaml.safe_load(path.read_text())
    config["channels"]["taken"] = {"address": "help@shop.example", "smtp": NOWHERE} | channel
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return Running(load(path, {}))


@pytest.fixture
async def mx(tmp_path: Path) -> AsyncIterator[Running]:
    running = await hub_with(tmp_path, type="smtp_listener", host="127.0.0.1", port=0)
    await running.start()
    yield running
    await running.stop()


async def subjects(running: Running) -> list[str]:
    rows = await running.hub.reader.all(select(T["message"].c.subject).where(T["message"].c.direction == "in").order_by(T["message"].c.id))
    return [row.subject for row in rows]


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait until another program's work shows in the hub."""
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110  (another program tells nobody when it is done)
            await asyncio.sleep(0.02)


async def has(running: Running, wanted: list[str]) -> None:
    async def true() -> bool:
        return await subjects(running) == wanted

    await eventually(true)


async def test_a_mail_by_smtp_is_in_its_conversation_once_when_it_is_confirmed(mx: Running) -> None:
    connector: Any = mx.hub.channels["taken"].connector

    async def listens() -> bool:
        return bool(connector.port)

    await eventually(listens)
    for _ in range(2):
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=connector.port, start_tls=False, local_hostname="mx.example")
        async with client:
            await client.mail("ana1@shop.example")
            await client.rcpt("help@shop.example")
            await client.data(mail(1))
        assert await subjects(mx) == ["Mail 1"]


async def test_the_same_mail_posted_from_outside_is_refused(mx: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"x-hub-taken-in": "0" * 64}):
            async with session.post(f"http://127.0.0.1:{mx.port}/in/taken", data=mail(1), headers=headers) as answer:
                assert answer.status == 401
    assert await subjects(mx) == []


async def test_a_mailbox_is_read_into_conversations_and_again_after_a_restart(tmp_path: Path, mailbox: Mailbox) -> None:  # noqa: F811
    server = {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "username": mailbox.user, "password": PASSWORD}
    await asyncio.to_thread(mailbox.put, mail(1), mail(2), mail(2))
    first = await hub_with(tmp_path, type="imap", imap=server)
    await first.start()
    try:
        await has(first, ["Mail 1", "Mail 2"])
    finally:
        await first.stop()
    await asyncio.to_thread(mailbox.put, mail(3))
    second = await hub_with(tmp_path, type="imap", imap=server)
    await second.start()
    try:
        await has(second, ["Mail 1", "Mail 2", "Mail 3"])

        async def noted() -> bool:
            return bool(json.loads(await second.hub.reader.value(select(T["bookmark"].c.value)))["uid"] == 4)

        await eventually(noted)
    finally:
        await second.stop()
