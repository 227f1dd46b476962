"""The chat widget in a real Chromium, on another site's page with a strict Content Security Policy, against the whole hub.

axe-core comes with axe-playwright-python (MIT; axe-core itself MPL-2.0) and is used by these tests alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, async_playwright, expect
from sqlalchemy import text as sql

from hub.app import Running
from hub.config import Settings, load
from hub.conversations.commands import Reply
from hub.web import chat
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.conftest import sandbox_config
from tests.storage import fresh_database

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

SHOTS = os.environ.get("WIDGET_SCREENSHOTS", "")  # a folder: where pictures of the panel are left to look at
CONFIG: dict[str, Any] = {
    "title": "Fjord & Finch",
    "welcome": "Hello! How can we help?",
    "greeting": None,
    "language": "en",
    "accent": "",
    "position": "right",
    "prechat": [],
    "hours": None,
    "max_file_bytes": 5_000_000,
    "file_types": "image/*,.pdf,text/plain",
    "privacy": None,
    "languages": ["en"],
}
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass
class Stand:
    """A hub, a shop on another origin, and a browser: made once for all of these tests."""

    settings: Settings
    running: Running
    browser: Browser
    shop: str
    faults: list[str] = field(default_factory=list)

    @property
    def hub(self) -> str:
        return str(self.settings.server.public_url)

    @asynccontextmanager
    async def visit(
        self, config: dict[str, Any] | None = None, query: str = "", tolerated: str = r"ERR_|status of 4", **options: Any
    ) -> AsyncIterator[tuple[BrowserContext, Page]]:
        """A new visitor on the shop's page, told this configuration. Leaving it fails on any error the page reported."""
        context = await self.browser.new_context(**({"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"} | options))
        faults: list[str] = []
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        told = json.dumps(CONFIG | (config or {}))

        async def configured(route: Route) -> None:
            await route.fulfill(body=told, content_type="application/json", headers={"Access-Control-Allow-Origin": "*"})

        async def typed(route: Route) -> None:
            await route.fulfill(status=204, headers={"Access-Control-Allow-Origin": "*"})

        await context.route("**/chat/chat/config", configured)
        await context.route("**/chat/chat/typing", typed)
        page = await context.new_page()
        await page.goto(f"{self.shop}/{query}")
        await page.locator("hub-chat").wait_for(state="attached")
        try:
            yield context, page
        finally:
            await context.close()
        assert [fault for fault in faults if not re.search(tolerated, fault)] == []

    async def stored(self, text: str) -> list[Any]:
        statement = sql("SELECT id, ticket_id, text FROM message WHERE direction = 'in' AND text LIKE :text ORDER BY id")
        return list(await self.running.hub.reader.all(statement.bindparams(text=text)))

    async def answer(self, question: str, text: str) -> None:
        (row,) = await self.stored(question)
        await self.running.hub.writer.run(Reply(row.ticket_id, 1, text, f"draft {row.id}"))


@asynccontextmanager
async def shop_page(hub: str) -> AsyncIterator[tuple[str, web.Application]]:
    """A shop on an origin of its own, whose policy allows nothing but the hub."""
    policy = (
        f"default-src 'none'; script-src {hub}; connect-src {hub}; style-src {hub}; img-src {hub} data: blob:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'"
    )

    async def page(request: web.Request) -> web.Response:
        language, direction = request.query.get("lang", "en"), request.query.get("dir", "ltr")
        page = " data-page" if "page" in request.query else ""
        scripts = f'<script src="{hub}/widget.js" data-channel="chat"{page} async></script>' * int(request.query.get("scripts", "1"))
        html = f"""<!doctype html><html lang="{language}" dir="{direction}"><head><meta charset="utf-8"><title>A shop</title>
          <meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">{scripts}</head>
          <body><main><h1>Warm things</h1><a href="#lamp">Harbour lamp</a></main></body></html>"""
        return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": policy})

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", app
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    directory = tmp_path_factory.mktemp("widget")
    config = sandbox_config(directory)
    found = re.search(r"public_url: (\S+)", config.read_text())
    assert found is not None
    async with shop_page(found[1]) as (shop, _):
        config.write_text(config.read_text().replace("origins: []", f"origins: [{shop}]"))
        fresh_database(directory / "data")
        settings = load(config, {key: value for key, value in os.environ.items() if not key.startswith("HUB_")})
        running = Running(settings)
        await running.start()
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            stand = Stand(settings, running, browser, shop)
            try:
                yield stand
            finally:
                await browser.close()
                await stand.running.stop()


