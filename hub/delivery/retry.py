"""When to try again: a pure decision from what was owed, how often it was tried and what the other side said."""

from __future__ import annotations

from dataclasses import dataclass

from hub.policy import SECOND


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waits double from `first` to at most `longest` seconds; after `attempts` tries it is given up and shown."""

    first: float
    longest: float
    attempts: int


# Each wait is between half and the whole of what the schedule says, so the times below are ranges.
SCHEDULES: dict[str, Schedule] = {
    "reply": Schedule(first=5, longest=1_800, attempts=33),  # 6 to 12 hours: an answer older than that needs an agent's eye
    "card": Schedule(first=5, longest=1_800, attempts=60),  # half a day to a day
    "hold": Schedule(first=2, longest=3_600, attempts=180),  # half a week to a week: by then a renewal tells it anew
    "mark": Schedule(first=2, longest=3_600, attempts=180),  # the same; what is given up is taken up again when it is looked at next
    "alert": Schedule(first=5, longest=1_800, attempts=60),
    "media": Schedule(first=5, longest=3_600, attempts=33),  # half a day to a day
    "check": Schedule(first=5, longest=3_600, attempts=33),  # half a day to a day: by then the mail has been answered as it is
    "unseen": Schedule(first=5, longest=1_800, attempts=33),  # 6 to 12 hours: well within what its link is good for
    "code": Schedule(first=2, longest=30, attempts=20),  # five to ten minutes: as long as the code lives
}
LONGEST_ASKED = 3_600  # seconds: a Retry-After beyond an hour is capped, and absurd ones with it


def next_try(kind: str, attempt: int, retry_after: float | None, jitter: float) -> int | None:
    """Microseconds to wait before the next try, or None to give up.

    `attempt` counts the tries made; `jitter` is uniform in [0, 1). A wait the other side asked for is kept, and spread a
    little so that a crowd does not come back at the same moment.
    """
    schedule = SCHEDULES[kind]
    if attempt >= schedule.attempts:
        return None
    wait = min(schedule.first * 2 ** (attempt - 1), schedule.longest)
    wait = wait / 2 + wait / 2 * jitter
    if retry_after is not None and retry_after >= 0:
        asked = min(retry_after, LONGEST_ASKED)
        wait = max(wait, asked + asked * 0.1 * jitter)
    return int(wait * SECOND)
