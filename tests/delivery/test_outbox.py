"""The outbox against providers that misbehave: what is owed arrives once, or is shown; nothing is sent twice in doubt.

The whole hub runs, with the stand-in providers told to fail. Its clock stands still and is moved by hand, so no test waits.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from connectors.sandbox.state import MailFile, SandboxState
from hub.app import Running
from hub.config import Settings
from hub.contract import NoAnswer, NotSent, Refused, TryLater, Unknown
from hub.conversations.commands import Assign, Reply, Resolve
from hub.delivery.attempt import preparing
from hub.delivery.outbox import LAST_NOTES, Outbox, judge
from hub.delivery.pacing import HANDS
from hub.delivery.works import Claim, Finish, Retry, finish
from hub.storage.records import Delivery
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy, wall_clock
from tests.delivery import ADA, CHAT, MAIL, SMS, Clock, Ground, delivery, ground

MESSAGE, DELIVERY = metadata.tables["message"].c, metadata.tables["delivery"].c


@dataclass
class Stage:
    """The running hub and its stand-ins, both on a clock moved by hand."""

    running: Running
    clock: Clock
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> SandboxState:
        return self.running.sandbox.state

    async def until(self, check: Callable[[], Awaitable[Any]]) -> Any:
        """What `check` returns once that is true; asked again after each commit that touches the outbox."""
        async with asyncio.timeout(15):
            while not (found := await check()):
                await self.committed.wait()
                self.committed.clear()
            return found

    def later(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        self.running.hub.outbox.wake()

    async def reply(self, text: str, ticket_id: int = 1) -> int:
        replied = await self.running.hub.writer.run(Reply(ticket_id, 1, text, f"draft of {text}"))
        return replied.message_id

    async def message(self, message_id: int) -> tuple[str, str]:
        row = await self.running.hub.reader.first(select(MESSAGE.status, MESSAGE.error).where(MESSAGE.id == message_id))
        return tuple(row)

    async def shows(self, message_id: int, status: str) -> str:
        """Waits until a message shows this state; its error."""

        async def check() -> list[str]:
            now, error = await self.message(message_id)
            return [error] if now == status else []

        return (await self.until(check))[0]

    async def row(self, kind: str, state: str, tries: int = 1) -> Any:
        """Waits until the newest row of a kind is in this state and was tried so often."""

        async def check() -> Any:
            row = await self.running.hub.reader.first(select(*DELIVERY).where(DELIVERY.kind == kind).order_by(DELIVERY.id.desc()))
            return row if row is not None and row.state == state and row.attempt >= tries else None

        return await self.until(check)

    def texts(self) -> list[str]:
        return [message.body for message in self.state.twilio_messages]


@pytest.fixture
async def stage(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    clock, committed, wake = Clock(wall_clock()), asyncio.Event(), Outbox.wake

    def woken(outbox: Outbox) -> None:
        committed.set()
        wake(outbox)

    monkeypatch.setattr(Outbox, "wake", woken)  # called after every commit that touches the outbox
    running = Running(settings, clock)
    await running.start()
    running.sandbox.state.clock = running.hub.outbox.gates.clock = lambda: clock() / 1_000_000
    await running.sandbox.close()  # no delivery reports but those a test sends
    built = Stage(running, clock, committed)
    try:
        yield built
    finally:
        await running.stop()


@pytest.fixture
async def asked(stage: Stage) -> Stage:
    """... where Ada has asked something by WhatsApp, and all that follows from it has been told."""
    assert (await stage.running.sandbox.whatsapp(ADA, "Where is my parcel?", "Ada")).status == 200
    await stage.state.wait_for(lambda: stage.state.slack_posts and stage.state.hooks)
    await stage.row("card", "done")
    await stage.row("hold", "done")
    return stage


# --- answers by Twilio ---


async def test_a_provider_that_asks_for_patience_gets_it_and_the_answer_arrives_once(asked: Stage) -> None:
    asked.state.fail_next("twilio", status=429, retry_after=60)
    sent = await asked.reply("It comes tomorrow.")
    row = await asked.row("reply", "queued")
    assert 60 <= (row.due_at - asked.clock()) / 1_000_000 <= 66, "no sooner than asked, spread by a tenth"
    status, error = await asked.message(sent)
    assert (status, "busy" in error) == ("queued", True), "shown, with the reason"
    asked.later(59)
    # Somebody else's answer goes at once, and ours is still waiting.
    await asked.running.sandbox.sms("+12025550188", "Hello")
    await asked.reply("To somebody else.", 2)
    await asked.state.wait_for(lambda: asked.texts())
    assert asked.texts() == ["To somebody else."]
    asked.later(8)
    await asked.shows(sent, "sent")
    assert asked.texts().count("It comes tomorrow.") == 1


@pytest.mark.parametrize("failure", ["drop", 500])
async def test_an_answer_lost_on_the_way_is_unknown_and_never_sent_again_by_itself(asked: Stage, failure: Any) -> None:
    asked.state.fail_next("twilio", status=failure)
    sent = await asked.reply("It comes tomorrow.")
    assert "may have gone" in await asked.shows(sent, "unknown")
    await asked.row("reply", "unknown")
    carried_out = int(failure == "drop")
    # A day later: its lane is open again, and what is behind it leaves; it does not.
    second = await asked.reply("Anything else?")
    asked.later(86_400)
    await asked.shows(second, "sent")
    assert asked.texts().count("It comes tomorrow.") == carried_out
    assert (await asked.message(sent))[0] == "unknown"


async def test_the_providers_own_report_settles_what_was_unknown(asked: Stage) -> None:
    asked.state.fail_next("twilio", status="drop")
    sent = await asked.reply("It comes tomorrow.")
    await asked.shows(sent, "unknown")
    (message,) = asked.state.twilio_messages
    assert (await asked.running.sandbox.report(message, "delivered")).status == 200
    assert await asked.message(sent) == ("delivered", "")
    assert (await asked.row("reply", "done")).error == ""
    assert (await asked.running.sandbox.report(message, "sent")).status == 200
    assert await asked.message(sent) == ("delivered", ""), "and what comes later does not take it back"


async def test_a_person_may_send_again_what_is_unknown(asked: Stage) -> None:
    asked.state.fail_next("twilio", status=500)
    sent = await asked.reply("It comes tomorrow.")
    await asked.shows(sent, "unknown")
    row = await asked.row("reply", "unknown")
    await asked.running.hub.writer.run(Retry(row.id))
    await asked.shows(sent, "sent")
    assert asked.texts() == ["It comes tomorrow."]


async def test_a_refusal_is_shown_with_its_reason_and_the_next_answer_goes(asked: Stage) -> None:
    asked.state.fail_next("twilio", status=400)
    sent = await asked.reply("It comes tomorrow.")
    assert "internal server error" in (await asked.shows(sent, "failed")), "Twilio's own words"
    second = await asked.reply("Anything else?")
    await asked.shows(second, "sent")
    assert asked.texts() == ["Anything else?"]


# --- mail ---


async def test_a_mail_waits_while_the_mail_server_is_down_and_leaves_when_it_is_back(stage: Stage) -> None:
    sandbox, server = stage.running.sandbox, stage.running.sandbox.server
    assert (await sandbox.mail("ada@example.com", "Ada", "Parcel 7", "Where is it?")).status == 200
    question = stage.state.said[-1].message_id
    await server._mail.stop()
    sent = await stage.reply("It comes tomorrow.")
    await stage.row("reply", "queued")
    status, error = await stage.message(sent)
    assert (status, "cannot be reached" in error) == ("queued", True)
    await server._mail.start(server.smtp_port)
    stage.state.fail_next("mail", status=451)
    stage.later(10)
    row = await stage.row("reply", "queued", 2)
    assert "451" in row.error
    stage.later(20)
    await stage.shows(sent, "sent")
    (mail,) = stage.state.mails
    assert (mail.text.splitlines()[0], mail.subject, mail.recipients) == ("It comes tomorrow.", "Re: Parcel 7", ("ada@example.com",))
    assert (mail.in_reply_to, mail.references) == (question, (question,))
    assert "> Where is it?" in mail.text
    # What it asked answers to be sent to leads back to the ticket, and the chain goes on.
    assert (await sandbox.mail("ada@example.com", "Ada", "Re: Parcel 7", "Thank you, but when?", mail.message_id)).status == 200
    second = await stage.reply("At noon.")
    await stage.shows(second, "sent")
    answer = stage.state.said[-1].message_id
    assert stage.state.mails[-1].references == (question, mail.message_id, answer)
    assert stage.state.mails[-1].in_reply_to == answer
    assert stage.state.mails[-1].reply_to == mail.reply_to != "support@shop.example"


# --- the marketing tool ---


async def test_a_receiver_that_fails_is_told_again_under_the_same_id(asked: Stage) -> None:
    (placed,) = asked.state.hooks
    asked.state.fail_next("marketing", status=500)
    asked.state.fail_next("marketing", status="drop")  # it heard us, and we cannot know
    await asked.running.hub.writer.run(Resolve(1, 1))
    row = await asked.row("hold", "queued")
    assert "500" in row.error
    asked.later(3)
    await asked.row("hold", "queued", 2)
    asked.later(5)
    await asked.row("hold", "done")
    _, first, again = asked.state.hooks
    assert first.id == again.id != placed.id
    assert (first.type, first.data, first.time) == (again.type, again.data, again.time), "the same event, word for word"
    assert all(hook.verified for hook in asked.state.hooks), "signed anew each time"


async def test_a_receiver_that_is_gone_is_shown_and_holds_up_nothing(asked: Stage) -> None:
    asked.state.fail_next("marketing", status=410)
    await asked.running.hub.writer.run(Resolve(1, 1))
    row = await asked.row("hold", "failed")
    assert "410" in row.error
    await asked.running.sandbox.whatsapp(ADA, "Still not here", "Ada")
    await asked.state.wait_for(lambda: [hook.data["version"] for hook in asked.state.hooks] == [1, 3])
    assert (await asked.row("hold", "done")).id > row.id
    await asked.running.hub.writer.run(Retry(row.id))
    await asked.state.wait_for(lambda: [hook.data["version"] for hook in asked.state.hooks] == [1, 3, 2]), "by hand; the version tells"


async def test_a_receiver_that_asks_for_patience_gets_it(asked: Stage) -> None:
    asked.state.fail_next("marketing", status=503, retry_after=600)
    await asked.running.hub.writer.run(Resolve(1, 1))
    row = await asked.row("hold", "queued")
    assert 600 <= (row.due_at - asked.clock()) / 1_000_000 <= 660


# --- Slack ---


async def test_a_post_whose_answer_was_lost_is_not_posted_again_by_itself(stage: Stage) -> None:
    stage.state.fail_next("slack", status="drop")
    await stage.running.sandbox.whatsapp(ADA, "Where is my parcel?", "Ada")
    row = await stage.row("card", "unknown")
    assert "may or may not be there" in row.error
    stage.later(86_400)
    await stage.running.sandbox.sms("+12025550188", "Hello")
    await stage.state.wait_for(lambda: len(stage.state.slack_posts) == 2)
    shown = [json.dumps(post.blocks) for post in stage.state.slack_posts]
    assert ["parcel" in text for text in shown] == [True, False]


async def test_a_lost_update_is_made_again(asked: Stage) -> None:
    asked.state.fail_next("slack", status="drop")
    await asked.running.hub.writer.run(Resolve(1, 1))
    await asked.row("card", "queued")
    asked.later(10)
    await asked.row("card", "done")
    (post,) = asked.state.slack_posts
    assert post.updates == 2, "twice the same words in one post"
    assert "Resolved" in json.dumps(post.blocks)


# --- files ---


async def test_a_picture_is_fetched_after_a_failure_and_kept(stage: Stage) -> None:
    stage.state.fail_next("media", status=500)
    picture = MailFile(name="parcel.png", content_type="image/png", data=b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    await stage.running.sandbox.whatsapp(ADA, "", "Ada", picture)
    row = await stage.row("media", "queued")
    assert "500" in row.error
    stage.later(10)
    await stage.row("media", "done")
    attachment = metadata.tables["attachment"].c
    kept = await stage.running.hub.reader.first(select(attachment.state, attachment.sha256, attachment.size, attachment.content_type))
    assert (kept.state, kept.size, kept.content_type) == ("stored", len(picture.data), "image/png")
    assert stage.running.hub.blobs.get(kept.sha256) == picture.data


# --- the worker itself ---


class Gate:
    """A target that answers when it is let: a carrier, as the outbox knows it."""

    def __init__(self, *hanging: str) -> None:
        self.hanging = hanging or (SMS.name,)
        self.open = asyncio.Event()
        self.changed = asyncio.Event()
        self.under_way: list[Delivery] = []
        self.raises: list[Exception] = []

    async def carry(self, row: Delivery) -> Finish:
        self.under_way.append(row)
        self.changed.set()
        if self.raises:
            raise self.raises.pop(0)
        if row.target in self.hanging:
            await self.open.wait()
        return finish(row)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path) as laid:
        yield laid


async def test_a_slow_target_delays_no_other(hub: Ground) -> None:
    for number in range(HANDS + 4):
        await hub.answers(await hub.hears(f"+12025550{number + 130}"))
    mails = [await hub.answers(await hub.hears("ada@example.com", channel=MAIL), text) for text in ("one", "two", "three")]
    gate = Gate()
    outbox = Outbox(hub.writer, {"reply": gate})
    await outbox.start()
    try:
        await gate.until(lambda: sum(row.target == MAIL.name for row in gate.under_way) == len(mails))
        assert sum(row.target == SMS.name for row in gate.under_way) == HANDS, "its share of hands and no more"
        gate.open.set()
        await gate.until(lambda: len(gate.under_way) == HANDS + 4 + len(mails))
    finally:
        await outbox.stop()
    assert {row.state for row in await hub.deliveries()} == {"done"}


async def test_stopping_gives_what_is_under_way_time_to_end_and_leaves_the_rest(hub: Ground) -> None:
    for number in range(HANDS + 1):
        await hub.answers(await hub.hears(f"+12025550{number + 130}"))
    gate = Gate()
    outbox = Outbox(hub.writer, {"reply": gate})
    await outbox.start()
    await gate.until(lambda: len(gate.under_way) == HANDS)
    stopping = asyncio.create_task(outbox.stop())
    gate.open.set()
    await stopping
    assert sorted(row.state for row in await hub.deliveries()) == ["done"] * HANDS + ["queued"]


@pytest.mark.parametrize(
    ("channel", "sender", "state", "row_state"),
    [(SMS, ADA, "unknown", "unknown"), (CHAT, "device-1", "queued", "queued")],
    ids=["cannot be repeated", "can be repeated"],
)
async def test_what_does_not_end_in_time_is_broken_off_and_said_at_once(
    hub: Ground, channel: Any, sender: str, state: str, row_state: str
) -> None:
    sent = await hub.answers(await hub.hears(sender, channel=channel))
    gate = Gate(channel.name)
    outbox = Outbox(hub.writer, {"reply": gate})
    await outbox.start()
    await gate.until(lambda: gate.under_way)
    await outbox.stop(patience=0)
    message = await hub.row("message", sent)
    (row,) = await hub.deliveries()
    assert (message.status, row.state, row.lease_token, row.attempt) == (state, row_state, "", 1), "now, not when its lease runs out"
    assert "stopped" in message.error
    assert ("may have arrived" in message.error) == (state == "unknown")


async def test_what_was_only_being_prepared_is_given_back_as_if_never_tried(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    begun = asyncio.Event()

    class Reading:
        async def carry(self, row: Delivery) -> Finish:
            with preparing():
                begun.set()
                await asyncio.Event().wait()
            raise AssertionError("unreachable")

    outbox = Outbox(hub.writer, {"reply": Reading()})
    await outbox.start()
    await begun.wait()
    await outbox.stop(patience=0)
    (row,) = await hub.deliveries()
    assert (row.state, row.attempt, row.due_at, row.lease_token) == ("queued", 0, hub.clock.now, "")
    assert (await hub.row("message", sent)).status == "queued"


async def test_what_is_claimed_while_stopping_is_given_back(hub: Ground) -> None:
    await hub.answers(await hub.hears())
    gate = Gate()

    class Slow:
        """A writer whose commits take as long as the test likes."""

        clock = hub.clock
        asked, go = asyncio.Event(), asyncio.Event()

        async def run(self, work: Any) -> Any:
            if isinstance(work, Claim):
                self.asked.set()
                await self.go.wait()
            return await hub.writer.run(work)

        async def close(self) -> None: ...

    slow = Slow()
    outbox = Outbox(slow, {"reply": gate})
    await outbox.start()
    await slow.asked.wait()
    stopping = asyncio.create_task(outbox.stop())
    await outbox._stopping.wait()
    slow.go.set()
    await stopping
    (row,) = await hub.deliveries()
    assert (row.state, row.attempt, gate.under_way) == ("queued", 0, [])


async def test_stopping_ends_in_time_even_if_nothing_can_be_stored(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    gate = Gate()
    full = asyncio.Event()

    class Full:
        clock = hub.clock

        async def run(self, work: Any) -> Any:
            if full.is_set():
                raise StorageBusy("The disk is full.")
            return await hub.writer.run(work)

        async def close(self) -> None: ...

    outbox = Outbox(Full(), {"reply": gate})
    await outbox.start()
    await gate.until(lambda: gate.under_way)
    full.set()
    began = time.monotonic()
    await outbox.stop(patience=0)
    assert time.monotonic() - began < LAST_NOTES + 3
    assert (await hub.row("message", sent)).status == "sending", "the next start finds it, and calls it unknown"
    again = Outbox(hub.writer, {"reply": gate})
    await again.start()
    await again.stop()
    assert (await hub.row("message", sent)).status == "unknown"


async def test_a_start_beside_others_leaves_their_leases_alone(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    await hub.claims(token="another process")
    outbox = Outbox(hub.writer, {"reply": Gate()})
    await outbox.start(release_leases=False)
    await outbox.stop()
    assert (await hub.row("message", sent)).status == "sending"


async def test_tries_are_spread_by_chance(hub: Ground) -> None:
    for number in range(5):
        await hub.answers(await hub.hears(f"+12025550{number + 130}"))
    gate = Gate()
    gate.raises = [TryLater("busy") for _ in range(5)]
    outbox = Outbox(hub.writer, {"reply": gate}, random.Random(7))
    await outbox.start()
    await gate.until(lambda: len(gate.under_way) == 5)
    await outbox.stop()
    waits = [row.due_at - hub.clock() for row in await hub.deliveries()]
    assert len(set(waits)) == 5
    assert all(2_500_000 <= wait <= 5_000_000 for wait in waits)


async def test_a_mistake_of_ours_ends_one_delivery_and_not_the_worker(hub: Ground) -> None:
    first = await hub.answers(await hub.hears())
    gate = Gate()
    gate.open.set()
    gate.raises = [ValueError("+12025550123 is not what I expected")]
    outbox = Outbox(hub.writer, {"reply": gate})
    await outbox.start()
    await gate.until(lambda: gate.under_way)
    second = await hub.answers(await hub.hears("+12025550131"))
    outbox.wake()
    await gate.until(lambda: len(gate.under_way) == 2)
    await outbox.stop()
    broken = await hub.row("message", first)
    assert (broken.status, broken.error) == ("unknown", "Unexpected: ValueError."), "shown, without quoting anybody"
    assert (await hub.row("message", second)).status == "sent"


async def test_a_kind_nobody_carries_is_shown(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    outbox = Outbox(hub.writer, {})
    await outbox.start()

    async def shown() -> bool:
        return bool((await hub.row("message", sent)).error == "Unexpected: KeyError. Nothing was sent.")

    await hub.until(shown)
    await outbox.stop()
    assert (await hub.row("message", sent)).status == "failed"


async def test_a_worker_that_cannot_look_looks_again(hub: Ground) -> None:
    sent = await hub.answers(await hub.hears())
    gate = Gate()
    gate.open.set()

    troubles: list[Exception] = [StorageBusy("full"), RuntimeError("+12025550123")]

    class Moody:
        clock = hub.clock

        async def run(self, work: Any) -> Any:
            if isinstance(work, Claim) and troubles:
                outbox.wake()
                raise troubles.pop()
            return await hub.writer.run(work)

        async def close(self) -> None: ...

    outbox = Outbox(Moody(), {"reply": gate})
    await outbox.start()
    await gate.until(lambda: gate.under_way)
    await outbox.stop()
    assert (await hub.row("message", sent)).status == "sent"


WORDS = [
    (Refused("This number cannot receive SMS."), "This number cannot receive SMS."),
    (Refused("two\nlines  of it"), "two lines of it"),
    (Refused('Bad Request: {"code": 21614, "message": "no"}'), "Bad Request: (an answer only programs can read)"),
    (Refused("502 <html><body>Bad gateway</body></html> from it"), "502 (an answer only programs can read) from it"),
    (Refused("<!DOCTYPE html><p>no</p>"), "(an answer only programs can read)"),
    (Refused("x" * 2_000), "x" * 499 + "…"),
    (Refused("the value {name} was kept"), "the value (an answer only programs can read) was kept"),
]


@pytest.mark.parametrize(("error", "words"), WORDS)
def test_people_read_words_and_no_data_structures(error: Exception, words: str) -> None:
    assert judge(error, delivery()).error == words


# An exception before anything could leave -> the outcome
UNSENT = [
    (Refused("erased"), "failed"),
    (TryLater("not readable"), "later"),
    (TimeoutError(), "later"),
    (KeyError("x"), "failed"),
]


@pytest.mark.parametrize(("error", "outcome"), UNSENT)
def test_what_never_left_is_never_in_doubt(error: Exception, outcome: str) -> None:
    ended = judge(error, delivery(idempotent=False), left=False)
    assert ended.outcome == outcome
    assert ended.error


# An exception, whether repeating is harmless -> the outcome
ENDS = [
    (Refused("no"), False, "failed"),
    (TryLater("busy", 7.0), False, "later"),
    (NotSent("no route"), False, "later"),  # not a byte left
    (Unknown("lost"), False, "unknown"),
    (Unknown("lost"), True, "later"),
    (NoAnswer("lost"), False, "unknown"),
    (NoAnswer("lost"), True, "later"),
    (TimeoutError(), False, "unknown"),
    (TimeoutError(), True, "later"),
    (KeyError("x"), False, "unknown"),  # a mistake of ours: who knows how far it came
    (KeyError("x"), True, "later"),
]


@pytest.mark.parametrize(("error", "idempotent", "outcome"), ENDS)
def test_how_an_attempt_ended(error: Exception, idempotent: bool, outcome: str) -> None:
    ended = judge(error, delivery(idempotent=idempotent))
    assert (ended.outcome, ended.delivery_id, ended.token) == (outcome, 3, "worker")
    assert ended.error, "never without a reason"
    assert ended.retry_after == getattr(error, "retry_after", None)


async def test_an_assignment_reaches_the_room(asked: Stage) -> None:
    """The twin of the failures above: with nobody misbehaving each change is shown once."""
    await asked.running.hub.writer.run(Assign(1, 1, None))
    await asked.running.hub.writer.run(Resolve(1, 1))
    await asked.row("card", "done")
    (post,) = asked.state.slack_posts
    assert post.updates == 1
