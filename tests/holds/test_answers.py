"""What the gate answered: counted apart by campaign, handed over every few seconds, and not lost or doubled by trouble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub.config import CampaignSettings, Settings
from hub.holds import answers
from hub.holds.answers import MOST_CAMPAIGNS, OTHERS, ROWS, About, Answers, Keep, NoteAnswers
from hub.holds.ledger import iso
from hub.storage.reader import sqlite_reader
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy
from hub.web.holds_check import ANSWERS
from tests.delivery import START, Ground, ground
from tests.test_api import ADA, BEN, Api, api

__all__ = ["api"]  # a fixture

event = metadata.tables["event"].c
WINTER = About("winter-sale", "email", "default")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path) as laid:
        yield laid


class Ledger:
    """Takes answers, or not."""

    def __init__(self) -> None:
        self.noted: list[NoteAnswers] = []
        self.busy = False

    async def run(self, work: NoteAnswers) -> None:
        if self.busy:
            raise StorageBusy("The disk is full.")
        self.noted.append(work)


def test_nothing_of_an_answer_names_anybody(tmp_path: Path) -> None:
    assert not {"identifier", "value", "phone", "email"} & set(NoteAnswers.__slots__)


async def test_answers_become_an_event_that_says_what_was_asked_for(hub: Ground) -> None:
    counted = Answers(hub.run, "rows")
    counted.count(WINTER, "r1", START, held=0)
    counted.count(WINTER, "r2", START + 5_000_000, held=1)
    await counted.flush()
    reader = sqlite_reader(hub.path)
    [row] = await reader.all(select(event.data, event.customer_id).where(event.type == "gate.answered"))
    await reader.close()
    assert json.loads(row.data) == {
        **{"campaign": "winter-sale", "brand": "default", "class": "marketing", "channel": "email"},
        **{"asked": 2, "held": 1, "degraded": 0, "since": iso(START), "until": iso(START + 5_000_000)},
        "receipts": [["r1", False], ["r2", True]],
    }
    assert row.customer_id is None


@pytest.mark.parametrize(("keep", "noted", "receipts"), [("none", 0, 0), ("counts", 1, 0), ("rows", 1, 2)])
async def test_what_is_kept_is_the_owners_choice(keep: Keep, noted: int, receipts: int) -> None:
    ledger = Ledger()
    counted = Answers(ledger.run, keep)
    for receipt in ("r1", "r2"):
        counted.count(WINTER, receipt, START, held=1)
    await counted.flush()
    assert len(ledger.noted) == noted
    assert sum(len(work.receipts) for work in ledger.noted) == receipts


async def test_campaigns_are_counted_apart_and_degraded_answers_too() -> None:
    ledger = Ledger()
    counted = Answers(ledger.run, "counts")
    counted.count(WINTER, "", START, held=300, asked=1_000)
    counted.count(About("news"), "", START, held=0, degraded=1)
    counted.count(WINTER, "", START + 1, held=1)
    await counted.flush()
    assert {(work.about.campaign, work.asked, work.held, work.degraded) for work in ledger.noted} == {
        ("winter-sale", 1_001, 301, 0),
        ("news", 1, 0, 1),
    }
    await counted.flush()
    assert len(ledger.noted) == 2, "each answer is handed over once"


async def test_what_the_database_does_not_take_is_handed_over_later_and_once() -> None:
    ledger = Ledger()
    counted = Answers(ledger.run, "rows")
    counted.count(WINTER, "r1", START, held=1)
    ledger.busy = True
    await counted.flush()
    counted.count(WINTER, "r2", START + 1, held=0)
    ledger.busy = False
    await counted.flush()
    [work] = ledger.noted
    assert (work.asked, work.held, work.since, work.until, work.receipts) == (2, 1, START, START + 1, (("r1", True), ("r2", False)))


async def test_many_receipts_are_several_events_and_are_counted_once() -> None:
    ledger = Ledger()
    counted = Answers(ledger.run, "rows")
    for number in range(2 * ROWS + 1):
        counted.count(WINTER, f"r{number}", START, held=0)
    await counted.flush()
    assert [(work.asked, len(work.receipts)) for work in ledger.noted] == [(2 * ROWS + 1, ROWS), (0, ROWS), (0, 1)]
    assert [receipt for work in ledger.noted for receipt, _ in work.receipts] == [f"r{n}" for n in range(2 * ROWS + 1)]


async def test_names_anybody_may_invent_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_ROWS", 10)
    ledger = Ledger()
    counted = Answers(ledger.run, "rows")
    for number in range(MOST_CAMPAIGNS + 50):
        counted.count(About(f"campaign {number}"), "r", START, held=0)
    await counted.flush()
    assert len(ledger.noted) == MOST_CAMPAIGNS + 1
    assert sum(work.asked for work in ledger.noted) == MOST_CAMPAIGNS + 50, "each is counted all the same"
    assert next(work.asked for work in ledger.noted if work.about.campaign == OTHERS) == 50
    assert sum(len(work.receipts) for work in ledger.noted) == 10


async def test_a_hub_that_stops_hands_over_the_rest() -> None:
    ledger = Ledger()
    counted = Answers(ledger.run, "counts")
    await counted.start()
    counted.count(WINTER, "", START, held=1)
    await counted.stop()
    assert [work.asked for work in ledger.noted] == [1]


async def test_they_are_handed_over_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(answers.EVERY, "rows", 0.01)
    ledger = Ledger()
    handed = asyncio.Event()

    async def run(work: NoteAnswers) -> None:
        await ledger.run(work)
        handed.set()

    counted = Answers(run, "rows")
    await counted.start()
    counted.count(WINTER, "r1", START, held=1)
    async with asyncio.timeout(5):
        await handed.wait()
    await counted.stop()
    assert len(ledger.noted) == 1


# --- in a running hub ---


async def told(api: Api) -> list[dict[str, Any]]:
    await api.running._runner.app[ANSWERS].flush()  # type: ignore[union-attr]
    rows = await api.running.hub.reader.all(select(event.data).where(event.type == "gate.answered").order_by(event.seq))
    return [json.loads(row.data) for row in rows]


async def test_every_way_of_asking_is_counted(api: Api) -> None:
    await api.get(phone=ADA, campaign="one", channel="sms")
    await api.post({"identifiers": [{"kind": "phone", "value": one} for one in (ADA, BEN)], "campaign": "many", "brand": "default"})
    headers = {"Content-Type": "application/x-ndjson"}
    async with api.http.post(
        api.url, params={"campaign": "stream", "kind": "phone"}, data=f"{ADA}\n{BEN}\n{ADA}", headers=headers
    ) as answer:
        assert answer.status == 200
        await answer.read()
    async with api.http.get(api.url.replace("check", "feed"), params={"phone": ADA, "campaign": "feed"}) as answer:
        assert answer.status == 409
    assert {(one["campaign"], one["channel"], one["brand"], one["asked"], one["held"]) for one in await told(api)} == {
        ("one", "sms", "", 1, 1),
        ("many", "", "default", 2, 1),
        ("stream", "", "", 3, 2),
        ("feed", "", "", 1, 1),
    }


# campaign -> status, held, degraded
TROUBLE = {"careful": (503, None, None), "winter-sale": (503, None, None), "newsletter": (200, False, True)}


@pytest.mark.parametrize("campaign", TROUBLE)
@pytest.mark.parametrize("way", ["get", "post", "feed"])
async def test_while_the_database_is_away_a_campaign_gets_what_it_declared(api: Api, settings: Settings, campaign: str, way: str) -> None:
    status, held, degraded = TROUBLE[campaign]
    declared = {"newsletter": CampaignSettings(on_failure="open"), "winter-sale": CampaignSettings(on_failure="closed")}
    api.running.hub.settings.holds.campaigns.update(declared)
    assert (await api.get(phone=ADA, campaign=campaign))[1]["on_failure"] == ("open" if status == 200 else "closed")
    hot: Any = api.running.hub.hot
    connection, hot._connection = hot._connection, None  # every question to it fails

    def busy(*_: Any) -> Any:
        raise StorageBusy("The database could not be read.")

    hot._rows, rows = busy, hot._rows
    try:
        if way == "post":
            got, body = await api.post({"identifiers": [{"kind": "phone", "value": ADA}], "campaign": campaign})
        else:
            url = api.url if way == "get" else api.url.replace("check", "feed")
            async with api.http.get(url, params={"phone": ADA, "campaign": campaign}) as answer:
                got, body = answer.status, await answer.json(content_type=None)
    finally:
        hot._rows, hot._connection = rows, connection
    assert got == status
    assert (body.get("held"), body.get("degraded")) == (held, degraded)
    if status == 200:
        assert ".degraded." in body["receipt_id"], "the receipt says that nobody looked"
        assert body["on_failure"] == "open"
        [counted] = [one for one in await told(api) if one["campaign"] == campaign]
        assert (counted["asked"], counted["held"], counted["degraded"]) == (2, 1, 1)
