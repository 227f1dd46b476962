"""One-time codes as a visitor meets them: asked for in the widget, read in a real mail, typed in, and joined in the inbox."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, FrameLocator, Page, expect
from sqlalchemy import text as sql

from hub.app import Running
from tests.browser.conftest import signed_in
from tests.web.test_codes import Age

pytestmark = pytest.mark.browser

OFFER = re.compile("Confirm it.s you")


@pytest.fixture
async def context(browser: Browser, running: Running) -> AsyncIterator[BrowserContext]:
    """A browser profile whose pages must report no error but what Chromium says itself of a refused address or code (400, 403)."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield context
    await context.close()
    assert [fault for fault in faults if not re.search(r"status of (400|403)", fault)] == []


async def mailed_code(running: Running, many: int = 1) -> str:
    """The code in the newest mail that arrived at the stand-in mail server, once there are so many."""
    state = running.sandbox.state  # type: ignore[union-attr]
    async with asyncio.timeout(15):
        await state.wait_for(lambda: len(state.mails) >= many, timeout=None)
    assert len(state.mails) == many
    (code,) = re.findall(r"\b[0-9]{6}\b", state.mails[-1].text)
    return str(code)


async def shop_of(context: BrowserContext, running: Running) -> tuple[Page, FrameLocator]:
    page = await context.new_page()
    await page.goto(f"{running.settings.server.public_url}/sandbox")
    return page, page.frame_locator("#shop-frame")


async def test_a_code_by_mail_joins_a_visitor_of_the_chat_with_the_earlier_mail(context: BrowserContext, running: Running) -> None:
    inbox = await signed_in(context, running)
    page, shop = await shop_of(context, running)
    await page.fill("#mail-subject", "Invoice 1042")
    await page.fill("#mail-text", "Could you send me the invoice again?")
    await page.click("#mail-send")
    await expect(inbox.locator("#rows li")).to_have_count(1)

    await page.evaluate("document.getElementById('shop-frame').contentWindow.heard = []")
    await shop.locator("body").evaluate("() => window.HubChat('on', { verified: (detail) => window.heard.push(detail.sent_to) })")
    await shop.locator("button[aria-expanded]").click()
    await shop.get_by_role("textbox", name="Your message").fill("Is the throw washable?")
    await page.keyboard.press("Enter")
    await expect(inbox.locator("#rows li")).to_have_count(2)

    # By keyboard alone: the link, the address, the code.
    offer = shop.get_by_role("button", name=OFFER)
    await offer.focus()
    await page.keyboard.press("Enter")
    address = shop.get_by_role("textbox", name=re.compile("e-mail address or phone"))
    await expect(address).to_be_focused()
    await page.keyboard.type("ada@example")
    await page.keyboard.press("Enter")
    await expect(shop.get_by_role("alert")).to_contain_text("not an address a code can be sent to")
    await page.keyboard.type("ada@example.com")  # the wrong one was selected
    await page.keyboard.press("Enter")
    code = shop.get_by_role("textbox", name=re.compile("We sent a code to a•••@example.com"))
    await expect(code).to_be_focused()
    assert await code.get_attribute("inputmode") == "numeric"
    assert await code.get_attribute("autocomplete") == "one-time-code"
    await expect(shop.get_by_role("button", name="Send again")).to_be_disabled()
    number = await mailed_code(running)
    await page.keyboard.type(str((int(number) + 1) % 1_000_000).zfill(6))
    await page.keyboard.press("Enter")
    await expect(shop.get_by_role("alert")).to_contain_text("4 tries left")
    await expect(inbox.locator("#rows li", has_text="Is the throw washable?")).not_to_contain_text("Ada Okafor")
    await page.keyboard.type(f"{number[:3]} {number[3:]}")
    await page.keyboard.press("Enter")

    # Here: thanked, the own chat still there, no second offer. There: one person with the mail's history.
    await expect(shop.get_by_text("a•••@example.com is confirmed.")).to_be_visible()
    await expect(shop.get_by_role("textbox", name="Your message")).to_be_focused()
    await expect(shop.get_by_role("log")).to_contain_text("Is the throw washable?")
    await expect(offer).to_be_hidden()
    assert await shop.locator("body").evaluate("() => window.heard") == ["a•••@example.com"]
    row = inbox.locator("#rows li", has_text="Is the throw washable?")
    await expect(row).to_contain_text("Ada Okafor")
    await row.locator("a").click()
    timeline = inbox.locator("#timeline, [id^=timeline]").first
    await expect(timeline).to_contain_text("Could you send me the invoice again?")
    await expect(timeline).to_contain_text("Is the throw washable?")
    await expect(timeline).not_to_contain_text("is your code")

    # It holds over a reload, and ends with a logout.
    await page.reload()
    await shop.locator("button[aria-expanded]").click()
    await expect(shop.get_by_role("log")).to_contain_text("Is the throw washable?")
    await expect(offer).to_be_hidden()
    await shop.locator("body").evaluate("() => window.HubChat('logout')")
    await shop.locator("button[aria-expanded]").click()
    await expect(offer).to_be_visible()
    await expect(shop.get_by_role("log")).not_to_contain_text("Is the throw washable?")


