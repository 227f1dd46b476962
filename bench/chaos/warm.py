"""Victims that need not import everything again: `python -m bench.chaos.warm FD` has done so, and forks one for each wish.

It has one thread and no event loop, so a fork of it is as good as a fresh process: a pid of its own, its own end, SIGKILL as ever.
What is asked comes over the socket FD: one message with the arguments, and two descriptors, the victim's standard input and output
(one socket) with its standard error, and a socket on which its pid and in the end its exit code are told. It ends with the asker.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)

ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """A forked victim, with as much of asyncio.subprocess.Process as its keeper asks for."""

    def __init__(self, pid: int, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], fate: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout, self.stdin = streams
        self._ending = asyncio.create_task(self._end(fate))

    async def _end(self, fate: asyncio.StreamReader) -> int:
        line = await fate.readline()
        self.returncode = int(line) if line else -signal.SIGKILL  # the server itself is gone, and with it whom it would tell
        self.stdin.close()
        return self.returncode

    async def wait(self) -> int:
        """Its exit code, as soon as there is one; below zero the signal that ended it."""
        return await asyncio.shield(self._ending)

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)


async def fork(arguments: list[str], log: Path) -> Forked:
    """A victim with these arguments, its standard error appended to `log`."""
    ours, its = socket.socketpair()
    told, tells = socket.socketpair()
    with its, tells, log.open("ab") as errors:
        socket.send_fds(_asked(), [json.dumps(arguments).encode()], [its.fileno(), errors.fileno(), tells.fileno()])
    streams = await asyncio.open_connection(sock=ours)
    fate, closing = await asyncio.open_connection(sock=told)
    forked = Forked(int(await fate.readline()), streams, fate)
    forked._ending.add_done_callback(lambda _: closing.close())
    return forked


@functools.cache
def _asked() -> socket.socket:
    """The way to this process's server, which starts when it is first wanted."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.chaos.warm", str(its.fileno())],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("HUB_")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )
    atexit.register(_close, ours, process)
    return ours


def _close(way: socket.socket, process: subprocess.Popen[bytes]) -> None:
    way.close()
    process.wait()


# What a hub imports only as it starts: by its configuration, or for its database.
LATE = (
    "aiosqlite",
    "alembic.command",
    "alembic.ddl.postgresql",
    "asyncpg",
    "connectors.email.raw",
    "connectors.sandbox",
    "connectors.slack",
    "connectors.twilio_sms",
    "connectors.webhook",
    "hub.delivery.reconciler",
    "hub.serving",
    "hub.web.sandbox",
    "mako.template",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)


def _serve(asked: socket.socket) -> list[str] | None:
    """In each fork, its arguments; in the server None, once nobody can ask any more."""
    awake, wakes = socket.socketpair()
    awake.setblocking(False)
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    living: dict[int, int] = {}  # pid: where its exit code is awaited
    while True:
        ready, _, _ = select.select([asked, awake], [], [])
        if awake in ready:
            awake.recv(4_096)
            for pid in list(living):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    teller = living.pop(pid)
                    with contextlib.suppress(OSError):  # nobody waits for it any more
                        os.write(teller, b"%d\n" % os.waitstatus_to_exitcode(status))
                    os.close(teller)
        if asked not in ready:
            continue
        message, passed, _, _ = socket.recv_fds(asked, 65_536, 3)
        if not message:
            return None
        talk, errors, teller = passed
        if pid := os.fork():
            living[pid] = teller
            os.write(teller, b"%d\n" % pid)
            os.close(talk)
            os.close(errors)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for way in (asked, awake, wakes):
            way.close()
        for descriptor, standard in ((talk, 0), (talk, 1), (errors, 2)):
            os.dup2(descriptor, standard)
        for descriptor in (*passed, *living.values()):
            os.close(descriptor)
        return list(json.loads(message))


def main() -> None:
    from bench.chaos import victim

    places = [place.partition(":")[0] for _, where in victim.POINTS.values() for place in where]
    for module in (*LATE, *places):
        importlib.import_module(module)
    assert threading.active_count() == 1, "a thread would be lost in the forks"
    # What is there stays: no fork looks through it again, and copies its pages for that.
    gc.collect()
    gc.freeze()
    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        sys.argv[1:] = arguments
        victim.main()


if __name__ == "__main__":
    main()
