"""Customers in bulk: the business's records in, everything known of everybody out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, fail, settings_from, with_hub

if TYPE_CHECKING:
    from hub.config import Settings
    from hub.customers.exporting import Exported, Extent
    from hub.customers.recording import Record, Recorded
    from hub.storage.reader import Reader
    from hub.web.context import Hub

MOST_FAULTS = 100  # told one by one
HANDFUL = 256  # records read before they are written
PATIENCE = 30.0  # seconds for a database that is behind

RUNNING = (
    "The hub is running, and holds this database alone. Nothing was written.\n"
    "Hand the same people to the running hub by POST /api/v1/customers (docs/identity.md), or stop it for the import."
)


@click.group("customers")
def customers_group() -> None:
    """Customers in bulk."""


@customers_group.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--site", default="", help="Of which site the ids in `external_id` are, where no column says so.")
@click.option("--source", default="", help="What these records are called; the same name again replaces them. [default: FILE's name]")
@click.option("--dry-run", is_flag=True, help="Read and judge every line, and write nothing.")
@click.option("--skip-bad", is_flag=True, help="Record the good lines although others are bad.")
@config_option
def customers_import(file: Path, site: str, source: str, dry_run: bool, skip_bad: bool, config: Path) -> None:
    """Record the customers of a CSV file: who they are, and what is known of them. Sends nothing and holds nobody.

    Columns: email, phone, external_id, wa_user_id (several of a kind as email2, email3, or parted by ; in one cell), site, name; every
    other column is an attribute. The same file again changes nothing. Every line is judged before the first is written.
    """
    settings = settings_from(config)
    from hub.customers.recording import BadRecord, check_source

    if not file.is_file():
        fail(f"{file} is no file: it is read twice, so a pipe will not do.")
    try:
        source = check_source(source or file.name)
    except BadRecord as error:
        fail(f"--source: {error}")
    site = _site(site, settings)
    before = file.stat()
    good, faults = _judge(file, site, settings)
    for line, text in faults[:MOST_FAULTS]:
        click.echo(f"line {line}: {text}", err=True)
    if len(faults) > MOST_FAULTS:
        click.echo(f"... and {len(faults) - MOST_FAULTS:,} more.", err=True)
    if faults and (dry_run or not skip_bad):
        fail(f"{len(faults):,} lines are bad and {good:,} good. Nothing was written. Mend them, or add --skip-bad.")
    if dry_run:
        click.echo(f"{good:,} lines can be recorded. Nothing was written.")
        return
    if not good:
        fail("There is nobody in it. Nothing was written.")

    async def work(hub: Hub) -> Tally:
        return await _record(file, site, source, good, settings, hub)

    tally = with_hub(config, work, running=RUNNING)
    after = file.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        click.echo(f"hub: {file} was changed meanwhile. Import it again.", err=True)
    click.echo(tally.told(len(faults)))


def _site(site: str, settings: Settings) -> str:
    """The site of account ids that nothing else tells: the one named, or the only one there is."""
    if site and site not in settings.sites:
        fail(f"--site: there is no site {site}. Known: {', '.join(sorted(settings.sites)) or 'none'}.")
    return site or (next(iter(settings.sites)) if len(settings.sites) == 1 else "")


def _judged(file: Path, site: str, settings: Settings) -> Iterator[tuple[int, Record | tuple[str, ...]]]:
    """(line, its record, or why it is none) for every row, without the header. Fails where the file is none that can be read."""
    from hub.customers.recording import BadRecord, read
    from hub.customers.spreadsheet import BadFile, columns, given, rows

    region, sites = settings.identity.default_region, settings.sites.keys()
    seen: dict[bytes, int] = {}
    try:
        lines = rows(file)
        header = next(lines, None)
        if header is None:
            fail(f"{file} is empty.")
        known = columns(header[1])
        for line, cells in lines:
            try:
                record = read(given(known, cells, site), region, sites)
            except BadRecord as error:
                yield line, error.faults
                continue
            except BadFile as error:
                yield line, (str(error),)
                continue
            key = hashlib.blake2b(record.key.encode(), digest_size=8).digest()
            first = seen.setdefault(key, line)
            yield line, record if first == line else (f"{record.key} stands in line {first} already: a person has one line.",)
    except (BadFile, OSError) as error:
        fail(f"{file}: {error}\nNothing was written.")


def _judge(file: Path, site: str, settings: Settings) -> tuple[int, list[tuple[int, str]]]:
    """How many lines are good, and what is wrong with the others."""
    good, faults = 0, []
    with _bar("Reading", lines=_judged(file, site, settings)) as lines:
        for line, judged in lines:
            if isinstance(judged, tuple):
                faults.append((line, " ".join(judged)))
            else:
                good += 1
    return good, faults


class Tally:
    """What became of the lines."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("created", "updated", "unchanged"), 0)
        self.joined = self.suggested = self.withdrawn = self.kept = 0

    def add(self, done: list[Recorded]) -> None:
        for one in done:
            self.counts[one.status] += 1
            self.joined += one.joined
            self.suggested += one.suggested
            self.withdrawn += one.withdrawn
            self.kept += one.kept

    def told(self, skipped: int) -> str:
        counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.items())
        lines = [f"{sum(self.counts.values()):,} customers recorded: {counts}." + (f" {skipped:,} lines skipped." if skipped else "")]
        if self.joined:
            lines.append(f"{self.joined:,} times a record made one customer of two.")
        if self.suggested:
            lines.append(f"{self.suggested:,} pairs may be one person: see Suggestions.")
        if self.withdrawn:
            lines.append(f"{self.withdrawn:,} identifiers this source no longer has; holds let go of them.")
        if self.kept:
            lines.append(f"{self.kept:,} of them stay with their customer, who spoke by them or was joined by them.")
        return "\n".join(lines)


