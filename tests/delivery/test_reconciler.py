"""F3: an answer lost in flight is looked for at the provider. Found with certainty it is `sent`; else it stays `unknown`, says so, and
is never sent a second time.

The real connector and the stand-in for Twilio, the real writer, and a clock that moves only when told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.sandbox import SandboxServer
from connectors.twilio_sms import TwilioSms
from hub.contract import DeliveryUpdate, MessageStatus, OutboundMessage, Place, Unknown
from hub.conversations.ingest import Ingest, item
from hub.delivery import reconciler as room
from hub.delivery.reconciler import AMBIGUOUS, CLOCKS_DIFFER, LOOKS, NOT_FOUND, Looked, Reconciler, next_look, sent_between
from hub.delivery.works import Retry, finish
from hub.http import GuardedHttp
from hub.policy import ChannelRule, Policy
from hub.storage.records import Delivery
from tests.connectors.test_sandbox import SECRETS
from tests.delivery import ADA, BEN, SECOND, SMS, START, Ground, delivery, facts, ground, message

N = START
# became unknown at N; when the latest look was answered, in seconds after -> when the next one is due
NEXT = [
    (None, 10),
    (0, 10),
    (9, 10),
    (10, 30),
    (11, 30),  # the first one was late
    (30, 60),
    (75, 120),
    (299, 300),
    (300, 600),
    (650, 900),
    (899, 900),
    (900, None),
    (5_000, None),  # the hub was away meanwhile: one look makes up for all
]


@pytest.mark.parametrize(("looked", "due"), NEXT)
def test_looks_follow_the_time_it_became_unknown(looked: int | None, due: int | None) -> None:
    assert next_look(N, None if looked is None else N + looked * SECOND) == (None if due is None else N + due * SECOND)


def test_the_last_look_is_a_quarter_of_an_hour_after() -> None:
    assert LOOKS[-1] == 15 * 60
    assert list(LOOKS) == sorted(set(LOOKS))


# seconds relative to N: created, lease until, noted unknown -> from, to
WINDOWS = {
    "an answer lost at once": (-1, 89, 0, (-1, 0)),
    "after an hour in the queue": (-3_600, 60, 0, (-30, 0)),
    "its lease ran out": (-200, 0, 5, (-90, 0)),
    "found at the next start": (-30_000, -28_000, 0, (-28_090, -28_000)),
    "restored from a backup, without its lease": (-7_200, -(START // SECOND), 0, (-7_200, 0)),
    "a clock that was set back meanwhile": (-10, 80, -60, (-10, -10)),
}


@pytest.mark.parametrize(("created", "lease", "noted", "window"), WINDOWS.values(), ids=WINDOWS)
def test_it_can_have_gone_only_while_its_lease_ran(created: int, lease: int, noted: int, window: tuple[int, int]) -> None:
    first, last = sent_between(N + created * SECOND, N + lease * SECOND, N + noted * SECOND, Policy())
    assert (first, last) == (N / SECOND + window[0] - CLOCKS_DIFFER, N / SECOND + window[1] + CLOCKS_DIFFER)


# --- the judgement ---


def lost(**values: Any) -> tuple[Any, Delivery]:
    return message(status="unknown", error="The answer was lost."), delivery(state="unknown", lease_token="", **values)


def there(sid: str, status: MessageStatus = MessageStatus.SENT) -> DeliveryUpdate:
    return DeliveryUpdate(provider_key=f"found:{sid}", status=status, provider_message_id=sid)


STANDS = {
    # messages at the provider, of them ours, a rival of ours in this state -> outcome; status and error after the last look
    "one": (["SM1"], [], "", "found", "sent", ""),
    "none": ([], [], "", "missing", "unknown", NOT_FOUND),
    "one that is another answer's": (["SM1"], ["SM1"], "", "missing", "unknown", NOT_FOUND),
    "two": (["SM1", "SM2"], [], "", "ambiguous", "unknown", AMBIGUOUS),
    "two, one of them another answer's": (["SM1", "SM2"], ["SM1"], "", "found", "sent", ""),
    "one, and two answers of unknown fate": (["SM1"], [], "unknown", "ambiguous", "unknown", AMBIGUOUS),
    "two, and two answers of unknown fate": (["SM1", "SM2"], [], "unknown", "ambiguous", "unknown", AMBIGUOUS),
    "one, and one on its way": (["SM1"], [], "sending", "ambiguous", "unknown", AMBIGUOUS),
    "one, and a rival that was settled meanwhile": (["SM1"], [], "done", "found", "sent", ""),
}


@pytest.mark.parametrize("last", [False, True], ids=["earlier look", "last look"])
@pytest.mark.parametrize(("sids", "ours", "rival", "outcome", "status", "error"), STANDS.values(), ids=STANDS)
def test_only_what_is_certain_settles_it(
    sids: list[str], ours: list[str], rival: str, outcome: str, status: str, error: str, last: bool
) -> None:
    lost_message, row = lost()
    others = [message(id=50 + at, status="sent", provider_id=sid) for at, sid in enumerate(ours)]
    rivals = [delivery(id=4, subject_id=8, state=rival)] if rival else []
    known = facts(START, None, lost_message, row, *others, *rivals, *([message(id=8, status=rival)] if rival else []))
    known.by_provider_id = {one.provider_id or "": one for one in others}
    looked = Looked(row.id, tuple(there(sid) for sid in sids), tuple(one.id for one in rivals), last)
    assert looked.decide(known) == outcome
    if outcome == "found":
        assert (row.state, lost_message.status, lost_message.error) == ("done", "sent", "")
        assert lost_message.provider_id == next(sid for sid in sids if sid not in ours)
    elif last:
        assert (row.state, row.error, row.done_at, lost_message.status, lost_message.error) == ("unknown", error, START, status, error)
    else:
        assert (row.state, row.done_at, lost_message.error, known.events) == ("unknown", None, "The answer was lost.", [])


@pytest.mark.parametrize("state", ["done", "failed", "queued", "sending"])
def test_what_was_settled_meanwhile_is_left_alone(state: str) -> None:
    sent, row = message(status="sent"), delivery(state=state)
    known = facts(START, None, sent, row)
    assert Looked(row.id, (there("SM1"),), (), True).decide(known) == "settled"
    assert (row.state, sent.status, known.changed) == (state, "sent", {})
    assert Looked(99, (), (), True).decide(known) == "settled", "nor is what was erased"


@pytest.mark.parametrize(
    ("status", "shown", "state"),
    [("queued", "sent", "done"), ("sent", "sent", "done"), ("delivered", "delivered", "done"), ("failed", "failed", "failed")],
)
def test_it_is_found_in_the_state_it_has_there(status: str, shown: str, state: str) -> None:
    lost_message, row = lost()
    Looked(row.id, (there("SM1", MessageStatus(status)),), (), False).decide(facts(START, None, lost_message, row))
    assert (lost_message.status, row.state) == (shown, state)


def test_two_units_of_one_batch_do_not_both_claim_one_message() -> None:
    first, row = lost()
    second, other = message(id=8, status="unknown"), delivery(id=4, subject_id=8, state="unknown")
    known = facts(START, None, first, row, second, other)
    assert Looked(row.id, (there("SM1"),), (), False).decide(known) == "found"
    assert Looked(other.id, (there("SM1"),), (), False).decide(known) == "missing"


# --- at the provider ---


@dataclass(frozen=True)
class Bound:
    rule: ChannelRule
    connector: TwilioSms


class Desk:
    def __init__(self, at: Ground, server: SandboxServer, http: GuardedHttp) -> None:
        settings = {"type": "twilio_sms", "address": "+15550100002", "account_sid": SECRETS.twilio_account_sid}
        settings |= {"auth_token": SECRETS.twilio_auth_token, "base_url": server.url}
        self.connector = TwilioSms(TwilioSms.Settings(**settings), Place("sms", "https://hub.example/in/sms", b"k"))  # type: ignore[arg-type]
        self.at, self.state, self.http = at, server.state, http
        self.reconciler = self.restarted()

    def restarted(self) -> Reconciler:
        return Reconciler({"sms": Bound(SMS, self.connector)}, self.at.reader, self.at.writer, self.http, Policy())

    async def sends(self, text: str, to: str = ADA, failure: Any = None) -> int:
        """An agent's answer, carried once as the outbox does; its delivery."""
        if failure is not None:
            self.state.fail_next("twilio", **failure)
        await self.at.answers(await self.at.hears(to, f"Question for {text}"), text)
        (claimed,) = await self.at.claims()
        try:
            sent = await self.connector.send(OutboundMessage(delivery_id=claimed.id, to=to, text=text), self.http)
        except Unknown as error:
            await self.at.run(finish(claimed, "unknown", error=str(error)))
        else:
            await self.at.run(finish(claimed, provider_id=sent.provider_message_id))
        return claimed.id

    async def after(self, seconds: float) -> int:
        self.at.clock.pass_(seconds)
        return await self.reconciler.look()

    async def stands(self, delivery_id: int) -> tuple[str, str, str]:
        row = await self.at.row("delivery", delivery_id)
        told = await self.at.row("message", row.subject_id)
        return row.state, told.status, told.error


