"""How customers say they were served: the agents' page `/satisfaction`, and the same figures for programs."""

from __future__ import annotations

from datetime import date
from typing import Any

from aiohttp import web

from hub.conversations import wording
from hub.holds.gate import BadQuestion
from hub.holds.ledger import iso
from hub.policy import DAY
from hub.satisfaction import reports
from hub.satisfaction.reports import Count, Figures, Report
from hub.satisfaction.surveys import SCALES, SKIPPED, is_good, is_low
from hub.web import plots
from hub.web.auth import now_of, require_agent, require_token
from hub.web.context import HUB, Hub
from hub.web.customers_api import answer
from hub.web.pages import render
from hub.web.tickets import zone_of

routes = web.RouteTableDef()

PERIODS = (30, 90)  # days
KINDS: dict[str, str] = {"csat": "Satisfaction", "nps": "Recommendation (NPS)", "effort": "Effort"}
# What those are who gave a good answer, and a bad one.
MARKS: dict[str, tuple[str, str]] = {
    "csat": ("satisfied", "dissatisfied"),
    "nps": ("promoters", "detractors"),
    "effort": ("found it easy", "found it hard"),
}


async def _counted(hub: Hub, since: int, until: int) -> list[Count]:
    return [Count(row.kind, row.channel_id, row.week, row.score, row.number) for row in await hub.reader.all(reports.counts(since, until))]


# --- the page --------------------------------------------------------------------------------------------------------


@routes.get("/satisfaction")
async def show(request: web.Request) -> web.StreamResponse:
    """The last 30 or 90 days: rate, average, scores, weeks, channels, and what customers wrote."""
    require_agent(request)
    hub = request.app[HUB]
    asked_days = request.query.get("days", "")
    days = int(asked_days) if asked_days in map(str, PERIODS) else PERIODS[0]
    until = now_of(hub) + 1
    since = until - days * DAY
    rows = await _counted(hub, since, until)
    kinds = reports.kinds(rows, hub.policy.survey)
    kind = request.query.get("kind", "") if request.query.get("kind", "") in kinds else kinds[0]
    made = reports.report(kind, rows, since, until, hub.policy.survey)
    return render(
        request,
        "surveys/report.html",
        say=wording,
        zone=zone_of(request),
        now=until,
        percent=percent,
        decimal=decimal,
        plots=plots,
        days=days,
        periods=PERIODS,
        kind=kind,
        kinds={name: KINDS[name] for name in kinds},
        off=hub.policy.survey.kind == "off",
        mark=MARKS[kind],
        scale=SCALES[kind],
        report=made,
        scores=plots.bars([(str(score), count, _tone(kind, score, hub)) for score, count in made.scores.items()]),
        weeks=plots.line([_week(day, figures) for day, figures in made.weeks], SCALES[kind].lowest, SCALES[kind].highest),
        tone=lambda score: _tone(kind, score, hub),
        parts=lambda figures: plots.shares(_parts(figures)),
        day=short_day,
        channels={bound.rule.id: bound for bound in hub.channels.values()},
        skipped=[(SKIPPED.get(row.why, row.why), row.number) for row in await hub.reader.all(reports.skipped(since, until))],
        comments=await hub.reader.all(reports.comments(since, until, kind)),
    )


def _tone(kind: str, score: int, hub: Hub) -> str:
    rules = hub.policy.survey
    return "low" if is_low(kind, score, rules) else "good" if is_good(kind, score, rules) else "mid"


def _parts(figures: Figures) -> list[tuple[int, str]]:
    return [(figures.good, "good"), (figures.answered - figures.good - figures.low, "mid"), (figures.low, "low")]


def _week(day: date, figures: Figures) -> tuple[str, float | None, str]:
    return short_day(day), figures.average, f"{decimal(figures.average)} of {figures.answered}"


def short_day(day: date) -> str:
    return f"{day.day} {day:%b}"


def percent(share: float | None) -> str:
    """A share for people; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.0f} %"  # noqa: RUF001


def decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")  # noqa: RUF001


# --- programs --------------------------------------------------------------------------------------------------------


@routes.get("/api/v1/satisfaction")
async def figures(request: web.Request) -> web.Response:
    """The figures of a period, `from` until before `to` (days or times; without them the last 30 days), for every kind asked in it."""
    await require_token(request)
    hub = request.app[HUB]
    wrong = next((name for name in request.query if name not in ("from", "to")), None)
    if wrong is not None:
        raise BadQuestion(f"There is no parameter {wrong}. The period is from and to.")
    try:
        until = reports.moment(request.query["to"]) if "to" in request.query else now_of(hub) + 1
        since = reports.moment(request.query["from"]) if "from" in request.query else until - PERIODS[0] * DAY
    except ValueError as error:
        raise BadQuestion(f"from, to: {error}.") from None
    if not 0 < until - since <= reports.LONGEST_PERIOD * DAY:
        raise BadQuestion(f"from must lie before to, by {reports.LONGEST_PERIOD} days at the most.")
    rows = await _counted(hub, since, until)
    made = [reports.report(kind, rows, since, until, hub.policy.survey) for kind in reports.kinds(rows, hub.policy.survey)]
    names = {bound.rule.id: bound.rule.name for bound in hub.channels.values()}
    return answer(
        {
            "from": iso(since),
            "to": iso(until),
            "kind": hub.policy.survey.kind,
            "surveys": [_report(one, names) for one in made],
            "skipped": {row.why: row.number for row in await hub.reader.all(reports.skipped(since, until))},
        }
    )


def _report(one: Report, names: dict[int, str]) -> dict[str, Any]:
    scale = SCALES[one.kind]
    return {
        "kind": one.kind,
        "scale": [scale.lowest, scale.highest],
        **_figures(one.whole),
        "scores": {str(score): count for score, count in one.scores.items()},
        "channels": [{"channel": names.get(id_, ""), **_figures(figures)} for id_, figures in one.channels],
        "weeks": [{"week": day.isoformat(), **_figures(figures)} for day, figures in one.weeks],
    }


def _figures(one: Figures) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {
        "asked": one.asked,
        "answered": one.answered,
        "response_rate": rounded(one.rate),
        "average": rounded(one.average),
        "good": one.good,
        "low": one.low,
        "good_share": rounded(one.good_share),
        "low_share": rounded(one.low_share),
        "net": one.net,
    }


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
