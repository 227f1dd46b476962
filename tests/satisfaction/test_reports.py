"""What came of the surveys: the figures of a report, and the statements that count them on both engines."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hub.policy import DAY
from hub.satisfaction import reports
from hub.satisfaction.reports import MONDAY, WEEK, Count, kinds, moment, monday, report
from hub.satisfaction.surveys import Answer
from hub.survey_policy import SurveyPolicy
from tests.satisfaction import ADA, BEN, HOUR, NOON, asking
from tests.storage import ENGINES, SMS, WHATSAPP

RULES = SurveyPolicy("csat")
WEEK_OF_NOON = (NOON + MONDAY) // WEEK


def test_a_week_begins_on_monday() -> None:
    assert monday(WEEK_OF_NOON) == date(2027, 1, 11)
    for day in range(14):
        found = monday((NOON + day * DAY + MONDAY) // WEEK)
        assert found.isoweekday() == 1
        assert 0 <= (date(2027, 1, 15).toordinal() + day - found.toordinal()) < 7


def test_a_report_counts_what_was_asked_and_what_was_answered() -> None:
    rows = [
        Count("csat", SMS, WEEK_OF_NOON, None, 6),
        Count("csat", SMS, WEEK_OF_NOON, 5, 3),
        Count("csat", SMS, WEEK_OF_NOON - 1, 1, 1),
        Count("csat", WHATSAPP, WEEK_OF_NOON, 3, 2),
        Count("nps", SMS, WEEK_OF_NOON, 10, 7),
    ]
    made = report("csat", rows, NOON - 13 * DAY, NOON + 1, RULES)
    whole = made.whole
    assert (whole.asked, whole.answered, whole.rate, whole.average) == (12, 6, 0.5, 22 / 6)
    assert (whole.good, whole.low, whole.good_share, whole.net) == (3, 1, 0.5, 33)
    assert made.scores == {1: 1, 2: 0, 3: 2, 4: 0, 5: 3}
    assert [(id_, one.asked, one.answered) for id_, one in made.channels] == [(SMS, 10, 4), (WHATSAPP, 2, 2)]
    assert [(day, one.answered) for day, one in made.weeks] == [(date(2026, 12, 28), 0), (date(2027, 1, 4), 1), (date(2027, 1, 11), 5)]
    assert kinds(rows, RULES) == ["csat", "nps"]
    promoters = report("nps", rows, NOON - DAY, NOON + 1, RULES)
    assert (promoters.whole.net, promoters.scores[10]) == (100, 7)


def test_where_nobody_answered_there_is_no_figure_and_no_fault() -> None:
    made = report("nps", [], NOON - 30 * DAY, NOON, RULES)
    whole = made.whole
    assert (whole.asked, whole.rate, whole.average, whole.good_share, whole.low_share, whole.net) == (0, None, None, None, None, None)
    assert made.channels == []
    assert kinds([], RULES) == ["csat"]
    assert kinds([], SurveyPolicy("off")) == ["csat"]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-01-15", NOON - 12 * 3_600_000_000),
        ("2027-01-15T12:00:00Z", NOON),
        ("2027-01-15T12:00", NOON),
        ("2027-01-15T13:00:00+01:00", NOON),
    ],
)
def test_a_day_or_a_time(text: str, at: int) -> None:
    assert moment(text) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2027-13-01", "2027-02-30", "2027-01-15T25:00", "1", "2027-01-15T12:00:00.5Z"])
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(ValueError, match=r"day|month|hour"):
        moment(text)


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_figures_of_a_database(tmp_path: Path, engine: str) -> None:
    async with asking(tmp_path, engine) as asked:
        for value, channel in ((ADA, SMS), (BEN, WHATSAPP), ("+12025550177", SMS)):
            await asked.solved(value, channel)
        assert await asked.after(HOUR) == 3
        await asked.store.run(Answer(1, 1, 5, "Thank you!"))
        await asked.store.run(Answer(2, 2, 1, "<b>Never again</b>"))
        asked.store.clock.advance(1)
        await asked.store.run(Answer(2, 2, 2, "<b>Never again</b>"))  # changed: it counts once
        reader = asked.store.reader()
        try:
            since, until = NOON - DAY, asked.store.clock.at
            rows = [Count(r.kind, r.channel_id, r.week, r.score, r.number) for r in await reader.all(reports.counts(since, until))]
            made = report("csat", rows, since, until, RULES)
            said: list[Any] = list(await reader.all(reports.comments(since, until, "csat")))
            skipped = [tuple(row) for row in await reader.all(reports.skipped(since, until))]
            assert await reader.all(reports.counts(until, until + DAY)) == []
        finally:
            await reader.close()
    assert (made.whole.asked, made.whole.answered, made.whole.good, made.whole.low) == (3, 2, 1, 1)
    assert [(id_, one.asked) for id_, one in made.channels] == [(SMS, 2), (WHATSAPP, 1)]
    assert [(row.ticket_id, row.score, row.comment) for row in said] == [(2, 2, "<b>Never again</b>"), (1, 5, "Thank you!")]
    assert skipped == []
