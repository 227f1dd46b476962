"""The acceptance story W1 ("respecting the moment"), over the public endpoints with genuine signatures; no browser.

A WhatsApp question holds the customer everywhere until it is resolved; writing again by SMS lands in the same conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from hub.app import Running, sandbox_token
from hub.config import Settings
from hub.conversations.commands import Reply, Resolve
from hub.storage.tables import metadata
from tests.conftest import configured
from tests.storage import ENGINES

ADA = "+12025550123"


@pytest.fixture(params=ENGINES)
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    with configured(tmp_path, request.param) as built:
        yield built


async def check(running: Running, **query: str) -> Any:
    bearer = {"Authorization": f"Bearer {sandbox_token(running.hub.secret)}"}
    url = f"http://127.0.0.1:{running.port}/api/v1/holds/check"
    async with aiohttp.ClientSession(headers=bearer) as http, http.get(url, params=query) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


def hooks(running: Running) -> list[tuple[str, int]]:
    return [(hook.type, hook.data["version"]) for hook in running.sandbox.state.hooks if hook.verified]


async def test_a_question_holds_marketing_until_it_is_resolved_and_a_new_channel_continues_the_conversation(running: Running) -> None:
    sandbox, hub = running.sandbox, running.hub
    state = sandbox.state

    answer = await sandbox.whatsapp(ADA, "Where is my parcel?", "Ada Okafor")
    assert answer.status == 200
    await state.wait_for(lambda: state.slack_posts and ("hold.placed", 1) in hooks(running))
    held = await check(running, phone=ADA)
    assert (held["held"], held["known"], held["reasons"]) == (True, True, ["open_ticket"])

    # The answer arrives on the phone it came from, and its delivery is told back.
    await hub.writer.run(Reply(1, 1, "It arrives tomorrow.", "draft-1"))
    sent = await state.wait_for(lambda: state.twilio_messages[:1])
    assert sent[0].to == f"whatsapp:{ADA}"
    message = metadata.tables["message"].c

    async def status() -> str:
        return str(await hub.reader.value(select(message.status).where(message.draft_key == "draft-1")))

    await state.wait_for(lambda: len(state.callbacks) >= 3)
    stream = hub.feed.subscribe()
    if await status() != "read":
        async for _ in stream.batches():
            if await status() == "read":
                break

    await hub.writer.run(Resolve(1, 1))
    await state.wait_for(lambda: ("hold.released", 2) in hooks(running))
    assert not (await check(running, phone=ADA))["held"]
    await state.wait_for(lambda: "Resolved" in json.dumps(state.slack_posts[0].blocks))

    # The same number by SMS: same conversation, same ticket, held again, and still one post in Slack.
    assert (await sandbox.sms(ADA, "It still is not here")).status == 200
    await state.wait_for(lambda: ("hold.placed", 3) in hooks(running))
    assert (await check(running, phone=" " + ADA[1:]))["held"], "a plus sign read as a space is a plus sign"
    rows = await hub.reader.all(select(message.conversation_id, message.ticket_id, message.direction).order_by(message.id))
    assert {(r.conversation_id, r.ticket_id) for r in rows} == {(1, 1)}
    assert [r.direction for r in rows] == ["in", "out", "in"]
    assert len(state.slack_posts) == 1
