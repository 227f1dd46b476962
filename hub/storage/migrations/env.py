"""Alembic's entry: one transaction for all steps, begun at once, foreign keys off before and checked at its end.

The full-text index is no table of ours and is left out of Alembic's comparison; it is made in the same transaction, so that
no crash can leave a database that stands at the newest step without it.
"""

from alembic import context
from sqlalchemy import create_engine, event, text

from hub.storage.search import CREATE
from hub.storage.tables import metadata


def run() -> None:
    engine = create_engine(context.config.attributes["url"])
    if engine.dialect.name == "sqlite":
        # pysqlite begins transactions late and commits around DDL: begin by hand so that a crash leaves the old schema whole.
        @event.listens_for(engine, "connect")
        def no_driver_transactions(connection, _record):  # type: ignore[no-untyped-def]
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys=OFF")

        @event.listens_for(engine, "begin")
        def begin_immediate(connection):  # type: ignore[no-untyped-def]
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=True,
            transactional_ddl=True,
            include_name=lambda name, kind, _parents: not (kind == "table" and (name or "").startswith("message_search")),
        )
        with context.begin_transaction():
            context.run_migrations()
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql(CREATE)
                broken = connection.execute(text("PRAGMA foreign_key_check")).all()
                if broken:
                    raise RuntimeError(f"A migration would leave broken references: {broken[:5]}. Nothing was changed.")
    engine.dispose()


run()
