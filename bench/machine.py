"""The machine under the measurements: its cores, its disk's flush rate, the versions in use, what a process costs. Linux only."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("aiohttp", "SQLAlchemy", "aiosqlite", "asyncpg", "pydantic", "twilio", "slack-bolt")


_USABLE = frozenset(os.sched_getaffinity(0))


def usable() -> set[int]:
    """Every core this run may use."""
    return set(_USABLE)


def cores() -> tuple[int, int]:
    """(the server's core, the load generator's core); the same one twice where there is only one."""
    return min(_USABLE), max(_USABLE)


def beside() -> set[int]:
    """Every core but the server's: for the database server. On two cores it shares the load generator's."""
    return usable() - {min(_USABLE)} or usable()


def pin(pid: int, cores: set[int]) -> None:
    """Keep every thread of a process on these cores: threads made before keep their own mask, so each is told."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


@contextlib.contextmanager
def confined(cores: set[int]) -> Iterator[None]:
    """What is started inside stays on these cores; we come back to ours."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """CPU time all living threads of a process have used, in seconds, at the scheduler's resolution (proc(5), schedstat)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended meanwhile
    return total / 1e9


def family_cpu_seconds(pid: int) -> float:
    """The same of a process and its living children: of a postmaster and everybody who works for it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = cpu_seconds(pid)
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += cpu_seconds(int(child))
    return total


def memory(pid: int) -> tuple[float, float]:
    """(proportional, resident) memory of a process in MB of 10^6 bytes."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024 / 1e6
    return sizes["Pss"], sizes["Rss"]


def flush_rate(directory: Path, seconds: float = 1.0) -> float:
    """4 KiB appends per second, each made durable with fdatasync, on the disk the databases are on."""
    path = directory / "flush-probe"
    done = 0
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            os.write(handle, b"x" * 4096)
            os.fdatasync(handle)
            done += 1
    finally:
        os.close(handle)
        path.unlink()
    return done / seconds


def commit() -> str:
    """The checkout's commit, with a mark where files differ from it; `unknown` outside a checkout."""
    try:
        told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.strip()


def versions() -> str:
    """One line: interpreter, SQLite, the packages that matter, the commit measured."""
    from hub.storage import sqlite_library

    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    return f"Python {platform.python_version()}, SQLite {sqlite_library.VERSION}, {packages}, commit {commit()}"