async def until(page: Page, expression: str) -> None:
    """Wait for it frame by frame: Playwright's own waiting evaluates strings in the page, whose policy forbids that."""
    async with asyncio.timeout(15):
        while not await page.evaluate(expression):
            await page.evaluate("new Promise(requestAnimationFrame)")


async def opened(page: Page) -> Locator:
    await page.locator("button[aria-expanded]").click()
    return page.locator("textarea")


async def shot(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


# --- the script ---


async def test_the_script_is_one_small_file_that_reads_nothing_as_html() -> None:
    script, compressed, _ = chat._widget()
    assert len(compressed) < 20_000
    assert not re.findall(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\('style'", script)
    assert set(re.findall(rb"https?://[a-z.]+", script)) <= {b"http://www.w"}


async def test_every_language_has_every_word_with_its_blank() -> None:
    script = chat._widget()[0].decode()
    found = re.search(r"const KEYS = \((.*?)\)\.split", script, re.DOTALL)
    assert found is not None
    keys = "".join(re.findall(r"'([^']*)'", found[1])).split("|")
    words = {name: line.split("|") for name, line in re.findall(r"^([a-z]{2}): '(.*)',$", script.replace("\n  ", "\n"), re.MULTILINE)}
    assert set(words) >= {"en", "de", "fr", "es", "pt", "it", "nl", "tr", "pl", "ar"}
    for name, told in words.items():
        assert len(told) == len(keys), name
        assert all(told), name
        assert [key for key, word in zip(keys, told, strict=True) if "{}" in word] == [
            key for key, word in zip(keys, words["en"], strict=True) if "{}" in word
        ], name


# --- talking ---


async def test_under_a_strict_policy_question_answer_and_marks_travel(stand: Stand) -> None:
    async with stand.visit() as (_, page):
        text = await opened(page)
        await expect(text).to_be_focused()
        await text.fill("Is the lamp <b>bright</b>? https://shop.example/lamp.")
        await page.keyboard.press("Enter")
        log = page.get_by_role("log")
        await expect(log.locator(".you")).to_contain_text("Sent · ")
        assert await log.locator("b").count() == 0
        link = log.get_by_role("link")
        await expect(link).to_have_attribute("href", "https://shop.example/lamp")
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
        await page.keyboard.press("Escape")
        await expect(page.locator(".panel")).to_be_hidden()
        await page.evaluate(
            "() => { window.heard = []; HubChat('on', { message: (m) => heard.push(m.text), unread: (u) => heard.push(u.count) }); }"
        )
        await stand.answer("Is the lamp%", "Bright enough to read by.")
        await expect(page.get_by_role("button", name="1 unread")).to_be_visible()
        await expect(page).to_have_title("(1) A shop")
        await page.locator("button[aria-expanded]").click()
        await expect(log).to_contain_text("Bright enough to read by.")
        await expect(page).to_have_title("A shop")
        await until(page, "heard.length >= 3")
        assert sorted(map(str, await page.evaluate("heard"))) == ["0", "1", "Bright enough to read by."]
        await page.reload()
        await opened(page)
        await expect(log).to_contain_text("Bright enough to read by.")


async def test_what_is_written_offline_arrives_once_and_in_order(stand: Stand) -> None:
    async with stand.visit() as (context, page):
        text = await opened(page)
        await text.fill("Queue: begin")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        await context.set_offline(True)
        await expect(page.get_by_text("You are offline.")).to_be_visible()
        for number in range(3):
            await text.fill(f"Queue: {number}")
            await page.keyboard.press("Enter")
        await expect(page.get_by_text("Waiting for a connection")).to_have_count(3)
        await shot(page, "offline")
        queue = await page.evaluate(
            "() => Object.values(localStorage).map((kept) => JSON.parse(kept).queue).flat().map((entry) => entry.text)"
        )
        assert queue == ["Queue: 0", "Queue: 1", "Queue: 2"]
        await context.set_offline(False)
        await expect(page.get_by_text("Waiting for a connection")).to_have_count(0)
        await expect(page.get_by_text("Sending…")).to_have_count(0)
        await expect(page.get_by_text("You are offline.")).to_have_count(0)
        await expect(page.locator(".you")).to_have_count(4)
        assert [row.text for row in await stand.stored("Queue:%")] == ["Queue: begin", "Queue: 0", "Queue: 1", "Queue: 2"]


async def test_an_answer_lost_on_the_way_does_not_double_the_message(stand: Stand) -> None:
    async with stand.visit() as (context, page):
        lost: list[str] = []

        async def swallow(route: Route) -> None:
            if not lost and route.request.method == "POST":
                lost.append(json.loads(route.request.post_data or "{}")["id"])
                await route.fetch()  # the hub stores it; the browser never hears so
                await route.abort("connectionreset")
            else:
                await route.continue_()

        await context.route("**/in/chat", swallow)
        text = await opened(page)
        await text.fill("Lost once")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        assert len(lost) == 1
        await expect(page.locator(".you")).to_have_count(1)
        assert len(await stand.stored("Lost once")) == 1


async def test_a_hub_that_stops_and_starts_again_loses_and_doubles_nothing(stand: Stand) -> None:
    async with stand.visit() as (_, page):
        text = await opened(page)
        await text.fill("Restart: before")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        await stand.running.stop()
        await text.fill("Restart: meanwhile")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Sending…")).to_have_count(1)
        stand.running = Running(stand.settings)
        await stand.running.start()
        await expect(page.get_by_text("Sending…")).to_have_count(0)
        await expect(page.locator(".you")).to_have_count(2)
        assert [row.text for row in await stand.stored("Restart:%")] == ["Restart: before", "Restart: meanwhile"]
        await stand.answer("Restart: before", "We are up again.")
        await expect(page.get_by_role("log")).to_contain_text("We are up again.")


async def test_a_refusal_for_now_is_said_plainly_and_waited_out(stand: Stand) -> None:
    async with stand.visit() as (context, page):
        times: list[int] = []

        async def busy(route: Route) -> None:
            times.append(1)
            if len(times) > 1:
                await route.continue_()
                return
            headers = {"Access-Control-Allow-Origin": stand.shop, "Access-Control-Expose-Headers": "Retry-After", "Retry-After": "1"}
            await route.fulfill(status=429, headers=headers, body='{"error": "Too many"}')

        await context.route("**/in/chat", busy)
        text = await opened(page)
        await text.fill("Patience")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("That was a lot at once. The rest is sent in 1 s.")).to_be_visible()
        await expect(page.locator(".you")).to_contain_text("Sent")
        await expect(page.get_by_text("That was a lot at once.")).to_have_count(0)


async def test_typing_is_told_both_ways_and_sparingly(stand: Stand) -> None:
    async with stand.visit() as (_, page):
        told: list[Any] = []
        page.on("request", lambda request: told.append(json.loads(request.post_data or "{}")) if request.url.endswith("/typing") else None)
        text = await opened(page)
        await text.press_sequentially("Typing: one")
        assert told == [], "nobody waits for an answer to nothing"
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent · ")
        await until(page, "document.querySelector('hub-chat').messages.size === 1")
        await text.press_sequentially("Typing: two")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_have_count(2)
        assert [body["typing"] for body in told] == [True, False]
        frame = "document.querySelector('hub-chat').take({ typing: { name: 'Mia' } })"
        await page.evaluate(frame)
        await expect(page.get_by_text("Mia is typing…")).to_be_visible()
        await stand.answer("Typing: one", "Typed.")
        await expect(page.get_by_role("log")).to_contain_text("Typed.")
        await expect(page.get_by_text("Mia is typing…")).to_have_count(0)


async def test_the_link_of_a_mail_goes_on_with_the_chat_and_leaves_no_token_behind(stand: Stand) -> None:
    async with stand.visit() as (context, page):
        text = await opened(page)
        await text.fill("Linked: hello")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        token = await page.evaluate("Object.values(localStorage).map((kept) => JSON.parse(kept).token).find(Boolean)")
    async with stand.visit() as (context, page):
        asked: list[Any] = []

        async def exchange(route: Route) -> None:
            asked.append(json.loads(route.request.post_data or "{}"))
            await route.fulfill(body=json.dumps({"token": token}), headers={"Access-Control-Allow-Origin": "*"})

        await context.route("**/chat/chat/continue", exchange)
        await page.goto(f"{stand.shop}/?page=1#one-time-token")
        await expect(page.get_by_role("log")).to_contain_text("Linked: hello")
        assert asked == [{"token": "one-time-token"}]
        assert page.url == f"{stand.shop}/"
        box = await page.locator(".panel").bounding_box()
        assert box is not None
        assert box["height"] == 800
        await page.keyboard.press("Escape")
        await expect(page.locator("textarea")).to_be_visible()
        await shot(page, "page")


# --- files ---


async def test_files_come_by_drop_and_by_paste_and_odd_ones_are_named(stand: Stand) -> None:
    async with stand.visit() as (_, page):
        text = await opened(page)
        transfer = """(type) => (node, [name, kind, data]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type: kind }));
          const Kind = type === 'paste' ? ClipboardEvent : DragEvent;
          const key = type === 'paste' ? 'clipboardData' : 'dataTransfer';
          node.dispatchEvent(new Kind(type, { bubbles: true, cancelable: true, composed: true, [key]: transfer }));
        }"""

        def act(type_: str) -> str:
            return f"(node, file) => ({transfer})({type_!r})(node, file)"

        panel = page.locator(".panel")
        await panel.evaluate(act("dragenter"), ["lamp.png", "image/png", PICTURE])
        await expect(page.locator(".drop")).to_be_visible()
        await panel.evaluate(act("drop"), ["lamp.png", "image/png", PICTURE])
        await expect(page.locator(".drop")).to_be_hidden()
        await expect(page.get_by_role("button", name="Remove lamp.png")).to_be_visible()
        await text.evaluate(act("paste"), ["screen.png", "image/png", PICTURE])
        await expect(page.get_by_role("button", name="Remove screen.png")).to_be_visible()
        await text.evaluate(act("paste"), ["run.exe", "application/x-msdownload", PICTURE])
        await expect(page.get_by_text("run.exe: we do not take this kind of file.")).to_be_visible()
        await shot(page, "files")
        await page.get_by_role("button", name="Remove screen.png").click()
        await text.fill("Files: the lamp")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name=re.compile("^lamp.png"))).to_be_visible()
        (row,) = await stand.stored("Files:%")
        names = await stand.running.hub.reader.all(sql("SELECT name FROM attachment WHERE message_id = :id").bindparams(id=row.id))
        assert [name for (name,) in names] == ["lamp.png"]


