"""Business hours by the clock on the wall: weeks, holidays, zones, and the nights on which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from hub.conversations.business_hours import Hours, Standing, span, standing

WEEK = {day: [span("09:00-12:30"), span("13:30-17:00")] for day in ("mon", "tue", "wed", "thu", "fri")}
BERLIN = Hours(WEEK, ZoneInfo("Europe/Berlin"), {date(2026, 12, 25)})
NIGHTS = Hours({"sat": [span("22:00-24:00")], "sun": [span("00:00-2:30"), span("2:45-6:00")]}, ZoneInfo("Europe/Berlin"))
HAVANA = Hours({"sun": [span("00:00-09:00")]}, ZoneInfo("America/Havana"))  # its clocks change at midnight


def at(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


CASES = [
    ("in the morning, winter", BERLIN, "2026-01-12T08:00", True, None),
    ("a minute before", BERLIN, "2026-01-12T07:59", False, "2026-01-12T08:00"),
    ("the same hour of UTC in summer is another one in Berlin", BERLIN, "2026-07-13T07:00", True, None),
    ("over lunch", BERLIN, "2026-01-12T11:30", False, "2026-01-12T12:30"),
    ("the end is outside", BERLIN, "2026-01-12T16:00", False, "2026-01-13T08:00"),
    ("Friday night: Monday", BERLIN, "2026-01-16T17:00", False, "2026-01-19T08:00"),
    ("the weekend before the clocks go forward", BERLIN, "2026-03-27T17:00", False, "2026-03-30T07:00"),
    ("the weekend before the clocks go back", BERLIN, "2026-10-23T16:00", False, "2026-10-26T08:00"),
    ("a holiday and the weekend behind it", BERLIN, "2026-12-25T10:00", False, "2026-12-28T08:00"),
    ("a zone ahead of UTC, already tomorrow there", Hours({"tue": [span("08:00-9:00")]}, ZoneInfo("Pacific/Auckland")),
     "2026-01-12T19:30", True, None),
    ("until midnight and on after it", NIGHTS, "2026-01-10T22:59", True, None),
    ("exactly midnight", NIGHTS, "2026-01-10T23:00", True, None),
    ("02:30 to 02:45 by the wall, never shown that night: closed for no moment", NIGHTS, "2026-03-29T01:00", True, None),
    ("02:40, shown the first time that night, lies within the span ending at the second 02:30", NIGHTS, "2026-10-25T00:40", True, None),
    ("02:20 shown the second time", NIGHTS, "2026-10-25T01:20", True, None),
    ("a midnight that is never shown: open from the jump on", HAVANA, "2026-03-08T04:59", False, "2026-03-08T05:00"),
    ("the moment of the jump", HAVANA, "2026-03-08T05:00", True, None),
    ("never open", Hours({}, ZoneInfo("UTC")), "2026-01-12T08:00", False, None),
]  # fmt: skip


@pytest.mark.parametrize(("hours", "now", "is_open", "opens"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_open_or_when_it_opens(hours: Hours, now: str, is_open: bool, opens: str | None) -> None:
    assert standing(hours, at(now)) == Standing(is_open, at(opens) if opens else None)


@pytest.mark.parametrize(
    "written", ["", "9-17", "09:00", "17:00-09:00", "09:00-09:00", "09:00-24:01", "09:60-10:00", "a:00-b:00", "٠٩:00-10:00"]
)
def test_what_is_no_span_is_named(written: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        span(written)
