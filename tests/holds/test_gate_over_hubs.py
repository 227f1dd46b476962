"""Two hubs on one database: what one of them is told, the other's gate knows at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
from sqlalchemy import select

from connectors.sandbox.actor import SandboxActor
from hub.agents import CreateApiToken
from hub.app import Running, sandbox_token
from hub.config import Settings
from hub.conversations.commands import Resolve
from hub.keys import digest
from hub.storage.tables import metadata
from tests.storage.several import needs_postgres
from tests.storage.test_postgres_hubs import ADA, beside, outside, started, towards, without_sandbox

__all__ = ["outside", "without_sandbox"]  # fixtures
pytestmark = needs_postgres

SOON = 1.0  # seconds


async def held(http: aiohttp.ClientSession, hub: Running, who: str = ADA) -> bool:
    async with http.get(f"http://127.0.0.1:{hub.port}/api/v1/holds/check", params={"phone": who}) as answer:
        assert answer.status == 200
        return bool((await answer.json())["held"])


async def test_a_ticket_opened_at_one_hub_is_held_at_the_other_at_once(without_sandbox: Settings, outside: SandboxActor) -> None:
    """The gate reads the table on every question, so that "within a second" is "by the time the webhook is answered"."""
    async with started(without_sandbox) as one, started(beside(without_sandbox)) as two:
        towards(outside, one)
        bearer = {"Authorization": f"Bearer {sandbox_token(one.hub.secret)}"}
        async with aiohttp.ClientSession(headers=bearer) as http:
            # The sandbox's token is made with the sandbox, which is off here.
            await one.hub.writer.run(CreateApiToken("tool", digest(sandbox_token(one.hub.secret))))
            assert not await held(http, two)
            for number in range(5):
                assert (await outside.sms(ADA, f"Where is my parcel? {number}")).status == 200
                began = time.monotonic()
                assert await held(http, two), "the very next question"
                assert time.monotonic() - began < SOON
                ticket = await one.hub.reader.value(_open_ticket())
                await two.hub.writer.run(Resolve(ticket, 1))
                assert not await held(http, one)


async def test_a_poll_at_one_hub_hears_what_the_other_hub_is_told(without_sandbox: Settings, outside: SandboxActor) -> None:
    async with started(without_sandbox) as one, started(beside(without_sandbox)) as two:
        towards(outside, one)
        token = sandbox_token(one.hub.secret)
        await one.hub.writer.run(CreateApiToken("tool", digest(token)))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{two.port}", headers={"Authorization": f"Bearer {token}"}) as http:

            async def poll(cursor: str, wait: int) -> Any:
                async with http.get("/api/v1/holds/changes", params={"cursor": cursor, "wait": str(wait)}) as answer:
                    assert answer.status == 200
                    return await answer.json()

            cursor = (await poll("", 0))["next_cursor"]
            waiting = asyncio.create_task(poll(cursor, 30))
            assert (await outside.sms(ADA, "Where is my parcel?")).status == 200
            began = time.monotonic()
            said = await waiting
            assert time.monotonic() - began < SOON
            assert [change["type"] for change in said["changes"]] == ["hold.placed"]
            assert said["next_cursor"].rpartition("-")[0] == cursor.rpartition("-")[0], "one cursor for all hubs of a database"


def _open_ticket() -> Any:
    ticket = metadata.tables["ticket"].c
    return select(ticket.id).where(ticket.status == "open")