# --- what is asked first ---

PRECHAT = [
    {"name": "name", "label": {"en": "Your name", "de": "Ihr Name"}, "type": "text", "required": True},
    {"name": "topic", "label": "Topic", "type": "select", "options": ["Order", "Return"], "required": False},
]
AWAY = {"open": False, "opens_at": "2099-01-05T08:00:00+00:00", "text": ""}


async def test_fields_before_the_first_message_are_asked_once_and_go_with_it(stand: Stand) -> None:
    privacy = {"text": "How we treat what you write", "url": "https://shop.example/privacy"}
    async with stand.visit({"prechat": PRECHAT, "hours": AWAY, "privacy": privacy}) as (_, page):
        sent: list[dict[str, Any]] = []
        page.on(
            "request",
            lambda request: sent.append(json.loads(request.post_data)) if "/in/chat" in request.url and request.post_data else None,
        )
        await opened(page)
        name, mail = page.get_by_role("textbox", name="Your name"), page.get_by_role("textbox", name="E-mail")
        await expect(name).to_be_focused()
        await expect(page.get_by_text("We are away just now.")).to_contain_text("We are back ")
        await shot(page, "prechat-away")
        text = page.locator("textarea")
        await text.fill("Fields: hello")
        await text.press("Enter")
        await expect(name).to_have_attribute("aria-invalid", "true")
        await expect(name).to_be_focused()
        await name.fill("Ada")
        await mail.fill("ada at home")
        await page.get_by_label("Topic").select_option("Return")
        await text.press("Enter")
        await expect(page.locator("#wrong-email")).to_have_text("Please check this.")
        assert sent == []
        await mail.fill("ada@example.org")
        await text.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        await expect(name).to_have_count(0)
        (body,) = sent
        assert body["fields"] == {"name": "Ada", "topic": "Return", "email": "ada@example.org"}
        assert body["email"] == "ada@example.org"
        assert body["page"] == {"url": f"{stand.shop}/", "title": "A shop"}
        assert body["language"] == "en"
        await text.fill("Fields: again")
        await text.press("Enter")
        await expect(page.locator(".you").last).to_contain_text("Sent")
        assert len(await stand.stored("Fields:%")) == 2


