"""Holds for tools that poll: every change once and in order, from a beginning that leaves no gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from hub.contract import Claim, Proof
from hub.conversations.commands import Reopen, Resolve
from hub.holds.changes import changes_after
from hub.web import holds_api
from hub.web.holds_api import WAITING
from tests.test_api import ADA, Api, api

__all__ = ["api"]  # a fixture


async def ask(api: Api, path: str, status: int = 200, **query: Any) -> Any:
    url = api.url.replace("/check", path)
    async with api.http.get(url, params={name: str(value) for name, value in query.items()}) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def test_changes_come_in_the_order_of_commits_each_with_the_whole_state(api: Api) -> None:
    said = await ask(api, "/changes")
    assert [(one["type"], one["subject"]) for one in said["changes"]] == [
        ("hold.placed", "1"),
        ("hold.placed", "2"),
        ("hold.released", "2"),
    ]
    placed = said["changes"][0]
    assert set(placed) == {"id", "type", "time", "subject", "data"}
    assert set(placed["data"]) == {"customer_id", "identifiers", "reasons", "scope", "until", "version"}
    assert {one["value"] for one in placed["data"]["identifiers"]} == {ADA, "ada@example.com", "u-7"}
    assert said["next_cursor"] == said["changes"][-1]["id"]
    assert said["more"] is False
    again = await ask(api, "/changes", cursor=said["next_cursor"])
    assert (again["changes"], again["next_cursor"]) == ([], said["next_cursor"])
    await api.running.hub.writer.run(Resolve(1, 1))
    assert [one["type"] for one in (await ask(api, "/changes", cursor=said["next_cursor"]))["changes"]] == ["hold.released"]


async def test_a_long_history_is_read_in_parts(api: Api) -> None:
    whole = (await ask(api, "/changes"))["changes"]
    found: list[Any] = []
    cursor, more = "", True
    while more:
        said = await ask(api, "/changes", limit=1, cursor=cursor)
        found, cursor, more = found + said["changes"], said["next_cursor"], said["more"]
        assert len(said["changes"]) == 1
    assert found == whole


async def test_a_poll_that_waits_is_answered_by_the_next_change(api: Api) -> None:
    cursor = (await ask(api, "/changes"))["next_cursor"]
    waiting = asyncio.create_task(ask(api, "/changes", cursor=cursor, wait=30))
    async with asyncio.timeout(10):
        while not api.running._runner.app[WAITING]:  # type: ignore[union-attr]  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await api.running.hub.writer.run(Resolve(1, 1))
        assert [one["type"] for one in (await waiting)["changes"]] == ["hold.released"]
    assert not api.running._runner.app[WAITING]  # type: ignore[union-attr]
    assert not (await ask(api, "/changes", cursor=(await ask(api, "/changes"))["next_cursor"], wait=1))["changes"]


async def test_polls_beyond_measure_are_answered_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds_api, "MOST_WAITING", 0)
    cursor = (await ask(api, "/changes"))["next_cursor"]
    async with asyncio.timeout(5):
        assert (await ask(api, "/changes", cursor=cursor, wait=30))["changes"] == []


async def test_a_cursor_of_another_life_of_the_database_says_to_begin_anew(api: Api) -> None:
    said = await ask(api, "/changes", 410, cursor="deadbeef-3")
    assert "GET /api/v1/holds" in said["title"]
    assert "changes_cursor" in said["title"]
    for cursor in ("3x", "-", "deadbeef"):
        await ask(api, "/changes", 400, cursor=cursor)
    for name in ("limit", "wait"):
        await ask(api, "/changes", 400, **{name: "many"})


async def test_everybody_held_is_told_in_pages_as_a_change_would_tell_them(api: Api) -> None:
    for number in range(5):
        await api.hears(f"+1202555020{number}", Claim("email", f"p{number}@example.com", Proof.CLAIMED))
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        said = await ask(api, "", limit=2, cursor=cursor)
        found, cursor = found + said["held"], said["next_cursor"]
    assert [one["customer_id"] for one in found] == [1, 3, 4, 5, 6, 7], "Ben is free"
    changes = (await ask(api, "/changes"))["changes"]
    latest = {one["subject"]: one["data"] for one in changes}
    assert found == [latest[str(one["customer_id"])] for one in found], "as the webhook has it"
    await ask(api, "", 400, cursor="c1; DROP")


async def test_nothing_is_lost_between_the_list_and_the_changes(api: Api) -> None:
    said = await ask(api, "")
    await api.running.hub.writer.run(Reopen(2, 1))
    await api.running.hub.writer.run(Resolve(1, 1))
    changes = (await ask(api, "/changes", cursor=said["changes_cursor"]))["changes"]
    assert [(one["type"], one["subject"]) for one in changes] == [("hold.placed", "2"), ("hold.released", "1")]


async def test_a_lease_that_ran_out_is_held_no_more(api: Api) -> None:
    assert [one["customer_id"] for one in (await ask(api, ""))["held"]] == [1]
    api.clock.now += api.running.hub.policy.hold_lease
    assert (await ask(api, ""))["held"] == []


async def test_reading_changes_does_not_read_everything_that_ever_happened(api: Api) -> None:
    """The partial index is used: among a million messages the few changes are found at once."""

    sql = str(changes_after(5, 10).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[no-untyped-call]
    plan = await api.running.hub.reader.all(text(f"EXPLAIN QUERY PLAN {sql}"))
    assert any("ix_event_hold" in row[3] for row in plan), plan
