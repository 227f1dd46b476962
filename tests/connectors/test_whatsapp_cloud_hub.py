"""Law: with the whole hub behind it, a WhatsApp number at Meta is connected, heard, answered, and told how the answer fared."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import select

from hub.app import Running
from hub.config import load
from hub.conversations.commands import Reply
from hub.storage.tables import metadata
from tests.conftest import sandbox_config

SECRET = "app-secret"
MESSAGE = metadata.tables["message"]


async def until(hub: Running, check: Callable[[], Awaitable[Any]]) -> Any:
    """What the check finds, as soon as it finds something; asked again after each event of the hub."""
    stream = hub.hub.feed.subscribe()
    async with asyncio.timeout(20):
        if not (found := await check()):
            async for _ in stream.batches():
                if found := await check():
                    break
    return found


def hook(**value: Any) -> bytes:
    told = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": "11"}, **value}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": told}]}]}).encode()


async def test_a_number_is_connected_heard_and_answered(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def meta(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"messaging_product": "whatsapp", "messages": [{"id": "wamid.OUT"}]})

    app = web.Application()
    app.router.add_post("/v25.0/11/messages", meta)
    graph = TestServer(app, host="127.0.0.1")
    await graph.start_server()
    path = sandbox_config(tmp_path)
    config = yaml.safe_load(path.read_text())
    own = {"phone_number_id": "11", "access_token": "t", "app_secret": SECRET, "verify_token": "our-word"}
    config["channels"]["wa"] = {"type": "whatsapp_cloud", "base_url": str(graph.make_url("/")), **own}
    config["allowed_hosts"] = [*config.get("allowed_hosts", []), f"127.0.0.1:{graph.port}"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    hub = Running(load(path, {}))
    await hub.start()
    try:
        async with aiohttp.ClientSession(hub.hub.settings.server.public_url) as session:

            async def post(body: bytes, key: str = SECRET) -> int:
                signed = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
                async with session.post("/in/wa", data=body, headers={"X-Hub-Signature-256": f"sha256={signed}"}) as answer:
                    return answer.status

            query = {"hub.mode": "subscribe", "hub.verify_token": "our-word", "hub.challenge": "42"}
            async with session.get("/in/wa", params=query) as answer:
                assert (answer.status, await answer.text()) == (200, "42")
            contacts = [{"wa_id": "12025550123", "user_id": "US.9", "profile": {"name": "Ada"}}]
            said = [{"from": "12025550123", "id": f"wamid.{n}", "type": "text", "text": {"body": f"Part {n}"}} for n in (1, 2)]
            assert await post(hook(messages=said), "guessed") == 401
            for _ in range(5):
                assert await post(hook(messages=said, contacts=contacts)) == 200
            rows = await hub.hub.reader.all(select(MESSAGE).where(MESSAGE.c.direction == "in"))
            assert [row.text for row in rows] == ["Part 1", "Part 2"], "one post, two messages, each once"
            assert rows[0].ticket_id == rows[1].ticket_id
            await hub.hub.writer.run(Reply(rows[0].ticket_id, None, "We look.", "d", automatic="follow-up"))

            async def out(status: str) -> Any:
                return await hub.hub.reader.first(select(MESSAGE).where(MESSAGE.c.direction == "out", MESSAGE.c.status == status))

            await until(hub, lambda: out("sent"))
            [sent] = asked
            assert (sent["to"], sent["text"]["body"]) == ("+12025550123", "We look.")
            state = {"id": "wamid.OUT", "recipient_id": "12025550123", "recipient_user_id": "US.9"}
            tag = {"biz_opaque_callback_data": sent["biz_opaque_callback_data"]}
            assert await post(hook(statuses=[state | tag | {"status": "read"}])) == 200
            assert await out("read")
    finally:
        await hub.stop()
        await graph.close()
