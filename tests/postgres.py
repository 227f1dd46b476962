"""A throw-away PostgreSQL cluster, for tests and for bench/: made in a directory of its own, gone with the process that made it.

A guardian process holds the reading end of a pipe from here. When this process ends, however it ends, the pipe closes and the
guardian stops the server and removes its directory: nothing is left behind by an interrupted or a killed test run.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

if TYPE_CHECKING:
    import asyncpg

OLDEST = 15
HOST = "127.0.0.1"
SUPERUSER = "hub"
PATIENCE = 60  # seconds a start or a stop may take
PORTS = range(20_000, 28_000)  # below the range the system gives to outgoing connections

T = TypeVar("T")
StopMode = Literal["smart", "fast", "immediate"]

GUARD = """cat >/dev/null; "$1" stop -D "$0/data" -m immediate -w >/dev/null 2>&1; rm -rf "$0" """


class PostgresqlMissing(Exception):
    """There is no PostgreSQL to make a cluster with; the text says why."""


class ClusterFailed(Exception):
    """A command of the cluster failed; the text holds what it said."""


@functools.cache
def programs() -> tuple[Path, int]:
    """(directory of initdb and pg_ctl, major version): the newest found on PATH or where Debian puts them.

    Raises PostgresqlMissing.
    """
    places = {Path(found).resolve().parent for name in ("initdb", "pg_ctl") if (found := shutil.which(name))}
    places |= set(Path("/usr/lib/postgresql").glob("*/bin"))
    found: list[tuple[int, Path]] = []
    for place in places:
        if not all((place / name).exists() for name in ("initdb", "pg_ctl", "postgres", "psql")):
            continue
        told = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"(\d+)", told)
        if version:
            found.append((int(version.group()), place))
    if not found:
        raise PostgresqlMissing("PostgreSQL is missing (initdb and pg_ctl were looked for on PATH and under /usr/lib/postgresql)")
    version, place = max(found)
    if version < OLDEST:
        raise PostgresqlMissing(f"PostgreSQL {version} is too old: {OLDEST} or later is needed")
    return place, version


def postgresql_missing() -> str:
    """Why no cluster can be made here, as the reason of a skip; empty where one can."""
    try:
        programs()
        _user()
    except PostgresqlMissing as error:
        return str(error)
    return ""


@functools.cache
def _user() -> str | None:
    """Whom the server runs as: PostgreSQL refuses root. None: ourselves. Raises PostgresqlMissing."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise PostgresqlMissing("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")


# Two processes begin at different places, so that they seldom find the same port free at the same moment.
_ports = itertools.cycle(PORTS[os.getpid() * 37 % len(PORTS) :] or PORTS)