DROP = {"status": "drop"}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    server = SandboxServer(port=0, smtp_port=0, secrets=SECRETS)
    await server.start()
    http = GuardedHttp([f"127.0.0.1:{server.port}"])
    async with ground(tmp_path) as at:
        server.state.clock = lambda: at.clock() / SECOND
        yield Desk(at, server, http)
    await http.close()
    await server.stop()


async def test_an_answer_whose_taking_was_not_told_is_found_and_told_of_later(desk: Desk) -> None:
    lost_one = await desk.sends("It comes tomorrow.", failure=DROP)
    assert (await desk.stands(lost_one))[:2] == ("unknown", "unknown")
    assert await desk.after(9) == 0, "not yet due"
    assert await desk.after(1) == 1
    assert await desk.stands(lost_one) == ("done", "sent", "")
    (there,) = desk.state.twilio_messages
    report = DeliveryUpdate(provider_key="status", status=MessageStatus.DELIVERED, provider_message_id=there.sid)
    await desk.at.run(Ingest(SMS.id, (item(report, True),), None))
    assert (await desk.stands(lost_one))[1] == "delivered", "its report needs no number of ours"


async def test_one_that_never_went_is_looked_for_a_quarter_of_an_hour_and_then_left_to_people(desk: Desk) -> None:
    lost_one = await desk.sends("It comes tomorrow.", failure={"status": 500})
    asked = counting(desk)
    for seconds in range(10, 900, 10):
        assert await desk.after(10) == 0, seconds
        assert "may have gone" in (await desk.stands(lost_one))[2]
    await desk.after(10)
    assert await desk.stands(lost_one) == ("unknown", "unknown", NOT_FOUND)
    assert len(asked) == len(LOOKS)
    await desk.after(100_000)
    assert len(asked) == len(LOOKS), "nobody looks any more"
    assert desk.state.twilio_messages == [], "and nothing is ever sent again by itself"
    await desk.at.run(Retry(lost_one))
    assert (await desk.at.claims())[0].id == lost_one, "a person may"


