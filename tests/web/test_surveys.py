"""The survey's public page: only a posted form records, only our own links open it, and nothing a customer writes is more than text.
And the page of what came of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from hub import agents
from hub.app import Running, sandbox_token
from hub.keys import digest
from hub.passwords import Verified
from hub.satisfaction.surveys import Link, token
from hub.sessions import OpenSession
from hub.storage.marketing_records import Survey
from hub.storage.records import Agent, Customer, Identifier, Message, Ticket
from hub.web import auth, plots, security, surveys
from hub.web.context import HUB
from tests.web import Insert, Site
from tests.web import site as made_site

DAY = 86_400_000_000
XSS = "<script>alert(1)</script>"


@dataclass
class Asked:
    """A running hub that has asked one customer (survey 1, ticket 1, `csat`), and a browser without a cookie."""

    running: Running
    http: aiohttp.ClientSession
    path: str

    async def ask(self, method: str, path: str = "", **more: Any) -> Any:
        url = URL(f"http://127.0.0.1:{self.running.port}{path or self.path}", encoded=True)
        async with self.http.request(method, url, allow_redirects=False, **more) as answer:
            await answer.read()
            return answer

    async def page(self, path: str = "", **more: Any) -> str:
        answer = await self.ask("GET", path, **more)
        assert answer.status == 200, await answer.text()
        return str(await answer.text())

    async def survey(self) -> Any:
        from sqlalchemy import text

        return await self.running.hub.reader.first(text("SELECT * FROM survey WHERE id = 1"))

    async def told(self) -> int:
        from sqlalchemy import text

        return int(await self.running.hub.reader.value(text("SELECT count(*) FROM event WHERE type = 'survey.answered'")))

    def link(self, survey: int = 1, ticket: int = 1, language: str = "en") -> str:
        return f"/s/{token(self.running.hub.secret, Link(survey, ticket, language))}"


@pytest.fixture
async def asked(running: Running) -> AsyncIterator[Asked]:
    hub = running.hub
    now, sms, mail = hub.writer.clock(), hub.channels["sms"].rule.id, hub.channels["email"].rule.id
    rows: list[Any] = [
        Agent(1, "ada@shop.example", "Ada", "hash", "agent", now),
        Customer(1, "Noor", now),
        Identifier(1, "phone", "", "+12025550123", "proven", 0, 1, "channel", "+12025550123", now, now),
        *(
            Ticket(n, 1, "resolved", f"Order {n}", "default", mail if n > 3 else sms, 1, now, now, "", home_id=1, resolved_at=now)
            for n in range(1, 9)
        ),
        Message(1, 1, 1, "in", "received", "Hello", now, sms, 1),
        Survey(1, 1, sms, 1, "csat", "asked", now, "", now, now + 14 * DAY),
        Survey(2, 2, sms, 1, "nps", "asked", now, "", now, now + 14 * DAY),
        Survey(3, 3, sms, 1, "csat", "asked", now, "", now - 20 * DAY, now - DAY),  # over
        Survey(4, 4, mail, 1, "csat", "waiting", now + DAY),  # nobody was asked yet
    ]
    await hub.writer.run(Insert(tuple(rows)))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        built = Asked(running, http, "")
        built.path = built.link()
        yield built


async def test_a_link_that_is_only_followed_records_nothing_whoever_follows_it(asked: Asked) -> None:
    """Mail scanners fetch every link, some of them with every parameter they see: none of that is an answer."""
    before = await asked.survey()
    for query in ("", "?score=1", "?score=5&comment=x", "?noted=1", "?score=99", "?score=x"):
        for method in ("GET", "HEAD"):
            answer = await asked.ask(method, asked.path + query)
            assert answer.status == 200
    assert (await asked.ask("OPTIONS")).status == 405
    assert await asked.survey() == before
    assert await asked.told() == 0


async def test_the_page_asks_and_marks_the_number_that_was_clicked(asked: Asked) -> None:
    page = await asked.page()
    assert re.findall(r'name="score" value="(\d+)"', page) == ["1", "2", "3", "4", "5"]
    assert "checked" not in page
    assert "Very dissatisfied" in page
    marked = await asked.page(asked.path + "?score=4")
    assert re.findall(r'value="(\d)" required checked', marked) == ["4"]
    nps = await asked.page(asked.link(2, 2))
    assert re.findall(r'name="score" value="(\d+)"', nps) == [str(n) for n in range(11)]
    german = await asked.page(asked.link(language="de"))
    assert '<html lang="de">' in german
    assert "Sehr zufrieden" in german


async def test_the_form_records_once_and_may_be_changed(asked: Asked) -> None:
    answer = await asked.ask("POST", data={"score": "4", "comment": "Quick & kind\r\n" + XSS})
    assert (answer.status, answer.headers["Location"]) == (303, f"{asked.path}?noted=1")
    row = await asked.survey()
    assert (row.state, row.score, row.comment) == ("answered", 4, "Quick & kind\n" + XSS)
    thanks = await asked.page(asked.path + "?noted=1")
    assert "Thank you!" in thanks
    assert "4 / 5" in thanks
    assert XSS not in thanks
    assert "Quick &amp; kind" in thanks
    await asked.ask("POST", data={"score": "4", "comment": row.comment})
    assert await asked.told() == 1, "the same once more is nothing new"
    await asked.ask("POST", data={"score": "2"})
    row = await asked.survey()
    assert (row.score, row.comment, await asked.told()) == (2, "", 2)


async def test_another_site_s_form_is_taken_since_the_link_is_the_key(asked: Asked) -> None:
    answer = await asked.ask("POST", data={"score": "5"}, headers={"Origin": "null", "Sec-Fetch-Site": "cross-site"})
    assert answer.status == 303  # a mail program that shows the form itself
    assert (await asked.survey()).score == 5


@pytest.mark.parametrize("form", [{}, {"score": ""}, {"score": "0"}, {"score": "6"}, {"score": "-1"}, {"score": "4.5"}, {"score": "٤"}])
async def test_what_is_no_answer_is_asked_again_and_the_comment_stays(form: dict[str, str], asked: Asked) -> None:
    answer = await asked.ask("POST", data={**form, "comment": "Kept"})
    assert answer.status == 400
    assert ">Kept</textarea>" in await answer.text()
    assert (await asked.survey()).score is None


async def test_a_comment_is_as_long_as_it_may_be(asked: Asked) -> None:
    assert (await asked.ask("POST", data={"score": "3", "comment": "語" * 2_500})).status == 303
    assert (await asked.survey()).comment == "語" * 2_000
    assert (await asked.ask("POST", data={"score": "3", "comment": "x" * 70_000})).status == 413


async def test_a_forged_link_is_refused_without_asking_the_database(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: Any) -> Any:
        raise AssertionError("the database was asked")

    genuine = asked.path
    monkeypatch.setattr(type(asked.running.hub.reader), "first", read)
    for path in ("/s/1-1-en", genuine[:-1], genuine + "a", genuine.replace("1-1-en", "2-2-en"), "/s/" + "a" * 3_000, "/s/%F0%9F%92%A9"):
        for method in ("GET", "POST"):
            answer = await asked.ask(method, path, data={"score": "5"} if method == "POST" else None)
            assert answer.status == 404, path


async def test_a_link_opens_only_the_survey_it_was_made_for(asked: Asked) -> None:
    for path in (asked.link(1, 2), asked.link(9, 9), asked.link(2, 1), asked.link(4, 4)):
        assert (await asked.ask("GET", path)).status == 404
        assert (await asked.ask("POST", path, data={"score": "5"})).status == 404
    assert await asked.told() == 0


async def test_a_survey_that_is_over_says_so_and_takes_nothing(asked: Asked) -> None:
    for method in ("GET", "POST"):
        answer = await asked.ask(method, asked.link(3, 3), data={"score": "5"} if method == "POST" else None)
        assert answer.status == 410
        assert "over" in await answer.text()
    assert await asked.told() == 0


async def test_answers_are_limited_by_link_and_told_to_wait(asked: Asked) -> None:
    statuses = [(await asked.ask("POST", data={"score": str(1 + n % 5)})).status for n in range(12)]
    assert statuses == [303] * 10 + [429] * 2
    assert int((await asked.ask("POST", data={"score": "1"})).headers["Retry-After"]) >= 1
    assert (await asked.ask("POST", asked.link(2, 2), data={"score": "9"})).status == 303, "another link has its own"


async def test_the_page_keeps_the_link_to_itself(asked: Asked) -> None:
    answer = await asked.ask("GET")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "noindex" in answer.headers["X-Robots-Tag"]
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script|style=|https?://", await answer.text())


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[tuple[Site, TestClient[Any, Any]]]:
    """A hub without a sandbox, with an agent in it."""
    async with made_site(tmp_path) as built:
        app = web.Application(middlewares=[auth.sessions])
        app[HUB] = built.hub
        security.add(app)
        auth.add_routes(app)
        surveys.add_routes(app)
        async with TestClient(TestServer(app)) as client:
            yield built, client


async def test_an_agent_does_not_answer_in_a_customer_s_place(live: tuple[Site, TestClient[Any, Any]]) -> None:
    built, client = live
    now = built.clock()
    await built.run(
        Insert(
            (
                Customer(1, "Noor", now),
                Ticket(1, 1, "resolved", "", "default", 1, 1, now, now, ""),
                Survey(1, 1, 1, 1, "csat", "asked", now, "", now, now + DAY),
            )
        )
    )
    path = f"/s/{token(built.hub.secret, Link(1, 1, 'en'))}"
    await client.post("/login", data={"email": "ben@example.com", "password": "correct horse battery"}, allow_redirects=False)
    answer = await client.post(path, data={"score": "5"}, allow_redirects=False)
    assert answer.status == 403
    assert "signed in as an agent" in await answer.text()
    assert built.rows("survey")[0][11] is None
    client.session.cookie_jar.clear()
    assert (await client.post(path, data={"score": "5"}, allow_redirects=False)).status == 303


# --- what came of it ---


async def session(running: Running) -> dict[str, str]:
    shown, csrf = agents.new_token(), agents.new_token()
    await running.hub.writer.run(OpenSession(Verified(1, "hash"), digest(shown), csrf))
    return {"Cookie": f"hub_session={shown}"}


async def test_the_report_shows_the_figures_and_every_comment_as_text(asked: Asked) -> None:
    cookie = await session(asked.running)
    await asked.ask("POST", data={"score": "2", "comment": XSS})
    page = await asked.page("/satisfaction", headers=cookie)
    assert XSS not in page
    assert "&lt;script&gt;" in page
    assert 'href="/inbox/all?ticket=1"' in page
    assert 'aria-label="1: 0 answers, 2: 1 answers' in page
    assert not re.search(r"\s(style|on[a-z]+)=|<style", page), "the policy for content would not let it work"
    assert "Recommendation (NPS)" in page, "both kinds that were asked can be chosen"
    nps = await asked.page("/satisfaction?days=90&kind=nps", headers=cookie)
    assert "Net Promoter Score" in nps
    for query in ("?days=x&kind=x", "?days=-1", "?days=31", "?kind=%00"):
        await asked.page("/satisfaction" + query, headers=cookie)


async def test_the_api_tells_the_same_figures(asked: Asked) -> None:
    bearer = {"Authorization": f"Bearer {sandbox_token(asked.running.hub.secret)}"}
    await asked.ask("POST", data={"score": "4"})
    told = await (await asked.ask("GET", "/api/v1/satisfaction", headers=bearer)).json()
    by_kind = {one["kind"]: one for one in told["surveys"]}
    csat = by_kind["csat"]
    assert (csat["asked"], csat["answered"], csat["response_rate"], csat["average"], csat["good"], csat["net"]) == (2, 1, 0.5, 4.0, 1, 100)
    assert csat["scores"] == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 0}
    assert [one["channel"] for one in csat["channels"]] == ["sms"]
    assert sum(one["asked"] for one in csat["weeks"]) == 2
    assert by_kind["nps"]["net"] is None
    long_ago = await (await asked.ask("GET", "/api/v1/satisfaction?from=2020-01-01&to=2020-02-01", headers=bearer)).json()
    assert (long_ago["from"], long_ago["surveys"][0]["asked"]) == ("2020-01-01T00:00:00.000Z", 0)
    for query in ("?from=x", "?from=2027-01-01&to=2026-01-01", "?to=", "?since=2026-01-01", "?from=2000-01-01&to=2026-01-01"):
        answer = await asked.ask("GET", "/api/v1/satisfaction" + query, headers=bearer)
        assert (answer.status, answer.content_type) == (400, "application/problem+json"), query


def test_bars_stand_on_the_axis_and_the_highest_fills_the_room() -> None:
    drawn = plots.bars([("1", 0, "low"), ("2", 5, "low"), ("3", 10, "good")])
    assert [bar.figure for bar in drawn] == ["", "5", "10"]
    assert drawn[0].height == 0
    assert drawn[2].height == 2 * drawn[1].height == plots.HEIGHT - plots.TOP - plots.BOTTOM
    assert {round(bar.y + bar.height, 1) for bar in drawn} == {plots.HEIGHT - plots.BOTTOM}
    assert all(bar.x >= 0 and bar.x + bar.width <= plots.WIDTH for bar in drawn)
    assert not plots.bars([])
    assert [bar.height for bar in plots.bars([("a", 0, "mid")])] == [0]


def test_a_line_is_broken_where_nobody_answered() -> None:
    values = [("a", 1.0, ""), ("b", 5.0, ""), ("c", None, ""), ("d", 3.0, ""), ("e", 3.0, "")]
    drawn = plots.line(values, 1, 5)
    assert [len(piece) for piece in drawn.pieces] == [2, 2]
    assert [point.y for point in drawn.points] == [158, 18, 88, 88]
    assert len(plots.line([(str(n), 1.0, "") for n in range(13)], 1, 5).names) <= plots.NAMED
    assert plots.line([("a", 2.0, "")], 1, 5).pieces == ()
    assert plots.line([], 1, 5).points == ()


def test_shares_fill_the_bar() -> None:
    assert [(part.x, part.width, part.tone) for part in plots.shares([(1, "good"), (0, "mid"), (3, "low")])] == [
        (0.0, 25.0, "good"),
        (25.0, 75.0, "low"),
    ]
    assert plots.shares([(0, "good")]) == []