def _alive(pid: int) -> bool:
    """Whether a process runs: one that is dead and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def _free_port() -> int:
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable: the cycle has no end")


# What a database looks like apart from its rows: whoever adds an index, a trigger or statistics leaves other row versions here.
LOOKS = """
SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
    SELECT 'class ' || oid || ' ' || xmin AS part FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT 'attribute ' || attrelid || ' ' || attnum || ' ' || xmin FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT 'default ' || oid || ' ' || xmin FROM pg_attrdef
    UNION ALL SELECT 'constraint ' || oid || ' ' || xmin FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT 'index ' || indexrelid || ' ' || xmin FROM pg_index WHERE indexrelid >= 16384
    UNION ALL SELECT 'trigger ' || oid || ' ' || xmin FROM pg_trigger
    UNION ALL SELECT 'function ' || oid || ' ' || xmin FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'type ' || oid || ' ' || xmin FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT 'schema ' || oid || ' ' || xmin FROM pg_namespace WHERE oid >= 16384
    UNION ALL SELECT 'statistics ' || starelid || ' ' || staattnum || ' ' || xmin FROM pg_statistic WHERE starelid >= 16384
    UNION ALL SELECT 'setting ' || setrole || ' ' || s.xmin FROM pg_db_role_setting s
        JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
) AS parts"""
USED = (
    "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0"
)
ROOM = 2_000_000  # bytes a database may have grown by and still be used again


@dataclass
class _Prepared:
    """A template, what a fresh copy of it is like, and its copies: those in use, and those that are as fresh again."""

    name: str
    looks: str = ""
    size: int = 0
    rows: dict[str, bytes] = field(default_factory=dict)  # by table, as COPY gives them
    sequences: list[tuple[str, int, bool]] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)

    async def look(self, connection: asyncpg.Connection[Any]) -> None:
        """Note what this copy, which nobody has used, is like."""
        self.looks = await connection.fetchval(LOOKS)
        self.size = await connection.fetchval("SELECT pg_database_size(current_database())")
        for (table,) in await connection.fetch(USED):
            rows = BytesIO()
            await connection.copy_from_query(f"SELECT * FROM {table}", output=rows, format="binary")
            self.rows[table] = rows.getvalue()
        for (name,) in await connection.fetch("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S'"):
            self.sequences.append((name, *await connection.fetchrow(f"SELECT last_value, is_called FROM {name}")))

    async def restore(self, connection: asyncpg.Connection[Any]) -> bool:
        """Make a used copy fresh again; False where more than its rows has changed, or it has grown too much."""
        await connection.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        if await connection.fetchval(LOOKS) != self.looks:
            return False
        if await connection.fetchval("SELECT pg_database_size(current_database())") > self.size + ROOM:
            return False
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = 2000; SET LOCAL session_replication_role = replica")
            for (table,) in await connection.fetch(USED):
                await connection.execute(f"DELETE FROM {table}")
                if table in self.rows:
                    await connection.copy_to_table(table, source=BytesIO(self.rows[table]), format="binary")
            for name, last, called in self.sequences:
                await connection.execute("SELECT setval($1::text::regclass, $2, $3)", name, last, called)
        await connection.execute("SELECT pg_stat_reset()")  # the deadlocks of one test are not another's
        return True


class Cluster:
    """One PostgreSQL server with its data. Made and started by `with Cluster() as cluster`, or by `start` and `close`."""

    def __init__(
        self,
        *,
        fsync: bool = False,
        synchronous_commit: bool = True,
        max_connections: int = 100,
        settings: dict[str, str] | None = None,
        _copy_of: Cluster | None = None,
    ) -> None:
        """`fsync=False` is for tests: it survives the end of a process, not of the machine. `settings` are further server settings."""
        self._settings = {
            "fsync": "on" if fsync else "off",
            "synchronous_commit": "on" if synchronous_commit else "off",
            "full_page_writes": "on" if fsync else "off",
            "max_connections": str(max_connections),
            "listen_addresses": HOST,
            "wal_level": "replica",
            "max_wal_senders": "4",
            "logging_collector": "off",
            **(settings or {}),
        }
        self._copy_of = _copy_of
        self._guard: subprocess.Popen[bytes] | None = None
        self._databases = itertools.count(1)
        self._prepared: dict[Callable[[str], object], _Prepared] = {}
        self._copies: dict[str, _Prepared] = {}
        self.directory = Path()
        self.port = 0

    # --- its life ---

    def start(self) -> Self:
        """Make the cluster where there is none yet, and start the server. Raises PostgresqlMissing or ClusterFailed."""
        if self._guard is None:
            self._make()
        last: Exception = ClusterFailed("never tried")
        for _ in range(5):
            self.port = self.port or _free_port()
            options = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.directory)}
            spoken = " ".join(f"-c {name}='{value}'" for name, value in options.items())
            try:
                self._run("pg_ctl", "start", "-D", self._data, "-l", self.log, "-w", "-t", str(PATIENCE), "-o", spoken)
            except ClusterFailed as error:
                last = error
                if "could not bind" not in self.log.read_text(errors="replace"):
                    break
                self.port = 0  # somebody was quicker
            else:
                return self
        raise ClusterFailed(f"{last}\n{self.log.read_text(errors='replace')[-2_000:]}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and keep its data: `immediate` is a crash, `fast` ends sessions, `smart` waits for them."""
        self._run("pg_ctl", "stop", "-D", self._data, "-m", mode, "-w", "-t", str(PATIENCE))

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server and remove everything. Calling it twice does nothing."""
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- what it holds ---

    def url(self, database: str) -> str:
        """How a client reaches this database over TCP."""
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def create_database(self, prepare: Callable[[str], object] | None = None) -> str:
        """A new database's URL. `prepare(url)` is called once for the whole cluster; what it makes is then copied, which is quicker,
        and a copy that was given back is given out again where nothing of its use is left in it, which is quicker still."""
        name = f"hub_{next(self._databases)}"
        if prepare is None:
            self.sql(f"CREATE DATABASE {name} TEMPLATE template0")
            return self.url(name)
        if prepare not in self._prepared:
            template = f"prepared_{len(self._prepared)}"
            self.sql(f"CREATE DATABASE {template} TEMPLATE template0")
            prepare(self.url(template))
            self._prepared[prepare] = _Prepared(template)
        prepared = self._prepared[prepare]
        if prepared.spare:
            return prepared.spare.pop()
        self.sql(f"CREATE DATABASE {name} TEMPLATE {prepared.name}")
        self._copies[self.url(name)] = prepared
        if not prepared.looks:
            _connected(self.url(name), prepared.look)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected to it; or keep it, emptied, for whoever asks for a copy of its template."""
        prepared = self._copies.get(url)
        with contextlib.suppress(Exception):  # whatever keeps it from being restored
            if prepared is not None and _connected(url, prepared.restore):
                prepared.spare.append(url)
                return
        self._copies.pop(url, None)
        self.sql(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as the superuser over the socket; its rows, unaligned, a line each, fields parted by |."""
        connect = ("-h", str(self.directory), "-p", str(self.port), "-U", SUPERUSER, "-d", database)
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *connect, "-c", statement)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self.directory / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory / "log"

    def crash(self) -> None:
        """SIGKILL to the postmaster and every backend: what is left is what was on disk. `start` recovers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in (self.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(_alive(int(child)) for child in children) or _alive(self.pid):
            if time.monotonic() > deadline:
                raise ClusterFailed("a process of the cluster survives SIGKILL")
            time.sleep(0.01)
        # Where nobody collects the dead, their lock files still name a process that the next server takes for a living one.
        for lock in (self.directory / "data" / "postmaster.pid", self.directory / f".s.PGSQL.{self.port}.lock"):
            lock.unlink(missing_ok=True)

    def standby(self) -> Cluster:
        """A started streaming copy of this cluster, which `promote` turns into a primary. Close it before this one."""
        copy = Cluster(
            settings={name: value for name, value in self._settings.items() if name != "synchronous_standby_names"}, _copy_of=self
        )
        return copy.start()

    def promote(self) -> None:
        """Make a standby take writes."""
        self._run("pg_ctl", "promote", "-D", self._data, "-w", "-t", str(PATIENCE))

    # --- inside ---

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def _make(self) -> None:
        place, _ = programs()
        user = _user()
        self.directory = Path(tempfile.mkdtemp(prefix="hub-pg-"))
        if user is not None:
            shutil.chown(self.directory, user)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(self.directory), str(place / "pg_ctl")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a Ctrl-C is for the tests; the guardian sees them end
            user=user,
        )
        try:
            if self._copy_of is None:
                self._run(
                    *("initdb", "-D", self._data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"),
                    *("--no-sync", "--no-instructions"),
                )
            else:
                source = self._copy_of
                self._run(
                    *("pg_basebackup", "-D", self._data, "-h", str(source.directory), "-p", str(source.port), "-U", SUPERUSER),
                    *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
                )
        except BaseException:
            self.close()
            raise

    def _run(self, program: str, *arguments: str | Path) -> str:
        place, _ = programs()
        # Into a file: a server started by pg_ctl keeps the pipe of its standard output open for ever.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [place / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                user=_user(),
                env=_environment(),
                timeout=2 * PATIENCE,
                check=False,
            )
            said.seek(0)
            text = said.read().decode(errors="replace")
        if done.returncode:
            raise ClusterFailed(f"{program} failed ({done.returncode}): {text.strip()}")
        return text.rstrip("\n")


def _connected(url: str, ask: Callable[[asyncpg.Connection[Any]], Coroutine[Any, Any, T]]) -> T:
    """What is asked of a database, in a thread of its own: whoever calls may be inside an event loop."""
    import asyncpg

    async def asked() -> T:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await ask(connection)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asked()).result()


def _environment() -> dict[str, str]:
    """Nothing of the caller's own PGHOST, PGUSER or PGSERVICE may lead to a server that is not ours."""
    kept: Sequence[str] = ("PATH", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


@functools.cache
def shared() -> Cluster:
    """The cluster of this process (with pytest-xdist: of this worker), started at the first call. Raises PostgresqlMissing."""
    cluster = Cluster()
    atexit.register(cluster.close)
    return cluster.start()
