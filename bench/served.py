"""Hubs as subprocesses pinned to one core: their configuration, start, rest and end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from bench import machine, traffic

ROOT = Path(__file__).resolve().parents[1]


class ServerFailed(Exception):
    """A measured server did not start, or did not come to rest; the text says where its log is."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plain_config(directory: Path, stand_in: int | None = None, *, url: str | None = None, database: Path | None = None) -> Path:
    """One Twilio number, nothing else; with `stand_in` (a port) also a Slack room and a marketing webhook there.

    `url` is a PostgreSQL database, `database` another SQLite file than its own. The channel keeps Twilio's own address: nothing is
    ever sent by it. Stand-ins on loopback are allowed only beside an enabled sandbox, which then listens too and is asked nothing.
    """
    directory.mkdir(parents=True)
    settings: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": 0, "public_url": traffic.PUBLIC_URL},
        "storage": {name: str(directory / file) for name, file in (("database", "hub.db"), ("files", "files"), ("secret_file", "secret"))},
        "channels": {
            "sms": {"type": "twilio_sms", "address": traffic.NUMBER, "account_sid": traffic.ACCOUNT, "auth_token": traffic.TOKEN},
        },
    }
    if stand_in is not None:
        base = f"http://127.0.0.1:{stand_in}"
        settings["rooms"] = {
            "slack": {
                "type": "slack",
                "channel": "C0SUPPORT",
                "bot_token": "xoxb-bench",
                "signing_secret": "bench",
                "base_url": f"{base}/slack/",
            }
        }
        settings["destinations"] = {
            "marketing": {"type": "webhook", "url": f"{base}/hooks", "secret": "whsec_YmVuY2gtYmVuY2gtYmVuY2gtYmVuY2gtYmVuY2g="}
        }
        settings["allowed_hosts"] = [f"127.0.0.1:{stand_in}"]
        settings["sandbox"] = {"enabled": True, "port": 0, "smtp_port": free_port(), "beside_real": True}
    if database is not None:
        settings["storage"]["database"] = str(database)
    if url is not None:
        settings["database_url"] = url
    return _written(directory, settings)


def replying_config(directory: Path, stand_in: int, *, url: str | None = None) -> Path:
    """One Twilio number whose messages go to a stand-in at this port."""
    settings = yaml.safe_load(plain_config(directory, url=url).read_text(encoding="utf-8"))
    settings["channels"]["sms"]["base_url"] = f"http://127.0.0.1:{stand_in}"
    settings["allowed_hosts"] = [f"127.0.0.1:{stand_in}"]
    settings["sandbox"] = {"enabled": True, "port": 0, "smtp_port": free_port()}
    return _written(directory, settings)


def _written(directory: Path, settings: dict[str, Any]) -> Path:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def shipped_config(directory: Path, port: int) -> Path:
    """The shipped config.yaml, sandbox and all, moved to free ports and a database of its own."""
    directory.mkdir(parents=True)
    providers, smtp = free_port(), free_port()
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("port: 8080", f"port: {port}"),
        ("http://localhost:8080", f"http://localhost:{port}"),
        ("8090", str(providers)),
        ("8025", str(smtp)),
        ("data/", f"{directory}/"),
    ):
        if old not in text:
            raise ServerFailed(f"config.yaml no longer says {old!r}: mend bench/served.py")
        text = text.replace(old, new)
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class Served:
    """One hub in a process of its own, started by bench.server."""

    def __init__(self, name: str, config: Path, *arguments: str, cores: set[int] | None = None) -> None:
        self.name = name
        self.config = config
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        self.database = Path(settings["storage"]["database"])
        self.url: str | None = settings.get("database_url")
        self.cores = cores or {machine.cores()[0]}
        self.log = config.parent / "server.log"
        self.ready: dict[str, Any] = {}
        self._arguments = arguments
        self._process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    async def start(self) -> None:
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bench.server",
                "--config",
                str(self.config),
                *self._arguments,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("HUB_")},
            )
        os.sched_setaffinity(self._process.pid, self.cores)
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.startswith(b"{"):
            raise ServerFailed(f"The {self.name} server did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
        self.ready = json.loads(line)
        machine.pin(self.pid, self.cores)

    async def rest(self, patience: float = 30.0) -> float:
        """Wait until it uses under a tenth of its core: what the last slice left (search index, outbox) is done. CPU seconds that took."""
        began = machine.cpu_seconds(self.pid)
        quiet = 0
        for _ in range(int(patience / 0.1)):
            before = machine.cpu_seconds(self.pid)
            await asyncio.sleep(0.1)
            # The writer waits 0.2 s before it goes on indexing: two quiet looks would mistake that for rest.
            quiet = quiet + 1 if machine.cpu_seconds(self.pid) - before < 0.01 else 0
            if quiet == 4:
                return machine.cpu_seconds(self.pid) - began
        raise ServerFailed(f"The {self.name} server was still at work {patience:g} s after the load ended.")

    async def count(self, sql: str) -> int:
        """One number out of its database, read by a connection of our own."""
        if self.url is not None:
            reading = await asyncpg.connect(self.url)
            try:
                return int(await reading.fetchval(sql))
            finally:
                await reading.close()
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return int(connection.execute(sql).fetchone()[0])
        finally:
            connection.close()

    async def stop(self) -> None:
        process = getattr(self, "_process", None)
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