async def test_a_greeting_comes_once(stand: Stand) -> None:
    async with stand.visit({"greeting": {"text": {"en": "Looking for a lamp?"}, "after_seconds": 0}}) as (_, page):
        bubble = page.get_by_role("button", name="Looking for a lamp?")
        await expect(bubble).to_be_visible()
        await shot(page, "greeting")
        await page.get_by_role("button", name="Close chat").click()
        await expect(bubble).to_be_hidden()
        await page.reload()
        await expect(page.locator("button[aria-expanded]")).to_be_visible()
        await until(page, "Object.values(localStorage).some((kept) => JSON.parse(kept).greeted)")
        await expect(bubble).to_be_hidden()


# --- how it looks, sounds and is steered ---


@pytest.mark.parametrize(("language", "direction", "words"), [("ar", "rtl", "رسالتك"), ("de-AT", "ltr", "Ihre Nachricht")])
async def test_it_speaks_the_pages_language_and_its_direction(stand: Stand, language: str, direction: str, words: str) -> None:
    async with stand.visit({"position": ""}, f"?lang={language}&dir={direction}") as (_, page):
        text = await opened(page)
        await expect(text).to_have_attribute("aria-label", words)
        await expect(page.locator("hub-chat")).to_have_attribute("dir", direction)
        box = await page.locator(".panel").bounding_box()
        assert box is not None
        assert (box["x"] < 100) == (direction == "rtl")
        await text.fill("Hello, مرحبا")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you time")).to_be_visible()
        await shot(page, f"language-{language}")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing_in_the_open_panel(stand: Stand, theme: Any, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="axe-playwright-python is not installed")
    config = {"prechat": PRECHAT, "hours": AWAY, "privacy": {"text": "Privacy", "url": "https://shop.example/p"}, "accent": "#ffd400"}
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": theme, "has_touch": width == 390}
    async with stand.visit(config, reduced_motion="reduce", **options) as (_, page):
        await opened(page)
        await shot(page, f"form-{width}-{theme}")
        found = await axe.Axe().run(page)
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found.response["violations"]] == []
        await page.get_by_label("Your name").fill("Ada")
        await page.get_by_label("E-mail").fill("ada@example.org")
        await page.locator("textarea").fill(f"Axe {theme} {width}: is it in stock?")
        await page.locator("textarea").press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        await stand.answer(f"Axe {theme} {width}%", "It is, and it leaves tomorrow.")
        await expect(page.get_by_role("log")).to_contain_text("It is, and it leaves tomorrow.")
        await shot(page, f"talk-{width}-{theme}")
        found = await axe.Axe().run(page)
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found.response["violations"]] == []


