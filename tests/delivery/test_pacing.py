"""Gates and paces: tables of what a target's behaviour does to what goes there."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from hub.contract import NoAnswer, NotSent, Pace, Refused, TryLater, Unknown
from hub.delivery.outbox import sign_of
from hub.delivery.pacing import DOWN_AFTER, FIRST_PAUSE, HANDS, LONGEST_ASKED, LONGEST_PAUSE, Bucket, Gate, Gates, Sign

UP, DOWN, BUSY, NOTHING = Sign.UP, Sign.DOWN, Sign.BUSY, Sign.NOTHING
SMS = ("reply", "sms")

# An attempt's end, whether it had left -> what it tells of the target
SIGNS = [
    (None, True, UP),
    (Refused("no such number"), True, UP),  # a refusal is an answer
    (Refused("no longer configured"), False, UP),
    (TryLater("busy", 7.0), True, BUSY),
    (TryLater("busy", 0.0), True, BUSY),
    (TryLater("failed at its own end"), True, DOWN),
    (NotSent("no route"), True, DOWN),
    (NoAnswer("lost"), True, DOWN),
    (Unknown("lost"), True, DOWN),
    (TimeoutError(), True, DOWN),
    (TryLater("our own database could not be read"), False, NOTHING),
    (TimeoutError(), False, NOTHING),
    (KeyError("a mistake of ours"), True, NOTHING),
]


@pytest.mark.parametrize(("error", "left", "sign"), SIGNS)
def test_what_the_end_of_an_attempt_tells(error: Exception | None, left: bool, sign: Sign) -> None:
    assert sign_of(error, left) is sign


def run(*steps: Any) -> tuple[Gate, float]:
    """A gate after a story: numbers let seconds pass, a sign is an attempt made now, ("busy", seconds) one with a Retry-After."""
    gate, now = Gate(), 1_000.0
    for number, step in enumerate(steps):
        if isinstance(step, int | float) and not isinstance(step, Sign):
            now += step
            continue
        sign, asked = step if isinstance(step, tuple) else (step, 0.0)
        gate = gate.sent(number, now).heard(sign, number, now, asked=asked, jitter=1.0)
    return gate, now


TRIP = (DOWN,) * DOWN_AFTER
# story -> rows that may go, seconds until it is asked again
STORIES: dict[str, tuple[tuple[Any, ...], int, float]] = {
    "nothing happened yet": ((), HANDS, 0),
    "one failure less than counts": (TRIP[1:], HANDS, 0),
    "failures in a row": (TRIP, 0, FIRST_PAUSE),
    "a success between them": ((*TRIP[1:], UP, *TRIP[1:]), HANDS, 0),
    "what tells nothing does not count": ((*TRIP[1:], NOTHING, NOTHING), HANDS, 0),
    "almost the pause": ((*TRIP, FIRST_PAUSE - 0.1), 0, 0.1),
    "after the pause one probe": ((*TRIP, FIRST_PAUSE), 1, 0),
    "a probe that fails doubles the pause": ((*TRIP, FIRST_PAUSE, DOWN), 0, FIRST_PAUSE * 2),
    "and again": ((*TRIP, FIRST_PAUSE, DOWN, FIRST_PAUSE * 2, DOWN), 0, FIRST_PAUSE * 4),
    "up to a longest one": ((*TRIP, *(10_000, DOWN) * 40), 0, LONGEST_PAUSE),
    "a probe that arrives opens it for two": ((*TRIP, FIRST_PAUSE, UP), 2, 0),
    "and each further success for one more": ((*TRIP, FIRST_PAUSE, UP, UP, UP), 4, 0),
    "up to all hands": ((*TRIP, FIRST_PAUSE, *(UP,) * 50), HANDS, 0),
    "a pause after it was open begins at the first again": ((*TRIP, FIRST_PAUSE, DOWN, 60, UP, *TRIP), 0, FIRST_PAUSE),
    "a probe that tells nothing is made again": ((*TRIP, FIRST_PAUSE, NOTHING), 0, FIRST_PAUSE),
    "a Retry-After holds at once": (((BUSY, 60.0),), 0, 60),
    "and no shorter than asked": (((BUSY, 60.0), 59.9), 0, 0.1),
    "then one probe goes": (((BUSY, 60.0), 60), 1, 0),
    "which may be told to wait again": (((BUSY, 60.0), 60, (BUSY, 30.0)), 0, 30),
    "absurd: capped": (((BUSY, 1e9),), 0, LONGEST_ASKED),
    "absurd: for ever": (((BUSY, math.inf),), 0, LONGEST_ASKED),
    "absurd: no number": (((BUSY, math.nan),), 1, 0),
    "absurd: negative": (((BUSY, -30.0),), 1, 0),
    "no time at all": (((BUSY, 0.0),), 1, 0),
    "a Retry-After amid failures": ((DOWN, DOWN, (BUSY, 7.0), 7, UP, *TRIP[1:]), 2, 0),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_gate(story: str) -> None:
    steps, room, wait = STORIES[story]
    gate, now = run(*steps)
    assert gate.room(0, now) == room
    assert max(0.0, gate.until - now) == pytest.approx(wait)


def test_only_the_probe_decides() -> None:
    gate, now = run(*TRIP)
    now += FIRST_PAUSE
    gate = gate.sent(77, now)
    assert gate.room(0, now) == 0, "one probe at a time"
    assert gate.heard(UP, 5, now) is gate, "what set out before tells nothing new"
    assert gate.heard(DOWN, 5, now) is gate
    assert not gate.heard(UP, 77, now).shut


def test_what_set_out_while_the_gate_was_being_shut_is_no_probe() -> None:
    gate, now = run(*TRIP)
    assert gate.sent(78, now).probe is None


def test_the_longest_wait_anybody_was_told_counts() -> None:
    gate = Gate()
    for number, asked in enumerate((10.0, 60.0, 5.0)):
        gate = gate.heard(BUSY, number, 0.0, asked=asked)
    assert gate.until == 60.0


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_processes_do_not_knock_at_the_same_moment(jitter: float) -> None:
    gate = Gate(failures=DOWN_AFTER - 1).heard(DOWN, 1, 0.0, jitter=jitter)
    assert gate.until == pytest.approx(FIRST_PAUSE / 2 * (1 + jitter))


# pace, then (seconds passed, how many are taken) -> how many may go, seconds until the next
BUCKETS = [
    (Pace(1, 5), [], 5, 0),
    (Pace(1, 5), [(0, 5)], 0, 1),
    (Pace(1, 5), [(0, 5), (0.5, 0)], 0, 0.5),
    (Pace(1, 5), [(0, 5), (1, 1)], 0, 1),
    (Pace(1, 5), [(0, 5), (100, 0)], 5, 0),  # never more than the burst
    (Pace(0.5, 1), [(0, 1)], 0, 2),
    (Pace(10, 1), [(0, 1), (0.25, 0)], 1, 0),
    (Pace(1, 5), [(0, 5), (-100, 0)], 0, 1),  # a clock that goes back takes nothing away
]


@pytest.mark.parametrize(("pace", "story", "room", "wait"), BUCKETS)
def test_a_pace(pace: Pace, story: list[tuple[float, int]], room: int, wait: float) -> None:
    now = 50.0
    bucket = Bucket(pace, float(pace.burst), now)
    for seconds, taken in story:
        now += seconds
        for _ in range(taken):
            bucket = bucket.taken(now)
    now = max(now, 50.0)
    assert bucket.room(now) == room
    assert bucket.wait(now) == pytest.approx(wait)


def test_a_pace_is_kept_over_time_however_often_it_is_asked() -> None:
    rng, now = random.Random(3), 0.0
    gates = Gates({SMS: Pace(2.0, 4)}, rng, lambda: now)
    sent = 0
    while now < 600:
        for _ in range(gates.room().get(SMS, HANDS)):
            gates.sent(SMS, sent)
            gates.freed(SMS)
            sent += 1
        now += rng.expovariate(20)
    assert sent == pytest.approx(2.0 * 600 + 4, abs=2)


def test_what_people_are_shown() -> None:
    now = 0.0
    gates = Gates({}, random.Random(1), lambda: now)
    gates.sent(SMS, 1)
    gates.heard(SMS, 1, BUSY, 90.0, "Twilio is busy.")
    gates.freed(SMS)
    sms, slack = gates.standings([("card", "slack"), SMS])[::-1]
    if sms.name == "slack":
        sms, slack = slack, sms
    assert (sms.state, sms.seconds, sms.why, sms.under_way) == ("paused", 90, "Twilio is busy.", 0)
    assert (slack.state, slack.seconds, slack.why) == ("open", 0, "")
    assert gates.room() == {SMS: 0}
    assert gates.opens_in() == 90.0
    now = 90.0
    assert gates.room() == {SMS: 1}
    gates.sent(SMS, 2)
    assert [one.state for one in gates.standings()] == ["probing"]
    gates.heard(SMS, 2, UP)
    gates.freed(SMS)
    assert [one.state for one in gates.standings()] == ["slow"]
    assert gates.room() == {SMS: 2}
    assert gates.opens_in() == math.inf