def counting(desk: Desk) -> list[str]:
    asked: list[str] = []
    request = desk.http.request

    async def counted(method: str, url: str, **how: Any) -> Any:
        asked.append(url)
        return await request(method, url, **how)

    desk.http.request = counted  # type: ignore[method-assign]
    return asked


async def test_the_same_words_at_another_time_or_to_another_person_are_not_taken_for_it(desk: Desk) -> None:
    await desk.sends("Yes.")
    await desk.sends("Yes.", BEN)
    desk.at.clock.pass_(3_600)
    lost_one = await desk.sends("Yes.", failure={"status": 500})
    desk.at.clock.pass_(3_600)
    await desk.sends("Yes.", "+12025550125")
    await desk.after(0)
    assert await desk.stands(lost_one) == ("unknown", "unknown", NOT_FOUND)


async def test_an_answer_of_the_same_words_that_is_known_is_not_taken_for_it(desk: Desk) -> None:
    await desk.sends("Yes.")
    desk.at.clock.pass_(30)
    gone = await desk.sends("Yes.", failure=DROP)
    await desk.after(10)
    assert await desk.stands(gone) == ("done", "sent", "")
    desk.at.clock.pass_(200)  # its own unknown time no longer shuts the lane
    not_gone = await desk.sends("Yes.", failure={"status": 500})
    for wait in (10, 890):
        await desk.after(wait)
    assert await desk.stands(not_gone) == ("unknown", "unknown", NOT_FOUND)


