"""When to try again: a table of waits, and how long each kind is tried in all."""

from __future__ import annotations

import math

import pytest

from hub.delivery.retry import LONGEST_ASKED, SCHEDULES, next_try

HOUR = 3_600

# kind, tries made, Retry-After, jitter -> seconds, or None to give up
WAITS = [
    ("reply", 1, None, 0.0, 2.5),  # half of the first wait at least
    ("reply", 1, None, 1.0, 5),  # and all of it at most
    ("reply", 2, None, 1.0, 10),
    ("reply", 3, None, 1.0, 20),
    ("reply", 9, None, 1.0, 1_280),
    ("reply", 10, None, 1.0, 1_800),  # no longer than the longest
    ("reply", 32, None, 1.0, 1_800),
    ("reply", 33, None, 1.0, None),  # the last try was made
    ("reply", 34, None, 1.0, None),
    ("reply", 33, 30, 0.0, None),  # even when the other side would have us again
    ("card", 60, None, 0.0, None),
    ("hold", 179, None, 1.0, HOUR),
    ("hold", 180, None, 1.0, None),
    ("media", 33, None, 0.0, None),
    ("reply", 1, 30, 0.0, 30),  # the wait asked for is kept
    ("reply", 1, 30, 1.0, 33),  # and a crowd spread by a tenth
    ("reply", 10, 1, 0.0, 900),  # our own patience where it is the longer one
    ("reply", 1, 0, 0.0, 2.5),
    ("reply", 1, -30, 0.0, 2.5),  # absurd: ignored
    ("reply", 1, math.nan, 0.0, 2.5),
    ("reply", 1, math.inf, 0.0, LONGEST_ASKED),  # absurd: capped
    ("reply", 1, 86_400, 0.0, LONGEST_ASKED),
]


@pytest.mark.parametrize(("kind", "attempt", "retry_after", "jitter", "seconds"), WAITS)
def test_the_next_try(kind: str, attempt: int, retry_after: float | None, jitter: float, seconds: float | None) -> None:
    wait = next_try(kind, attempt, retry_after, jitter)
    assert wait == (None if seconds is None else int(seconds * 1_000_000))


# kind, hours it is tried at least, and at most: a provider down for six hours (F16) costs no answer.
SPANS = [
    ("reply", 6, 13),
    ("card", 12, 26),
    ("hold", 3.5 * 24, 7.1 * 24),
    ("mark", 3.5 * 24, 7.1 * 24),
    ("alert", 12, 26),
    ("media", 11, 24),
    ("unseen", 6, 13),
    ("code", 1 / 20, 1 / 6),
    ("check", 11, 24),
]


@pytest.mark.parametrize(("kind", "least", "most"), SPANS)
def test_how_long_a_kind_is_tried(kind: str, least: float, most: float) -> None:
    def hours(jitter: float) -> float:
        waits = [next_try(kind, attempt, None, jitter) or 0 for attempt in range(1, SCHEDULES[kind].attempts)]
        return sum(waits) / 1_000_000 / HOUR

    assert least <= hours(0.0) < hours(1.0) <= most
    assert {span[0] for span in SPANS} == set(SCHEDULES)
