"""The databases that are measured: SQLite files, a PostgreSQL cluster of our own, and one of each filled once in a run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import machine
from bench.generate import Volumes
from bench.served import ROOT, ServerFailed
from tests.postgres import Cluster, postgresql_missing

# More than PostgreSQL's own 128 MB and 1 GB, which are meant to start anywhere; durability is as shipped.
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


class Databases:
    """What the parts of a run share. `missing` says why there is no PostgreSQL; then every URL is None."""

    def __init__(self, directory: Path, volumes: Volumes) -> None:
        self.directory = directory
        self.volumes = volumes
        self.missing = postgresql_missing()
        self.cluster: Cluster | None = None
        self._filled: tuple[Path, str | None] | None = None

    def __enter__(self) -> Self:
        if not self.missing:
            # On every core but the server's: what it uses must not be taken from whom it serves.
            with machine.confined(machine.beside()):
                self.cluster = Cluster(fsync=True, settings=SETTINGS).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.cluster is not None:
            self.cluster.close()

    def new_url(self) -> str | None:
        """A new, empty PostgreSQL database, or None where there is no PostgreSQL."""
        return self.cluster.create_database() if self.cluster is not None else None

    async def filled(self) -> tuple[Path, str | None]:
        """(SQLite file, PostgreSQL URL) with `volumes` in them; both are filled at the first call, side by side."""
        if self._filled is None:
            path, url = self.directory / "filled.db", self.new_url()
            with machine.confined(machine.usable()):
                await asyncio.gather(self._fill("--sqlite", str(path)), *([self._fill("--postgres", url)] if url else []))
            self._filled = path, url
        return self._filled

    async def _fill(self, engine: str, where: str) -> None:
        volumes = self.volumes
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.generate", engine, where),
            *("--conversations", str(volumes.conversations), "--messages", str(volumes.messages)),
            cwd=ROOT,
        )
        if await process.wait() != 0:
            raise ServerFailed(f"bench.generate {engine} failed")
