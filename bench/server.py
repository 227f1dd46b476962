"""The hub as a measured process: the shipped server, optionally answering without storing, seeded, or under a profiler.

`python -m bench.server --config FILE [...]` prints one line of JSON when it listens and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import signal
from pathlib import Path
from typing import Any

from aiohttp import web

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from bench import traffic
from hub import agents, app, keys, sessions
from hub.config import load
from hub.contract import Request
from hub.conversations import commands
from hub.conversations.ingest import Ingest, Outcome
from hub.passwords import Verified
from hub.serving import log_to_stderr
from hub.storage import sqlite_writer as writing
from hub.storage.writer import Writer
from hub.web import routes, webhooks
from hub.web.context import HUB

STORED = Outcome(stored=1, duplicates=0)
NOBODY = {"held": False, "known": False, "until": None, "reasons": [], "version": 0}
BARE = "/api/v1/bare"
BARE_BULK = "/api/v1/bare-bulk"
REPLIES = "/healthz/replies"


class AnswersAtOnce:
    """A Writer that answers an Ingest without storing it: everything before the queue is the shipped code, nothing after it is."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.clock = writer.clock

    async def run(self, work: Any) -> Any:
        return STORED if isinstance(work, Ingest) else await self._writer.run(work)

    async def close(self) -> None:
        await self._writer.close()


def add_routes() -> None:
    """Handlers that read nothing, behind the same middlewares: what answering at all costs. And one by which agents answer many."""

    async def bare(request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def bare_bulk(request: web.Request) -> web.Response:
        """As many answers as identifiers are asked about, all the same one."""
        asked = (await request.json())["identifiers"]
        return web.json_response({"checked": len(asked), "results": [{**one, **NOBODY} for one in asked]})

    async def replies(request: web.Request) -> web.Response:
        """An agent's answer to each of the first `count` tickets, committed when this is answered."""
        hub, count, word = request.app[HUB], int(request.query["count"]), request.query["word"]
        works = [commands.Reply(n, 1, f"{word} {n}", f"{word}-{n}") for n in range(1, count + 1)]
        for start in range(0, count, 100):
            await asyncio.gather(*(hub.writer.run(work) for work in works[start : start + 100]))
        return web.json_response({"queued": count})

    built = routes.build

    def build(hub: Any) -> web.Application:
        application = built(hub)
        application.router.add_get(BARE, bare)
        application.router.add_post(BARE_BULK, bare_bulk)
        application.router.add_get(REPLIES, replies)
        return application

    routes.build = build


def profile_writer(profile: cProfile.Profile) -> None:
    """Run the writer's thread under `profile`."""
    main = writing.SqliteWriter._main

    def profiled(self: writing.SqliteWriter) -> None:
        profile.runcall(main, self)

    writing.SqliteWriter._main = profiled  # type: ignore[method-assign]


async def seed(running: app.Running, count: int) -> None:
    """Let `count` people write once, through the connector and the writer, without HTTP."""
    hub = running.hub
    bound = hub.channels["sms"]
    for bodies in traffic.chunks(traffic.Traffic(seed=1).introductions(count=count), 1_000):
        requests = [
            Request("POST", traffic.PUBLIC_URL + traffic.PATH, {"content-type": "application/x-www-form-urlencoded"}, b) for b in bodies
        ]
        await asyncio.gather(*(webhooks.ingest(hub, bound, bound.connector.parse(r), trusted=True, raw=None) for r in requests))


async def sign_in(running: app.Running) -> dict[str, str]:
    """An agent's session cookie and an API token."""
    hub = running.hub
    agent_id = await hub.writer.run(agents.CreateAgent("bench@shop.example", "Bench", "admin", "unusable"))
    session, token = agents.new_token(), "hub_" + agents.new_token()
    await hub.writer.run(sessions.OpenSession(Verified(agent_id, "unusable"), keys.digest(session), agents.new_token(), None))
    await hub.writer.run(agents.CreateApiToken("bench", keys.digest(token)))
    name = "__Host-hub_session" if hub.settings.secure_cookies else "hub_session"
    return {"cookie": f"{name}={session}", "token": token}


async def serve(options: argparse.Namespace) -> None:
    log_to_stderr()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    add_routes()
    profile = cProfile.Profile()
    if options.profile == "writer":
        profile_writer(profile)
    running = app.Running(load(options.config))
    await running.start()
    ready: dict[str, Any] = {"port": running.port}
    if options.seed:
        await seed(running, options.seed)
    if options.sign_in:
        ready |= await sign_in(running)
    if not options.store:
        running.hub.writer = AnswersAtOnce(running.hub.writer)
    gc.freeze()  # as hub.serving does
    print(json.dumps(ready), flush=True)
    if options.profile == "loop":
        profile.enable()
    await stop.wait()
    if options.profile == "loop":
        profile.disable()
    await running.stop()
    if options.profile:
        profile.dump_stats(options.profile_to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--no-store", dest="store", action="store_false", help="answer messages without storing them")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="let N people write before listening is announced")
    parser.add_argument("--sign-in", action="store_true", help="announce a session cookie and an API token")
    parser.add_argument("--profile", choices=["loop", "writer"], help="profile this thread (one at a time: Python 3.12 allows no more)")
    parser.add_argument("--profile-to", type=Path, default=Path("profile.pstats"))
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
