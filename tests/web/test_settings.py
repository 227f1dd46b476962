"""The administrators' pages: quarantine, deliveries, API tokens, agents; each acting through the real writer."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from hub.contract import Request, Unparseable, Verdict
from hub.delivery import listing
from hub.delivery.pacing import Sign
from hub.storage.records import Delivery, Quarantine
from hub.web.settings import PAGE, shown_headers, span, visible
from tests.web import ADMIN, AGENT, PASSWORD, START, Insert, Site, site

STRANGE = b"<script>alert(1)</script>\r\nBody=hello\x00\xe2\x80\xaetxt.exe\xff"


class Connector:
    """A channel whose key has been mended, or has not: what replay asks a connector."""

    verdict = Verdict.BAD
    error: Exception | None = None

    def verify(self, request: Request, now: float) -> Verdict:
        return self.verdict

    def parse(self, request: Request) -> list[Any]:
        if self.error is not None:
            raise self.error
        return []


@pytest.fixture
async def connector() -> Connector:
    return Connector()


@pytest.fixture
async def web_site(tmp_path: Path, connector: Connector) -> AsyncIterator[Site]:
    bound: Any = SimpleNamespace(rule=SimpleNamespace(id=1, name="sms", label="US SMS <number>"), connector=connector)
    async with site(tmp_path, channels={"sms": bound}) as built:
        yield built


def quarantined(number: int, kind: str = "signature", channel_id: int = 1, **more: Any) -> Quarantine:
    headers = json.dumps({"content-type": "text/html", "authorization": "Basic c2VjcmV0", "X-Twilio-Signature": "abc="})
    reason = "The signature is wrong." if kind == "signature" else "No <body>."
    made = Quarantine(number, channel_id, kind, reason, "waiting", START, "POST", "/in/sms?a=<b>", headers, STRANGE, "", f"d{number}")
    return replace(made, **more)


def owed(number: int, state: str, **more: Any) -> Delivery:
    made = Delivery(
        number, f"lane{number}", "hold", "klaviyo", 7, "{}", state, True, START, START, attempt=5, error="<b>503</b> three times"
    )
    return replace(made, **more)


async def page_of(response: Any) -> str:
    assert response.status == 200, response.status
    return str(await response.text())


def row_of(page: str, mark: str) -> str:
    """What the page says of one thing in its list."""
    found = re.search(rf'<article [^>]*id="{mark}">.*?</article>', page, re.DOTALL)
    assert found, f"no row {mark}"
    return found.group(0)


# --- who may ---


async def test_settings_are_for_administrators(web_site: Site) -> None:
    await web_site.run(Insert((quarantined(1), owed(1, "failed"))))
    await web_site.sign_in(AGENT)
    before = web_site.state()
    for path in ("quarantine", "quarantine/1", "quarantine/1/raw", "deliveries", "api", "agents"):
        assert (await web_site.get(f"/settings/{path}")).status == 403
    for path in ("quarantine/1/replay", "quarantine/1/dismiss", "deliveries/1/retry", "api", "api/1/revoke", "agents", "agents/1/disable"):
        response = await web_site.act(f"/settings/{path}", {"name": "Eve", "email": "eve@x.y", "role": "admin"})
        assert (response.status, "administrators" in await response.text()) == (403, True)
    assert web_site.state() == before
    await web_site.sign_in(ADMIN)
    assert (await web_site.get("/settings")).headers["Location"] == "/settings/quarantine"


@pytest.mark.parametrize("number", ["0", "99", "x", "-1", "1.5", "%D9%A1", "9" * 19, "1%20OR%201=1"])
async def test_an_id_that_names_nothing_is_not_there(web_site: Site, number: str) -> None:
    await web_site.sign_in()
    for path in (f"/settings/quarantine/{number}", f"/settings/quarantine/{number}/raw"):
        assert (await web_site.get(path)).status == 404
    for path in ("quarantine/{}/dismiss", "quarantine/{}/replay", "deliveries/{}/retry", "api/{}/revoke"):
        assert (await web_site.act("/settings/" + path.format(number))).status == 404
    for command in ("disable", "enable", "link"):
        assert (await web_site.act(f"/settings/agents/{number}/{command}")).status == 404


# --- quarantine ---


async def test_a_bad_signature_is_marked_red_and_what_a_stranger_sent_is_only_text(web_site: Site) -> None:
    await web_site.run(Insert((quarantined(1), quarantined(2, "unparseable"), quarantined(3, channel_id=9))))
    await web_site.sign_in()
    page = await page_of(await web_site.get("/settings/quarantine"))
    assert '<span class="badge bad">bad signature</span>' in row_of(page, "quarantine-1")
    assert '<span class="badge">not understood</span>' in row_of(page, "quarantine-2")
    assert "US SMS &lt;number&gt;" in row_of(page, "quarantine-1")
    assert "No &lt;body&gt;." in row_of(page, "quarantine-2")
    assert "no longer configured" in row_of(page, "quarantine-3")
    for number in (1, 2):
        for action in ("replay", "dismiss"):
            assert f'action="/settings/quarantine/{number}/{action}"' in page


async def test_the_raw_request_is_shown_whole_but_harmless(web_site: Site) -> None:
    await web_site.run(Insert((quarantined(1),)))
    await web_site.sign_in()
    page = await page_of(await web_site.get("/settings/quarantine/1"))
    assert "<script>alert" not in page
    shown = html.unescape(page)
    assert "<script>alert(1)</script>\nBody=hello\\u0000\\u202etxt.exe\ufffd" in shown
    assert "POST /in/sms?a=<b>" in shown
    assert "c2VjcmV0" not in page, "the sender's password"
    assert "(hidden)" in page
    raw = await web_site.get("/settings/quarantine/1/raw")
    assert await raw.read() == STRANGE
    assert raw.headers["Content-Type"] == "application/octet-stream"
    assert raw.headers["Content-Disposition"] == 'attachment; filename="quarantine-1.bin"'
    assert raw.headers.getall("Content-Security-Policy") == ["sandbox; default-src 'none'"]


async def test_a_large_body_comes_from_its_file_and_a_lost_one_is_said(web_site: Site) -> None:
    body = b"a" * 70_000
    await web_site.run(
        Insert((quarantined(1, body=None, body_sha256=web_site.hub.blobs.put(body)), quarantined(2, body=None, body_sha256="0" * 64)))
    )
    await web_site.sign_in()
    page = await page_of(await web_site.get("/settings/quarantine/1"))
    assert "70000 bytes, of which the first 65,536 are shown" in page
    assert page.count("a" * 1_000) == 65
    assert await (await web_site.get("/settings/quarantine/1/raw")).read() == body
    assert "gone from the disk" in await page_of(await web_site.get("/settings/quarantine/2"))
    assert (await web_site.get("/settings/quarantine/2/raw")).status == 404


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ('{"A": "1", "Cookie": "x"}', [("A", "1"), ("Cookie", "(hidden)")]),
        ('[["A", "1"], ["AUTHORIZATION", "x"]]', [("A", "1"), ("AUTHORIZATION", "(hidden)")]),
        ("A: 1\nProxy-Authorization: x", [("A", "1"), ("Proxy-Authorization", "(hidden)")]),
        ("", []),
        ("[1, 2]", []),
    ],
)
def test_headers_are_shown_without_credentials(stored: str, shown: list[tuple[str, str]]) -> None:
    assert shown_headers(stored) == shown


def test_marks_that_turn_text_round_are_spelled_out() -> None:
    assert visible("a\u202eb\u200bc\x1b[0m\r\nd\te") == "a\\u202eb\\u200bc\\u001b[0m\nd\te"


async def test_a_bad_signature_is_replayed_only_once_it_verifies(web_site: Site, connector: Connector) -> None:
    await web_site.run(Insert((quarantined(1),)))
    await web_site.sign_in()
    assert "signature is still wrong" in await page_of(await web_site.act("/settings/quarantine/1/replay"))
    assert web_site.rows("quarantine")[0][4] == "waiting"
    connector.verdict = Verdict.GOOD
    connector.error = Unparseable("no From")
    assert "Still not understood: no From" in await page_of(await web_site.act("/settings/quarantine/1/replay"))
    assert web_site.rows("quarantine")[0][4] == "waiting"
    connector.error = None
    page = await page_of(await web_site.act("/settings/quarantine/1/replay"))
    assert "Replayed." in page
    assert 'id="quarantine-1"' not in page
    assert web_site.rows("quarantine")[0][4] == "replayed"
    assert 'id="quarantine-1"' in await page_of(await web_site.get("/settings/quarantine?state=replayed"))


async def test_replaying_what_lost_its_file_says_so(web_site: Site, connector: Connector) -> None:
    connector.verdict = Verdict.GOOD
    await web_site.run(Insert((quarantined(1, body=None, body_sha256="0" * 64),)))
    await web_site.sign_in()
    assert "gone from the file store" in await page_of(await web_site.act("/settings/quarantine/1/replay"))
    assert web_site.rows("quarantine")[0][4] == "waiting"


async def test_a_request_is_dismissed_once_and_kept(web_site: Site) -> None:
    await web_site.run(Insert((quarantined(1),)))
    await web_site.sign_in()
    assert "Dismissed." in await page_of(await web_site.act("/settings/quarantine/1/dismiss"))
    again = await web_site.act("/settings/quarantine/1/dismiss")
    assert (again.status, "Nothing was changed" in await again.text()) == (422, True)
    assert web_site.rows("quarantine")[0][4] == "dismissed"
    assert 'id="quarantine-1"' in await page_of(await web_site.get("/settings/quarantine?state=dismissed"))


async def test_a_long_list_is_read_by_pages_and_misses_nothing(web_site: Site) -> None:
    await web_site.run(Insert(tuple(quarantined(n) for n in range(1, 2 * PAGE + 11))))
    await web_site.sign_in()
    seen: list[int] = []
    path: str | None = "/settings/quarantine"
    while path is not None:
        page = await page_of(await web_site.get(path))
        seen += [int(n) for n in re.findall(r'id="quarantine-(\d+)"', page)]
        older = re.search(r'href="([^"]*before=[^"]*)"', page)
        path = html.unescape(older.group(1)) if older else None
    assert seen == list(range(2 * PAGE + 10, 0, -1))


# --- deliveries ---


async def test_what_failed_or_is_unknown_can_be_tried_again(web_site: Site) -> None:
    await web_site.run(Insert((owed(1, "failed"), owed(2, "unknown"), owed(3, "queued"), owed(4, "done"))))
    await web_site.sign_in()
    page = await page_of(await web_site.get("/settings/deliveries"))
    assert re.findall(r'id="delivery-(\d+)"', page) == ["2", "1"]
    assert "&lt;b&gt;503" in row_of(page, "delivery-1")
    assert "may deliver it twice" in row_of(page, "delivery-2")
    assert "may deliver it twice" not in row_of(page, "delivery-1")
    page = await page_of(await web_site.act("/settings/deliveries/1/retry"))
    assert "queued again" in page
    assert re.findall(r'id="delivery-(\d+)"', page) == ["2"]
    assert [row[6] for row in web_site.rows("delivery")] == ["queued", "unknown", "queued", "done"]
    refused = await web_site.act("/settings/deliveries/4/retry")
    assert (refused.status, "nothing to try again" in await refused.text()) == (422, True)


async def test_what_may_have_arrived_is_tried_again_only_when_that_was_confirmed(web_site: Site) -> None:
    await web_site.run(Insert((owed(1, "unknown"), owed(2, "unknown"), owed(3, "failed"))))
    await web_site.sign_in()
    refused = await web_site.act("/settings/deliveries/1/retry")
    assert (refused.status, "may have arrived" in await refused.text()) == (422, True)
    assert "queued again" in await page_of(await web_site.act("/settings/deliveries/1/retry", {"confirm": "1"}))
    left = await web_site.act("/settings/deliveries/retry", {"ids": "2,3,99,x"})
    text = await left.text()
    assert (left.status, "1 is queued again" in text, "2 were left alone" in text) == (422, True, True)
    assert [row[6] for row in web_site.rows("delivery")] == ["queued", "unknown", "queued"]
    assert "1 is queued again" in await page_of(await web_site.act("/settings/deliveries/retry", {"ids": "2", "confirm": "1"}))


async def test_what_is_given_up_keeps_the_reason(web_site: Site) -> None:
    await web_site.run(Insert((owed(1, "failed"),)))
    await web_site.sign_in()
    refused = await web_site.act("/settings/deliveries/1/discard", {"reason": "  "})
    assert (refused.status, "Say why" in await refused.text()) == (422, True)
    assert "discarded" in await page_of(await web_site.act("/settings/deliveries/1/discard", {"reason": "The tool was\nsold."}))
    (row,) = web_site.rows("delivery")
    assert row[6] == "discarded"
    assert "Discarded: The tool was sold." in str(row)


async def test_deliveries_are_filtered_by_state_and_target(web_site: Site) -> None:
    rows = (owed(1, "failed"), owed(2, "unknown"), owed(3, "failed", target="braze"), owed(4, "unknown", kind="card", target="slack"))
    await web_site.run(Insert(rows))
    await web_site.sign_in()
    for query, shown in (
        ("", ["4", "3", "2", "1"]),
        ("?state=failed", ["3", "1"]),
        ("?state=unknown", ["4", "2"]),
        ("?state=unknown&to=hold/klaviyo", ["2"]),
        ("?to=card/slack", ["4"]),
        ("?to=hold/slack", []),
        ("?state=done&to=nonsense", ["4", "3", "2", "1"]),
    ):
        page = await page_of(await web_site.get(f"/settings/deliveries{query}"))
        assert re.findall(r'id="delivery-(\d+)"', page) == shown, query


async def test_how_each_target_stands_is_shown(web_site: Site) -> None:
    await web_site.run(Insert((owed(1, "failed"), owed(2, "failed", target="braze"))))
    await web_site.sign_in()
    gates = web_site.hub.outbox.gates
    gates.heard(("hold", "braze"), 9, Sign.BUSY, 600.0, "It asks for fewer <messages>.")
    page = await page_of(await web_site.get("/settings/deliveries"))
    where = page[page.index('id="targets"') : page.index("</section>")]
    assert "paused" in where
    assert re.search(r"next try in (10|9) minutes", where)
    assert "fewer &lt;messages&gt;" in where
    assert where.index("braze") < where.index("klaviyo")


@pytest.mark.parametrize("states", [("failed",), ("unknown",), listing.TROUBLED])
@pytest.mark.parametrize("before", [None, 40])
async def test_looking_for_failures_never_reads_the_history(web_site: Site, states: tuple[str, ...], before: int | None) -> None:
    statement = str(listing.listed(states, before=before).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    assert "'failed', 'unknown'" in str(listing.listed(states).compile(dialect=sqlite.dialect())), "bound values rule out partial indexes"
    plan = [row[-1] for row in await web_site.hub.reader.all(text("EXPLAIN QUERY PLAN " + statement))]
    assert any("ix_delivery_shown" in step for step in plan), plan
    assert not any(re.match(r"SCAN delivery(?! USING (COVERING )?INDEX)", step) for step in plan), plan


SPANS = [(0, "0 seconds"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (7_199, "1 hour"), (86_400 * 3, "3 days")]


@pytest.mark.parametrize(("seconds", "words"), SPANS)
def test_a_span_of_time_in_words(seconds: int, words: str) -> None:
    assert span(seconds) == words


# --- API tokens ---


async def test_an_api_token_is_shown_once_works_and_dies_at_once(web_site: Site) -> None:
    await web_site.sign_in()
    page = await page_of(await web_site.act("/settings/api", {"name": "Klaviyo <eu>"}))
    [token] = re.findall(r"hub_[A-Za-z0-9_-]{43}", page)
    assert "Klaviyo &lt;eu&gt;" in page
    assert token not in await page_of(await web_site.get("/settings/api"))
    assert token not in str(web_site.state())
    headers = {"Authorization": f"Bearer {token}"}
    assert (await web_site.get("/api/v1/probe", headers=headers)).status == 200
    assert "revoked" in row_of(await page_of(await web_site.act("/settings/api/1/revoke")), "token-1")
    assert (await web_site.get("/api/v1/probe", headers=headers)).status == 401
    nameless = await web_site.act("/settings/api", {"name": " "})
    assert (nameless.status, len(web_site.rows("api_token"))) == (422, 1)


# --- agents ---


async def test_an_agent_is_added_by_a_link_and_shut_out_at_once(web_site: Site) -> None:
    await web_site.sign_in()
    page = await page_of(await web_site.act("/settings/agents", {"name": "Cy <b>", "email": "Cy@example.com", "role": "agent"}))
    [link] = re.findall(r'value="http://localhost:8080(/setup/[^"]+)"', page)
    assert "has not chosen a password" in row_of(page, "agent-3")
    assert "Cy &lt;b&gt;" in page
    assert link.partition(".")[2] not in str(web_site.state())
    assert link not in await page_of(await web_site.get("/settings/agents"))
    admins = web_site.client.session.cookie_jar.filter_cookies(web_site.client.make_url("/"))["hub_session"].value

    web_site.client.session.cookie_jar.clear()
    assert "cy@example.com" in await page_of(await web_site.get(link))
    assert (await web_site.post(link, {"password": PASSWORD})).status == 303
    assert (await (await web_site.get("/probe")).json())["email"] == "cy@example.com"

    as_admin = {"Cookie": f"hub_session={admins}"}
    cys = web_site.client.session.cookie_jar.filter_cookies(web_site.client.make_url("/"))["hub_session"].value
    web_site.client.session.cookie_jar.clear()
    csrf = (await (await web_site.get("/probe", headers=as_admin)).json())["csrf"]
    page = await page_of(await web_site.post("/settings/agents/3/disable", {"csrf": csrf}, headers=as_admin))
    assert "disabled" in row_of(page, "agent-3")
    assert (await web_site.get("/probe", headers={"Cookie": f"hub_session={cys}"})).status == 303
    page = await page_of(await web_site.post("/settings/agents/3/enable", {"csrf": csrf}, headers=as_admin))
    assert "active" in row_of(page, "agent-3")
    assert (await web_site.get("/probe", headers={"Cookie": f"hub_session={cys}"})).status == 303


async def test_what_was_typed_survives_a_refusal(web_site: Site) -> None:
    await web_site.sign_in()
    for form, said in [
        ({"name": "Eve", "email": ADMIN.upper(), "role": "agent"}, "already an agent"),
        ({"name": "Eve", "email": "no address", "role": "agent"}, "not an e-mail address"),
        ({"name": "", "email": "eve@x.y", "role": "agent"}, "A name needs"),
        ({"name": "Eve", "email": "eve@x.y", "role": "owner"}, "A role is one of"),
    ]:
        response = await web_site.act("/settings/agents", form)
        page = await response.text()
        assert (response.status, said in page) == (422, True), form
        assert f'name="email" value="{html.escape(form["email"])}"' in page
    assert len(web_site.rows("agent")) == 2


async def test_the_last_administrator_cannot_shut_everybody_out(web_site: Site) -> None:
    await web_site.sign_in()
    response = await web_site.act("/settings/agents/1/disable")
    assert (response.status, "last administrator" in await response.text()) == (422, True)
    assert (await web_site.get("/probe")).status == 200
