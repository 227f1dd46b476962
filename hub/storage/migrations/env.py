"""Alembic's entry: one transaction for all steps, on either engine.

What an engine has besides the common tables (the full-text index, PostgreSQL's counter of events) is left out of Alembic's
comparison; it is made in the same transaction, so that no crash can leave a database that stands at the newest step without it.
"""

import asyncio

from alembic import context
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from hub.storage.postgres import OWN_TABLES
from hub.storage.search import CREATE
from hub.storage.tables import metadata


def steps(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,
        include_name=lambda name, kind, _parents: not (kind == "table" and (name or "").startswith(("message_search", "event_head"))),
    )
    with context.begin_transaction():
        context.run_migrations()
        for statement in OWN_TABLES if connection.dialect.name == "postgresql" else (CREATE,):
            connection.exec_driver_sql(statement)
        if connection.dialect.name == "sqlite":
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            if broken:
                raise RuntimeError(f"A migration would leave broken references: {broken[:5]}. Nothing was changed.")


def on_sqlite() -> None:
    engine = create_engine(context.config.attributes["url"])

    # pysqlite begins transactions late and commits around DDL: begin by hand so that a crash leaves the old schema whole.
    @event.listens_for(engine, "connect")
    def no_driver_transactions(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=OFF")

    @event.listens_for(engine, "begin")
    def begin_immediate(connection):  # type: ignore[no-untyped-def]
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.connect() as connection:
        steps(connection)
    engine.dispose()


async def on_postgres() -> None:
    engine = create_async_engine(context.config.attributes["url"])
    try:
        async with engine.connect() as connection:
            await connection.run_sync(steps)
            await connection.commit()
    finally:
        await engine.dispose()


if context.config.attributes["url"].get_backend_name() == "sqlite":
    on_sqlite()
else:
    asyncio.run(on_postgres())
