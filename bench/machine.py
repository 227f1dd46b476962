"""The machine under the measurements: its cores, its disk's flush rate, the versions in use, what a process costs. Linux only."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

VERSIONS = ("aiohttp", "SQLAlchemy", "aiosqlite", "pydantic", "twilio", "slack-bolt")


def cores() -> tuple[int, int]:
    """(the server's core, everybody else's core); the same one twice where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core: threads made before keep their own mask, so each is told."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pid: int) -> float:
    """CPU time all living threads of a process have used, in seconds, at the scheduler's resolution (proc(5), schedstat)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended meanwhile
    return total / 1e9


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