async def _record(file: Path, site: str, source: str, good: int, settings: Settings, hub: Hub) -> Tally:
    from hub.customers.recording import write

    tally = Tally()
    with _bar("Recording", good) as bar:
        handful: list[Record] = []

        async def put() -> None:
            tally.add(await write(handful, source, hub.writer, patience=PATIENCE))
            bar.update(len(handful))
            handful.clear()

        for _, judged in _judged(file, site, settings):
            if not isinstance(judged, tuple):
                handful.append(judged)
            if len(handful) >= HANDFUL:
                await put()
        if handful:
            await put()
    return tally


def _bar(label: str, length: int | None = None, lines: Iterator[Any] | None = None) -> Any:
    """A progress bar, where a person watches: over so many, or over these, however many they are."""
    return click.progressbar(lines, length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


# --- out -----------------------------------------------------------------------------------------------------------------


@customers_group.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@config_option
def customers_export(file: Path | None, form: str, config: Path) -> None:
    """Write every customer with identifiers, attributes, account ids, merged ids and opt-outs, to FILE or to the standard output.

    Works while the hub runs. The CSV can be imported again; what a customer merely claimed stands in columns that an import passes over.
    """
    settings = settings_from(config)
    if file is not None and file.exists():
        fail(f"{file} is there already. Nothing was written: name another.")

    async def work() -> int:
        from hub.customers import exporting

        async with _reading(settings) as reader:
            extent = await exporting.extent(reader)
            with _writing(file) as out, _bar("Writing", extent.customers) as bar:
                begin, row = _csv(extent) if form == "csv" else ("", _json)
                out.write(begin)
                count = 0
                async for page in exporting.pages(reader):
                    out.writelines(line for customer in page for line in row(customer))
                    bar.update(len(page))
                    count += len(page)
                return count

    from hub.storage.writer import StorageBusy

    try:
        count = asyncio.run(work())
    except BrokenPipeError:
        raise  # whoever reads has enough
    except (StorageBusy, OSError) as error:
        fail(f"{error}. What was written so far is not all: run it again.")
    if file is not None:
        click.echo(f"{file}: {count:,} customers.")


@contextlib.asynccontextmanager
async def _reading(settings: Settings) -> AsyncIterator[Reader]:
    """A reader of the database, whether a hub serves it or not."""
    from hub.storage.reader import postgres_reader, sqlite_reader

    url, path = settings.database_url, settings.storage.database
    if url is None and not path.exists():
        fail(f"{path}: there is no database yet.")
    reader = postgres_reader(url.get_secret_value()) if url is not None else sqlite_reader(path)
    try:
        yield reader
    finally:
        await reader.close()


@contextlib.contextmanager
def _writing(file: Path | None) -> Iterator[IO[str]]:
    if file is None:
        yield sys.stdout
        return
    # Everybody's addresses: for the account that runs this alone.
    with file.open("x", encoding="utf-8", newline="") as out:
        yield out


def _csv(extent: Extent) -> tuple[str, Any]:
    """The header line, and what makes the lines of a customer."""
    from hub.customers.spreadsheet import OURS, line

    beside = ("id", "created_at", "merged_ids", "unproven_email", "unproven_phone", "opt_outs")
    header = ["name", *(f"external_id:{site}" for site in extent.sites), "email", "phone", "wa_user_id", *extent.attributes]

    def lines(customer: Exported) -> Iterator[str]:
        of_site = [[id_ for own, id_ in customer.accounts if own == site] for site in extent.sites]
        told = [";".join(customer.known.get(kind, ())) for kind in ("email", "phone", "wa_user_id")]
        merged = " ".join(map(str, customer.merged))
        unproven = [";".join(customer.unproven.get(kind, ())) for kind in ("email", "phone")]
        opted = " ".join(f"{channel}/{value}" for channel, _, value in customer.opt_outs)
        first = [ids[0] if ids else "" for ids in of_site]
        said = [customer.attributes.get(name, "") for name in extent.attributes]
        rest = [str(customer.id), _moment(customer.created_at), merged, *unproven, opted]
        yield line([customer.name, *first, *told, *said, *rest])
        # More accounts of one site are one person because an agent says so, which a file cannot: a line each.
        for at, ids in enumerate(of_site):
            for extra in ids[1:]:
                alone = [extra if n == at else "" for n in range(len(of_site))]
                blank = [""] * (len(told) + len(said))
                yield line([customer.name, *alone, *blank, str(customer.id), _moment(customer.created_at), "", "", "", ""])

    return line([*header, *(OURS + name for name in beside)]), lines


def _json(customer: Exported) -> Iterator[str]:
    told = {
        "name": customer.name,
        "external_id": [{"site": site, "id": id_} for site, id_ in customer.accounts],
        **{kind: customer.known.get(kind, []) for kind in ("email", "phone", "wa_user_id")},
        "attributes": customer.attributes,
        "hub": {
            "id": customer.id,
            "created_at": _moment(customer.created_at),
            "merged_ids": customer.merged,
            "unproven": {kind: customer.unproven.get(kind, []) for kind in ("email", "phone")},
            "opt_outs": [{"channel": channel, "kind": kind, "value": value} for channel, kind, value in customer.opt_outs],
        },
    }
    yield json.dumps(told, ensure_ascii=False) + "\n"


def _moment(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


COMMANDS = (customers_group,)
