"""The agents' site as the hub runs it: real writer, real reader, real middlewares, on a database of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from hub import agents
from hub.config import ServerSettings, Settings
from hub.delivery.outbox import Outbox
from hub.passwords import Passwords
from hub.policy import Policy
from hub.storage.blobs import Blobs
from hub.storage.reader import sqlite_reader
from hub.storage.sqlite_hot import SqliteHot
from hub.storage.sqlite_writer import SqliteWriter
from hub.web import auth, security, settings
from hub.web.context import HUB, Hub
from hub.web.feed import Feed
from tests.storage import fresh_database

PASSWORD = "correct horse battery"
ADMIN = "ada@example.com"
AGENT = "ben@example.com"
START = 1_800_000_000_000_000  # microseconds
TRIVIAL = "<!doctype html><title>{% block title %}{% endblock %}</title>{% block content %}{% endblock %}"


@dataclass
class Clock:
    now: int = START

    def __call__(self) -> int:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


@dataclass
class Insert:
    """Rows laid down for a test, through the one writer like all others."""

    rows: tuple[Any, ...]

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        for row in self.rows:
            facts.insert(row)


@dataclass
class Site:
    hub: Hub
    client: TestClient[Any, Any]
    clock: Clock
    path: Path
    hashes: dict[str, str] = field(default_factory=dict)

    async def run(self, work: Any) -> Any:
        return await self.hub.writer.run(work)

    async def add(self, email: str, role: str) -> int:
        return int(await self.run(agents.CreateAgent(email, email.partition("@")[0].title(), role, self.hashes["hash"])))

    async def post(self, path: str, data: dict[str, str] | None = None, **kwargs: Any) -> Any:
        return await self.client.post(path, data=data or {}, allow_redirects=False, **kwargs)

    async def get(self, path: str, **kwargs: Any) -> Any:
        return await self.client.get(path, allow_redirects=False, **kwargs)

    async def sign_in(self, email: str = ADMIN, password: str = PASSWORD) -> str:
        """Sign in through the page; the session's CSRF token."""
        response = await self.post("/login", {"email": email, "password": password})
        assert response.status == 303, await response.text()
        return await self.csrf()

    async def csrf(self) -> str:
        return (await (await self.get("/probe")).json())["csrf"]

    async def act(self, path: str, data: dict[str, str] | None = None) -> Any:
        """An unsafe request as our own page makes it."""
        return await self.post(path, {**(data or {}), "csrf": await self.csrf()})

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        import sqlite3

        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(f'SELECT * FROM "{table}"').fetchall()
        finally:
            connection.close()

    def state(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table agents and settings have a part in."""
        tables = ("agent", "agent_session", "api_token", "login_attempt", "setting", "quarantine", "delivery", "event")
        return {table: self.rows(table) for table in tables}


class Compiled(jinja2.BytecodeCache):
    """Templates as they were compiled in this process, by name and content; for environments with the options of hub.web.pages."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Any) -> None:
        bucket.code = self._kept.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Any) -> None:
        self._kept[bucket.key, bucket.checksum] = bucket.code


COMPILED = Compiled()


def environment() -> jinja2.Environment:
    here = Path(__file__).resolve().parents[2] / "templates"
    loader = jinja2.ChoiceLoader(
        [jinja2.FileSystemLoader(here), jinja2.DictLoader({"base.html": TRIVIAL, "plain.html": TRIVIAL})],
    )
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, bytecode_cache=COMPILED
    )
    pages.globals["icon"] = lambda *_: ""
    return pages


async def _probe(request: web.Request) -> web.Response:
    """Stands for any agents' page."""
    principal = auth.require_agent(request)
    return web.json_response({"email": principal.email, "csrf": principal.csrf})


async def _api(request: web.Request) -> web.Response:
    return web.json_response({"name": (await auth.require_token(request)).name, "size": len(await request.read())})


async def _open(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write_eof()
    return response


async def _own_policy(request: web.Request) -> web.Response:
    return web.Response(text="x", headers={"Content-Security-Policy": "sandbox; default-src 'none'", "Cache-Control": "private"})


def application(hub: Hub) -> web.Application:
    app = web.Application(middlewares=[auth.sessions], client_max_size=security.MAX_BODY)
    app[HUB] = hub
    security.add(app)
    auth.add_routes(app)
    settings.add_routes(app)
    app.router.add_get("/probe", _probe)
    app.router.add_post("/probe", _probe)
    app.router.add_get("/events", _stream)
    app.router.add_get("/files-of-a-message", _own_policy)
    app.router.add_route("*", "/api/v1/probe", _api)
    for path in ("/in/{channel}", "/rooms/{room}", "/chat/{channel}/messages", "/sandbox/act", "/static/{name}", "/widget.js", "/healthz"):
        app.router.add_route("*", path, _open)
    return app


@asynccontextmanager
async def site(tmp_path: Path, *, public_url: str = "http://localhost:8080", people: bool = True, **of_hub: Any) -> AsyncIterator[Site]:
    """The running site with one administrator and one agent, both with PASSWORD."""
    path = fresh_database(tmp_path)
    clock = Clock()
    writer = SqliteWriter(path, Policy(), lambda facts, event: None, clock=clock)
    values: dict[str, Any] = {
        "settings": Settings(server=ServerSettings(public_url=public_url)),
        "policy": Policy(),
        "writer": writer,
        "reader": sqlite_reader(path),
        "hot": SqliteHot(path),
        "blobs": Blobs(tmp_path / "files"),
        "feed": Feed(),
        "pages": environment(),
        "secret": b"s" * 32,
        "channels": {},
        "rooms": {},
        "outbox": Outbox(writer, {}),
        **of_hub,
    }
    hub = Hub(**{f.name: values.get(f.name) for f in fields(Hub)})
    async with TestClient(TestServer(application(hub))) as client:
        built = Site(hub, client, clock, path)
        if people:
            built.hashes["hash"] = await Passwords().hash(PASSWORD)
            await built.add(ADMIN, "admin")
            await built.add(AGENT, "agent")
        try:
            yield built
        finally:
            await writer.close()
            await hub.reader.close()
            await hub.hot.close()


def session_cookie(response: Any, name: str = "hub_session") -> str:
    """The value of a session cookie as it was set."""
    found = re.search(rf"{name}=([^;]*)", "\n".join(response.headers.getall("Set-Cookie", [])))
    assert found, response.headers
    return found.group(1).strip('"')
