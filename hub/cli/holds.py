"""Holds: who is held now, and the proof of who was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, fail, settings_from, with_hub, with_reader

if TYPE_CHECKING:
    from hub.config import Settings
    from hub.holds.proof import Head
    from hub.holds.proving import Keys, Proved
    from hub.web.context import Hub

LISTED = 500
KINDS = ("email", "phone", "external_id", "wa_user_id")

head_option = click.option(
    "--head", "heads", multiple=True, metavar="NUMBER:HASH", help="A head that was published; may be given several times."
)


@click.group("holds")
def holds_group() -> None:
    """Who is held now, what marketing tools were told, and the proof of who was."""


@holds_group.command("list")
@click.option("--customer", type=click.IntRange(1), default=None, help="Only this one.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=LISTED, show_default=True, help="At most so many, the oldest first.")
@config_option
def holds_list(customer: int | None, limit: int, config: Path) -> None:
    """List the holds that run, the oldest first, and what the marketing tools were told. Works while the hub runs."""
    from hub.holds.proving import held_now, marks_of
    from hub.storage.writer import wall_clock

    async def work(reader: Any) -> tuple[Any, Any]:
        rows = await reader.all(held_now(wall_clock(), limit, customer))
        ids = sorted({row.customer_id for row in rows})
        marks: list[Any] = []
        for at in range(0, len(ids), LISTED):
            marks += await reader.all(marks_of(ids[at : at + LISTED]))
        return rows, marks

    rows, marks = with_reader(config, work)
    tools: dict[int, list[str]] = {}
    for mark in marks:
        number = f" ({mark.n})" if mark.n > 1 else ""
        tools.setdefault(mark.customer_id, []).append(f"{mark.destination} {mark.state}{number}")
    for row in rows:
        scope = json.loads(row.scope)
        only = [str(scope["brand"])] if scope.get("brand") else []
        only += [", ".join(scope["channels"])] if scope.get("channels", ["*"]) != ["*"] else []
        told = f"  [{'; '.join(tools[row.customer_id])}]" if row.customer_id in tools else ""
        confined = f"  only {' '.join(only)}" if only else ""
        click.echo(
            f"customer {row.customer_id:>7}  {row.reason:<16} {row.source:<20} since {_minute(row.placed_at)}  "
            f"until {_minute(row.lease_until)}{confined}{told}"
        )
    if not rows:
        click.echo("Nobody is held." if customer is None else f"Customer {customer} is not held.")


def _minute(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")


@holds_group.command("reconcile")
@click.option("--destination", default="", help="Only this marketing tool, by its name in config.yaml.")
@config_option
def holds_reconcile(destination: str, config: Path) -> None:
    """Bring marketing tools to the wanted state once more, and read all of it back, whatever they were told before."""

    async def work(hub: Hub) -> list[tuple[str, int, int]]:
        from hub.delivery.owed import reconcile

        names = [name for name in hub.tools if name == destination or not destination]
        return [(name, *await reconcile(name, hub.reader, hub.writer)) for name in names]

    done = with_hub(config, work)
    if not done:
        fail(f"There is no marketing tool {destination}." if destination else "No marketing tool is configured under `destinations`.")
    for name, customers, identifiers in done:
        click.echo(f"{name}: {customers} customers are queued and {identifiers} identifiers are read back as soon as the hub runs.")


@holds_group.command("prove")
@click.option("--from", "begin", required=True, metavar="DAY|TIME", help="From when: a day (its beginning) or a time, UTC unless it says.")
@click.option("--to", "end", default="", metavar="DAY|TIME", help="Until when: a day (its end) or a time.  [default: now]")
@click.option("--customer", type=click.IntRange(1), default=None, help="Only this customer, and whoever was merged into them.")
@click.option("--identifiers", is_flag=True, help="Name addresses in clear, each with what proves its digest.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the proof here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write a page to print here.")
@head_option
@config_option
def holds_prove(
    begin: str,
    end: str,
    customer: int | None,
    identifiers: bool,
    json_file: Path | None,
    html_file: Path | None,
    heads: tuple[str, ...],
    config: Path,
) -> None:
    """Check the whole chain of proof, and write what it says of a period. Works while the hub runs.

    Exits 1 and writes nothing where a link was changed, taken out or put in, naming it.
    """
    from hub.holds.report import Period, day_or_time
    from hub.storage.writer import wall_clock

    settings = settings_from(config)
    now = wall_clock()
    try:
        since, until = day_or_time(begin), min(now, day_or_time(end, end=True)) if end else now
    except (ValueError, OverflowError) as error:
        fail(f"--from and --to take a day (2027-01-31) or a time (2027-01-31T12:00Z): {error}.")
    if since >= until:
        fail("The period is empty: --from must be before --to, and before now.")
    period = Period(since, until, customer, -(-int(settings.holds.lease_days * 86_400 * 1_000_000) // 1_000_000))
    proved = _prove(settings, config, period, now, json_file, identifiers=identifiers, heads=_heads(heads))
    if html_file is not None:
        from hub.web import pages
        from hub.web.proof import printable

        with _in_place(html_file) as partial:
            partial.write_text(printable(proved.document, pages.environment()), encoding="utf-8")
    report, head = proved.document["report"], proved.document["head"]
    click.echo(f"{report['from']} to {report['to']}: {len(report['held'])} customers held, {report['sends']['seen']} sends seen,")
    click.echo(
        f"{report['sends']['leaks']} of them to somebody held, {report['sends']['prevented']} prevented; {proved.links} links shown."
    )
    click.echo(f"chain   {report['chain']}, whole up to link {report['latest']['seq']}")
    click.echo(f"head    {head['seq']}:{head['hash']}")
    click.echo(f"newest  {report['latest']['seq']}:{report['latest']['hash']}")
    click.echo(f"key     {proved.document['public_key']}")
    for one in report["breaks"]:
        click.echo(f"note    link {one['link']}, {one['at']}: {one['type']}")
    for path in (json_file, html_file):
        if path is not None:
            click.echo(f"written {path}")
    if proved.unsealed:
        click.echo(f"hub: {proved.unsealed} facts are not sealed yet: a hub that runs seals them within a second.", err=True)


@contextlib.contextmanager
def _in_place(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of `path` only when all was written."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _prove(
    settings: Settings, config: Path, period: Any, now: int, target: Path | None, *, identifiers: bool, heads: Sequence[Head]
) -> Proved:
    from hub.holds.proof import Broken
    from hub.holds.proving import prove

    keys = _keys(settings)

    def run(write: Any) -> Proved:
        async def work(reader: Any) -> Proved:
            return await prove(reader, period, now, keys, write, identifiers=identifiers, heads=heads)

        proved: Proved = with_reader(config, work)
        return proved

    try:
        if target is None:
            return run(lambda text: None)
        with _in_place(target) as partial, partial.open("w", encoding="ascii", newline="") as file:
            return run(file.write)
    except Broken as broken:
        fail(f"{broken} Nothing was written.")
    except OSError as error:
        fail(f"{target} cannot be written ({error.strerror}).")


def _keys(settings: Settings) -> Keys:
    from hub.keys import BadSecret, load_secret
    from hub.web.proof import keys_of

    try:
        return keys_of(load_secret(settings.storage.secret_file))
    except BadSecret as error:
        fail(str(error))


def _heads(texts: Sequence[str]) -> list[Head]:
    from hub.holds.proof import read_head

    heads = []
    for text in texts:
        head = read_head(text)
        if head is None:
            fail(f"--head {text}: a head is written NUMBER:HASH, with 64 hexadecimal digits.")
        heads.append(head)
    return heads


@holds_group.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--key", default="", help="The public key it must be signed with.")
@head_option
def holds_verify(file: Path, key: str, heads: tuple[str, ...]) -> None:
    """Check a proof that was written by `hub holds prove`, from the file alone. docs/verify_holds.py does the same without this program."""
    from hub.holds.proof import Broken
    from hub.holds.proving import check_file

    try:
        checked = check_file(file.read_bytes().decode("ascii"), key=key, heads=_heads(heads))
    except UnicodeDecodeError:
        fail(f"{file}: this is no report of ours, or not as it was written.")
    except Broken as broken:
        fail(f"{file}: {broken}")
    sends = checked.report["sends"]
    click.echo(f"{file} holds: {checked.links} links, {checked.report['from']} to {checked.report['to']}.")
    click.echo(f"{len(checked.report['held'])} customers held, {sends['seen']} sends seen, {sends['leaks']} of them to somebody held.")
    click.echo(f"head    {checked.head.seq}:{checked.head.hash}")
    click.echo(f"key     {checked.public_key}{'' if key else ' (compare it with the one that was published)'}")
    for one in checked.report["breaks"]:
        click.echo(f"note    link {one['link']}, {one['at']}: {one['type']}")


@holds_group.command("head")
@config_option
def holds_head(config: Path) -> None:
    """Print where the chain stands, signed: a line of JSON to keep where this hub cannot change it. Works while the hub runs."""
    from hub.holds.ledger import iso
    from hub.holds.proof import Broken, head_shown
    from hub.holds.proving import NOTHING, newest_head

    keys = _keys(settings_from(config))
    try:
        standing = with_reader(config, newest_head)
    except Broken as broken:
        fail(str(broken))
    if standing is None:
        fail(NOTHING)
    chain, head = standing
    click.echo(json.dumps(head_shown(chain, head, keys.seed, iso)))


@holds_group.command("digest")
@click.argument("value")
@click.option("--kind", type=click.Choice(KINDS), default=None, help="What it is. [default: by its looks]")
@config_option
def holds_digest(value: str, kind: str | None, config: Path) -> None:
    """Print the digests that stand for VALUE in this hub's proofs: its kind, its spelling and the digest, a line each."""
    from hub.customers.canonical import canonical
    from hub.holds.gate import KINDS as STORED
    from hub.holds.proof import digest_of

    keys = _keys(settings_from(config))
    kinds = (kind,) if kind else ("email",) if "@" in value else ("phone",) if value.startswith("+") else ("external_id", "wa_user_id")
    for name in kinds:
        # As it is compared and, should that differ, as its owner spells it: a hold names both.
        spellings = {value.strip().lower() if name == "email" else value.strip(), canonical(STORED[name], value) or ""} - {""}
        for spelling in sorted(spellings):
            click.echo(f"{name:<12} {spelling}  {digest_of(keys.identifiers, name, spelling)}")


COMMANDS = (holds_group,)
