"""What came of the surveys: how many were asked and answered, how they scored, by channel and by week, and what they wrote.

One statement counts everything; a report is made of its rows. A survey counts for the time it was asked, so that a response rate never
mixes those asked in one period with those who answered in another. Weeks begin on Monday, UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Select, func, literal_column, select

from hub.policy import DAY, SECOND
from hub.satisfaction.surveys import SCALES, is_good, is_low
from hub.storage.tables import metadata
from hub.survey_policy import SurveyPolicy

_survey = metadata.tables["survey"]
_ticket = metadata.tables["ticket"]
_customer = metadata.tables["customer"]
_identifier = metadata.tables["identifier"]

WEEK = 7 * DAY
MONDAY = 3 * DAY  # the first of January 1970 was a Thursday
LONGEST_PERIOD = 1_100  # days


@dataclass(frozen=True, slots=True)
class Count:
    """So many surveys of a kind, asked on a channel in a week (counted from the first), answered alike; `score` None: not answered."""

    kind: str
    channel_id: int
    week: int
    score: int | None
    count: int


def counts(since: int, until: int) -> Select[Any]:
    """Rows as `Count` for the surveys asked from `since` until before `until` (microseconds UTC)."""
    # Written out: PostgreSQL does not see that two expressions with parameters are the same one, and then refuses to group by it.
    week = (_survey.c.asked_at + literal_column(str(MONDAY), BigInteger)) // literal_column(str(WEEK), BigInteger)
    return (
        select(_survey.c.kind, _survey.c.channel_id, week.label("week"), _survey.c.score, func.count().label("number"))
        .where(_survey.c.asked_at >= since, _survey.c.asked_at < until)
        .group_by(_survey.c.kind, _survey.c.channel_id, week, _survey.c.score)
    )


def skipped(since: int, until: int) -> Select[Any]:
    """Why tickets resolved in a period were not asked about: (why, count), the most frequent first."""
    due = (_survey.c.state == "skipped", _survey.c.due_at >= since, _survey.c.due_at < until)
    return select(_survey.c.why, func.count().label("number")).where(*due).group_by(_survey.c.why).order_by(func.count().desc())


def comments(since: int, until: int, kind: str, limit: int = 30) -> Select[Any]:
    """The newest comments on surveys asked in a period, with whom and what they are about."""
    return (
        select(
            *(_survey.c[name] for name in ("id", "ticket_id", "kind", "score", "comment", "answered_at", "channel_id")),
            _ticket.c.subject,
            _customer.c.id.label("customer_id"),
            _customer.c.name,
            _identifier.c.kind.label("address_kind"),
            _identifier.c.address,
        )
        .select_from(
            _survey.join(_ticket, _ticket.c.id == _survey.c.ticket_id)
            .join(_customer, _customer.c.id == _ticket.c.conversation_id)
            .outerjoin(_identifier, _identifier.c.id == _survey.c.identifier_id)
        )
        .where(_survey.c.kind == kind, _survey.c.comment != "", _survey.c.asked_at >= since, _survey.c.asked_at < until)
        .order_by(_survey.c.answered_at.desc(), _survey.c.id.desc())
        .limit(limit)
    )


def of_ticket(ticket_id: int) -> Select[Any]:
    """The survey of a ticket, or no row."""
    return select(_survey).where(_survey.c.ticket_id == ticket_id)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a number of surveys came to. Shares are of 1; None where nobody answered (or was asked)."""

    asked: int
    answered: int
    total: int  # of all scores
    low: int
    good: int

    @property
    def rate(self) -> float | None:
        return self.answered / self.asked if self.asked else None

    @property
    def average(self) -> float | None:
        return self.total / self.answered if self.answered else None

    @property
    def good_share(self) -> float | None:
        return self.good / self.answered if self.answered else None

    @property
    def low_share(self) -> float | None:
        return self.low / self.answered if self.answered else None

    @property
    def net(self) -> int | None:
        """The share of good answers less that of bad ones, in points from -100 to 100: of `nps`, the Net Promoter Score."""
        return round(100 * (self.good - self.low) / self.answered) if self.answered else None


@dataclass(frozen=True, slots=True)
class Report:
    """The surveys of one kind in a period: all together, by score, by channel (the most asked first), by week (all of them, in order)."""

    kind: str
    whole: Figures
    scores: Mapping[int, int]
    channels: Sequence[tuple[int, Figures]]
    weeks: Sequence[tuple[date, Figures]]


def report(kind: str, rows: Iterable[Count], since: int, until: int, rules: SurveyPolicy) -> Report:
    """Make a report of what was counted. Pure."""
    own = [row for row in rows if row.kind == kind]
    scores = {score: sum(row.count for row in own if row.score == score) for score in SCALES[kind].numbers}
    by_channel = {id_: _figures([row for row in own if row.channel_id == id_], rules) for id_ in sorted({row.channel_id for row in own})}
    first, last = (since + MONDAY) // WEEK, (until - 1 + MONDAY) // WEEK
    weeks = [(monday(week), _figures([row for row in own if row.week == week], rules)) for week in range(first, last + 1)]
    channels = sorted(by_channel.items(), key=lambda one: -one[1].asked)
    return Report(kind, _figures(own, rules), scores, channels, weeks)


def _figures(rows: Sequence[Count], rules: SurveyPolicy) -> Figures:
    said = [(row, row.score) for row in rows if row.score is not None]
    return Figures(
        asked=sum(row.count for row in rows),
        answered=sum(row.count for row, _ in said),
        total=sum(row.count * score for row, score in said),
        low=sum(row.count for row, score in said if is_low(row.kind, score, rules)),
        good=sum(row.count for row, score in said if is_good(row.kind, score, rules)),
    )


def monday(week: int) -> date:
    """The first day of a week as `counts` numbers them."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=week * WEEK - MONDAY)).date()


def kinds(rows: Iterable[Count], rules: SurveyPolicy) -> list[str]:
    """The kinds there is something to report of, the most asked first; the present one where nothing was asked yet."""
    asked: dict[str, int] = {}
    for row in rows:
        asked[row.kind] = asked.get(row.kind, 0) + row.count
    return sorted(asked, key=lambda kind: (-asked[kind], kind)) or [rules.kind if rules.kind in SCALES else "csat"]


def moment(text: str) -> int:
    """A day (`2026-11-23`) or a time (`2026-11-23T09:00:00Z`; without a zone: UTC) as microseconds UTC. Raises ValueError."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?", text):
        raise ValueError(f"{text[:40]!r} is no day or time; write it as 2026-11-23 or 2026-11-23T09:00:00Z")
    then = datetime.fromisoformat(text)
    return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()) * SECOND
