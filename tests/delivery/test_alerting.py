"""Alarms reach the team's rooms, once when they are raised and once when they are over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.contract import Refused
from hub.delivery.alerting import AlertCarrier
from hub.holds.alarms import Concern, SetAlarms
from hub.team_rooms import Alert
from tests.delivery import ground

MANY = (("holds.share", Concern("warning", "8% of all customers are held", "Look at the oldest holds.", "/holds")),)


class Room:
    def __init__(self) -> None:
        self.posts: list[Alert] = []

    async def alert(self, alert: Alert, ref: str) -> str:
        self.posts.append(alert)
        return f"C1:{len(self.posts)}"


async def test_a_room_is_told_when_an_alarm_is_raised_and_when_it_is_over(tmp_path: Path) -> None:
    room: Any = Room()
    carrier = AlertCarrier({"slack": room}, "https://hub.example")
    async with ground(tmp_path, rooms=("slack",)) as hub:
        await hub.run(SetAlarms(MANY, ()))
        await hub.run(SetAlarms(MANY, ("holds.share",)))
        await hub.run(SetAlarms((), ("holds.share",)))
        while rows := [row for row in await hub.claims() if row.kind == "alert"]:
            for row in rows:
                await hub.run(await carrier.carry(row))
    title, url = "8% of all customers are held", "https://hub.example/holds"
    assert [(post.title, post.url, post.ended) for post in room.posts] == [(title, url, False), (title, url, True)]


async def test_a_room_that_is_no_more_is_told_of_no_more(tmp_path: Path) -> None:
    carrier = AlertCarrier({}, "https://hub.example")
    async with ground(tmp_path, rooms=("slack",)) as hub:
        await hub.run(SetAlarms(MANY, ()))
        [row] = [row for row in await hub.claims() if row.kind == "alert"]
        with pytest.raises(Refused, match="no longer configured"):
            await carrier.carry(row)
