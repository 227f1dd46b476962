"""What several tests need: the whole hub with its sandbox, in this process, on ports of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from hub.app import Running
from hub.config import Settings, load

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sandbox_config(tmp_path: Path) -> Path:
    """The shipped config.yaml, moved to free ports and to a database of its own."""
    web, providers, smtp = free_port(), free_port(), free_port()
    text = (ROOT / "config.yaml").read_text()
    for old, new in (
        ("port: 8080", f"port: {web}"),
        ("http://localhost:8080", f"http://localhost:{web}"),
        ("8090", str(providers)),
        ("8025", str(smtp)),
        ("data/", f"{tmp_path}/data/"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(sandbox_config(tmp_path), {k: v for k, v in os.environ.items() if not k.startswith("HUB_")})


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    """The whole hub as `make run` starts it."""
    hub = Running(settings)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
