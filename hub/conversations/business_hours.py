"""When somebody answers: weekly hours in the business's own time zone, without its holidays. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
AHEAD = 400  # days looked ahead: a longer closure has no end anybody should be promised
MIDNIGHT = 24 * 60

Span = tuple[int, int]  # minutes after midnight by the clock on the wall; the end is outside


@dataclass(frozen=True, slots=True)
class Hours:
    """What a week looks like: by day of the week, spans in minutes of the wall clock of `zone`; closed all day on each holiday."""

    week: Mapping[str, Sequence[Span]]
    zone: ZoneInfo
    holidays: Collection[date] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether somebody is there, and (where nobody is) when somebody is again, in UTC; None where no end is in sight."""

    open: bool
    opens_at: datetime | None = None


def span(written: str) -> Span:
    """`09:00-17:30` in minutes; the day may end at 24:00. Raises ValueError."""
    begin, dash, end = written.partition("-")
    found = _minutes(begin), _minutes(end)
    if not dash or not found[0] < found[1]:
        raise ValueError(f"{written!r} is no span of a day: write it like 09:00-17:30, its end after its beginning (at most 24:00)")
    return found


def _minutes(written: str) -> int:
    hour, colon, minute = written.strip().partition(":")
    digits = colon and len(minute) == 2 and len(hour) in (1, 2) and (hour + minute).isascii() and (hour + minute).isdigit()
    if not digits or (total := int(hour) * 60 + int(minute)) > MIDNIGHT or int(minute) > 59:
        raise ValueError(f"{written.strip()!r} is no time of day: write it like 09:00")
    return total


def standing(hours: Hours, now: datetime) -> Standing:
    """How it stands at `now` (aware). A clock that jumps over an opening time opens with the jump; an hour told twice is open twice."""
    today = now.astimezone(hours.zone).date()
    following: datetime | None = None
    # Yesterday too: a span that ends at 24:00 ends where today begins, and where clocks go back at midnight that is later than it seems.
    for ahead in range(-1, AHEAD):
        for begin, end in _spans(hours, today + timedelta(days=ahead)):
            if begin <= now < end:
                return Standing(True)
            if begin > now and (following is None or begin < following):
                following = begin
        if following is not None and ahead > 0:
            break
    return Standing(False, following)


def _spans(hours: Hours, day: date) -> list[tuple[datetime, datetime]]:
    """The spans of one day as moments in UTC."""
    if day in hours.holidays:
        return []
    return [
        (_moment(day, begin, hours.zone, 0), _moment(day, end, hours.zone, 1)) for begin, end in hours.week.get(DAYS[day.weekday()], ())
    ]


def _moment(day: date, minutes: int, zone: ZoneInfo, fold: int) -> datetime:
    """When the wall clock shows this. Told twice: the first time for a beginning (fold 0), the second for an end. Never told: the moment
    of the jump."""
    shown = datetime.combine(day + timedelta(days=minutes // MIDNIGHT), time(minutes % MIDNIGHT // 60, minutes % 60), zone)
    first, second = (shown.replace(fold=one).astimezone(UTC) for one in (0, 1))
    if first > second:  # a gap (PEP 495): fold 0 reads it by the offset before, fold 1 by that after; the jump is where the two meet
        return _jump(second, first, zone)
    return second if fold else first


def _jump(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The moment between two at which the zone's offset changes, to the second."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after
