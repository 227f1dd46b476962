"""The acceptance story W1, played by people: the sandbox in one tab, the inbox in another, nothing reloaded by hand."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import BrowserContext, expect

from hub.app import Running
from tests.browser.conftest import signed_in

pytestmark = pytest.mark.browser


async def test_w1_a_question_holds_marketing_until_resolved_and_sms_continues_it(context: BrowserContext, running: Running) -> None:
    state = running.sandbox.state
    inbox = await signed_in(context, running)
    await expect(inbox.locator("#list-empty")).to_contain_text("All clear")
    stand = await context.new_page()
    await stand.goto(f"{running.settings.server.public_url}/sandbox")

    # A question by WhatsApp appears in the open inbox by itself, is posted to Slack, and holds marketing.
    await stand.fill("#phone-text", "Where is my parcel?")
    await stand.click("#phone-send")
    row = inbox.locator("#rows li")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("Ada Okafor")
    await expect(row).to_contain_text("Marketing held")
    await expect(inbox.locator('a[href="/inbox/open"] >> text=1').first).to_be_visible()
    post = stand.locator("#slack-posts li")
    await expect(post).to_contain_text("Ada Okafor")
    hook = stand.locator('#hooks li[data-type="hold.placed"]')
    await expect(hook).to_have_count(1)
    await expect(hook).to_contain_text("erified")
    await stand.click("#campaign-send")
    ada = stand.locator("#campaign-lines li", has_text="Ada Okafor")
    await expect(ada).to_have_attribute("data-outcome", "skipped")
    await expect(stand.locator("#campaign-lines li", has_text="Ben Lindqvist")).to_have_attribute("data-outcome", "sent")

    # The agent answers; it arrives on the phone, and the inbox shows that it was read.
    await row.locator("a").click()
    await expect(inbox.locator("#head h1")).to_have_text("Ada Okafor")
    await inbox.fill("textarea[name=text]", "It arrives tomorrow before noon.")
    await inbox.keyboard.press("Control+Enter")
    await expect(stand.locator("#thread")).to_contain_text("It arrives tomorrow before noon.")
    await expect(inbox.locator("#timeline, [id^=timeline]").first).to_contain_text("Read")

    # Resolved: released everywhere, and the campaign goes out.
    await inbox.click('[data-act="resolve"]')
    await expect(stand.locator('#hooks li[data-type="hold.released"]')).to_have_count(1)
    await expect(post).to_contain_text("Resolved")
    await expect(stand.locator("#held")).not_to_contain_text("Ada")
    await stand.click("#campaign-send")
    await expect(ada).to_have_attribute("data-outcome", "sent")

    # The same number by SMS: the same conversation, reopened and held again.
    await stand.click("#app-sms")
    await stand.fill("#phone-text", "It still is not here.")
    await stand.click("#phone-send")
    await expect(inbox.locator("#rows li")).to_contain_text("It still is not here.")
    await expect(inbox.locator("#head")).to_contain_text("#1")
    await expect(stand.locator('#hooks li[data-type="hold.placed"]')).to_have_count(2)
    await stand.click("#campaign-send")
    await expect(ada).to_have_attribute("data-outcome", "skipped")
    assert len(state.slack_posts) == 1, "one post a ticket, brought up to date"
    assert all(hook.verified for hook in state.hooks)
    assert "Ada" in json.dumps(state.slack_posts[0].blocks)


async def test_a_mail_and_a_signed_visitor_of_the_chat_are_one_conversation(context: BrowserContext, running: Running) -> None:
    inbox = await signed_in(context, running)
    stand = await context.new_page()
    await stand.goto(f"{running.settings.server.public_url}/sandbox")

    # A mail, answered by mail in its own thread.
    await stand.fill("#mail-subject", "Invoice 1042")
    await stand.fill("#mail-text", "Could you send me the invoice again?")
    await stand.click("#mail-send")
    await inbox.locator("#rows li a").click()
    await expect(inbox.locator("#head h1")).to_have_text("Ada Okafor")
    await inbox.fill("textarea[name=text]", "Of course: it is attached to your order page.")
    await inbox.keyboard.press("Control+Enter")
    mail = stand.locator("#mail-list li", has_text="Re: Invoice 1042")
    await expect(mail).to_be_visible()
    sent = running.sandbox.state.mails[0]
    said = running.sandbox.state.said[0]
    assert sent.in_reply_to == said.message_id
    assert said.message_id in sent.references
    assert sent.reply_to.startswith("support+")

    # An anonymous visitor is a stranger ...
    shop = stand.frame_locator("#shop-frame")
    await shop.locator("button[aria-expanded]").click()
    await shop.get_by_role("textbox", name="Your message").fill("Is the throw washable?")
    await stand.keyboard.press("Enter")
    await expect(inbox.locator("#rows li")).to_have_count(2)
    # ... until the shop's signed word says who it is: then both are one person, with the mail's history beside it.
    await stand.keyboard.press("Escape")  # the panel closes
    await shop.get_by_role("button", name="Sign in").click()
    await expect(inbox.locator("#rows li")).to_have_count(2)
    await expect(inbox.locator("#rows li", has_text="Is the throw washable?")).to_contain_text("Ada Okafor")
    await inbox.locator("#rows li", has_text="Is the throw washable?").locator("a").click()
    # Both tickets show the same history: an answer typed before the second one is there would go by mail.
    await expect(inbox.locator("article.pane")).to_have_attribute("data-ticket", "2")
    timeline = inbox.locator("#timeline, [id^=timeline]").first
    await expect(timeline).to_contain_text("Could you send me the invoice again?")
    await expect(timeline).to_contain_text("Is the throw washable?")

    # The answer goes back to the chat, and shows there without the mail's history.
    await inbox.fill("textarea[name=text]", "Yes, at thirty degrees.")
    await inbox.keyboard.press("Control+Enter")
    await shop.locator("button[aria-expanded]").click()
    log = shop.get_by_role("log")
    await expect(log).to_contain_text("Yes, at thirty degrees.")
    await expect(log).not_to_contain_text("invoice")
