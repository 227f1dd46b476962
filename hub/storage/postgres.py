"""PostgreSQL: how the hub connects, the locks that all hubs on one database agree on, and its schema steps."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import structlog

from hub.storage.migrate import HEAD, DatabaseInUse, DatabaseTooNew, DatabaseUnreadable, upgrade

log = structlog.get_logger("hub.storage")

CHANNEL = "hub_events"  # what LISTEN and NOTIFY name; the payload is empty

# Advisory locks are one space of 64-bit numbers for a whole database. Identity keys take 0 to 2^61, conversations what follows,
# and these few the negative end.
KEY_LOCKS = 1 << 61
CONVERSATION_LOCKS = 1 << 61
MIGRATING = -1
SERVING = -2  # shared: held by every hub that serves
INDEXING = -3

# Every statement on the write path looks up by key. Planned once and for all, on tables that were empty then, they must not
# become scans of tables that have grown since.
POINT_QUERIES = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

# What means "this connection is no more", as opposed to "this statement was wrong".
LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
)


def shown(url: str) -> str:
    """The database a URL names, without its password: for people and logs."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{parts.hostname or ''}{port}{parts.path}"


async def connect(url: str, **server_settings: str) -> asyncpg.Connection[Any]:
    """A connection. Raises OSError, TimeoutError or asyncpg.PostgresError."""
    return await asyncpg.connect(
        url, timeout=5, command_timeout=10, server_settings={"application_name": "support-hub", "jit": "off", **server_settings}
    )


async def reach(url: str) -> asyncpg.Connection[Any]:
    """A connection for a start or a command. Raises DatabaseUnreadable, which says what to mend."""
    try:
        connection = await connect(url)
    except (*LOST, asyncpg.PostgresError, ValueError) as error:
        raise DatabaseUnreadable(
            f"database_url: {shown(url)} cannot be reached ({str(error) or type(error).__name__}). Nothing was changed: start the "
            "server, or correct the URL."
        ) from error
    if connection.get_server_version() < (15,):
        version = connection.get_server_version()
        await connection.close()
        raise DatabaseUnreadable(f"database_url: {shown(url)} is PostgreSQL {version.major}; 15 or later is needed.")
    return connection


async def current(url: str) -> str | None:
    """The step a database stands at, or None for an empty one. Raises DatabaseUnreadable."""
    connection = await reach(url)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        step = await connection.fetchval("SELECT version_num FROM alembic_version")
        return None if step is None else str(step)
    finally:
        await connection.close()


async def migrate(url: str) -> bool:
    """Bring the database to HEAD, one hub at a time; whether anything was to do. Raises DatabaseTooNew or DatabaseUnreadable.

    All steps are one transaction. No copy is made first: that is the work of the server's own backups (docs/backup.md).
    """
    connection = await reach(url)
    try:
        # The others wait here, and then find it done.
        await connection.execute(f"SELECT pg_advisory_lock({MIGRATING})", timeout=600)
        standing = await current(url)
        if standing == HEAD:
            return False
        if standing is not None and standing > HEAD:
            raise DatabaseTooNew(f"{shown(url)} stands at step {standing}, this hub knows steps up to {HEAD}. Install the newer hub.")
        await asyncio.to_thread(upgrade, sqlalchemy_url(url))
    finally:
        await connection.close()
    log.info("database migrated", database=shown(url), step=HEAD)
    return True


def sqlalchemy_url(url: str) -> Any:
    """The same database, for SQLAlchemy."""
    from sqlalchemy import make_url

    return make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+asyncpg")


async def alone(url: str) -> asyncpg.Connection[Any]:
    """A connection that keeps every hub from serving while it is open. Raises DatabaseInUse where one serves."""
    connection = await reach(url)
    if not await connection.fetchval(f"SELECT pg_try_advisory_lock({SERVING})"):
        await connection.close()
        raise DatabaseInUse(f"{shown(url)} is served by a hub. Stop it first.")
    return connection


# What this engine needs besides the tables both have: the number of the newest event, which is also the one lock under which
# events are numbered, and the full-text index. Made with the schema steps, in their transaction.
OWN_TABLES = (
    "CREATE TABLE IF NOT EXISTS event_head (one boolean PRIMARY KEY DEFAULT true CHECK (one), seq bigint NOT NULL) WITH (fillfactor = 10)",
    "INSERT INTO event_head (seq) SELECT coalesce(max(seq), 0) FROM event ON CONFLICT DO NOTHING",
    "CREATE TABLE IF NOT EXISTS message_search (message_id bigint PRIMARY KEY, words tsvector NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ix_message_search_words ON message_search USING gin (words)",
)
