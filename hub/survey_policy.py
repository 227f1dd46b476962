"""The rules of the satisfaction survey as plain data: what is asked, when, how often, and which answers are bad or good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MINUTE = 60 * 1_000_000  # all times are microseconds
DAY = 1_440 * MINUTE


@dataclass(frozen=True, slots=True)
class SurveyPolicy:
    """`kind` is `off`, `csat`, `nps` or `effort`. Quiet hours are minutes of the day in the customer's own time zone, or in `time_zone`
    where theirs is not known; from and until the same: none. `low` and `good` move the bounds of an answer that is bad or good."""

    kind: str = "off"
    delay: int = 30 * MINUTE  # after the ticket was resolved
    every: int = 14 * DAY  # a customer is asked once in so long
    life: int = 14 * DAY  # the link takes an answer for so long
    quiet_from: int = 21 * 60
    quiet_until: int = 9 * 60
    time_zone: str = "UTC"
    language: str = "en"  # where the customer's own is not known, or there are no words in it
    questions: Mapping[str, str] = field(default_factory=dict)  # language -> the business's own words for the question
    low: Mapping[str, int] = field(default_factory=dict)  # kind -> the highest answer that is bad
    good: Mapping[str, int] = field(default_factory=dict)  # kind -> the lowest answer that is good


def minutes(clock: str) -> int:
    """Minutes of the day of a time such as "21:00". Raises ValueError."""
    hour, colon, minute = clock.partition(":")
    if not (colon and hour.isdigit() and minute.isdigit() and int(hour) < 24 and int(minute) < 60 and len(minute) == 2):
        raise ValueError(f"{clock!r} is no time of the day; write it as 21:00")
    return int(hour) * 60 + int(minute)
