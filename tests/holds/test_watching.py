"""What goes on in marketing tools: campaigns that would reach somebody on hold, messages that did, and alarms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Http, TryLater
from hub.conversations.commands import Resolve
from hub.delivery.marking import Tools
from hub.delivery.watching import PAGE, Watch
from hub.holds.alarms import LEAST, Concern, SetAlarms, ToolFigures, concerns
from hub.holds.campaigns import Held, concern, reached, risk_of
from hub.holds.sends import Circumstances, cause_of
from hub.marketing import Campaign, SendSeen, ToolSettings
from tests.delivery import ADA, BEN, START
from tests.delivery.test_marking import Bench, Shelf, bench

NOW = START / 1_000_000
A_CAMPAIGN = Campaign(id="c1", name="Winter sale", channel="email", status="scheduled", send_at=NOW + 7_200, excludes_hold=True)

# --- campaigns, pure ---

RISKS: dict[str, tuple[dict[str, Any], str]] = {
    "left out": ({}, ""),
    "no filter": ({"excludes_hold": False}, "no_filter"),
    "recipients fixed": ({"frozen_at": NOW - 60}, "frozen"),
    "no filter and fixed": ({"excludes_hold": False, "frozen_at": NOW - 60}, "no_filter"),
    "nobody can say": ({"excludes_hold": None}, "unknown"),
    "a draft": ({"status": "draft", "excludes_hold": False}, ""),
    "sent": ({"status": "sent", "excludes_hold": False}, ""),
}


@pytest.mark.parametrize("case", RISKS)
def test_why_a_campaign_may_reach_held_customers(case: str) -> None:
    changed, expected = RISKS[case]
    assert risk_of(replace(A_CAMPAIGN, **changed)) == expected


BEFORE, AFTER, NEVER = Held(1, "a", START - 120_000_000), Held(2, "b", START), Held(3, "c", None)
REACHED: dict[str, tuple[dict[str, Any], list[int]]] = {
    "left out, hours ahead": ({}, []),
    "left out, about to be sent": ({"send_at": NOW + 600}, [3]),
    "left out, going out": ({"status": "sending", "send_at": None}, [3]),
    "no filter": ({"excludes_hold": False}, [1, 2, 3]),
    "nobody can say": ({"excludes_hold": None}, [1, 2, 3]),
    "fixed between two holds": ({"frozen_at": NOW - 60}, [2, 3]),
    "fixed just now": ({"frozen_at": NOW + 1}, [3]),
    "a draft": ({"status": "draft", "excludes_hold": False}, []),
}


@pytest.mark.parametrize("case", REACHED)
def test_whom_a_campaign_would_reach(case: str) -> None:
    changed, expected = REACHED[case]
    assert [one.customer_id for one in reached(replace(A_CAMPAIGN, **changed), [BEFORE, AFTER, NEVER], NOW)] == expected


def test_a_campaign_in_danger_is_said_with_its_time_its_reason_and_what_mends_it() -> None:
    said = concern("Klaviyo", replace(A_CAMPAIGN, frozen_at=NOW - 60, mend="Put it back to draft."), 41)
    assert said is not None
    assert said.title == "“Winter sale” (Klaviyo) would reach 41 held customers"
    assert said.text == (
        "It is to go out at 2027-01-15 10:00 UTC. Its recipients were fixed when it was scheduled, so a hold placed since does not "
        "reach it. Put it back to draft."
    )
    assert concern("Klaviyo", A_CAMPAIGN, 0) is None


# --- sends, pure ---

# held since, told, shown, fixed, filter -> cause, of a message sent at 100
CAUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "nobody held": ((None, None, None, None, "no"), ""),
    "held only later": ((101, None, None, None, "no"), ""),
    "no filter": ((50, 51, 52, None, "no"), "missing_filter"),
    "fixed before the hold": ((50, 51, 52, 40, "yes"), "frozen_list"),
    "fixed after the hold": ((50, 51, 52, 60, "yes"), "unexplained"),
    "fixed before it was told": ((50, 70, 80, 60, "yes"), "our_delay"),
    "fixed before it was shown": ((50, 55, 80, 60, "yes"), "lag"),
    "not told yet": ((50, None, None, None, "yes"), "our_delay"),
    "told too late": ((50, 120, None, None, "unknown"), "our_delay"),
    "not shown yet": ((50, 60, None, None, "yes"), "lag"),
    "shown too late": ((50, 60, 110, None, "yes"), "lag"),
    "shown, and sent all the same": ((50, 60, 70, None, "yes"), "unexplained"),
}


@pytest.mark.parametrize("case", CAUSED)
def test_why_a_message_reached_somebody_on_hold(case: str) -> None:
    seen, expected = CAUSED[case]
    assert cause_of(100, Circumstances(*seen)) == expected


# --- alarms, pure ---


def test_alarms_are_raised_for_what_is_wrong_and_for_nothing_else() -> None:
    fine = ToolFigures("Klaviyo", 0, 0, 0)
    assert concerns(LEAST, LEAST * 20, 0.05, 15, {"klaviyo": fine}, {}) == {}, "five in a hundred is not more than that"
    assert concerns(LEAST - 1, LEAST - 1, 0.05, 15, {}, {}) == {}, "of a new hub's first customers all may be held"
    assert list(concerns(LEAST + 1, LEAST * 20, 0.05, 15, {}, {})) == ["holds.share"]
    bad = concerns(
        0, 9, 0.05, 15, {"klaviyo": ToolFigures("Klaviyo", 3, 2, 1, "401: the key.")}, {"campaign.x.1": Concern("warning", "", "", "")}
    )
    assert list(bad) == ["tool.klaviyo.refused", "tool.klaviyo.late", "tool.klaviyo.drift", "campaign.x.1"]
    assert "401: the key." in bad["tool.klaviyo.refused"].text


# --- all of it, on a database ---


class Told(Shelf):
    """A tool in memory that also tells of campaigns, audiences and what it sent."""

    def __init__(self, *values: str) -> None:
        super().__init__(*values)
        self.coming: list[Campaign] = []
        self.sent: list[SendSeen] = []
        self.lists: dict[str, set[str]] = {}
        self.asked: list[float] = []

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        if self.trouble is not None:
            raise self.trouble
        return self.coming

    async def audiences(self, profile: str, http: Http) -> frozenset[str]:
        return frozenset(self.lists.get(profile, set()))

    async def sends(self, since: float, http: Http, now: float) -> Sequence[SendSeen]:
        if self.trouble is not None:
            raise self.trouble
        self.asked.append(since)
        return [one for one in self.sent if one.at >= since][:PAGE]


class Watched(Bench):
    def __init__(self, made: Bench, told: Told) -> None:
        self.__dict__.update(made.__dict__)
        self.shelf = self.told = told
        tools = Tools({"shelf": (told, ToolSettings(type="shelf"))})
        self.carrier._tools = self.reading._tools = tools
        http: Any = None
        self.watch = Watch(tools, self.hub.reader, self.hub.writer, http, share=0.05, minutes=15)

    async def alarms(self) -> list[str]:
        await self.watch.look_for_alarms()
        return [alarm.key for alarm in await self.hub.all("alarm") if alarm.ended_at is None]


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Watched]:
    async with bench(tmp_path) as made:
        yield Watched(made, Told(ADA, BEN))


def a_send(key: str, at: float, who: str = ADA, **values: Any) -> SendSeen:
    return SendSeen(provider_key=key, at=at, kind="phone", value=who, channel="sms", **values)


async def test_a_campaign_that_cannot_be_stopped_by_a_flag_is_told_before_it_goes_out(one: Watched) -> None:
    one.told.coming = [replace(A_CAMPAIGN, frozen_at=NOW - 60, audiences=("vip",), revertable=True)]
    one.told.lists = {f"of {ADA}": {"vip"}}
    await one.hub.hears(ADA)
    await one.hub.hears(BEN)
    await one.carry()
    await one.look()
    await one.watch.look_at_campaigns()
    [row] = await one.hub.all("campaign_seen")
    assert (row.risk, row.excludes_hold, json.loads(row.endangered)) == ("frozen", "yes", [1]), "Ben is on no list it goes to"
    assert await one.alarms() == ["campaign.shelf.c1"]
    assert [said["endangered"] for said in one.said("campaign.warned")] == [[1]]
    await one.watch.look_at_campaigns()
    assert len(one.said("campaign.warned")) == 1, "said once"
    one.told.coming = []
    await one.watch.look_at_campaigns()
    assert (await one.hub.all("campaign_seen"))[0].gone_at is not None
    assert await one.alarms() == []
    assert [e.type for e in one.hub.events if e.type.startswith("alarm.")] == ["alarm.raised", "alarm.ended"]


async def test_a_tool_that_cannot_be_read_changes_nothing_that_is_known(one: Watched) -> None:
    one.told.coming = [replace(A_CAMPAIGN, excludes_hold=False)]
    await one.hub.hears(ADA)
    await one.carry()
    await one.watch.look_at_campaigns()
    one.told.trouble = TryLater("It is down.")
    await one.watch.look_at_campaigns()
    await one.watch.look_at_sends()
    assert [row.gone_at for row in await one.hub.all("campaign_seen")] == [None]


async def test_a_message_to_somebody_on_hold_is_a_leak_with_its_cause_and_stands_in_the_timeline(one: Watched) -> None:
    ticket = await one.hub.hears(ADA)
    one.told.sent = [a_send("s1", NOW + 1), a_send("s2", NOW + 30), a_send("s3", NOW + 31, BEN), a_send("s4", NOW + 32, prevented=True)]
    one.hub.clock.pass_(10)
    await one.carry()
    await one.look()
    one.hub.clock.pass_(60)
    await one.watch.look_at_sends()
    seen = {row.provider_key: (row.customer_id, row.leak, row.cause) for row in await one.hub.all("send_seen")}
    assert seen == {
        "s1": (1, True, "our_delay"),
        "s2": (1, True, "unexplained"),
        "s3": (None, False, ""),
        "s4": (1, False, ""),
    }
    assert [said["leak"] for said in one.said("send.seen")] == [True, True, False]
    assert await one.alarms() == ["leak.shelf..our_delay", "leak.shelf..unexplained"]
    await one.watch.look_at_sends()
    assert len(await one.hub.all("send_seen")) == 4, "what is told twice is noted once"
    await one.hub.run(Resolve(ticket, 1))
    one.told.sent = [a_send("s5", NOW + 200)]
    one.hub.clock.pass_(200)
    await one.watch.look_at_sends()
    assert not (await one.hub.all("send_seen"))[-1].leak


async def test_a_renewed_hold_does_not_make_an_old_leak_ours(one: Watched) -> None:
    await one.hub.hears(ADA)
    await one.carry()
    await one.look()
    from hub.holds.renewal import RenewLeases
    from hub.policy import Policy

    one.hub.clock.pass_(4.5 * 86_400)
    await one.hub.run(RenewLeases(one.hub.clock() + Policy().hold_renew_under))
    await one.carry()
    one.told.sent = [a_send("s1", one.hub.clock() / 1_000_000 - 3_000)]
    await one.watch.look_at_sends()
    assert [row.cause for row in await one.hub.all("send_seen")] == ["unexplained"], "it was told days before the renewal"


async def test_many_messages_are_read_page_by_page_and_none_twice(one: Watched) -> None:
    one.told.sent = [a_send(f"s{n}", NOW - 1_000 + n * 0.4, BEN) for n in range(2_300)]
    one.hub.clock.pass_(10)
    await one.watch.look_at_sends()
    assert len(await one.hub.all("send_seen")) == 2_300
    asked = len(one.told.asked)
    await one.watch.look_at_sends()
    assert (asked, len(one.told.asked)) == (3, 4)
    assert one.told.asked[-1] == NOW + 10 - 300, "asked again with an overlap, from when it was asked last"


async def test_a_webhook_that_names_less_is_completed_when_the_tool_is_asked(one: Watched) -> None:
    await one.hub.hears(ADA)
    await one.watch.note("shelf", [a_send("s1", NOW + 1)])
    await one.watch.note("shelf", [a_send("s1", NOW + 1, campaign_id="c1", campaign="Winter sale")])
    [row] = await one.hub.all("send_seen")
    assert (row.campaign_id, row.campaign) == ("c1", "Winter sale")
    assert len(one.said("send.seen")) == 1


async def test_a_hold_that_is_not_confirmed_in_time_raises_an_alarm_and_ends_it_when_it_is(one: Watched) -> None:
    one.told.trouble = TryLater("It is down.")
    await one.hub.hears(ADA)
    await one.carry()
    assert await one.alarms() == []
    one.hub.clock.pass_(16 * 60)
    assert await one.alarms() == ["tool.shelf.late"]
    one.told.trouble = None
    one.hub.clock.pass_(4_000)
    await one.carry()
    await one.look()
    assert await one.alarms() == []


async def test_an_alarm_that_comes_back_is_raised_again_and_its_words_follow_what_is_so(one: Watched) -> None:
    def wanted(text: str) -> tuple[tuple[str, Concern], ...]:
        return (("holds.share", Concern("warning", "Many held", text, "/holds")),)

    await one.hub.run(SetAlarms(wanted("60"), ()))
    await one.hub.run(SetAlarms(wanted("70"), ("holds.share",)))
    assert [(row.text, row.ended_at) for row in await one.hub.all("alarm")] == [("70", None)]
    await one.hub.run(SetAlarms((), ("holds.share",)))
    await one.hub.run(SetAlarms(wanted("80"), ()))
    assert [(row.text, row.ended_at) for row in await one.hub.all("alarm")] == [("80", None)]
    assert [e.type for e in one.hub.events if e.type.startswith("alarm.")] == ["alarm.raised", "alarm.ended", "alarm.raised"]