async def test_a_code_an_agent_asks_for_appears_by_itself_and_takes_no_ones_keyboard(context: BrowserContext, running: Running) -> None:
    inbox = await signed_in(context, running)
    page, shop = await shop_of(context, running)
    # Named, not confirmed: the agent knows what was said.
    await shop.locator("button[aria-expanded]").click()
    await shop.get_by_role("button", name=OFFER).click()
    await page.keyboard.type("ada@example.com")
    await page.keyboard.press("Enter")
    await mailed_code(running)
    await shop.get_by_role("button", name="Cancel").click()
    text = shop.get_by_role("textbox", name="Your message")
    await expect(text).to_be_focused()
    await text.fill("Where is my lamp?")
    await page.keyboard.press("Enter")
    await expect(inbox.locator("#rows li")).to_have_count(1)
    await age_codes(running)

    await text.fill("And my mu")
    answer = await inbox.evaluate(
        """async () => {
          const csrf = document.querySelector('meta[name=csrf], [data-csrf]');
          const token = csrf?.content || csrf?.dataset.csrf || document.querySelector('input[name=csrf]').value;
          const body = new URLSearchParams({identifier_id: NUMBER});
          return (await fetch('/tickets/1/ask-code', {method: 'POST', headers: {'X-CSRF-Token': token}, body})).status;
        }""".replace("NUMBER", str(await named(running)))
    )
    assert answer == 204
    code = shop.get_by_role("textbox", name=re.compile("We sent a code to a•••@example.com"))
    await expect(code).to_be_visible()
    await expect(text).to_be_focused()
    await page.keyboard.type("g?")
    await expect(text).to_have_value("And my mug?")
    number = await mailed_code(running, 2)
    await page.reload()  # on a phone, reading the mail may cost the page
    await shop.locator("button[aria-expanded]").click()
    await code.fill(number)
    await page.keyboard.press("Enter")
    await expect(shop.get_by_text("a•••@example.com is confirmed.")).to_be_visible()
    await expect(code).to_be_hidden()


async def named(running: Running) -> int:
    return int(await running.hub.reader.value(sql("SELECT id FROM identifier WHERE kind = 'email' AND standing = 'asserted'")))


async def age_codes(running: Running) -> None:
    await running.hub.writer.run(Age())


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1_440])
async def test_the_form_fits_and_can_be_read(context: BrowserContext, running: Running, width: int, theme: str) -> None:
    page = await context.new_page()
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    await page.goto(f"{running.settings.server.public_url}/sandbox/shop")
    await page.locator("button[aria-expanded]").click()
    await page.get_by_role("button", name=OFFER).click()
    await page.keyboard.type("a-person-with-a-very-long-address@a-company-with-a-rather-long-name.example")
    await page.keyboard.press("Enter")
    code = page.get_by_role("textbox", name=re.compile("We sent a code"))
    await code.fill(str((int(await mailed_code(running)) + 1) % 1_000_000))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("tries left")
    measured = await page.evaluate(
        """() => {
          const root = document.querySelector('hub-chat').shadowRoot;
          const luminance = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (node) => { for (let n = node; n; n = n.parentElement) {
            const c = getComputedStyle(n).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } };
          const ratio = (node) => { const [a, b] = [getComputedStyle(node).color, behind(node)].map(luminance).sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05); };
          const panel = root.querySelector('.panel').getBoundingClientRect();
          const parts = [...root.querySelectorAll('.confirm label, .confirm input, .confirm button, .confirm .wrong')];
          return { ratios: parts.filter((n) => !n.disabled).map(ratio),
            heights: parts.filter((n) => n.matches('input, button')).map((n) => n.offsetHeight),
            inside: parts.every((n) => { const r = n.getBoundingClientRect(); return r.left >= panel.left && r.right <= panel.right; }),
            scrolls: document.documentElement.scrollWidth > innerWidth };
        }"""
    )
    assert measured["inside"]
    assert not measured["scrolls"]
    assert min(measured["ratios"]) >= 4.5  # WCAG 2.2, 1.4.3
    assert min(measured["heights"]) >= 24  # 2.5.8
