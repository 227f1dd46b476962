"""What several tests need: the whole hub with its sandbox, in this process, on ports of its own."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import jinja2
import pytest

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from hub import passwords
from hub.app import Running
from hub.config import Settings, load
from hub.web import pages
from tests.postgres import shared
from tests.storage import fresh_database, fresh_postgres
from tests.web import COMPILED

ROOT = Path(__file__).resolve().parents[1]
SHIPPED_MEMORY_KIB = passwords.MEMORY_KIB


# Below the range the system gives to outgoing connections, and apart for each test worker: a port found free stays free.
_PORTS = itertools.count(16_000 + 2_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))


def free_port() -> int:
    """A port nobody listens on."""
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable: the count has no end")


def sandbox_config(tmp_path: Path) -> Path:
    """The shipped config.yaml, moved to free ports and to a database of its own."""
    web, providers, smtp = free_port(), free_port(), free_port()
    text = (ROOT / "config.yaml").read_text()
    # In one pass: one port's digits may stand in another's.
    moved = {"8080": str(web), "8090": str(providers), "8025": str(smtp), "data/": f"{tmp_path}/data/"}
    text, count = re.subn(r"\b(8080|8090|8025)\b|\bdata/", lambda found: moved[found.group()], text)
    assert count >= 9, "the shipped config.yaml has changed its ports or its places"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


# Files that take the longest, first: a worker that comes to one of them last makes all others wait for it.
LONGEST = (
    "test_chaos_postgresql.py",
    "test_chaos.py",
    "test_identity_replay.py",
    "browser/test_people.py",
    "browser/test_codes.py",
    "test_cli_customers.py",
    "storage/test_identity_races.py",
    "storage/test_postgres_faults.py",
    "browser/test_story.py",
    "browser/test_widget.py",
    "test_webhooks.py",
    "storage/test_copying.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first; the rest as it is found."""
    place = {ROOT / "tests" / name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a hub of its own; they need not each compile the same templates."""

    def environment() -> jinja2.Environment:
        built = make()
        built.bytecode_cache = COMPILED
        return built

    make = pages.environment
    monkeypatch.setattr(pages, "environment", environment)


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id as it is, at a thousandth of its memory: it is dear on purpose, and most tests only have somebody sign in.

    test_agents, which is about passwords, does without this; processes of their own always do.
    """
    monkeypatch.setattr(passwords, "MEMORY_KIB", 64)
    monkeypatch.setattr(passwords, "NOBODY", passwords.NOBODY.replace(f"m={SHIPPED_MEMORY_KIB},", "m=64,"))


@contextmanager
def on_engine(config: Path, engine: str) -> Iterator[None]:
    """Let a configuration name a fresh database of this engine."""
    if engine != "postgresql":
        yield
        return
    url = fresh_postgres()
    config.write_text(f"database_url: {url}\n{config.read_text()}")
    try:
        yield
    finally:
        shared().drop_database(url)


@contextmanager
def configured(directory: Path, engine: str) -> Iterator[Settings]:
    """The shipped configuration on an engine, with a migrated database of its own."""
    config = sandbox_config(directory)
    if engine == "sqlite":
        fresh_database(directory / "data")
    with on_engine(config, engine):
        yield load(config, {k: v for k, v in os.environ.items() if not k.startswith("HUB_")})


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with configured(tmp_path, "sqlite") as built:
        yield built


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    """The whole hub as `make run` starts it."""
    hub = Running(settings)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
