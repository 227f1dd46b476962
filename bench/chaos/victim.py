"""`hub serve` as a process that dies where it is told to: `python -m bench.chaos.victim --config FILE`.

The server is the shipped one. Named functions of it are wrapped from outside, so that it kills itself (SIGKILL, no clean-up)
as one of them is reached. Commands come as lines of JSON on standard input and are confirmed on standard output;
SIGUSR1 makes it say on standard error what it waits for:

    {"die": "O2", "after": 3}    at the third passing of this point from now on
    {"clock": 86400.0}           the wall clock runs so many seconds ahead (or, negative, behind)
    {"passed": 3600.0}           so many seconds pass for the pauses that the outbox makes before a target that is down
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hub.storage  # noqa: F401  (picks the SQLite library before anything imports sqlite3)
from hub.config import load

# point: (moment, places). A place is module:attribute; those that do not exist on this engine are passed over.
POINTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "I2": ("after", ("connectors.shared.twilio:TwilioMessaging.verify",)),  # the signature is checked
    "I3": ("after", ("hub.storage.sqlite_statements:write",)),  # written, not committed
    "I4": ("before", ("hub.storage.sqlite_writer:answer", "hub.storage.postgres_writer:answer")),  # committed, not answered
    "O1": ("before", ("hub.delivery.outbox:Outbox._carry",)),  # leased, and marked as being sent
    "O2": ("before", ("connectors.shared.twilio:TwilioMessaging.send", "connectors.webhook:Webhook.tell")),  # before the first byte
    "O4": ("before", ("hub.delivery.outbox:Outbox._note",)),  # answered, not noted
    "O5": ("before", ("hub.web.feed:Feed.publish",)),  # committed, not broadcast
}
HALF_WRITTEN = "A"


class Armed:
    """Which point is deadly, and at which passing."""

    def __init__(self) -> None:
        self.point = ""
        self.left = 0
        self._lock = threading.Lock()

    def arm(self, point: str, after: int) -> None:
        with self._lock:
            self.point, self.left = point, after

    def passing(self, point: str) -> bool:
        """Whether this passing is the one."""
        with self._lock:
            if point != self.point:
                return False
            self.left -= 1
            return self.left <= 0


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _wrapped(function: Callable[..., Any], point: str, moment: str, armed: Armed) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*args: Any, **named: Any) -> Any:
            if moment == "before" and armed.passing(point):
                die()
            done = await function(*args, **named)
            if moment == "after" and armed.passing(point):
                die()
            return done

        return later

    @functools.wraps(function)
    def at_once(*args: Any, **named: Any) -> Any:
        if moment == "before" and armed.passing(point):
            die()
        done = function(*args, **named)
        if moment == "after" and armed.passing(point):
            die()
        return done

    return at_once


def install(armed: Armed) -> list[str]:
    """Wrap every point; the names of those that were found. Raises LookupError for a point whose places are all gone."""
    for point, (moment, places) in POINTS.items():
        found = 0
        for place in places:
            module_name, _, path = place.partition(":")
            *holders, name = path.split(".")
            try:
                holder: Any = importlib.import_module(module_name)
                for inner in holders:
                    holder = getattr(holder, inner)
                function = getattr(holder, name)
            except (ImportError, AttributeError):
                continue
            setattr(holder, name, _wrapped(function, point, moment, armed))
            found += 1
        if not found:
            raise LookupError(f"point {point}: none of {', '.join(places)} exists. Name its new place in bench/chaos/victim.py.")
    _half_written(armed)
    _before_commit(armed)
    return [*POINTS, HALF_WRITTEN]


def _half_written(armed: Armed) -> None:
    from hub.storage.blobs import Blobs

    write = Blobs._write

    def half(self: Blobs, path: Path, data: bytes) -> None:
        if armed.passing(HALF_WRITTEN):
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / ".partial-chaos").write_bytes(data[: len(data) // 2])
            die()
        write(self, path, data)

    Blobs._write = half  # type: ignore[method-assign]


def _before_commit(armed: Armed) -> None:
    """I3 on PostgreSQL: everything is written, and COMMIT is about to be sent."""
    import asyncpg

    execute = asyncpg.Connection.execute

    async def watched(self: Any, query: str, *args: Any, **named: Any) -> Any:
        if query == "COMMIT" and armed.passing("I3"):
            die()
        return await execute(self, query, *args, **named)

    asyncpg.Connection.execute = watched


def look_soon() -> None:
    """Let what became unknown be looked for at the provider at once, not after 10 seconds."""
    from hub.delivery import reconciler

    reconciler.LOOKS = (0.3, 1, 2, 4, 8, 900)
    reconciler.POLL = 0.2


def checkpoint_every(pages: int) -> None:
    """Let SQLite move its log into the database after so few pages, so that there is a checkpoint to interrupt."""
    from hub.storage import sqlite_writer

    connect = sqlite_writer.connect

    def often(path: Path) -> Any:
        connection = connect(path)
        connection.execute(f"PRAGMA wal_autocheckpoint={pages}")
        return connection

    sqlite_writer.connect = often


class Clock:
    """The process's wall clock, moved. The monotonic one, which timers use, is left alone, as the system leaves it."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.passed = 0.0
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + self.ahead
        time.time_ns = lambda: now_ns() + int(self.ahead * 1e9)


def let_pauses_pass(clock: Clock) -> None:
    """Let the outbox's gates count in seconds that can be made to pass."""
    from hub.delivery.pacing import Gates

    begin = Gates.__init__

    def counted(self: Gates, paces: Any, rng: Any, seconds: Callable[[], float]) -> None:
        begin(self, paces, rng, lambda: seconds() + clock.passed)

    Gates.__init__ = counted  # type: ignore[method-assign]


def sign_leases() -> None:
    """Let it be seen in the database whose leases are whose."""
    from hub.delivery.outbox import Outbox

    begin = Outbox.__init__

    @functools.wraps(begin)
    def signed(self: Outbox, *args: Any, **named: Any) -> None:
        begin(self, *args, **named)
        self._token = f"{os.getpid()} {self._token}"

    Outbox.__init__ = signed  # type: ignore[method-assign]


def tell_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(limit=4, file=sys.stderr)
    sys.stderr.flush()


def obey(armed: Armed, clock: Clock) -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if "die" in command:
            armed.arm(command["die"], command["after"])
        if "clock" in command:
            clock.ahead = command["clock"]
        clock.passed += command.get("passed", 0.0)
        print(json.dumps({"obeyed": command}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.victim", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--clock", type=float, default=0.0, metavar="SECONDS", help="how far ahead the wall clock starts")
    parser.add_argument("--look-soon", action="store_true", help="reconcile what is of unknown fate without the usual wait")
    parser.add_argument("--checkpoint-every", type=int, default=0, metavar="PAGES")
    options = parser.parse_args()
    armed, clock = Armed(), Clock()
    clock.ahead = options.clock
    install(armed)
    let_pauses_pass(clock)
    sign_leases()
    if options.checkpoint_every:
        checkpoint_every(options.checkpoint_every)
    if options.look_soon:
        look_soon()
    from hub.serving import serve

    async def watched() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_tasks)
        await serve(load(options.config))

    threading.Thread(target=obey, args=(armed, clock), daemon=True).start()
    try:
        asyncio.run(watched())
    except Exception as error:
        sys.exit(f"hub: {error}")


if __name__ == "__main__":
    main()
