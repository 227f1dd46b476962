"""Who is who, decided by agents in a real browser: looked at first, done, told, and taken back."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Page, expect

from hub.app import Running
from hub.contract import Claim, Proof
from hub.conversations.ingest import Ingest, item
from hub.storage.records import Suggestion
from tests.browser.conftest import signed_in
from tests.storage import message
from tests.web import Insert

pytestmark = pytest.mark.browser

ADA, MAIL = "+12025550123", "ada@mail.example"


async def hear(running: Running, channel: str, *claims: Claim, text: str, name: str = "") -> None:
    rule = running.hub.channels[channel].rule
    said = item(message(*claims, text=text, sender_name=name), True, (), None, running.hub.policy)
    await running.hub.writer.run(Ingest(rule.id, (said,), None))


async def two_of_ada(running: Running) -> None:
    """Ada by WhatsApp (customer 1, ticket 1) and by mail (2, 2), who might be one person."""
    await hear(running, "whatsapp", Claim("phone", ADA, Proof.CHANNEL), text="Where is my parcel?", name="Ada Okafor")
    await hear(running, "email", Claim("email", MAIL, Proof.DMARC), text="My invoice, please", name="A. Okafor")
    await running.hub.writer.run(Insert((Suggestion(901, 1, 2, "similar", 720, "Same surname, same order.", running.hub.writer.clock()),)))


async def merge(page: Page) -> None:
    await page.get_by_role("link", name="Merge…").first.click()
    await page.get_by_role("button", name="Merge them").click()
    await page.wait_for_url("**/inbox/all?ticket=*")


async def test_a_merge_is_looked_at_done_told_and_undone(context: BrowserContext, running: Running) -> None:
    await two_of_ada(running)
    page = await signed_in(context, running)
    other = await context.new_page()  # another tab, with Ada's mail before it
    await other.goto(f"{running.settings.server.public_url}/inbox/open?ticket=2")
    draft = other.get_by_role("textbox", name="Write a reply to A. Okafor")
    await draft.fill("half a thought")

    await page.locator("#rows li", has_text="Where is my parcel?").locator("a").click()
    about = page.get_by_role("complementary", name="Customer")
    await expect(about).to_contain_text("Same surname, same order.")
    await about.get_by_role("link", name="Merge…").click()
    main = page.get_by_role("main")
    for words in ("Nothing has happened yet", "Keeps its number: customer 1", MAIL, "2 messages in one timeline"):
        await expect(main).to_contain_text(words)
    await page.get_by_role("button", name="Merge them").click()

    # Told where it shows, with the way back; and the address in the bar is the ticket's own.
    await expect(page.get_by_role("status").filter(has_text="Merged: customer 2")).to_be_visible()
    await page.wait_for_url("**/inbox/all?ticket=*&joined=*")
    timeline = page.get_by_role("log")
    await expect(timeline).to_contain_text("Where is my parcel?")
    await expect(timeline).to_contain_text("My invoice, please")
    await expect(timeline).to_contain_text("Customer 2 was merged in by")
    await expect(about).not_to_contain_text("May be the same person")
    await page.reload()
    await expect(page.get_by_role("status").filter(has_text="Merged: customer 2")).to_be_visible()

    # The other screen follows by itself, and keeps what they were typing.
    await expect(other.get_by_role("log")).to_contain_text("Where is my parcel?")
    await expect(other.locator("textarea[name=text]")).to_have_value("half a thought")
    await expect(other.locator("textarea[name=text]")).to_be_focused()

    # Why, and back from there.
    await about.get_by_text("Why one person?").click()
    why = about.locator(".why .slot")
    await expect(why).to_contain_text("merged #1")
    await expect(why).to_contain_text("ada@mail.example wrote first on")
    await why.get_by_role("link", name="Undo…").click()
    await expect(page.get_by_role("main")).to_contain_text("Take these two apart again?")
    await expect(page.get_by_role("region", name="A. Okafor")).to_contain_text("#2 My invoice, please")
    await page.get_by_role("button", name="Take them apart").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("They are two customers again")
    await expect(other.get_by_role("log")).not_to_contain_text("Where is my parcel?")
    await page.locator("#again-2").get_by_role("link", name="Open").click()
    await expect(page.get_by_role("log")).to_contain_text("My invoice, please")
    await expect(page.get_by_role("log")).not_to_contain_text("Where is my parcel?")
    await expect(page.get_by_role("complementary", name="Customer")).not_to_contain_text("May be the same person")


async def test_two_people_are_said_to_be_two_and_suggested_no_more(context: BrowserContext, running: Running) -> None:
    await two_of_ada(running)
    page = await signed_in(context, running)
    await page.keyboard.press("g")
    await page.keyboard.press("p")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Same person?")
    await expect(page.locator("#pair-1-2")).to_contain_text("Same surname, same order.")
    await page.go_back()
    await page.locator("#rows li", has_text="Where is my parcel?").locator("a").click()
    about = page.get_by_role("complementary", name="Customer")
    await about.get_by_role("button", name="Not the same person").click()
    await expect(page.get_by_role("status").filter(has_text="they are two people")).to_be_visible()
    await expect(about).not_to_contain_text("May be the same person")
    await page.goto(f"{running.settings.server.public_url}/customers/suggestions")
    await expect(page.get_by_role("main")).to_contain_text("Nobody to look at")
    await page.goto(f"{running.settings.server.public_url}/customers/1/merge/2")
    await expect(page.get_by_role("alert")).to_contain_text("that they are two people")


async def test_a_ticket_goes_to_whom_an_agent_finds(context: BrowserContext, running: Running) -> None:
    await two_of_ada(running)
    page = await signed_in(context, running)
    await page.locator("#rows li", has_text="My invoice").locator("a").click()
    await page.locator("#more-menu summary").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Move to another customer…").press("Enter")
    box = page.get_by_role("textbox", name="Whose is it?")
    await expect(box).to_be_focused()
    await page.keyboard.type("(202) 555-0123")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_contain_text("Nobody found")  # half a number is nobody's
    await page.get_by_role("textbox", name="Whose is it?").fill("+1 (202) 555-0123")
    await page.keyboard.press("Enter")
    await page.locator("#found-1").get_by_role("link", name="Choose").click()
    await page.get_by_role("button", name="Move it").click()
    await page.wait_for_url("**/inbox/all?ticket=2")
    await expect(page.locator("#head h1")).to_have_text("Ada Okafor")
    await expect(page.get_by_role("log")).to_contain_text("Ticket #2 moved here from customer 2")


async def test_history_leaves_by_another_way_only_when_somebody_says_so(context: BrowserContext, running: Running) -> None:
    """Attack A18, by keyboard alone."""
    await two_of_ada(running)
    page = await signed_in(context, running)
    await page.locator("#rows li", has_text="Where is my parcel?").locator("a").click()
    await merge(page)
    await page.goto(f"{running.settings.server.public_url}/inbox/all?ticket=1")
    area, ways = page.locator("textarea[name=text]"), page.locator("select[name=to]")
    stop = page.locator("[data-stop]")
    await expect(stop).to_be_hidden()
    mail = await ways.locator("option", has_text=MAIL).get_attribute("value")
    await ways.select_option(mail)
    await expect(stop).to_contain_text("They last wrote from +1 202-555-0123. An agent merged")
    await area.fill("As you wrote: it comes tomorrow.")
    await page.keyboard.press("Control+Enter")
    tick = page.get_by_role("checkbox", name="Send it there all the same")
    await expect(tick).to_be_focused()
    await expect(page.get_by_role("alert")).to_contain_text("Not sent yet")
    await expect(area).to_have_value("As you wrote: it comes tomorrow.")
    await expect(page.locator(".message.out")).to_have_count(0)
    # A live message must not answer for the agent.
    await hear(running, "whatsapp", Claim("phone", ADA, Proof.CHANNEL), text="Hello?")
    await expect(page.get_by_role("log")).to_contain_text("Hello?")
    await expect(tick).to_be_focused()
    await expect(tick).not_to_be_checked()
    await page.keyboard.press("Space")
    await expect(page.get_by_role("alert")).to_have_text("")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".message.out")).to_contain_text("it comes tomorrow")
    # Asked once; chosen anew, asked anew.
    await expect(tick).to_be_checked()
    await ways.select_option(label="WhatsApp · +1 202-555-0123")
    await expect(stop).to_be_hidden()
    await ways.select_option(mail)
    await expect(tick).not_to_be_checked()
    # A note stays here, and is asked nothing.
    await page.get_by_role("tab", name="Note").click()
    await expect(stop).to_be_hidden()
    await page.get_by_role("textbox", name="Write a note for your team").fill("Told her by mail.")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".message.note")).to_contain_text("Told her by mail.")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1_440])
async def test_the_pages_fit_and_can_be_read(context: BrowserContext, running: Running, width: int, theme: str) -> None:
    await two_of_ada(running)
    page = await signed_in(context, running)
    await page.set_viewport_size({"width": width, "height": 844})
    await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    base = running.settings.server.public_url
    for path in (
        "/customers/suggestions",
        "/customers/1/merge?q=ada",
        "/customers/1/merge/2",
        "/tickets/1/move?to=2",
        "/inbox/all?ticket=1",
    ):
        await page.goto(base + path)
        if path.startswith("/inbox") and width < 1_241:
            await page.locator(".head [data-customer-pane]").click()
        measured = await page.evaluate(MEASURE)
        assert not measured["scrolls"], path
        assert measured["ratios"], path
        assert min(measured["ratios"]) >= 4.5, path  # WCAG 2.2, 1.4.3
        assert not measured["small"], path  # 2.5.8


MEASURE = """() => {
  const luminance = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (let n = node; n; n = n.parentElement) {
    const c = getComputedStyle(n).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } };
  const ratio = (node) => { const [a, b] = [getComputedStyle(node).color, behind(node)].map(luminance).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); };
  const root = document.querySelector('.about') ?? document.querySelector('main');
  const texts = [...root.querySelectorAll('p, li, dt, dd, strong, a, button, h1, h2, h3, span, label')]
    .filter((n) => n.offsetHeight && [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim()));
  const controls = [...root.querySelectorAll('button, .button, input, summary.icon-button')].filter((n) => n.offsetHeight);
  return { scrolls: document.documentElement.scrollWidth > innerWidth, ratios: texts.map(ratio),
    small: controls.filter((n) => n.offsetHeight < 24).length };
}"""
