"""Who is asked how they were served, and what an answer means: decisions as tables, then the loop over a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hub import keys
from hub.contract import Proof
from hub.conversations.commands import Reopen, Reply, Resolve
from hub.conversations.triage import MarkSpam
from hub.customers.merging import Merge
from hub.policy import Refusal
from hub.satisfaction import questions
from hub.satisfaction.asking import Asking
from hub.satisfaction.surveys import SCALES, SKIPPED, Answer, Link, Seen, after_quiet, is_good, is_low, judge, token, token_names
from hub.storage.records import Attribute, Ticket
from hub.survey_policy import SurveyPolicy, minutes
from tests.satisfaction import ADA, AGENT, BEN, DAY, HOUR, MINUTE, NOON, SECRET, Asked, asking
from tests.storage import ENGINES, MAIL, SMS, WHATSAPP, email, heard, message, phone
from tests.web import Insert

RULES = SurveyPolicy("csat")
SEEN = Seen(answered=True, by_person=True, doubtful=False, last_asked_at=None, heard_at=NOON)


def ticket(status: str = "resolved", **more: Any) -> Ticket:
    return Ticket(1, 1, status, "", "default", SMS, 1, NOON, NOON, "", **more)


# --- pure ---


@pytest.mark.parametrize(
    ("kind", "score", "low", "good"),
    [
        ("csat", 1, True, False),
        ("csat", 2, True, False),
        ("csat", 3, False, False),  # neither
        ("csat", 4, False, True),
        ("csat", 5, False, True),
        ("nps", 0, True, False),
        ("nps", 6, True, False),  # detractors up to 6
        ("nps", 7, False, False),
        ("nps", 8, False, False),
        ("nps", 9, False, True),  # promoters from 9
        ("nps", 10, False, True),
        ("effort", 1, True, False),
        ("effort", 3, True, False),
        ("effort", 4, False, False),
        ("effort", 5, False, True),  # asked as agreement that it was easy: high is good
        ("effort", 7, False, True),
    ],
)
def test_what_is_bad_and_what_is_good(kind: str, score: int, low: bool, good: bool) -> None:
    assert (is_low(kind, score, RULES), is_good(kind, score, RULES)) == (low, good)


def test_the_bounds_can_be_moved_and_no_answer_is_both() -> None:
    rules = replace(RULES, low={"csat": 3}, good={"csat": 2})
    assert [is_low("csat", score, rules) for score in range(1, 6)] == [True, True, True, False, False]
    assert not [score for score in range(1, 6) if is_low("csat", score, rules) and is_good("csat", score, rules)]


@pytest.mark.parametrize(
    ("case", "stopped", "can_write", "seen", "kind", "verdict"),
    [
        (ticket(), False, True, SEEN, "csat", "ask"),
        (ticket(), False, True, SEEN, "off", "off"),
        (ticket("open"), False, True, SEEN, "csat", "reopened"),
        (None, False, True, SEEN, "csat", "reopened"),  # erased
        (ticket(spam_at=1), False, True, SEEN, "csat", "spam"),
        (ticket(), False, True, replace(SEEN, by_person=False), "csat", "automatic"),
        (ticket(), False, True, replace(SEEN, doubtful=True), "csat", "doubtful"),
        (ticket(), False, True, replace(SEEN, answered=False), "csat", "unanswered"),
        (ticket(), False, True, replace(SEEN, last_asked_at=NOON - RULES.every + 1), "csat", "recent"),
        (ticket(), False, True, replace(SEEN, last_asked_at=NOON - RULES.every), "csat", "ask"),
        (ticket(), True, True, SEEN, "csat", "opted_out"),
        (ticket(), False, False, SEEN, "csat", "window"),
    ],
)
def test_who_is_asked(case: Ticket | None, stopped: bool, can_write: bool, seen: Seen, kind: str, verdict: str) -> None:
    found = judge(case, stopped, can_write, seen, replace(RULES, kind=kind), NOON)
    assert (found.why or found.do) == verdict
    assert found.do == "ask" or found.why in SKIPPED


def at(text: str, zone: tzinfo = UTC) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1_000_000


BERLIN, SYDNEY = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Sydney")


@pytest.mark.parametrize(
    ("now", "zone", "hours", "until"),
    [
        (at("2027-01-15T12:00"), UTC, ("21:00", "09:00"), None),
        (at("2027-01-15T20:59:59"), UTC, ("21:00", "09:00"), None),
        (at("2027-01-15T21:00"), UTC, ("21:00", "09:00"), at("2027-01-16T09:00")),
        (at("2027-01-15T23:59"), UTC, ("21:00", "09:00"), at("2027-01-16T09:00")),
        (at("2027-01-16T00:00"), UTC, ("21:00", "09:00"), at("2027-01-16T09:00")),
        (at("2027-01-16T08:59"), UTC, ("21:00", "09:00"), at("2027-01-16T09:00")),
        (at("2027-01-16T09:00"), UTC, ("21:00", "09:00"), None),
        (at("2027-01-15T20:30", BERLIN), BERLIN, ("21:00", "09:00"), None),  # 20:30 there
        (at("2027-01-15T21:00", BERLIN), BERLIN, ("21:00", "09:00"), at("2027-01-16T09:00", BERLIN)),
        (at("2027-01-15T12:00"), SYDNEY, ("21:00", "09:00"), at("2027-01-16T09:00", SYDNEY)),  # 23:00 there
        # The clock is put forward in the night: nine is an hour nearer.
        (at("2027-03-27T23:00", BERLIN), BERLIN, ("21:00", "09:00"), at("2027-03-28T09:00", BERLIN)),
        # At the year's end.
        (at("2026-12-31T22:00"), UTC, ("21:00", "09:00"), at("2027-01-01T09:00")),
        # Quiet over noon, and never quiet.
        (at("2027-01-15T13:30"), UTC, ("13:00", "15:00"), at("2027-01-15T15:00")),
        (at("2027-01-15T15:00"), UTC, ("13:00", "15:00"), None),
        (at("2027-01-15T03:00"), UTC, ("00:00", "00:00"), None),
    ],
)
def test_nobody_is_asked_in_quiet_hours(now: int, zone: tzinfo, hours: tuple[str, str], until: int | None) -> None:
    rules = replace(RULES, quiet_from=minutes(hours[0]), quiet_until=minutes(hours[1]))
    assert after_quiet(now, zone, rules) == (until if until is not None else now)


@pytest.mark.parametrize("text", ["", "9", "24:00", "09:60", "9:5", "aa:bb", "-1:00"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time of the day"):
        minutes(text)


def test_only_our_own_links_name_a_survey() -> None:
    shown = token(SECRET, Link(17, 5, "de"))
    assert token_names(SECRET, shown) == Link(17, 5, "de")
    assert token_names(b"t" * 32, shown) is None
    for forged in (shown[:-1], shown + "a", shown.replace("17-", "18-"), "", "x", "17-5-de", ".", "a" * 5_000, "é" + shown):
        assert token_names(SECRET, forged) is None
    # What is signed for another purpose opens nothing here.
    assert token_names(SECRET, keys.signed(keys.derive(SECRET, "file"), "17-5-de")) is None


def test_every_language_has_every_word() -> None:
    for words in questions.WORDS.values():
        assert set(words.questions) == set(words.ends) == set(SCALES)
        assert all(getattr(words, name) for name in words.__slots__)


@pytest.mark.parametrize(
    ("known", "spoken"), [("de", "de"), ("de-AT", "de"), ("FR_ca", "fr"), ("", "en"), ("tlh", "en"), ("x" * 300, "en"), ("-", "en")]
)
def test_who_speaks_a_language_we_have_words_in_is_asked_in_it(known: str, spoken: str) -> None:
    assert questions.language(known, RULES) == spoken


def test_the_business_s_own_words_take_the_place_of_ours() -> None:
    rules = replace(RULES, questions={"en": "Happy?"})
    assert questions.message("csat", "en", "https://x/s/1", rules).startswith("Happy?\n")
    assert questions.question("csat", "de", rules) == questions.WORDS["de"].questions["csat"]


# --- over a database ---


@pytest.fixture(params=ENGINES)
async def asked(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Asked]:
    async with asking(tmp_path, request.param) as opened:
        yield opened


async def test_a_resolved_ticket_is_asked_about_once_after_the_delay_where_the_customer_wrote(asked: Asked) -> None:
    number = await asked.solved()
    assert await asked.after(29 * MINUTE) == 0
    before = dict(asked.store.rows("SELECT * FROM ticket")[0])
    assert await asked.after(1 * MINUTE) == 1
    (row,) = asked.rows()
    assert (row["state"], row["ticket_id"], row["kind"], row["channel_id"]) == ("asked", number, "csat", SMS)
    assert row["expires_at"] - row["asked_at"] == 14 * DAY * 1_000_000
    (sent,) = asked.store.rows("SELECT * FROM message WHERE automatic = 'survey'")
    assert (sent["id"], sent["channel_id"], sent["agent_id"], sent["status"]) == (row["message_id"], SMS, None, "queued")
    assert f"https://hub.example/s/{token(SECRET, Link(row['id'], number, 'en'))}" in sent["text"]
    assert asked.store.rows("SELECT state FROM delivery WHERE kind = 'reply' AND subject_id = ?", sent["id"])
    # The ticket stays as it is: not reopened, nobody's, nobody held, its preview and its place in the list the same.
    assert dict(asked.store.rows("SELECT * FROM ticket")[0]) == before
    assert not asked.store.rows("SELECT 1 FROM hold WHERE released_at IS NULL")
    assert await asked.after(DAY) == 0
    assert len(asked.said()) == 1


async def test_a_ticket_opened_again_before_it_was_asked_about_is_not_and_resolved_again_it_is(asked: Asked) -> None:
    number = await asked.solved()
    await asked.store.run(heard(SMS, message(phone(ADA), text="It did not come.")))
    await asked.after(HOUR)
    assert (asked.stands(), asked.said()) == ([("skipped", "reopened")], [])
    await asked.store.run(Resolve(number, AGENT))
    assert await asked.after(HOUR) == 1
    # Once for ever: whatever happens to the ticket afterwards.
    await asked.store.run(Reopen(number, AGENT))
    await asked.store.run(Resolve(number, AGENT))
    await asked.after(30 * DAY)
    assert len(asked.said()) == 1


async def test_spam_a_machine_a_doubtful_sender_and_whom_nobody_answered_are_not_asked(asked: Asked) -> None:
    spam = await asked.solved()
    await asked.store.run(MarkSpam(spam, AGENT))
    await asked.store.run(heard(SMS, message(phone(BEN))))
    await asked.store.run(Resolve(2, AGENT))  # without an answer
    await asked.store.run(heard(MAIL, message(email("boss@x.example", Proof.CLAIMED), doubt="DMARC failed.", text="Pay this")))
    await asked.store.run(Reply(3, AGENT, "Who are you?", "d3"))
    await asked.store.run(Resolve(3, AGENT))
    await asked.store.run(heard(MAIL, message(email("list@x.example"), automatic="list")))
    await asked.store.run(Reopen(4, AGENT))
    await asked.store.run(Reply(4, AGENT, "Hello?", "d4"))
    await asked.store.run(Resolve(4, AGENT))
    await asked.after(HOUR)
    assert [why for _, why in asked.stands()] == ["spam", "unanswered", "doubtful", "automatic"]
    assert asked.said() == []


async def test_a_customer_is_asked_once_in_a_fortnight_also_when_two_tickets_are_due_together(asked: Asked) -> None:
    await asked.solved()
    asked.store.clock.advance(8 * DAY)  # past reopening: another ticket, while the hub was down and asked nobody
    assert await asked.solved() == 2
    assert await asked.after(HOUR) == 1
    assert sorted(asked.stands()) == [("asked", ""), ("skipped", "recent")]
    asked.store.clock.advance(14 * DAY)
    assert await asked.solved() == 3
    assert await asked.after(HOUR) == 1


async def test_who_wants_no_more_messages_there_is_not_asked(asked: Asked) -> None:
    await asked.solved()
    await asked.store.run(heard(SMS, message(phone(ADA), text="STOP", opts="out")))
    await asked.after(HOUR)
    assert (asked.stands(), asked.said()) == ([("skipped", "opted_out")], [])


async def test_a_channel_that_takes_nothing_now_is_not_written_on(asked: Asked) -> None:
    await asked.solved(channel=WHATSAPP)
    await asked.solved(BEN, WHATSAPP)
    asked.store.clock.advance(23 * HOUR)
    await asked.store.run(heard(WHATSAPP, message(phone(BEN), text="Thanks!")))  # reopens nothing, and opens the window
    assert await asked.after(2 * HOUR) == 1
    assert asked.stands() == [("skipped", "window"), ("asked", "")]


async def test_in_the_night_it_waits_for_the_morning_where_the_customer_lives(asked: Asked) -> None:
    await asked.solved()
    await asked.solved(BEN)
    await asked.store.run(Insert((Attribute(1, 2, "time_zone", "Australia/Sydney", "record:import", NOON),)))
    assert await asked.after(40 * MINUTE) == 1  # 12:40 here, 23:40 in Sydney
    assert [row["state"] for row in asked.rows()] == ["asked", "waiting"]
    assert asked.rows()[1]["due_at"] == at("2027-01-16T09:00", SYDNEY)
    assert await asked.after(9 * HOUR) == 0
    assert await asked.after(HOUR) == 1


async def test_a_customer_is_asked_in_their_own_language(asked: Asked) -> None:
    await asked.solved()
    await asked.store.run(Insert((Attribute(1, 1, "locale", "de-AT", "record:import", NOON),)))
    await asked.after(HOUR)
    assert asked.said()[0].startswith("Wie zufrieden")
    assert token(SECRET, Link(1, 1, "de")) in asked.said()[0]


async def test_two_hubs_ask_once(asked: Asked) -> None:
    await asked.solved()
    asked.store.clock.advance(HOUR)
    other = Asking(asked.loop._reader, asked.store.writer, asked.loop._policy, SECRET, "https://hub.example")
    assert await asked.loop.ask_due() + await other.ask_due() == 1
    assert len(asked.said()) == 1


async def test_an_address_that_became_somebody_else_s_is_not_written_to(asked: Asked) -> None:
    await asked.solved()
    asked.store.execute("UPDATE identifier SET ended_at = 1")
    await asked.after(HOUR)
    assert (asked.stands(), asked.said()) == ([("skipped", "no_way")], [])


async def test_switched_off_nobody_is_asked_and_nothing_is_kept(tmp_path: Path) -> None:
    async with asking(tmp_path, kind="off") as asked:
        await asked.solved()
        assert await asked.after(HOUR) == 0
        assert asked.rows() == []


# --- answering ---


def answers(asked: Asked) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in asked.store.events() if event.type == "survey.answered"]


async def test_an_answer_is_an_event_and_the_same_again_is_none(asked: Asked) -> None:
    await asked.solved()
    await asked.after(HOUR)
    assert await asked.store.run(Answer(1, 1, 2, "  Slow.\x00 "))
    assert not await asked.store.run(Answer(1, 1, 2, "  Slow.\x00 "))
    (row,) = asked.rows()
    assert (row["state"], row["score"], row["comment"]) == ("answered", 2, "Slow.\ufffd")
    assert answers(asked) == [{"survey": 1, "kind": "csat", "score": 2, "low": True, "good": False}]
    (event,) = [event for event in asked.store.events() if event.type == "survey.answered"]
    assert (event.customer_id, event.ticket_id) == (1, 1)
    assert asked.store.value("SELECT status FROM ticket") == "resolved", "an answer reopens nothing"


async def test_an_answer_may_be_changed_while_the_link_lives_and_not_after(asked: Asked) -> None:
    await asked.solved()
    await asked.after(HOUR)
    await asked.store.run(Answer(1, 1, 2, "Slow."))
    asked.store.clock.advance(13 * DAY)
    await asked.store.run(Answer(1, 1, 2, "Slow, but kind."))  # another comment is no other answer
    await asked.store.run(Answer(1, 1, 5, "All good now."))
    assert [(one["score"], one["low"], one["good"]) for one in answers(asked)] == [(2, True, False), (5, False, True)]
    asked.store.clock.advance(2 * DAY)
    with pytest.raises(Refusal, match="over"):
        await asked.store.run(Answer(1, 1, 1, ""))
    assert asked.rows()[0]["score"] == 5


async def test_a_bad_answer_holds_marketing_and_a_better_one_lets_go(asked: Asked) -> None:
    await asked.solved()
    await asked.after(HOUR)
    await asked.store.run(Answer(1, 1, 1, ""))
    held = "SELECT reason FROM hold WHERE released_at IS NULL"
    assert [row["reason"] for row in asked.store.rows(held)] == ["low_satisfaction"]
    await asked.store.run(Answer(1, 1, 5, ""))
    assert asked.store.rows(held) == []


@pytest.mark.parametrize(("survey", "ticket_id", "score"), [(1, 1, 0), (1, 1, 6), (1, 1, -1), (1, 2, 3), (9, 1, 3), (2, 2, 3)])
async def test_what_is_no_answer_changes_nothing(survey: int, ticket_id: int, score: int, asked: Asked) -> None:
    await asked.solved()
    await asked.after(HOUR)
    await asked.solved(BEN)  # not asked yet
    with pytest.raises(Refusal):
        await asked.store.run(Answer(survey, ticket_id, score, ""))
    assert asked.store.value("SELECT count(*) FROM survey WHERE score IS NOT NULL") == 0


async def test_a_link_that_ran_out_unanswered_is_noted_so(asked: Asked) -> None:
    await asked.solved()
    await asked.after(HOUR)
    await asked.after(14 * DAY - 1)
    assert asked.stands() == [("asked", "")]
    await asked.after(2)
    assert asked.stands() == [("expired", "")]


async def test_a_survey_goes_with_its_ticket_when_customers_are_merged(asked: Asked) -> None:
    await asked.solved()
    await asked.solved(BEN)
    await asked.after(HOUR)
    await asked.store.run(Merge(1, 2, "agent:1", 1))
    await asked.store.run(Answer(2, 2, 1, ""))
    assert asked.store.value("SELECT customer_id FROM event WHERE type = 'survey.answered'") == 1
    assert asked.store.value("SELECT customer_id FROM hold WHERE reason = 'low_satisfaction'") == 1
