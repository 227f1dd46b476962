"""Segment: identify calls that nobody can confirm, against a stand-in that the vendor's own client agrees with."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from segment.analytics.client import Client
from segment.analytics.request import APIError

from connectors.sandbox.tools.segment import KEY, SegmentStandIn
from connectors.segment import HOSTS, Segment, SegmentSettings
from hub.contract import Refused, TryLater
from hub.http import GuardedHttp
from hub.marketing import Fate
from tests.connectors.tool_conformance import NOW, Clock, Line, ToolConformance, iso, wish

SILENT = "Segment answers 200 and nothing else"


class TestSegmentConforms(ToolConformance):
    tool = "segment"
    settings = {"create_profiles": True}  # noqa: RUF012
    orders = f"{SILENT}: there is no version to read first"
    spares_writes = f"{SILENT}: there is no state to compare with"
    looks_up = f"{SILENT}: it does not tell whether it knows a user"
    refuses_items = f"{SILENT}: what it refuses it drops later"
    tells_revoked = f"{SILENT}: a wrong write key too"


@pytest.fixture
async def stand_in() -> AsyncIterator[SegmentStandIn]:
    stand_in = SegmentStandIn(Clock())
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    client = GuardedHttp(["127.0.0.1"])
    yield Line(client)
    await client.close()


def build(stand_in: SegmentStandIn, **settings: Any) -> Segment:
    given = {"type": "segment", "base_url": stand_in.url, "write_key": KEY, **settings}
    return Segment(SegmentSettings.model_validate(given), "cdp")


def official(stand_in: SegmentStandIn, key: str = KEY) -> Client:
    return Client(key, host=stand_in.url, sync_mode=True, max_retries=0, timeout=5)


# --- the vendor's own client as judge --------------------------------------------------------------------------------


async def test_the_vendors_client_and_ours_leave_the_same_profile(stand_in: SegmentStandIn, line: Line) -> None:
    until = iso(NOW + 86_400)
    traits = {"support_hold": True, "support_hold_until": until, "support_hold_reason": "open_ticket", "support_hold_version": 3}
    ours, theirs = stand_in.add_profile(external_id="c_1"), stand_in.add_profile(external_id="c_2")
    await build(stand_in).mark([wish("external_id", "c_1", version=3, until=until)], line, NOW)
    await asyncio.to_thread(official(stand_in).identify, "c_2", traits)
    assert stand_in.shown(ours) == stand_in.shown(theirs) == traits
    mine, other = stand_in.events
    assert set(mine) - {"messageId"} <= set(other), "no field that the vendor's client does not send"
    assert stand_in.dropped == []


async def test_the_stand_in_answers_the_vendors_client_as_segment_does(stand_in: SegmentStandIn) -> None:
    stand_in.add_profile(external_id="c_1")
    succeeded, message = await asyncio.to_thread(official(stand_in, "a-wrong-write-key").identify, "c_1", {"support_hold": True})
    assert succeeded, message
    assert [why for why, _ in stand_in.dropped] == ["no source has this write key"]
    stand_in.quirks.enforced = True
    with pytest.raises(APIError) as caught:
        await asyncio.to_thread(official(stand_in, "a-wrong-write-key").identify, "c_1", {"support_hold": True})
    assert caught.value.status == 401


async def test_an_event_is_counted_once_by_its_message_id(stand_in: SegmentStandIn) -> None:
    stand_in.add_profile(external_id="c_1")
    for _ in range(2):
        await asyncio.to_thread(official(stand_in).identify, "c_1", {"x": 1}, None, None, None, None, "the-same")
    assert len(stand_in.events) == len(stand_in.writes) == 1
    assert [why for why, _ in stand_in.dropped] == ["seen before"]


# --- what is Segment's own -------------------------------------------------------------------------------------------


async def test_a_repeat_bears_the_same_message_id_and_a_change_another(stand_in: SegmentStandIn, line: Line) -> None:
    tool = build(stand_in)
    asked = [
        wish("external_id", "c_1", version=1),
        wish("external_id", "c_1", version=2, held=False),
        wish("external_id", "c_1", version=2, held=False, traits={"support_status": "resolved"}),
        wish("external_id", "c_2", version=1),
        wish("external_id", "c" * 500, version=10**12),
    ]
    for one in asked:
        for later in (0, 600):
            await tool.mark([one], line, NOW + later)
    ids = [event["messageId"] for event in stand_in.events]
    assert len(set(ids)) == len(ids) == len(asked)
    assert len(stand_in.dropped) == len(asked)
    assert all(len(one) < 100 for one in ids)


async def test_whom_the_workspace_cannot_name_is_absent_by_default(stand_in: SegmentStandIn, line: Line) -> None:
    answers = await build(stand_in).mark([wish("email", "ann@example.org"), wish("external_id", "c_1")], line, NOW)
    assert [marked.fate for marked in answers] == [Fate.ABSENT, Fate.ACCEPTED]
    assert "external_id" in answers[0].error
    assert [event.get("userId") for event in stand_in.events] == ["c_1"]
    by_address = await build(stand_in, user_id="email").mark([wish("email", "ann@example.org"), wish("external_id", "c_1")], line, NOW)
    assert [marked.fate for marked in by_address] == [Fate.ACCEPTED, Fate.ABSENT]
    assert (stand_in.events[-1]["userId"], stand_in.events[-1]["traits"]["email"]) == ("ann@example.org", "ann@example.org")


async def test_fifty_wishes_are_one_request(stand_in: SegmentStandIn, line: Line) -> None:
    await build(stand_in).mark([wish("external_id", f"c_{number}") for number in range(50)], line, NOW)
    assert line.seen == [("POST", "/v1/batch", 200)]
    assert len(stand_in.writes) == 50


async def test_two_versions_in_one_call_end_at_the_higher(stand_in: SegmentStandIn, line: Line) -> None:
    profile = stand_in.add_profile(external_id="c_1")
    await build(stand_in).mark([wish("external_id", "c_1", version=2), wish("external_id", "c_1", held=False, version=1)], line, NOW)
    assert stand_in.shown(profile)["support_hold"] is True


async def test_clearing_sends_null_and_no_empty_text(stand_in: SegmentStandIn, line: Line) -> None:
    await build(stand_in).mark([wish("external_id", "c_1", held=False, traits={"support_satisfaction": None})], line, NOW)
    traits = stand_in.events[0]["traits"]
    assert {name for name, value in traits.items() if value is None} == {
        "support_hold_until",
        "support_hold_reason",
        "support_satisfaction",
    }
    assert traits["support_hold"] is False


async def test_an_event_too_large_is_refused_here_and_not_dropped_there(stand_in: SegmentStandIn, line: Line) -> None:
    large = wish("external_id", "c_1", traits={"support_optouts": "x" * 33_000})
    answers = await build(stand_in).mark([large, wish("external_id", "c_2")], line, NOW)
    assert [marked.fate for marked in answers] == [Fate.REFUSED, Fate.ACCEPTED]
    assert stand_in.dropped == []


async def test_an_enforced_workspace_says_that_the_key_is_wrong(stand_in: SegmentStandIn, line: Line) -> None:
    stand_in.quirks.enforced = True
    tool = build(stand_in, write_key="a-wrong-write-key")
    with pytest.raises(Refused, match=r"Mend destinations\.cdp\.write_key") as caught:
        await tool.mark([wish("external_id", "c_1")], line, NOW)
    [check] = await tool.test(line, NOW)
    assert not check.ok
    assert "a-wrong-write-key" not in str(caught.value) + check.text
    stand_in.quirks.enforced = False
    [check] = await tool.test(line, NOW)
    assert check.ok
    assert "wrong write key" in check.text, "it says that this proves little"


async def test_a_test_sends_no_event(stand_in: SegmentStandIn, line: Line) -> None:
    await build(stand_in).test(line, NOW)
    assert (stand_in.events, stand_in.dropped, stand_in.profiles) == ([], [], [])
    stand_in.quirks.status = 503
    with pytest.raises(TryLater):
        await build(stand_in).test(line, NOW)


def test_the_region_decides_the_host() -> None:
    for region, host in HOSTS.items():
        tool = Segment(SegmentSettings.model_validate({"type": "segment", "write_key": KEY, "region": region}), "cdp")
        assert tool._base == host
        assert not tool.is_sandbox()
    assert len(set(HOSTS.values())) == 2


async def test_what_is_sent_is_json_that_names_no_customer_but_by_the_id(stand_in: SegmentStandIn, line: Line) -> None:
    await build(stand_in).mark([wish("external_id", "c_1", traits={"support_status": "open"})], line, NOW)
    [event] = stand_in.events
    assert json.loads(json.dumps(event)) == event
    assert event["type"] == "identify"
    assert set(event) == {"type", "userId", "traits", "messageId", "timestamp", "context"}
    assert event["timestamp"] == "2025-11-24T16:00:00.000Z"
    assert {name for name in event["traits"] if not name.startswith("support_")} == set()
