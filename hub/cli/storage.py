"""The database: its schema, its copies."""

from __future__ import annotations

from pathlib import Path

import click

from hub.cli.shared import config_option, fail, settings_from


@click.command()
@config_option
def migrate(config: Path) -> None:
    """Bring the database to this version's schema (the server does so by itself at start)."""
    settings = settings_from(config)
    from hub.storage import migrate as steps

    path = settings.storage.database
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with steps.lock(path):
            changed = steps.migrate(path)
    except (steps.DatabaseInUse, steps.DatabaseTooNew, steps.DatabaseUnreadable) as error:
        fail(str(error))
    click.echo(f"{path} {'brought' if changed else 'was already'} at step {steps.HEAD}.")


COMMANDS = (migrate,)
