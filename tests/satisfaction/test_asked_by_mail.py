"""The whole way of a survey, over the stand-in mail server: resolved, asked by mail, answered in the page, held, told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import aiohttp
import pytest

from hub.agents import CreateAgent
from hub.app import Running
from hub.config import SatisfactionSettings, Settings
from hub.conversations.commands import Reply, Resolve
from hub.conversations.following_up import AddFollowUp, keep, waiting_for
from tests.conftest import configured
from tests.storage import email, heard, message


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """The shipped configuration, asking at once and at any hour."""
    asking = SatisfactionSettings(kind="csat", delay_minutes=0, quiet_from="00:00", quiet_until="00:00")
    with configured(tmp_path, "sqlite") as built:
        yield built.model_copy(update={"satisfaction": asking})


async def test_a_customer_is_asked_by_mail_and_a_bad_answer_holds_marketing(running: Running) -> None:
    assert running.sandbox is not None
    hub, state = running.hub, running.sandbox.state
    agent = await hub.writer.run(CreateAgent("ada@shop.example", "Ada", "agent", "x"))
    mail = hub.channels["email"].rule.id
    await hub.writer.run(heard(mail, message(email("noor@mail.example"), subject="Order 1001", text="Where is it?", message_id="<a@mail>")))
    await hub.writer.run(Reply(1, agent, "It comes tomorrow.", "draft-1"))
    await hub.writer.run(Resolve(1, agent))
    assert await running._asking.ask_due() == 1
    answered, asked = await state.wait_for(lambda: state.mails[:2] if len(state.mails) == 2 else None)
    assert message_from_bytes(answered.raw)["Auto-Submitted"] is None, "an agent's answer is no machine's"
    assert message_from_bytes(asked.raw)["Auto-Submitted"] == "auto-generated"  # so that no out-of-office reply comes back
    assert (asked.recipients, asked.subject, asked.in_reply_to) == (("noor@mail.example",), "Re: Order 1001", "<a@mail>")
    (link,) = set(re.findall(r"http://\S+/s/[\w.-]+", asked.text))
    async with aiohttp.ClientSession() as http:
        for _ in range(3):  # a scanner on its way
            async with http.get(f"{link}?score=5") as page:
                assert page.status == 200
        async with http.post(link, data={"score": "1", "comment": "Late."}) as page:
            assert "Thank you!" in await page.text()
    held = await state.wait_for(lambda: next((hook for hook in state.hooks if "low_satisfaction" in hook.data.get("reasons", ())), None))
    assert held.verified
    assert "Late." not in str([hook.data for hook in state.hooks]), "what customers write is told to nobody"


async def test_a_promise_is_kept_by_mail_in_the_agent_s_name(running: Running) -> None:
    assert running.sandbox is not None
    hub, state = running.hub, running.sandbox.state
    agent = await hub.writer.run(CreateAgent("ada@shop.example", "Ada", "agent", "x"))
    mail = hub.channels["email"].rule.id
    await hub.writer.run(heard(mail, message(email("noor@mail.example"), subject="Order 1001", text="Where is it?", message_id="<a@mail>")))
    await hub.writer.run(AddFollowUp(1, agent, "order-1001-shipped", "It is on its way: {tracking}"))
    (row,) = await hub.reader.all(waiting_for("order-1001-shipped"))
    assert (await hub.writer.run(keep(row, {"tracking": "1Z999"}, "program:shop"))).outcome == "sent"
    (sent,) = await state.wait_for(lambda: state.mails[:1])
    assert sent.text.startswith("It is on its way: 1Z999")
    assert (sent.subject, sent.in_reply_to) == ("Re: Order 1001", "<a@mail>")
    assert message_from_bytes(sent.raw)["Auto-Submitted"] == "auto-generated"
