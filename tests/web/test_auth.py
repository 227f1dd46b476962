"""Who gets in: sessions, forms of this origin, one-time links, API tokens, and the headers on every answer."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from sqlalchemy.exc import OperationalError

from hub import agents, passwords, sessions
from hub.keys import digest
from hub.storage.writer import StorageBusy
from hub.web import auth, security
from tests.web import ADMIN, AGENT, PASSWORD, Site, session_cookie, site

ORIGIN = "http://localhost:8080"  # the public address of the test site


@pytest.fixture
async def web_site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as built:
        yield built


# --- signing in ---


async def test_a_right_password_opens_a_session_under_a_new_token(web_site: Site) -> None:
    response = await web_site.post("/login", {"email": "Ada@Example.com", "password": PASSWORD, "next": "/settings/api"})
    assert (response.status, response.headers["Location"]) == (303, "/settings/api")
    cookie, token = response.headers["Set-Cookie"], session_cookie(response)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604800"):
        assert part in cookie
    assert "Secure" not in cookie, "plain http in the sandbox: a browser would drop it"
    assert "Domain" not in cookie
    [row] = web_site.rows("agent_session")
    assert row[0] == digest(token)
    assert token not in str(web_site.state())
    assert await (await web_site.get("/probe")).json() == {"email": ADMIN, "csrf": row[2]}
    again = await web_site.post("/login", {"email": ADMIN, "password": PASSWORD})
    assert session_cookie(again) != token
    assert len(web_site.rows("agent_session")) == 1, "the session this browser had is replaced"
    stale = await web_site.get("/probe", headers={"Cookie": f"hub_session={token}"}, cookies={})
    assert (await stale.json())["csrf"] != row[2]


async def test_over_https_the_cookie_is_pinned_to_the_host(tmp_path: Path) -> None:
    async with site(tmp_path, public_url="https://hub.example") as built:
        response = await built.post("/login", {"email": ADMIN, "password": PASSWORD})
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith("__Host-hub_session=")
        assert "Secure" in cookie
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        token = session_cookie(response, "__Host-hub_session")
        assert (await built.get("/probe", headers={"Cookie": f"__Host-hub_session={token}"})).status == 200
        # The plain name could be planted by a sibling host: it opens nothing here.
        assert (await built.get("/probe", headers={"Cookie": f"hub_session={token}"})).status == 303


async def test_unknown_wrong_disabled_and_invited_get_one_answer(web_site: Site) -> None:
    await web_site.add("gone@example.com", "agent")
    await web_site.run(agents.DisableAgent(3))
    await web_site.run(agents.CreateAgent("invited@example.com", "New", "agent"))
    answers = set()
    for email, password in [
        ("nobody@example.com", PASSWORD),
        (ADMIN, "wrong password"),
        ("gone@example.com", PASSWORD),
        ("invited@example.com", ""),
        ("invited@example.com", PASSWORD),
        ("not an address", PASSWORD),
    ]:
        response = await web_site.post("/login", {"email": email, "password": password})
        answers.add((response.status, (await response.text()).replace(email, "EMAIL"), "Set-Cookie" in response.headers))
    assert len(answers) == 1
    [(status, page, cookie)] = answers
    assert (status, cookie) == (401, False)
    assert "do not belong together" in page
    assert web_site.rows("agent_session") == []


async def test_the_sixth_guess_is_told_to_wait_even_with_the_right_password(web_site: Site) -> None:
    for _ in range(5):
        assert (await web_site.post("/login", {"email": ADMIN, "password": "wrong password"})).status == 401
    for email in (ADMIN, ADMIN.upper()):
        response = await web_site.post("/login", {"email": email, "password": PASSWORD})
        assert (response.status, response.headers["Retry-After"]) == (429, "60")
    # Nor does a header a client may write itself give it another address or account.
    response = await web_site.post("/login", {"email": ADMIN, "password": PASSWORD}, headers={"X-Forwarded-For": "198.51.100.9"})
    assert response.status == 429
    web_site.clock.pass_(60)
    assert (await web_site.post("/login", {"email": ADMIN, "password": PASSWORD})).status == 303


async def test_an_unknown_account_is_throttled_like_a_known_one(web_site: Site) -> None:
    statuses = [(await web_site.post("/login", {"email": "nobody@example.com", "password": "x"})).status for _ in range(6)]
    assert statuses == [401] * 5 + [429]


async def test_twenty_guesses_over_any_accounts_shut_an_address_out(web_site: Site) -> None:
    for n in range(20):
        await web_site.run(sessions.BeginLogin(f"user{n}@example.com", "127.0.0.1"))
    before = web_site.rows("login_attempt")
    assert (await web_site.post("/login", {"email": ADMIN, "password": PASSWORD})).status == 429
    assert web_site.rows("login_attempt") == before


async def test_one_stranger_behind_our_proxy_does_not_shut_out_the_others(web_site: Site) -> None:
    def seen_by_the_proxy(address: str) -> dict[str, str]:
        return {"X-Forwarded-For": f"203.0.113.99, {address}"}  # the first is what the stranger wrote: it counts for nothing

    for n in range(20):
        stranger = await web_site.post("/login", {"email": f"user{n}@example.com", "password": "x"}, headers=seen_by_the_proxy("8.8.8.8"))
        assert stranger.status == 401
    mine = {"email": ADMIN, "password": PASSWORD}
    assert (await web_site.post("/login", mine, headers=seen_by_the_proxy("8.8.8.8"))).status == 429
    assert (await web_site.post("/login", mine, headers=seen_by_the_proxy("1.1.1.1"))).status == 303


async def test_a_database_that_takes_nothing_is_told_without_its_insides(web_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(work: Any) -> Any:
        raise StorageBusy("database or disk is full: /var/lib/hub.db")

    async def broken(statement: Any, parameters: Any = None) -> Any:
        raise OperationalError("SELECT secret", {"email": ADMIN}, Exception("no such column"))

    monkeypatch.setattr(web_site.hub.writer, "run", full)
    response = await web_site.post("/login", {"email": ADMIN, "password": PASSWORD})
    assert (response.status, response.headers["Retry-After"], "hub.db" in await response.text()) == (503, "2", False)
    monkeypatch.setattr(web_site.hub.reader, "first", broken)
    response = await web_site.get("/login")
    assert (response.status, "secret" in await response.text()) == (503, False)


async def test_an_open_stream_does_not_keep_an_idle_session_alive(web_site: Site) -> None:
    token = session_cookie(await web_site.post("/login", {"email": ADMIN, "password": PASSWORD}))
    web_site.clock.pass_(3_600)
    seen = web_site.rows("agent_session")
    request = make_mocked_request("GET", "/stream", headers={"Cookie": f"hub_session={token}"}, app=web_site.client.app)
    await auth.authenticate(request, in_use=False)
    assert web_site.rows("agent_session") == seen
    await auth.authenticate(request)
    assert web_site.rows("agent_session") != seen


async def test_when_too_many_sign_in_at_once_the_rest_are_asked_to_wait(web_site: Site) -> None:
    token = agents.new_token()
    await web_site.run(agents.IssueLink(2, digest(token)))
    web_site.client.app[auth.PASSWORDS]._waiting = passwords.WAITING
    response = await web_site.post("/login", {"email": ADMIN, "password": PASSWORD})
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert "Try again in a few seconds" in await response.text()
    chosen = await web_site.post(f"/setup/2.{token}", {"password": PASSWORD})
    assert (chosen.status, "Try again in a few seconds" in await chosen.text()) == (503, True)
    assert web_site.rows("agent_session") == []
    web_site.client.app[auth.PASSWORDS]._waiting = 0
    assert (await web_site.post(f"/setup/2.{token}", {"password": PASSWORD})).status == 303, "the link is still good"


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("/inbox/open?ticket=4&view=all", "/inbox/open?ticket=4&view=all"),
        ("/", "/"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/logout", "/"),
        ("/login?next=/login", "/"),
        ("/" + "a" * 3_000, "/"),
    ],
)
async def test_signing_in_leads_only_to_our_own_pages(wanted: str, got: str) -> None:
    assert auth.safe_next(wanted) == got


async def test_before_the_first_agent_the_page_says_where_to_begin(tmp_path: Path) -> None:
    async with site(tmp_path, people=False) as built:
        assert "hub agents add" in await (await built.get("/login")).text()
    async with site(tmp_path / "other") as built:
        assert "hub agents add" not in await (await built.get("/login")).text()


# --- sessions ---


async def test_without_a_session_a_person_is_led_to_sign_in_and_a_script_is_told(web_site: Site) -> None:
    page = await web_site.get("/probe?a=1&b=2", headers={"Accept": "text/html"})
    assert (page.status, page.headers["Location"]) == (303, "/login?next=/probe?a%3D1%26b%3D2")
    for headers in ({"Accept": "text/event-stream"}, {"Sec-Fetch-Mode": "cors"}):
        assert (await web_site.get("/probe", headers=headers)).status == 401
    # A redirect would be followed by the script, and the sign-in page taken for success: what was typed would be gone.
    assert (await web_site.post("/probe", headers={"Accept": "text/html", "X-CSRF-Token": "of a session that ended"})).status == 401
    assert (await web_site.post("/probe")).status in (303, 401)
    assert (await web_site.post("/probe", headers={"Accept": "*/*", "Sec-Fetch-Mode": "cors"})).status == 401
    assert (await web_site.get("/no-such-page")).status == 404


@pytest.mark.parametrize("cookie", ["", "x", "a" * 42, "a" * 43, "a" * 44, "../../x", "'; DROP TABLE agent;--"])
async def test_a_made_up_cookie_opens_nothing(web_site: Site, cookie: str) -> None:
    await web_site.sign_in()
    web_site.client.session.cookie_jar.clear()
    assert (await web_site.get("/probe", headers={"Cookie": f"hub_session={cookie}"})).status == 303


async def test_a_disabled_agents_session_dies_at_once(web_site: Site) -> None:
    await web_site.sign_in(AGENT)
    assert (await web_site.get("/probe")).status == 200
    await web_site.run(agents.DisableAgent(2))
    assert (await web_site.get("/probe")).status == 303


async def test_a_session_row_is_touched_once_a_minute_and_ends_when_idle(web_site: Site) -> None:
    await web_site.sign_in()
    began = web_site.rows("agent_session")[0][4]
    web_site.clock.pass_(59)
    await web_site.get("/probe")
    assert web_site.rows("agent_session")[0][4] == began
    web_site.clock.pass_(1)
    await web_site.get("/probe")
    assert web_site.rows("agent_session")[0][4] == began + 60_000_000
    web_site.clock.pass_(8 * 3_600)
    assert (await web_site.get("/probe")).status == 303


async def test_signing_out_ends_the_session_on_the_server(web_site: Site) -> None:
    response = await web_site.post("/login", {"email": ADMIN, "password": PASSWORD})
    token, csrf = session_cookie(response), await web_site.csrf()
    assert (await web_site.post("/logout", {"csrf": "wrong"})).status == 403
    assert (await web_site.get("/logout")).status == 405
    out = await web_site.post("/logout", {"csrf": csrf})
    assert (out.status, out.headers["Location"]) == (303, "/login")
    assert web_site.rows("agent_session") == []
    assert (await web_site.get("/probe", headers={"Cookie": f"hub_session={token}"})).status == 303


# --- forms of this origin only ---


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),  # no browser: it has no cookies that ride along
        ({"Origin": ORIGIN}, True),
        ({"Origin": "OWN"}, True),  # the address the browser really used
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),  # a sibling host
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://localhost:8080"}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost:80801"}, False),
        ({"Origin": "http://sub.localhost:8080"}, False),
        ({"Origin": "HTTP://LOCALHOST:8080"}, False),
        ({"Origin": f"{ORIGIN}/"}, False),
    ],
    ids=str,
)
async def test_an_unsafe_request_comes_from_our_own_pages(web_site: Site, headers: dict[str, str], passes: bool) -> None:
    csrf = await web_site.sign_in()
    if headers.get("Origin") == "OWN":
        headers = {"Origin": str(web_site.client.make_url("/").origin())}
    assert (await web_site.post("/probe", {"csrf": csrf}, headers=headers)).status == (200 if passes else 403)
    # Signing somebody in as somebody else from a foreign page is refused alike, and so is playing in the sandbox.
    assert (await web_site.post("/login", {"email": ADMIN, "password": PASSWORD}, headers=headers)).status == (303 if passes else 403)
    assert (await web_site.post("/sandbox/act", headers=headers)).status == (200 if passes else 403)
    # Those who bring their own credentials are not asked.
    for path in ("/in/sms", "/rooms/slack", "/chat/web/messages"):
        assert (await web_site.post(path, headers=headers)).status == 200


async def test_an_unsafe_request_brings_its_own_sessions_token(web_site: Site) -> None:
    theirs = await web_site.sign_in(AGENT)
    web_site.client.session.cookie_jar.clear()
    ours = await web_site.sign_in(ADMIN)
    assert ours != theirs
    for token, status in [(ours, 200), (theirs, 403), ("", 403), (ours[:-1], 403), (ours.swapcase(), 403), ("é", 403)]:
        assert (await web_site.post("/probe", {"csrf": token})).status == status
    assert (await web_site.post("/probe")).status == 403
    assert (await web_site.post("/probe", headers={"X-CSRF-Token": ours})).status == 200
    # A wrong header is not mended by a right field.
    assert (await web_site.post("/probe", {"csrf": ours}, headers={"X-CSRF-Token": theirs})).status == 403


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded; charset=no-such", b"csrf=x"),
        ("application/x-www-form-urlencoded", b"csrf=\xff\xfe"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--x--\r\n"),
        ("application/json", b'{"csrf": "x"}'),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused_not_a_fault(web_site: Site, content_type: str, body: bytes) -> None:
    await web_site.sign_in()
    response = await web_site.client.post("/probe", data=body, headers={"Content-Type": content_type})
    assert response.status in (400, 403)


ROUTES: dict[tuple[str, str], tuple[int, int]] = {
    # (method, resource): the answer without a session, and to a signed-in agent without the session's token.
    ("GET", "/login"): (200, 303),
    ("POST", "/login"): (401, 401),
    ("POST", "/logout"): (401, 403),
    ("GET", "/setup/{link}"): (404, 404),
    ("POST", "/setup/{link}"): (404, 404),
    ("GET", "/settings"): (303, 403),
    ("GET", "/settings/quarantine"): (303, 403),
    ("GET", "/settings/quarantine/{id}"): (303, 403),
    ("GET", "/settings/quarantine/{id}/raw"): (303, 403),
    ("POST", "/settings/quarantine/{id}/replay"): (401, 403),
    ("POST", "/settings/quarantine/{id}/dismiss"): (401, 403),
    ("GET", "/settings/deliveries"): (303, 403),
    ("POST", "/settings/deliveries/retry"): (401, 403),
    ("POST", "/settings/deliveries/{id}/retry"): (401, 403),
    ("POST", "/settings/deliveries/{id}/discard"): (401, 403),
    ("GET", "/settings/api"): (303, 403),
    ("POST", "/settings/api"): (401, 403),
    ("POST", "/settings/api/{id}/revoke"): (401, 403),
    ("GET", "/settings/agents"): (303, 403),
    ("POST", "/settings/agents"): (401, 403),
    ("POST", "/settings/agents/{id}/link"): (401, 403),
    ("POST", "/settings/agents/{id}/disable"): (401, 403),
    ("POST", "/settings/agents/{id}/enable"): (401, 403),
}


async def test_every_route_has_its_row_in_the_matrix_and_no_get_changes_anything(web_site: Site) -> None:
    for module in (auth.routes, __import__("hub.web.settings", fromlist=["routes"]).routes):
        for route in module:
            assert (route.method, route.path) in ROUTES, "a new route needs its row here"
    for (method, resource), (anonymous, signed_in) in ROUTES.items():
        path = resource.replace("{link}", "0." + "a" * 43).replace("{id}", "1")
        for email, expected in ((None, anonymous), (AGENT, signed_in)):
            web_site.client.session.cookie_jar.clear()
            web_site.clock.pass_(61)  # past the throttle's window
            if email is not None:
                await web_site.sign_in(email)
            before = web_site.state()
            response = await web_site.client.request(method, path, allow_redirects=False)
            assert response.status == expected, (method, resource, email)
            if path != "/login":
                assert web_site.state() == before, (method, resource, email)


async def test_no_get_of_an_administrator_changes_anything(web_site: Site) -> None:
    await web_site.sign_in()
    before = web_site.state()
    for method, resource in ROUTES:
        if method == "GET":
            await web_site.get(resource.replace("{link}", "0." + "a" * 43).replace("{id}", "1"))
    assert web_site.state() == before


# --- one-time links ---


async def test_the_first_link_leads_to_a_signed_in_administrator(tmp_path: Path) -> None:
    async with site(tmp_path, people=False) as built:
        link = await agents.first_setup_link(built.hub.writer, ORIGIN)
        assert link is not None
        path = link.removeprefix(ORIGIN)
        assert "Make the first account" in await (await built.get(path)).text()
        form = {"name": "Ada", "email": ADMIN, "password": "short"}
        weak = await built.post(path, form)
        assert (weak.status, "at least 12" in await weak.text()) == (422, True)
        assert (await built.get(path)).status == 200, "a weak password does not use the link up"
        made = await built.post(path, form | {"password": PASSWORD})
        assert (made.status, made.headers["Location"]) == (303, "/")
        assert (await (await built.get("/probe")).json())["email"] == ADMIN
        assert (await built.get("/settings/agents")).status == 200
        for again in (await built.get(path), await built.post(path, form | {"password": PASSWORD})):
            assert again.status == 404
        assert len(built.rows("agent")) == 1


async def test_a_link_that_is_wrong_or_old_is_not_there(tmp_path: Path) -> None:
    async with site(tmp_path, people=False) as built:
        link = await agents.first_setup_link(built.hub.writer, ORIGIN)
        assert link is not None
        path = link.removeprefix(ORIGIN)
        wrong = ["/setup/", "/setup/%20", "/setup/null", "/setup/0.", path.swapcase(), path[:-1], path + "a", path.replace("/0.", "/1.")]
        for other in wrong:
            assert (await built.get(other)).status == 404, other
            form = {"name": "Eve", "email": "eve@x.y", "password": PASSWORD}
            assert (await built.post(other, form)).status == 404, other
        assert built.rows("agent") == []
        assert (await built.post(path, {"name": "Eve", "email": "eve@x.y", "password": PASSWORD}, headers={"Origin": "null"})).status == 403
        built.clock.pass_(24 * 3_600)
        assert (await built.get(path)).status == 404


# --- API tokens ---


async def test_only_a_live_token_passes_the_api(web_site: Site) -> None:
    token = "hub_" + agents.new_token()
    token_id = await web_site.run(agents.CreateApiToken("Klaviyo", digest(token), 1))

    async def ask(authorization: str | None) -> Any:
        return await web_site.get("/api/v1/probe", headers={"Authorization": authorization} if authorization is not None else {})

    assert (await (await ask(f"Bearer {token}")).json())["name"] == "Klaviyo"
    assert (await ask(f"bearer  {token}")).status == 200
    for wrong in (
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {token}",
        token,
        f"Bearer {token[:-1]}",
        f"Bearer {token}x",
        "Bearer hub_" + "a" * 43,
    ):
        response = await ask(wrong)
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="hub"'), wrong
    # An agent's session is no token.
    await web_site.sign_in()
    assert (await ask(None)).status == 401
    # Revoked in another process, which tells this one nothing: refused from the next request on.
    await web_site.run(agents.RevokeApiToken(token_id, 1))
    assert (await ask(f"Bearer {token}")).status == 401


# --- what every answer says, and how large a request may be ---


async def test_every_answer_carries_the_policy_of_its_kind(web_site: Site) -> None:
    await web_site.sign_in()
    page = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; "
    page += "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors "
    typed = "; require-trusted-types-for 'script'; trusted-types hub"
    for path, policy in [
        ("/probe", page + "'none'" + typed),
        ("/settings/api", page + "'none'" + typed),
        ("/login", page + "'none'"),
        ("/events", page + "'none'" + typed),  # a stream, whose headers leave before any middleware sees the answer
        ("/no-such-page", page + "'none'" + typed),
        ("/sandbox/act", page + "'self'"),
        ("/api/v1/probe", security.CSP[security.Kind.API]),
        ("/in/sms", security.CSP[security.Kind.PROVIDER]),
        ("/widget.js", security.CSP[security.Kind.CHAT]),
        ("/files-of-a-message", "sandbox; default-src 'none'"),  # its own, stricter one stays
    ]:
        response = await web_site.get(path)
        assert response.headers.getall("Content-Security-Policy") == [policy], path
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Resource-Policy"] == ("cross-origin" if path == "/widget.js" else "same-origin")
        assert "Strict-Transport-Security" not in response.headers, "plain http"
    refused = await web_site.post("/probe", {"csrf": "wrong"})
    assert (refused.status, "Content-Security-Policy" in refused.headers) == (403, True)
    assert (await web_site.get("/probe")).headers["Cache-Control"] == "no-store"
    assert (await web_site.get("/static/app.js")).headers["Cache-Control"] == "no-cache", "or an old script would meet a new page"
    assert (await web_site.get("/files-of-a-message")).headers["Cache-Control"] == "private"


async def test_a_path_that_only_looks_public_is_still_guarded(web_site: Site) -> None:
    server = web_site.client.server
    for path in (
        "/probe",
        "/static/../probe",
        "/in/../probe",
        "//probe",
        "/static/%2e%2e/probe",
        "/%70robe",
        "/probe;/static/x",
        "/./probe",
    ):
        reader, writer = await asyncio.open_connection(server.host, server.port)  # raw: a client would tidy the path first
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        assert re.match(r"HTTP/1.1 (303|404)", answer), (path, answer[:60])


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/login", 16 * 1024, 401),
        ("/login", 16 * 1024 + 1, 413),
        ("/api/v1/probe", 1 << 20, 200),
        ("/api/v1/probe", (1 << 20) + 1, 413),
        ("/in/sms", 2 << 20, 200),  # its connector decides
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length told", "chunked"])
async def test_a_body_is_as_large_as_its_route_takes(web_site: Site, path: str, size: int, status: int, chunked: bool) -> None:
    token = "hub_" + agents.new_token()
    await web_site.run(agents.CreateApiToken("Klaviyo", digest(token), 1))
    body = b"email=a&password=".ljust(size, b"x")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-www-form-urlencoded"}
    response = await web_site.client.post(path, data=pieces() if chunked else io.BytesIO(body), headers=headers, allow_redirects=False)
    assert response.status == status


async def test_sign_in_takes_no_files(web_site: Site) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="email"; filename="a"\r\n\r\n' + b"a" * 100 + b"\r\n--x--\r\n"
    response = await web_site.client.post("/login", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert response.status == 415