async def test_on_a_phone_the_panel_is_the_screen_and_keeps_the_keyboard_inside(stand: Stand) -> None:
    async with stand.visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True, reduced_motion="reduce") as (_, page):
        await page.locator("button[aria-expanded]").tap()
        box = await page.locator(".panel").bounding_box()
        assert box == {"x": 0, "y": 0, "width": 390, "height": 780}
        await expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
        for _ in range(12):
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.localName") == "hub-chat"
        await page.set_viewport_size({"width": 390, "height": 400})  # as a keyboard leaves it
        for _ in range(300):  # frames: the page is laid out again
            await page.evaluate("new Promise(requestAnimationFrame)")
            send = await page.get_by_role("button", name="Send").bounding_box()
            if send is not None and send["y"] + send["height"] <= 400:
                break
        assert send is not None
        assert send["y"] + send["height"] <= 400


async def test_by_keyboard_alone(stand: Stand) -> None:
    async with stand.visit() as (_, page):
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Harbour lamp")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("textarea")).to_be_focused()
        await page.keyboard.type("Keys only")
        await page.keyboard.press("Enter")
        await expect(page.locator(".you")).to_contain_text("Sent")
        await page.keyboard.press("Escape")
        await expect(page.locator("button[aria-expanded]")).to_be_focused()