async def test_of_two_alike_and_both_lost_nobody_can_tell_which_one_went(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CLOCKS_DIFFER", 300)  # their lane keeps them further apart than clocks are taken to differ
    first = await desk.sends("Yes.", failure={"status": 500})
    desk.at.clock.pass_(121)
    second = await desk.sends("Yes.", failure=DROP)
    for wait in (10, 1_000, 10):
        await desk.after(wait)
    assert await desk.stands(first) == ("unknown", "unknown", AMBIGUOUS)
    assert await desk.stands(second) == ("unknown", "unknown", AMBIGUOUS)
    assert len(desk.state.twilio_messages) == 1


async def test_a_provider_that_does_not_answer_is_asked_until_it_does(desk: Desk) -> None:
    lost_one = await desk.sends("It comes tomorrow.", failure=DROP)
    desk.state.fail_next("twilio_list", status=429, retry_after=120)
    assert await desk.after(10) == 0
    assert await desk.after(119) == 0, "the wait it asked for is kept"
    desk.state.fail_next("twilio_list", status=503, times=5)
    for _ in range(5):
        assert await desk.after(400) == 0
    assert "may have gone" in (await desk.stands(lost_one))[2], "a look that was not answered is no look"
    assert await desk.after(400) == 1
    assert (await desk.stands(lost_one))[:2] == ("done", "sent")


async def test_after_a_restart_it_is_looked_for_all_the_same(desk: Desk) -> None:
    lost_one = await desk.sends("It comes tomorrow.", failure=DROP)
    desk.at.clock.pass_(40_000)
    desk.reconciler = desk.restarted()
    assert await desk.after(0) == 1
    assert (await desk.stands(lost_one))[1] == "sent"


async def test_what_the_old_hub_sent_after_its_backup_is_found_after_a_restore(desk: Desk) -> None:
    sent = await desk.sends("It comes tomorrow.")
    desk.at.clock.pass_(7_200)

    class Restored:
        def needs(self, needs: Any) -> None:
            needs.deliveries.add(sent)

        def decide(self, facts: Any) -> None:
            row = facts.deliveries[sent]
            told = facts.messages[row.subject_id]
            row.state, row.lease_until, row.done_at = "unknown", 0, None
            row.due_at = facts.now + facts.policy.unknown_blocks
            told.status, told.provider_id = "unknown", None
            facts.change(row)
            facts.change(told)

    await desk.at.run(Restored())
    assert await desk.after(10) == 1
    assert (await desk.stands(sent))[:2] == ("done", "sent")


async def test_fifty_lost_answers_end_as_what_they_are_and_none_is_doubled(desk: Desk) -> None:
    went, did_not = [], []
    for number in range(50):
        how = (DROP, {"status": 500}, {"status": 502, "carried_out": True})[number % 3]
        (did_not if number % 3 == 1 else went).append(await desk.sends(f"Answer {number}", f"+1202555{number:04}", how))
    for wait in (10, 20, 30, 60, 180, 300, 300, 60):
        await desk.after(wait)
    assert {(await desk.stands(one))[:2] for one in went} == {("done", "sent")}
    assert {await desk.stands(one) for one in did_not} == {("unknown", "unknown", NOT_FOUND)}
    assert set(desk.state.twilio_sent().values()) == {1}, "nobody read anything twice"
    assert len(desk.state.twilio_messages) == len(went) == 33


async def test_a_started_reconciler_looks_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POLL", 0.01)
    lost_one = await desk.sends("It comes tomorrow.", failure=DROP)
    await desk.reconciler.start()

    async def sent() -> bool:
        return (await desk.stands(lost_one))[1] == "sent"

    desk.at.clock.pass_(10)
    await desk.at.until(sent)
    await desk.reconciler.stop()
