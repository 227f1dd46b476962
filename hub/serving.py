"""Running a hub as a process: logs, signals, and what a person sees at start."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator

import structlog

from hub import agents, keys
from hub.app import SANDBOX_AGENT, Running
from hub.config import Settings
from hub.passwords import Passwords
from hub.storage import sqlite_library
from hub.web.context import Hub

log = structlog.get_logger("hub")


def log_to_stderr() -> None:
    """One line a fact, ids only: bodies, addresses and tokens are never logged."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False) if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    log_to_stderr()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = Running(settings)
    gc.disable()  # what is loaded at start stays: collecting it meanwhile finds nothing, and later would stop everything for 60 ms
    await running.start()
    gc.freeze()
    gc.enable()
    try:
        if not sqlite_library.SOUND:
            log.error("this SQLite can corrupt a database; install pysqlite3", version=sqlite_library.VERSION)
        for line in await welcome(running):
            print(line, flush=True)  # noqa: T201
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((stopped, running.died), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if running.died.done():
            raise RuntimeError(f"The database writer stopped ({running.died.result()}). Nothing more is stored: start the hub again.")
        print("Stopping: finishing what was accepted.", flush=True)  # noqa: T201
    finally:
        await running.stop()


async def welcome(running: Running) -> list[str]:
    """The one URL and the one login a newcomer needs, or the setup link while there is no agent."""
    hub, settings = running.hub, running.settings
    url = settings.server.public_url
    if settings.sandbox.enabled:
        password = await sandbox_login(hub)
        return [
            "",
            f"  Open     {url}/sandbox",
            f"  Inbox    {url}/inbox/open   sign in as {SANDBOX_AGENT} with password {password}",
            "",
            "  Everything here is a stand-in on this machine: nobody real is reached. Ctrl-C stops it.",
            "",
        ]
    lines = [f"The hub listens at {url}"]
    link = await agents.first_setup_link(hub.writer, url)
    if link is not None:
        lines.append(f"Make the first account (this link works once, for 24 hours): {link}")
    return lines


async def sandbox_login(hub: Hub) -> str:
    """The sandbox agent's password, the same at every start; the account is made at the first."""
    derived = keys.derive(hub.secret, "sandbox login")
    password = base64.b32encode(derived).decode().lower()[:16]
    if await agents.count_agents(hub.reader) == 0:
        hashed = await Passwords().hash(password)
        await hub.writer.run(agents.CreateAgent(SANDBOX_AGENT, "Robin Vale", "admin", hashed))
    return password


@contextlib.asynccontextmanager
async def offline(settings: Settings) -> AsyncIterator[Hub]:
    """The hub without its server, its workers and its sandbox, for one command."""
    log_to_stderr()
    running = Running(settings, serving=False)
    await running.start()
    try:
        yield running.hub
    finally:
        await running.stop()