async def test_many_script_tags_and_a_replaced_body_are_one_chat(stand: Stand) -> None:
    async with stand.visit(query="?scripts=3") as (_, page):
        await expect(page.locator("hub-chat")).to_have_count(1)
        text = await opened(page)
        await text.fill("One page: half a sen")
        await page.evaluate(
            "() => { const body = document.createElement('body'); document.body.replaceWith(body); history.pushState(null, '', '/two'); }"
        )
        await expect(page.locator("hub-chat")).to_have_count(1)
        await expect(text).to_have_value("One page: half a sen")
        await page.evaluate(
            "() => { document.body.replaceChildren(); HubChat('close'); HubChat('send', { text: 'One page: sent by the page' }); }"
        )
        await expect(page.locator("hub-chat")).to_have_count(1)
        await page.evaluate("HubChat('toggle')")
        await expect(page.locator(".you")).to_contain_text("Sent")
        assert [row.text for row in await stand.stored("One page:%")] == ["One page: sent by the page"]


@pytest.mark.parametrize(("accent", "on"), [("#ffd400", "rgb(0, 0, 0)"), ("#14304f", "rgb(255, 255, 255)")])
async def test_what_stands_on_the_accent_can_be_read(stand: Stand, accent: str, on: str) -> None:
    async with stand.visit({"accent": accent, "position": "left"}) as (_, page):
        await opened(page)
        await expect(page.locator(".head")).to_have_css("color", on)
        box = await page.locator("button[aria-expanded]").bounding_box()
        assert box is not None
        assert box["x"] < 100
        await page.evaluate("HubChat('config', { accent: '#ffffff', title: 'Ask us' })")
        await expect(page.locator(".head")).to_have_css("color", "rgb(0, 0, 0)")
        await expect(page.get_by_role("dialog", name="Ask us")).to_be_visible()
