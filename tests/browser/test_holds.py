"""The pages about holds in a real browser: no side scroll on a phone, by keyboard, and a tool on loopback behind them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from connectors.sandbox.tools.klaviyo import KlaviyoStandIn
from hub.app import Running
from hub.config import load
from hub.storage.marketing_records import Mark, ProofRow, SendSeenRow
from hub.storage.records import Customer, Hold, HoldLedger, Identifier, Setting
from hub.storage.writer import wall_clock
from tests.browser.conftest import signed_in
from tests.conftest import sandbox_config
from tests.conversations.test_queries import put
from tests.storage import fresh_database

pytestmark = pytest.mark.browser

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
LONG = "A_campaign_name_pasted_from_a_spreadsheet_without_any_blanks_in_it_for_the_fourth_quarter_of_2026"
PAGES = ["/holds", "/holds/customers/1", "/holds/tools", "/holds/tools/crm", "/holds/campaigns", "/holds/campaigns/1/revert"]
PAGES += ["/holds/leaks", "/settings/tools", "/settings/tools/crm"]


def furnished(account: KlaviyoStandIn) -> list[Any]:
    """Held customers the tool knows, with all that the pages show, some of it long; none of it due to be told or read soon."""
    now = wall_clock()
    rows: list[Any] = [Setting("holds.destinations", json.dumps(["marketing", "klaviyo", "crm"]))]
    for n in range(1, 13):
        mail, at = f"{LONG[:40]}.{n}@mail.example".lower(), now - n * DAY
        profile = account.add_profile(email=mail).id
        rows += [
            Customer(n, "" if n % 2 else f"Person {n}", at),
            Identifier(n, "email", "", mail, "proven", 0, n, "dmarc", mail, now, now, home_id=n),
            Hold(n, n, "agent", f"hand:agent:{n}", '{"channels": ["*"]}', at, now + DAY, None, n, now + DAY, LONG, "agent:1"),
            HoldLedger(n, n, n, "placed", "agent", f"hand:agent:{n}", 1, at, now + DAY),
            Mark(*(n, "crm", "email", mail, "", n, profile, "drifted", True, 1, "[]", at, now + DAY, at), check_at=now + DAY, error=LONG),
            SendSeenRow(n, "crm", f"e{n}", at, now, "email", mail, profile, "email", "c1", LONG, False, n, True, "frozen_list"),
            ProofRow(n, n, "mark.confirmed", now - n * HOUR, n, "crm", json.dumps({"held": True, "took_ms": n * 9_000}), f"{n}"),
        ]
    return rows


@pytest.fixture
async def account() -> AsyncIterator[KlaviyoStandIn]:
    stand_in = KlaviyoStandIn()
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def running(tmp_path: Path, account: KlaviyoStandIn) -> AsyncIterator[Running]:
    """The whole hub with one tool more, `crm`, and people on hold."""
    config = sandbox_config(tmp_path)
    key, host = account.credentials["api_key"], account.url.removeprefix("http://")
    own = f"destinations:\n  crm:\n    type: klaviyo\n    api_key: {key}\n    base_url: {account.url}\n    #"
    text = config.read_text().replace("allowed_hosts: []", f'allowed_hosts: ["{host}"]', 1).replace("\ndestinations:", f"\n{own}", 1)
    config.write_text(text)
    fresh_database(tmp_path / "data")
    settings = load(config, {k: v for k, v in os.environ.items() if not k.startswith("HUB_")})
    put(settings.storage.database, furnished(account))
    account.add_campaign(LONG, time.time() + 7_200)
    hub = Running(settings)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


async def coming(page: Page, running: Running) -> None:
    """The hub has looked at what the tool plans, as it does when it starts."""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        await page.goto(f"{running.settings.server.public_url}/holds/campaigns")
        if await page.locator(".campaign.bad").count():
            return
    raise AssertionError("no campaign was seen")


async def test_no_page_scrolls_sideways_however_narrow(context: BrowserContext, running: Running) -> None:
    page = await signed_in(context, running)
    await coming(page, running)
    for width in (390, 1440):
        await page.set_viewport_size({"width": width, "height": 844})
        for path in PAGES:
            answer = await page.goto(f"{running.settings.server.public_url}{path}")
            assert answer is not None
            assert answer.status == 200, path
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
            headings = page.get_by_role("heading", level=1)
            await expect(headings).to_have_count(1)
            if width == 390 and path == "/holds/leaks":
                # What a cell says stands before it where the heads of the table are gone.
                cell = page.locator("tbody tr").first.locator("td").first
                assert await cell.evaluate("e => getComputedStyle(e, '::before').content") == '"When: "'


async def test_a_campaign_is_put_back_to_draft_by_keyboard(context: BrowserContext, running: Running, account: KlaviyoStandIn) -> None:
    page = await signed_in(context, running)
    await coming(page, running)
    await expect(page.locator(".campaign .badge")).to_have_text("would reach 12 held customers")
    await expect(page.locator(".campaign .endangered").first).to_contain_text("Person 2")
    await page.get_by_role("link", name="Put back to draft…").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="This stops it for everybody")).to_be_visible()
    assert account.campaigns[0]["status"] == "Scheduled"
    await page.get_by_role("button", name="Put it back to draft for everybody").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("is a draft again and goes out to nobody")
    assert account.campaigns[0]["status"] == "Draft"


async def test_a_round_trip_shows_itself_go_on_until_it_is_over(context: BrowserContext, running: Running, account: KlaviyoStandIn) -> None:
    profile = account.add_profile(email="test@shop.example")
    account.quirks.read_lag = 1.5
    page = await signed_in(context, running)
    await page.goto(f"{running.settings.server.public_url}/settings/tools/crm")
    await page.get_by_role("button", name="Find or create what is needed").click()
    await expect(page.get_by_role("status")).to_contain_text("What the hold needs is there.")
    await page.get_by_label("A test profile of yours").fill("test@shop.example")
    await page.keyboard.press("Enter")
    await expect(page.locator(".trip.wait")).to_contain_text("Under way")
    await expect(page.locator(".trip.good")).to_contain_text("Reading it back shows the profile free.")
    assert profile.attributes["support_hold"] is False
    # It is over, and the page asks for itself no more.
    await expect(page.locator("meta[http-equiv=refresh]")).to_have_count(0)
