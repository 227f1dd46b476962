"""A real Chromium. Its tests skip, with the reason, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from hub.app import SANDBOX_AGENT, Running
from hub.serving import sandbox_login

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=15_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def context(browser: Browser, running: Running) -> AsyncIterator[BrowserContext]:
    """A browser profile whose pages must report no error; closed before the hub stops."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield context
    await context.close()
    assert faults == []


async def signed_in(context: BrowserContext, running: Running) -> Page:
    """The inbox, with the sandbox's agent signed in."""
    password = await sandbox_login(running.hub)
    page = await context.new_page()
    await page.goto(f"{running.settings.server.public_url}/login")
    await page.fill("input[name=email]", SANDBOX_AGENT)
    await page.fill("input[name=password]", password)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/inbox/open")
    return page
