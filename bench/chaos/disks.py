"""The storage refuses: a full disk (F9), a failing sync (F10), a lock that somebody else holds (F11), a database that goes away (F12)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from bench.chaos.crashes import traced
from bench.chaos.outside import Answered
from bench.chaos.promise import BrokenPromise, CannotTry, Run, Tally
from bench.chaos.proxy import Proxy
from bench.chaos.world import World, world
from tests.postgres import Cluster, ClusterFailed

PATIENCE = 2.0  # seconds until a provider is told to come back ...
GRACE = 0.9  # ... and what a busy machine adds
HEALED = 5.0  # seconds after the fault is over


def judged(answers: list[Answered], what: str) -> float:
    """The slowest refusal. Raises BrokenPromise where one came too late."""
    # A large mail is given longer: asked to come back, it would take as long the next time.
    slowest = max((answer.seconds for answer in answers if answer.status != 200 and not answer.large), default=0.0)
    if slowest > PATIENCE + GRACE:
        raise BrokenPromise(f"{what}: a provider waited {slowest:.1f} s for its 503")
    return slowest


async def _healed(here: World, what: str) -> float:
    """Everything that waits is taken, soon after the fault is over."""
    began = time.monotonic()
    await here.provider.settle(patience=HEALED + GRACE)
    taken = time.monotonic() - began
    if taken > HEALED:
        raise BrokenPromise(f"{what}: {taken:.1f} s after it was over messages were still refused")
    return taken


@contextlib.contextmanager
def _small_disk(place: Path, megabytes: int, owner: str | None = None) -> Iterator[Path]:
    """A file system of its own. Raises CannotTry without the right to mount one."""
    place.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotTry(f"no tmpfs of a limited size can be mounted here ({done.stderr.strip() or 'not root'})")
    try:
        if owner:
            shutil.chown(place, owner)
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def _fill(place: Path, leave: int) -> Path:
    """Take all the room but `leave` bytes."""
    filler = place / "filler"
    free = os.statvfs(place)
    left = free.f_bavail * free.f_frsize - leave
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while left > 0:
            left -= file.write(bytes(min(left, 65_536)))
            file.flush()
    return filler


async def disk_full(run: Run) -> Tally:
    """F9: no space left: 503 within 2 s, nothing half written, pages still read, healed within 5 s of there being space."""
    rounds = run.size(2, 20)
    if run.engine == "sqlite":
        if os.geteuid() != 0:
            return await _file_limit(run, rounds)
        with _small_disk(run.directory / "disk", 48) as disk:
            return await _filled(run, rounds, disk, lambda here: _onto(here, disk, database=True))
    assert run.cluster is not None
    # The server's own disk stays as it is: a full log ends PostgreSQL, and is no question to us. A full table space is.
    place = run.cluster.directory / f"disk-{run.seed}"
    owner = "postgres" if os.geteuid() == 0 else None
    with _small_disk(place, 48, owner) as disk:
        tables = disk / "tables"
        tables.mkdir()
        if owner:
            shutil.chown(tables, owner)
        space = f"full_{run.seed}"
        run.cluster.sql(f"CREATE TABLESPACE {space} LOCATION '{tables}'")

        def onto(here: World) -> None:
            assert run.cluster is not None
            run.cluster.sql(f"ALTER DATABASE {here.database_url.rpartition('/')[2]} SET TABLESPACE {space}")
            _onto(here, disk, database=False)

        try:
            return await _filled(run, rounds, disk, onto)
        finally:
            run.cluster.sql(f"DROP TABLESPACE {space}")


def _onto(here: World, disk: Path, *, database: bool) -> None:
    def change(settings: dict[str, dict[str, str]]) -> None:
        settings["storage"]["files"] = str(disk / "files")
        if database:
            settings["storage"]["database"] = str(disk / "hub.db")

    here.rewrite(change)


async def _filled(run: Run, rounds: int, disk: Path, prepare: Callable[[World], None]) -> Tally:
    refused, slowest, healing = 0, 0.0, 0.0
    async with world(run) as here:
        prepare(here)
        await here.hub.start()
        await here.sign_in()
        await here.provider.deliver(here.provider.write(40, 20))
        for number in range(rounds):
            filler = _fill(disk, leave=run.dice.randrange(0, 200_000))
            seen = len(here.provider.answers)
            for _ in range(20):
                await here.provider.deliver(here.provider.write(40, 40, mails=4, word=f"round {number} message"))
                if any(answer.status == 503 for answer in here.provider.answers[seen:]):
                    break
            during = here.provider.answers[seen:]
            refused += sum(answer.status == 503 for answer in during)
            if any(answer.status == 0 for answer in during):
                raise BrokenPromise("a provider got no answer at all")
            slowest = max(slowest, judged(during, "disk full"))
            await here.agent.page("/inbox/open")
            filler.unlink()
            healing = max(healing, await _healed(here, "disk full"))
        if not refused:
            raise BrokenPromise("the disk was never full: this run proved nothing")
        await here.drained()
        await here.hub.stop()
        await here.sound()
        if partial := _half_written(here):
            raise BrokenPromise(f"{partial} half-written files are left")
        tally = await here.timeline()
        tally.add(await here.notices())
    tally.tried = len(here.provider.offers)
    tally.notes += [f"{rounds} times full, {refused} refused within {slowest:.1f} s, healed within {healing:.1f} s"]
    return tally


def _half_written(here: World) -> int:
    return len(list(Path(here.settings["storage"]["files"]).rglob(".partial-*")))


async def _file_limit(run: Run, rounds: int) -> Tally:
    """Without root: the process may let no file grow (RLIMIT_FSIZE), so that its writes fail as they do on a full disk."""
    refused, slowest, healing = 0, 0.0, 0.0
    async with world(run) as here:
        await here.hub.start()
        await here.sign_in()
        await here.provider.deliver(here.provider.write(40, 20))
        for number in range(rounds):
            soft, hard = resource.prlimit(here.hub.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(here.hub.pid, resource.RLIMIT_FSIZE, (run.dice.randrange(4_096, 65_536), hard))
            seen = len(here.provider.answers)
            await here.provider.deliver(here.provider.write(40, 40, mails=4, word=f"round {number} message"))
            during = here.provider.answers[seen:]
            refused += sum(answer.status == 503 for answer in during)
            slowest = max(slowest, judged(during, "file limit"))
            await here.agent.page("/inbox/open")
            resource.prlimit(here.hub.pid, resource.RLIMIT_FSIZE, (soft, hard))
            healing = max(healing, await _healed(here, "file limit"))
        if not refused:
            raise BrokenPromise("no write ever failed: this run proved nothing")
        await here.drained()
        await here.hub.stop()
        await here.sound()
        tally = await here.timeline()
    tally.tried = len(here.provider.offers)
    tally.notes += [f"not root: by RLIMIT_FSIZE; {refused} refused within {slowest:.1f} s, healed within {healing:.1f} s"]
    return tally


async def sync_fails(run: Run) -> Tally:
    """F10: fsync and fdatasync answer EIO: no provider is told 200 meanwhile, and what was told 200 before and after is there."""
    if not shutil.which("strace"):
        raise CannotTry("no strace to make a sync fail with")
    rounds = run.size(2, 20)
    refused, lied = 0, 0
    async with world(run) as here:
        await here.hub.start()
        for number in range(rounds):
            await here.provider.deliver(here.provider.write(40, 40, word=f"round {number} before"))
            # From the so-manieth sync on, in each thread.
            which = run.dice.randint(1, 3)
            inject = ("-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={which}+")
            tracer = await traced(_syncing(here), *inject)
            seen = len(here.provider.answers)
            # One after the other, so that at most the first few can be synced before the fault sets in.
            offers = here.provider.write(30, 1, mails=run.dice.choice((0, 2)), word=f"round {number} during")
            for offer in offers:
                with contextlib.suppress(BrokenPromise):
                    await here.provider.offer(offer)
            during = here.provider.answers[seen:]
            # Each commit takes one sync or more: only as many can have succeeded before the fault.
            good = sum(answer.status == 200 for answer in during)
            lied += max(0, good - 3 * which)
            refused += len(during) - good
            judged(during, "sync failed")
            tracer.send_signal(signal.SIGTERM)
            await tracer.wait()
            await _on_its_feet(here)
            await _healed(here, "sync failed")
        await here.drained()
        await here.hub.stop()
        await here.sound()
        tally = await here.timeline()
    tally.lost += lied
    if not (refused or lied):
        raise BrokenPromise("no sync ever failed: this run proved nothing")
    tally.tried = len(here.provider.offers)
    tally.notes += [f"{rounds} times, {refused} refused"]
    return tally


def _syncing(here: World) -> int:
    """The process whose syncs count: the hub's, or PostgreSQL's postmaster (strace follows what it forks)."""
    return here.hub.pid


async def _on_its_feet(here: World) -> None:
    """A process that left because of the fault is started again, as a supervisor does."""
    if here.hub.alive:
        return
    if await here.hub.ended() == 0:
        raise BrokenPromise("after a failed sync the hub exited with 0: no supervisor would start it again")
    await here.hub.start()


async def locked_by_another(run: Run) -> Tally:
    """F11: somebody else holds the database (a backup, a tool, a long read): 503 or a short wait, and nothing lost."""
    held, rounds = run.size(3, 30), run.size(1, 3)
    slowest, healing, refused = 0.0, 0.0, 0
    async with world(run) as here:
        await here.hub.start()
        await here.provider.deliver(here.provider.write(40, 20))
        for number in range(rounds):
            # A reader, however long, keeps nobody from writing.
            async with _stranger(here, writes=False):
                seen = len(here.provider.answers)
                await here.provider.deliver(here.provider.write(60, 30, word=f"round {number} read"))
                if any(answer.status != 200 for answer in here.provider.answers[seen:]):
                    raise BrokenPromise("a mere reader kept the hub from storing")
            async with _stranger(here, writes=True):
                seen = len(here.provider.answers)
                deadline = time.monotonic() + held
                while time.monotonic() < deadline:
                    await here.provider.deliver(here.provider.write(10, 10, word=f"round {number} locked"))
                during = here.provider.answers[seen:]
                refused += sum(answer.status == 503 for answer in during)
                if any(answer.status not in (200, 503) for answer in during):
                    raise BrokenPromise("a provider got no answer at all")
                slowest = max(slowest, judged(during, "locked"))
            healing = max(healing, await _healed(here, "locked"))
        await here.drained()
        tally = await here.timeline()
        await here.sound()
        await here.hub.stop()
    if not (refused or tally.lost):
        raise BrokenPromise("the lock kept nobody waiting: this run proved nothing")
    tally.tried = len(here.provider.offers)
    tally.notes += [f"locked for {held} s, {refused} refused within {slowest:.1f} s, healed within {healing:.1f} s"]
    return tally


@contextlib.asynccontextmanager
async def _stranger(here: World, *, writes: bool) -> AsyncIterator[None]:
    """Another program in the middle of a transaction."""
    if not here.database_url:
        connection = sqlite3.connect(here.settings["storage"]["database"], isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            connection.execute("SELECT count(*) FROM message").fetchall()
            yield
            connection.execute("ROLLBACK")
        finally:
            connection.close()
        return
    import asyncpg

    other = await asyncpg.connect(here.database_url)
    try:
        async with other.transaction():
            await other.execute(f"LOCK TABLE message IN ACCESS {'EXCLUSIVE' if writes else 'SHARE'} MODE")
            yield
    finally:
        await other.close()


# --- PostgreSQL goes away ---


async def database_gone(run: Run) -> Tally:
    """F12: PostgreSQL is restarted, its backends are killed, or its connection is cut in the middle of COMMIT."""
    assert run.cluster is not None
    cluster = run.cluster
    ways: list[tuple[str, Callable[[World, Proxy], Awaitable[None]]]] = [
        ("connection cut before COMMIT arrives", lambda here, way: _cut_at_commit(here, way, answered=False)),
        ("connection cut before COMMIT is answered", lambda here, way: _cut_at_commit(here, way, answered=True)),
        ("backends killed", lambda here, way: _kill_backends(here)),
        ("restarted, immediate", lambda here, way: asyncio.to_thread(cluster.restart, "immediate")),
        ("silent for 4 s, then cut", lambda here, way: _silent(way)),
    ]
    # A second crash soon after the first finds what the first left in memory.
    ways += ways[2:4]
    rounds = run.size(len(ways), 50)
    slowest, healing = 0.0, 0.0
    async with world(run) as here:
        way = Proxy(cluster.port)
        await way.start()
        here.rewrite(lambda settings: settings.update(database_url=here.database_url.replace(f":{cluster.port}/", f":{way.port}/")))
        try:
            await here.hub.start()
            await here.sign_in()
            await here.provider.deliver(here.provider.write(40, 40))
            for number in range(rounds):
                name, fault = ways[number % len(ways)]
                seen = len(here.provider.answers)
                tickets = [id_ for id_ in await here.tickets() if id_ not in set(here.agent.wanted.values())][:4]
                offers = here.provider.write(run.size(80, 300), 60, first=10 * number, mails=2, word=f"round {number} message")
                load = asyncio.create_task(here.provider.deliver(offers))
                pressing = [asyncio.create_task(here.agent.reply(id_, f"reply to ticket {id_} in round {number}")) for id_ in tickets]
                await asyncio.sleep(run.dice.uniform(0.0, 0.2))
                await fault(here, way)
                await asyncio.gather(load, *pressing)
                slowest = max(slowest, judged(here.provider.answers[seen:], name))
                if not here.hub.alive:
                    raise BrokenPromise(f"{name}: the hub ended ({await here.hub.ended()}): {here.hub.tail()}")
                try:
                    healing = max(healing, await _healed(here, name))
                    await here.agent.press_again()
                except BrokenPromise as broken:
                    raise BrokenPromise(f"{name}: {broken}") from None
            await here.drained(patience=120)
            tally = await here.timeline()
            tally.add(await here.replies())
            tally.add(await here.notices())
            await here.sound()
            await here.hub.stop()
        finally:
            await way.stop()
    tally.tried = len(here.provider.offers)
    told = f"refused within {slowest:.1f} s, healed within {healing:.1f} s"
    tally.notes += [f"{rounds} faults of {len(set(ways))} kinds, {way.cuts} in a COMMIT, {told}"]
    if not way.cuts:
        raise BrokenPromise("no connection was cut in a COMMIT: this run proved nothing")
    for number in range(run.size(0, 3)):
        with Cluster(fsync=True) as primary:
            directory = run.directory / f"failover-{number}"
            tally.add(await _failover(Run(run.engine, run.full, run.seed + number, directory, primary)))
    return tally


async def _failover(run: Run) -> Tally:
    """The primary dies for good, and its synchronous standby takes over: whatever was acknowledged is there."""
    primary = run.cluster
    assert primary is not None
    standby = await asyncio.to_thread(primary.standby)
    try:
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.sql("SELECT pg_reload_conf()")
        async with world(run) as here:
            way = Proxy(primary.port)
            await way.start()
            here.rewrite(lambda settings: settings.update(database_url=here.database_url.replace(f":{primary.port}/", f":{way.port}/")))
            try:
                await here.hub.start()
                await here.sign_in()
                await here.provider.deliver(here.provider.write(40, 40))
                load = asyncio.create_task(here.provider.deliver(here.provider.write(600, 100, mails=4, word="failover")))
                await asyncio.sleep(run.dice.uniform(0.1, 0.5))
                await asyncio.to_thread(primary.crash)
                began = time.monotonic()
                await asyncio.to_thread(standby.promote)
                way.target_port = standby.port
                way.cut()
                await load
                await _healed(here, "failover")
                away = time.monotonic() - began
                here.database_url = standby.url(here.database_url.rpartition("/")[2])
                await here.drained(patience=120)
                tally = await here.timeline()
                tally.add(await here.notices())
                await here.sound()
                await here.hub.stop()
            finally:
                await way.stop()
    finally:
        standby.close()
    tally.notes += [f"failover: back in {away:.1f} s"]
    return tally


async def _cut_at_commit(here: World, way: Proxy, *, answered: bool) -> None:
    """Cut as a COMMIT passes, or as its answer does; wait until that has come to pass."""
    happened = asyncio.Event()
    left = here.run.dice.randint(1, 3)
    passed = False

    def cut(forth: bool, piece: bytes) -> bool:
        nonlocal left, passed
        if happened.is_set():
            return False
        if forth and b"COMMIT" in piece:
            left -= 1
            passed = left <= 0
            if passed and not answered:
                happened.set()
                return True
        elif not forth and passed and answered:
            happened.set()
            return True
        return False

    way.cut_at = cut
    try:
        async with asyncio.timeout(10):
            # Where the load ended first, there is more of it until then.
            while not happened.is_set():
                await here.provider.deliver(here.provider.write(2, 2, first=900, word="one more"))
    except TimeoutError:
        raise BrokenPromise("no COMMIT passed the proxy within 10 s") from None
    finally:
        way.cut_at = lambda forth, piece: False


async def _kill_backends(here: World) -> None:
    """SIGKILL to every backend of this database: PostgreSQL then ends all others too and recovers from its log."""
    name = here.database_url.rpartition("/")[2]
    cluster = here.run.cluster
    assert cluster is not None
    pids = cluster.sql(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()").split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    await _recovered(cluster)


async def _recovered(cluster: Cluster) -> None:
    """Wait until PostgreSQL takes connections again: how long its own recovery takes is not ours to promise."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await asyncio.to_thread(cluster.sql, "SELECT 1")
        except ClusterFailed:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def _silent(way: Proxy) -> None:
    """The network loses everything for a while, and then the connections."""
    way.silent()
    await asyncio.sleep(4)
    way.cut()
    way.silent(False)
