"""Who is writing, and what was read: shown to the other side while it looks, and to nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientResponse

from hub.conversations.commands import MarkRead
from hub.web import presence, visitors
from tests.web.test_chat import SHOP, Known, Stand, Visitor, stand  # noqa: F401


async def frame(stream: ClientResponse) -> dict[str, Any]:
    """The next frame with something in it."""
    async with asyncio.timeout(5):
        async for line in stream.content:
            if line.startswith(b"data: "):
                return dict(json.loads(line[6:]))
    raise AssertionError("the stream ended")


async def listening(visitor: Visitor) -> AsyncIterator[None]:
    """Ends its first step once this visitor's stream is among those that hear."""
    here = visitor.stand.app[presence.PRESENCE].visitors
    for _ in range(100_000):
        if any(ear.view.session.device == visitor.device for ears in here.values() for ear in ears):
            yield
        await asyncio.sleep(0)


async def open_stream(visitor: Visitor) -> ClientResponse:
    stream = await visitor.stand.client.get("/chat/chat/stream", headers=visitor.headers)
    assert stream.status == 200
    await frame(stream)  # the backlog
    async with asyncio.timeout(5):  # it hears of more from where it waits for news
        await anext(listening(visitor))
    return stream


async def test_what_an_agent_read_is_marked_for_whoever_wrote_it(stand: Stand) -> None:  # noqa: F811
    visitor, other = await stand.visitor(), await stand.visitor()
    await stand.hub.writer.run(Known(()))
    await visitor.says("first")
    await other.says("of another")
    ((ticket_id, number),) = stand.rows("SELECT ticket_id, id FROM message WHERE text = 'first'")
    streams = await open_stream(visitor), await open_stream(other)
    await stand.hub.writer.run(MarkRead(7, ticket_id, number))
    await presence.was_read(stand.app, ticket_id)
    told = await frame(streams[0])
    assert [(one["text"], one["status"]) for one in told["messages"]] == [("first", "read")]
    await visitor.says("second")
    assert [one["status"] for one in await visitor.listed()] == ["read", "sent"]
    assert [one["status"] for one in await other.listed()] == ["sent"]


async def test_a_visitors_typing_reaches_agents_and_is_stored_nowhere(stand: Stand) -> None:  # noqa: F811
    visitor = await stand.visitor()
    await visitor.says("hello")
    ((ticket_id,),) = stand.rows("SELECT id FROM ticket")
    heard: list[bytes] = []

    class Agent:
        async def write(self, data: bytes) -> None:
            heard.append(data)

    before = stand.rows("SELECT count(*) FROM event")
    here = stand.app[presence.PRESENCE]
    with here.agent(Agent()):  # type: ignore[arg-type]
        for typing in (True, False):
            answer = await stand.client.post("/chat/chat/typing", json={"typing": typing}, headers=visitor.headers)
            assert answer.status == 204
        stranger = await stand.visitor()  # who never wrote types to nobody
        assert (await stand.client.post("/chat/chat/typing", json={"typing": True}, headers=stranger.headers)).status == 204
        await asyncio.gather(*here.tasks)
    assert [json.loads(one.partition(b"data: ")[2]) for one in heard] == [
        {"ticket_id": ticket_id, "typing": True},
        {"ticket_id": ticket_id, "typing": False},
    ]
    assert all(one.startswith(b"event: typing\n") for one in heard)
    assert stand.rows("SELECT count(*) FROM event") == before


async def test_typing_is_limited_and_must_be_said_plainly(stand: Stand) -> None:  # noqa: F811
    visitor = await stand.visitor()
    stand.app[presence.PRESENCE].typing = visitors.Buckets(2, 100_000)
    said = [{"typing": "yes"}, {}, {"typing": True}, {"typing": True}, {"typing": True}]
    answers = [await stand.client.post("/chat/chat/typing", json=one, headers=visitor.headers) for one in said]
    assert [answer.status for answer in answers] == [400, 400, 204, 204, 429]
    assert "Retry-After" in answers[-1].headers
    assert (
        await stand.client.post("/chat/chat/typing", json={"typing": True}, headers={"Origin": visitor.headers["Origin"]})
    ).status == 401


async def test_an_agents_typing_is_shown_to_that_visitor_alone(stand: Stand) -> None:  # noqa: F811
    visitor, other = await stand.visitor(), await stand.visitor()
    await visitor.says("hello")
    await other.says("hello too")
    ((ticket_id,),) = stand.rows("SELECT ticket_id FROM message WHERE text = 'hello'")
    await stand.hub.writer.run(Known(()))
    streams = await open_stream(visitor), await open_stream(other)
    await presence.is_typing(stand.app, ticket_id, 7)
    assert await frame(streams[0]) == {"typing": {"name": "Maya"}}
    await asyncio.gather(*stand.app[presence.PRESENCE].tasks)
    await other.says("and now")  # the next thing the other one hears of is their own message
    assert "typing" not in await frame(streams[1])
