"""The `hub` command. Subcommands import what they need themselves: `hub --help` loads no database library."""

from __future__ import annotations

import os

import click

from hub import __version__
from hub.cli import accounts, channels, customers, deliveries, holds, identity, parsing, quarantine, replay, server, simulate, storage


@click.group()
@click.version_option(__version__, prog_name="hub")
def main() -> None:
    """One person, one conversation: a support hub for WhatsApp, SMS, web chat and e-mail."""
    # What the hub writes holds every customer's messages: it is for the account it runs under alone.
    os.umask(0o077)


for group in (server, storage, accounts, channels, customers, quarantine, deliveries, holds, parsing, replay, identity, simulate):
    for command in group.COMMANDS:
        main.add_command(command)
