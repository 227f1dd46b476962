"""The pages about holds and the set-up of tools: what they say is so, all of it escaped, and only administrators act on tools."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from yarl import URL

from connectors.klaviyo import Klaviyo
from connectors.sandbox.tools.klaviyo import KlaviyoStandIn
from hub.delivery.marking import Tools
from hub.delivery.outbox import Outbox
from hub.holds.round_trip import RUNNING, NoteTrip, Trip
from hub.http import GuardedHttp
from hub.keys import digest
from hub.storage.marketing_records import Alarm, CampaignSeen, Mark, ProofRow, SendSeenRow
from hub.storage.records import AgentSession, Customer, Hold, HoldLedger, Identifier
from hub.storage.writer import wall_clock
from hub.web.tool_setup import UNDER_WAY
from tests.web import Insert
from tests.web.test_inbox import CSRF, XSS, Shape, Site, site

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
ANY, OTHER = '{"channels": ["*"]}', '{"brand": "other", "channels": ["*"]}'
ADA = "ada@mail.example"
AGENTS_TOKEN = "a" * 43


@dataclass
class House:
    """The site with Klaviyo on loopback as its one tool, `crm`."""

    site: Site
    account: KlaviyoStandIn

    async def page(self, path: str, status: int = 200) -> str:
        return await self.site.page(path, status)

    async def act(self, path: str, status: int = 200, **form: str) -> str:
        async with await self.site.post(path, script=False, **form) as response:
            assert response.status == status, await response.text()
            return await response.text()

    def as_agent(self) -> None:
        """From now on whoever asks is no administrator."""
        self.site.client.session.cookie_jar.update_cookies({"hub_session": AGENTS_TOKEN}, URL(str(self.site.client.make_url("/"))))

    async def rows(self, sql: str) -> list[Any]:
        return list(await self.site.hub.reader.all(text(sql)))


@asynccontextmanager
async def house(tmp_path: Path, rows: Iterable[Any] = ()) -> AsyncIterator[House]:
    now = wall_clock()
    own = [AgentSession(digest(AGENTS_TOKEN), 2, CSRF, now, now, now + 10**12), *rows]
    account = KlaviyoStandIn()
    http = GuardedHttp(["127.0.0.1"])
    settings = Klaviyo.Settings.model_validate({"type": "klaviyo", "base_url": await account.start(), **account.credentials})
    tools = Tools({"crm": (Klaviyo(settings, "crm"), settings)})  # type: ignore[arg-type]
    try:
        async with site(tmp_path, own) as built:
            built.hub.tools, built.hub.http, built.hub.outbox = tools, http, Outbox(built.hub.writer, {})
            yield House(built, account)
    finally:
        await http.close()
        await account.stop()


ROWS = 8  # of one customer below


def people(count: int, name: str = "", now: int = 0) -> list[Any]:
    """So many customers, each held, told to the tool, endangered by a campaign and reached by a leak."""
    now = now or wall_clock()
    rows: list[Any] = []
    for n in range(1, count + 1):
        value, at = f"person.{n}@mail.example", now - n * HOUR
        rows += [
            Customer(n, name or f"Person {n}", now - DAY),
            Identifier(n, "email", "", value, "proven", 0, n, "dmarc", value, now, now, home_id=n),
            Hold(n, n, "open_ticket", f"ticket:{n}", ANY, at, now + DAY, None, n, None, name, ""),
            HoldLedger(n, n, n, "placed", "open_ticket", f"ticket:{n}", 1, at, now + DAY),
            Mark(
                *(n, "crm", "email", value, "", n, "p", "drifted", True, 1, "[]", at, now + DAY, at), drifts=2, error=name or "Shown free."
            ),
            CampaignSeen(
                *(n, "crm", f"c{n}", name or f"Campaign {n}", "email", "scheduled", now, now + DAY, None, "no", "[]"),
                *(name or "Exclude the segment.", "https://tool.example/c", True, json.dumps(list(range(1, count + 1))), "no_filter"),
            ),
            SendSeenRow(n, "crm", f"e{n}", at, at, "email", value, "p", "email", f"c{n}", name or f"Campaign {n}", False, n, True, "lag"),
            Alarm(n, f"alarm.{n}", "critical", name or f"Alarm {n}", name or "Look.", "/holds", at),
        ]
    return rows


PAGES = ["/holds", "/holds/customers/1", "/holds/tools", "/holds/tools/crm", "/holds/campaigns", "/holds/campaigns/1/revert"]
PAGES += ["/holds/leaks", "/holds/leaks?show=all", "/settings/tools", "/settings/tools/crm"]


async def test_every_page_has_words_where_there_is_nothing_yet(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        for path, words in {
            "/holds": "Nobody is held: campaigns may go to every customer.",
            "/holds/tools": "It was told of nobody yet.",
            "/holds/tools/crm": "It was told of nobody yet.",
            "/holds/campaigns": "No tool tells of a campaign that is coming.",
            "/holds/leaks": "No leak in the last 30 days.",
            "/settings/tools": "no round trip yet",
        }.items():
            assert words in await built.page(path)
        for path in ("/holds/customers/1", "/holds/tools/none", "/holds/campaigns/1/revert", "/settings/tools/none"):
            await built.page(path, 404)


async def test_nothing_somebody_wrote_gets_into_a_page_as_markup(tmp_path: Path) -> None:
    shapes: dict[str, list[Shape]] = {path: [] for path in PAGES}
    for number, names in enumerate((["hello"] * len(XSS), XSS)):
        (tmp_path / str(number)).mkdir()
        rows = [row for n, name in enumerate(names, 1) for row in people(n, name)[-ROWS:]]
        async with house(tmp_path / str(number), rows) as built:
            for path in PAGES:
                page = await built.page(path)
                shapes[path].append(Shape(page))
                assert not re.search(r"\sstyle=|<script(?! (?:type=\"module\" )?src=)", page), path
    for path, (harmless, hostile) in shapes.items():
        assert hostile.found == harmless.found, path
        assert not [link for link in hostile.links if not link.startswith(("/", "#main", "https://tool.example/"))], path


async def test_a_campaigns_address_that_is_no_web_page_is_no_link(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        now = wall_clock()
        values: tuple[Any, ...] = (
            1,
            "crm",
            "c1",
            "Sale",
            "email",
            "scheduled",
            now,
            now + HOUR,
            None,
            "no",
            "[]",
            "",
            "javascript:alert(1)",
        )
        await built.site.hub.writer.run(Insert((CampaignSeen(*values, True, "[1]", "no_filter"),)))
        assert "javascript:" not in await built.page("/holds/campaigns")


@pytest.mark.parametrize("path", [path for path in PAGES if "revert" not in path])
async def test_a_page_reads_as_often_for_forty_as_for_one(tmp_path: Path, path: str) -> None:
    counted = []
    for count in (1, 40):
        (tmp_path / str(count)).mkdir()
        async with house(tmp_path / str(count), people(count)) as built:
            statements: list[str] = []
            engine = built.site.hub.reader._engine.sync_engine
            event.listen(engine, "before_cursor_execute", lambda c, cur, sql, *_, seen=statements: seen.append(sql))
            await built.page(path)
            counted.append(len(statements))
    assert counted[0] == counted[1] <= 12


# --- held now ---


def shown(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<tr id="held-(\d+)"', page)]


async def test_turning_the_pages_of_who_is_held_shows_everybody_once(tmp_path: Path) -> None:
    async with house(tmp_path, people(120)) as built:
        for order, wanted in (("", list(range(120, 0, -1))), ("?order=newest", list(range(1, 121)))):
            seen: list[int] = []
            path: str | None = f"/holds{order}"
            while path:
                page = await built.page(path)
                seen += shown(page)
                following = re.search(r'href="([^"]+)">More</a>', page)
                path = following and following[1].replace("&amp;", "&")
            assert seen == wanted


async def test_the_list_says_why_and_until_when_and_can_be_narrowed(tmp_path: Path) -> None:
    now = wall_clock()
    rows = [
        *(Customer(n, name, now) for n, name in ((1, "Ada"), (2, "Ben"), (3, "Cy"))),
        Hold(1, 1, "open_ticket", "ticket:12", ANY, now - DAY, now + DAY, None, 1),
        Hold(*(2, 1, "agent", "hand:agent:1", OTHER, now, now + DAY, None, 1, now + DAY), "Bereaved.", "agent:1"),
        Hold(3, 2, "complaint", "ticket:13", '{"brand": "default", "channels": ["email"]}', now, now + DAY, None, 2, now + DAY),
    ]
    async with house(tmp_path, rows) as built:
        page = await built.page("/holds")
        assert shown(page) == [1, 2]
        assert "of 3 customers" in page
        assert "66.7 %" in page
        ticket = '<a href="/inbox/all?ticket=12">Open ticket #12</a>'
        for words in (ticket, "Bereaved.", "only default, email", "renewed while it lasts", "at the latest"):
            assert words in page
        assert shown(await built.page("/holds?reason=complaint")) == [2]
        assert shown(await built.page("/holds?reason=complaint&order=newest&brand=default")) == [2]
        assert "Nobody is held for that." in await built.page("/holds?reason=low_satisfaction")
        assert shown(await built.page("/holds?brand=nonsense&reason=nonsense")) == [1, 2]


async def test_a_hold_of_another_brand_does_not_bind_this_one(tmp_path: Path) -> None:
    now = wall_clock()
    rows: list[Any] = [Customer(n, f"Person {n}", now) for n in (1, 2, 3)]
    for n, scope in ((1, ANY), (2, '{"brand": "default", "channels": ["*"]}'), (3, '{"brand": "other", "channels": ["*"]}')):
        rows.append(Hold(n, n, "complaint", f"ticket:{n}", scope, now - 4 * HOUR + n, now + DAY, None, n))
    async with house(tmp_path, rows) as built:
        assert shown(await built.page("/holds?brand=default")) == [1, 2]


async def test_the_plot_and_its_table_tell_the_days_that_were(tmp_path: Path) -> None:
    now = wall_clock()
    rows: list[Any] = [Customer(n, f"Person {n}", now) for n in range(1, 41)]
    rows += [
        Hold(1, 1, "agent", "hand:a", ANY, now - 60 * DAY, now + DAY, None, 1),
        Hold(2, 2, "agent", "hand:a", ANY, now - 60 * DAY, now + DAY, now - 3 * HOUR, 2),
        Hold(3, 3, "agent", "hand:a", ANY, now - HOUR, now + DAY, None, 3),
    ]
    async with house(tmp_path, rows) as built:
        for _ in range(2):  # the second time out of what is remembered of past days
            table = re.findall(r'<tr><th scope="row">([^<]+)</th><td>(\d+)</td>', await built.page("/holds"))
            assert len(table) == 30
            assert table[0] == ("Now", "2")
            assert {count for _, count in table[2:]} == {"2"}


async def test_ten_thousand_held_are_shown_at_once(tmp_path: Path) -> None:
    now = wall_clock()
    rows: list[Any] = []
    for n in range(1, 10_001):
        rows += [Customer(n, f"P{n}", now), Hold(n, n, "open_ticket", f"ticket:{n}", ANY, now - n * SECOND, now + DAY, None, n)]
    async with house(tmp_path, rows) as built:
        await built.page("/holds")
        began = time.perf_counter()
        page = await built.page("/holds")
        took = time.perf_counter() - began
        assert shown(page)[:2] == [10_000, 9_999]
        assert "10,000" in page
        assert took < 1.0, "a fifth of that on a machine with nothing else to do"


# --- one customer ---


async def test_a_customers_page_tells_what_was_done_told_and_sent(tmp_path: Path) -> None:
    now = wall_clock()
    rows: list[Any] = [
        Customer(1, "Ada", now),
        Customer(2, "Ada", now, 0, 1),
        Identifier(1, "email", "", ADA, "proven", 0, 1, "dmarc", ADA, now, now, home_id=1),
        Hold(1, 1, "agent", "hand:agent:2", ANY, now - DAY, now + DAY, None, 1, now + DAY, "Bereaved.", "agent:2"),
        HoldLedger(1, 2, 1, "placed", "agent", "hand:agent:2", 4, now - DAY, now + DAY),
        HoldLedger(2, 1, 9, "released", "open_ticket", "ticket:7", 5, now - HOUR, now),
        Mark(*(1, "crm", "email", ADA, "", 1, "p", "effective", True, 1, "[]", now - HOUR, now + DAY), now, now - HOUR + 12 * SECOND),
        Mark(2, "crm", "phone", "+12025550123", "", 1, "", "failed", True, 1, "", now - HOUR, error="It does not like this one."),
        Mark(*(3, "crm", "external_id", "u-1", "", 1, "p", "confirmed", True, 1, "[]", now - HOUR, now + DAY), now, now - DAY),
        Mark(4, "gone", "email", ADA, "", 1, "p", "absent", False, 1, "", now),
        SendSeenRow(1, "crm", "e1", now - HOUR, now, "email", ADA, "p", "email", "c1", "Sale", False, 1, True, "frozen_list"),
        SendSeenRow(2, "crm", "e2", now - 2 * HOUR, now, "email", ADA, "p", "email", "c2", "Digest", True, 1),
    ]
    async with house(tmp_path, rows) as built:
        page = re.sub(r"\s+", " ", await built.page("/holds/customers/1"))
        for words in (
            *("Held now", "by Jonas: Bereaved.", "<strong>Placed</strong>: Decided by an agent by Jonas, “Bereaved.”"),
            *('<strong>Released</strong>: <a href="/inbox/all?ticket=7">Open ticket #7</a>', "version 5"),
            *("Effective", "12 s", "It does not like this one.", "earlier,", "no longer configured", "Not known there"),
            *("Held then: its recipients had been fixed before the hold.", "not sent: held"),
        ):
            assert words in page, words
        async with built.site.client.get("/holds/customers/2", allow_redirects=False) as merged:
            assert (merged.status, merged.headers["Location"]) == (303, "/holds/customers/1")
        assert "released" not in (await built.page("/holds/customers/1?before=2")).lower()


# --- tools ---


def confirmed(seq: int, ago: int, ms: int) -> ProofRow:
    data = json.dumps({"destination": "crm", "held": True, "took_ms": ms})
    return ProofRow(seq, seq, "mark.confirmed", wall_clock() - ago, 1, "crm", data, str(seq))


async def test_a_tools_page_tells_how_fast_it_is_and_what_is_wrong(tmp_path: Path) -> None:
    async with house(tmp_path, [*people(2), *(confirmed(n, n * SECOND, 1_000 * n) for n in range(1, 21))]) as built:
        page = re.sub(r"\s+", " ", await built.page("/holds/tools/crm"))
        for words in (
            "10 s</td><td>19 s</td><td>20</td>",
            *("Shown free.", "within 24 hours", "checked against the vendor", "after 15 minutes"),
        ):
            assert words in page, words
        bars = re.findall(r'<th scope="row">up to (\S+ \S+)</th><td>([1-9]\d*)</td>', page)
        assert bars == [("1 s", "1"), ("5 s", "4"), ("15 s", "10"), ("30 s", "5")]
        listed = re.sub(r"\s+", " ", await built.page("/holds/tools"))
        assert "Changed by somebody else <strong>2</strong>" in listed
        assert "<strong>10 s</strong> half of them, <strong>19 s</strong> nearly all" in listed


async def test_looking_again_tells_the_tool_once_more_of_whoever_is_in_trouble(tmp_path: Path) -> None:
    async with house(tmp_path, people(2)) as built:
        built.as_agent()
        page = await built.act("/holds/tools/crm/look-again")
        assert "2 customers are told again now." in page
        assert [tuple(row) for row in await built.rows("SELECT kind, target, subject_id FROM delivery ORDER BY id")] == [
            ("mark", "crm", 1),
            ("mark", "crm", 2),
        ]
        assert "2 customers, the oldest for" in await built.page("/holds/tools/crm")


async def test_looking_again_where_all_is_well_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        assert "Nothing to look at again" in await built.act("/holds/tools/crm/look-again")


# --- campaigns ---


async def planned(built: House, name: str = "Sale") -> dict[str, Any]:
    """A campaign on loopback that the hub has seen."""
    campaign = built.account.add_campaign(name, time.time() + 7_200)
    now = wall_clock()
    values: tuple[Any, ...] = (1, "crm", campaign["id"], name, "email", "scheduled", now, now + 2 * HOUR, now, "yes", "[]")
    await built.site.hub.writer.run(Insert((CampaignSeen(*values, "Put it back.", "https://tool.example/c", True, "[1, 2]", "frozen"),)))
    return campaign


async def test_a_campaign_in_danger_is_red_names_whom_and_says_what_mends_it(tmp_path: Path) -> None:
    async with house(tmp_path, [row for row in people(30) if not isinstance(row, CampaignSeen)]) as built:
        now = wall_clock()

        def seen(id_: int, risk: str, excludes: str, endangered: list[int], **more: Any) -> CampaignSeen:
            said: tuple[Any, ...] = (id_, "crm", f"c{id_}", f"Campaign {id_}", "email", "scheduled", now, now + id_ * HOUR)
            return CampaignSeen(
                *said, None, excludes, "[]", "Exclude it.", "https://tool.example/c", id_ == 1, json.dumps(endangered), risk, **more
            )

        rows = (seen(1, "no_filter", "no", list(range(1, 31))), seen(2, "unknown", "unknown", []), seen(3, "", "yes", []))
        await built.site.hub.writer.run(Insert((*rows, seen(4, "no_filter", "no", [1], gone_at=now))))
        page = await built.page("/holds/campaigns")
        assert re.findall(r'class="card campaign (\w+)" id="campaign-(\d)"', page) == [("bad", "1"), ("wait", "2"), ("good", "3")]
        assert "would reach 30 held customers" in page
        assert '<a href="/conversations/30">Person 30</a>' in page, "behind “10 more”"
        assert "10 more</summary>" in page
        assert "It does not leave out customers on hold." in page
        assert page.count("To mend it:</strong> Exclude it.") == 2
        assert page.count("/revert") == 1
        assert "No longer planned" in page
        built.as_agent()
        assert "/revert" not in await built.page("/holds/campaigns")


async def test_an_administrator_puts_a_campaign_back_after_saying_so_twice(tmp_path: Path) -> None:
    async with house(tmp_path, people(0)) as built:
        campaign = await planned(built)
        page = await built.page("/holds/campaigns/1/revert")
        assert "This stops it for everybody" in page
        assert campaign["status"] == "Scheduled", "looking changes nothing"
        page = await built.act("/holds/campaigns/1/revert")
        assert "“Sale” is a draft again and goes out to nobody." in page
        assert campaign["status"] == "Draft"
        [(data, agent)] = await built.rows("SELECT data, agent_id FROM event WHERE type = 'campaign.reverted'")
        assert (json.loads(data)["campaign_id"], agent) == (campaign["id"], 1)
        assert "cannot be put back to draft any more" in await built.act("/holds/campaigns/1/revert", 422)


async def test_a_tool_that_refuses_changes_nothing_here(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        await planned(built)
        built.account.quirks.revoked = True
        assert "was not put back" in await built.act("/holds/campaigns/1/revert", 422)
        assert [tuple(row) for row in await built.rows("SELECT status, risk FROM campaign_seen")] == [("scheduled", "frozen")]


ON_TOOLS = ["/holds/campaigns/1/revert", *(f"/settings/tools/crm/{what}" for what in ("test", "prepare", "round-trip"))]


@pytest.mark.parametrize("path", ON_TOOLS)
async def test_an_agent_acts_on_no_tool(tmp_path: Path, path: str) -> None:
    async with house(tmp_path) as built:
        await planned(built)
        built.as_agent()
        await built.act(path, 403)
        assert built.account.calls == []


# --- sends and leaks ---


async def test_leaks_are_told_with_their_cause_and_all_messages_when_asked(tmp_path: Path) -> None:
    now = wall_clock()

    def sent(id_: int, cause: str = "", **more: Any) -> SendSeenRow:
        said: tuple[Any, ...] = (id_, "crm", f"e{id_}", now - id_, now, "email", ADA, "p", "email", "c1", "Sale")
        return SendSeenRow(*said, more.get("prevented", False), more.get("customer_id", 1), bool(cause), cause)

    rows = [Customer(1, "Ada", now), sent(1, "lag"), sent(2), sent(3, prevented=True), sent(4, "our_delay"), sent(5, customer_id=None)]
    async with house(tmp_path, rows) as built:
        numbers = lambda page: [int(n) for n in re.findall(r'<tr id="send-(\d+)"', page)]  # noqa: E731
        page = await built.page("/holds/leaks")
        assert numbers(page) == [1, 4]
        assert "The tool did not show the hold yet" in page
        assert numbers(await built.page("/holds/leaks?cause=lag")) == [1]
        assert numbers(await built.page("/holds/leaks?campaign=none")) == []
        page = await built.page("/holds/leaks?show=all")
        assert numbers(page) == [1, 2, 3, 4, 5]
        for words in ("Not sent: held", "Sent; not on hold", "Nobody we know"):
            assert words in page
        assert numbers(await built.page(f"/holds/leaks?show=all&before={now - 3}-3")) == [4, 5]


# --- set-up ---


async def test_set_up_tries_the_key_creates_the_segment_and_shows_what_to_paste(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        page = await built.page("/settings/tools/crm")
        assert "support_hold is True" in page
        assert built.account.calls == [], "looking at the page asks nothing of the tool"
        assert "Something is missing" in await built.act("/settings/tools/crm/test", 422)
        assert "What the hold needs is there." in await built.act("/settings/tools/crm/prepare")
        assert [segment["name"] for segment in built.account.segments] == ["Support hold"]
        await built.act("/settings/tools/crm/prepare")
        assert len(built.account.segments) == 1, "done again it creates nothing"
        assert "The credentials work" in await built.act("/settings/tools/crm/test")


async def test_a_key_that_is_refused_says_which_setting_to_mend_and_never_the_key(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        built.account.quirks.revoked = True
        for what in ("test", "prepare"):
            page = await built.act(f"/settings/tools/crm/{what}", 422)
            assert "destinations.crm.api_key" in page
            assert built.account.credentials["api_key"] not in page


async def over(built: House) -> None:
    """The round trip that goes on is over."""
    async with asyncio.timeout(10):
        await asyncio.gather(*built.site.client.app[UNDER_WAY])  # type: ignore[union-attr]


async def test_a_round_trip_goes_on_behind_its_page_and_ends_in_times(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        profile = built.account.add_profile(email="test@shop.example")
        built.account.quirks.hang = True
        typed = {"kind": "email", "value": " TEST@shop.example "}
        async with await built.site.post("/settings/tools/crm/round-trip", script=False, **typed) as begun:
            assert (begun.status, begun.headers["Location"]) == (303, "/settings/tools/crm#round-trip")
        page = await built.page("/settings/tools/crm")
        assert "Under way" in page
        assert '<meta http-equiv="refresh" content="2;' in page
        assert "going on already" in await built.act("/settings/tools/crm/round-trip", 422, kind="email", value="test@shop.example")
        for task in built.site.client.app[UNDER_WAY]:  # type: ignore[union-attr]
            task.cancel()
        built.account.quirks.hang = False
        await built.site.hub.writer.run(NoteTrip("crm", Trip("email", "x@y.z", "failed", 1, 1)))
        await built.act("/settings/tools/crm/prepare")
        await built.act("/settings/tools/crm/round-trip", 303, kind="email", value="test@shop.example")
        await over(built)
        page = re.sub(r"<[^>]+>|\s+", " ", await built.page("/settings/tools/crm"))
        assert "It works" in page
        assert re.search(r"Reading it back shows the profile free\. +after \d", page)
        assert profile.attributes["support_hold"] is False
        assert profile.consent == {"email": "subscribed", "sms": "subscribed"}
        assert "round trip done" in await built.page("/settings/tools")


async def test_a_round_trip_of_a_held_customer_is_refused_and_what_was_typed_stays(tmp_path: Path) -> None:
    async with house(tmp_path, people(1)) as built:
        page = await built.act("/settings/tools/crm/round-trip", 422, kind="email", value="person.1@mail.example")
        assert "is held now" in page
        assert 'value="person.1@mail.example"' in page
        assert built.account.calls == []


async def test_a_round_trip_whose_process_died_is_told_as_broken_off(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        long_ago = wall_clock() - HOUR
        await built.site.hub.writer.run(NoteTrip("crm", Trip("email", "test@shop.example", RUNNING, long_ago, long_ago)))
        page = await built.page("/settings/tools/crm")
        assert "Broken off" in page
        assert "http-equiv" not in page
