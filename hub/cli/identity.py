"""Who is one person with whom: explained, merged, taken apart, suggested."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hub.cli.shared import config_option, fail, settings_from, with_hub, with_reader

if TYPE_CHECKING:
    from hub.customers.why import Explanation, Spelled
    from hub.storage.reader import Reader
    from hub.web.context import Hub

ACTOR = "command line"
KINDS = ("email", "phone", "user_id", "wa_user_id", "sender_word")  # an address as it is typed is tried as each of these


def _number(typed: str) -> int | None:
    """A customer's number, `17` or `#17`, or None for what is none."""
    digits = typed.removeprefix("#")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _spellings(typed: str, region: str) -> set[tuple[str, str]]:
    """The canonical (kind, value) that an address may be, whatever kind it was meant as."""
    from hub.customers.canonical import canonical

    found = ((kind, canonical(kind, typed, region if kind == "phone" else "")) for kind in KINDS)
    return {(kind, value) for kind, value in found if value is not None}


async def _customer(typed: str, reader: Reader, region: str) -> tuple[int, int | None]:
    """Whom a customer's number or one of their addresses names: (customer, identifier or None). Ends the command where that is nobody."""
    from hub.customers import profile

    number = _number(typed)
    if number is not None:
        return number, None
    rows = [row for kind, value in sorted(_spellings(typed, region)) for row in await reader.all(profile.holders(kind, value))]
    found = {row.customer_id: row for row in reversed(rows)}
    if not found:
        fail(f"Nobody has written from {typed} yet. Give a customer's number, or an address of theirs (a phone with its country code).")
    if len(found) > 1:
        them = ", ".join(f"{id_} ({row.name or row.kind}, {row.standing})" for id_, row in sorted(found.items()))
        fail(f"{typed} is several customers': {them}. Give the number of one.")
    (row,) = found.values()
    return row.customer_id, row.identifier_id


@click.command("why")
@click.argument("customer")
@click.option("--to", default="", metavar="IDENTIFIER", help="Only how CUSTOMER's address leads to this other one of theirs.")
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@config_option
def why_command(customer: str, to: str, as_json: bool, config: Path) -> None:
    """Explain why CUSTOMER (a number, or an address of theirs) is one person. Works while the hub runs."""
    from hub.customers import why

    region = settings_from(config).identity.default_region

    async def work(reader: Any) -> tuple[Explanation | None, int | None]:
        number, identifier = await _customer(customer, reader, region)
        return await why.explain(number, reader), identifier

    told, start = with_reader(config, work)
    if told is None:
        fail(f"There is no customer {customer}.")
    if to:
        _tell_path(told, start, to, region, as_json)
        return
    if as_json:
        click.echo(json.dumps(why.shown(told), ensure_ascii=False, indent=2))
        return
    click.echo(f"{told.name}, customer {told.customer_id}")
    for line in told.lines:
        click.echo(f"  {line.text}")
    click.echo("Joined:" if told.ties else "Joined: never; all of it came as one person's.")
    for tie in told.ties:
        kept = "" if tie.undoable else " They are tied in another way too."
        click.echo(f"  {tie.text} (Take it back: hub unmerge {tie.join_id}.{kept})")
    if told.cut:
        click.echo("There is more than is shown here.")


def _tell_path(told: Explanation, start: int | None, to: str, region: str, as_json: bool) -> None:
    from hub.customers import why
    from hub.holds.ledger import iso

    goal = _theirs(told, to, region)
    first = next((one.id for one in told.identifiers if one.id != goal.id and one.kind != "device"), goal.id)
    way = why.path(told, start if start is not None else first, goal.id)
    if way is None:
        fail(f"Nothing that holds now leads to {goal.text}.")
    if as_json:
        click.echo(json.dumps([{"at": iso(line.at), "text": line.text} for line in way], ensure_ascii=False, indent=2))
        return
    for number, line in enumerate(way, 1):
        click.echo(f"{number}. {line.text}")
    if not way:
        click.echo(f"{goal.text} is where the question begins.")


def _theirs(told: Explanation, typed: str, region: str) -> Spelled:
    """The identifier of an explained customer that was typed. Ends the command where they have none such."""
    meant = _spellings(typed, region)
    found = next((one for one in told.identifiers if (one.kind, one.value) in meant), None)
    if found is None:
        fail(f"{typed} is none of customer {told.customer_id}'s: {', '.join(one.text for one in told.identifiers)}.")
    return found


@click.command("merge")
@click.argument("one", type=click.IntRange(min=1))
@click.argument("other", type=click.IntRange(min=1))
@click.option("--reason", required=True, help="Why they are one person; kept with the merge, and told by hub why.")
@config_option
def merge(one: int, other: int, reason: str, config: Path) -> None:
    """Make customers ONE and OTHER one person. Nothing is lost: hub unmerge takes it back at any time."""

    async def work(hub: Hub) -> Any:
        from hub.customers.merging import Merge

        return await hub.writer.run(Merge(one, other, ACTOR, None, reason))

    merged = with_hub(config, work)
    click.echo(f"They are customer {merged.customer_id}. To take it back: hub unmerge {merged.join_id}")


@click.command("unmerge")
@click.argument("join", type=click.IntRange(min=1), required=False)
@click.option("--customer", type=click.IntRange(min=1), default=None, help="Instead of JOIN: what joined this customer's number to others.")
@config_option
def unmerge(join: int | None, customer: int | None, config: Path) -> None:
    """Take back the join or merge number JOIN (hub why names them). Messages, tickets and holds return to whose they were."""
    if (join is None) == (customer is None):
        fail("Say which: the number of a join (hub why names them), or --customer and a customer's number.")

    async def work(hub: Hub) -> Any:
        from hub.customers import profile
        from hub.customers.merging import Unmerge

        number = join if join is not None else await _join_of(customer or 0, hub.reader)
        tie = await hub.reader.first(profile.tie(number))
        if tie is None:
            fail(f"There is no join {number}. hub why CUSTOMER names those of a customer.")
        return await hub.writer.run(Unmerge(tie.id, tie.left_id, tie.right_id, ACTOR))

    parted = with_hub(config, work)
    if parted.left_id == parted.right_id:
        click.echo(f"It is taken back. Something else ties them too, so they are still customer {parted.left_id}: hub why {parted.left_id}")
        return
    click.echo(f"They are customers {parted.left_id} and {parted.right_id} again, and no later proof joins them without being asked.")


async def _join_of(customer: int, reader: Reader) -> int:
    """The one join by which a customer's number belongs with others. Ends the command where that is none, or one of several."""
    from hub.customers import why

    told = await why.explain(customer, reader)
    if told is None:
        fail(f"There is no customer {customer}.")
    ties = [tie for tie in told.ties if customer in (tie.left_id, tie.right_id)]
    if not ties:
        fail(f"Customer {customer} is joined to nobody.")
    if len(ties) > 1:
        listed = "\n".join(f"  hub unmerge {tie.join_id}: {tie.text}" for tie in ties)
        fail(f"Several joins hold customer {customer}. Say which:\n{listed}")
    return ties[0].join_id


@click.command("suggestions")
@click.argument("customer", type=click.IntRange(min=1), required=False)
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="At most so many pairs, the newest.")
@config_option
def suggestions_command(customer: int | None, limit: int, config: Path) -> None:
    """List customers who may be one person, for CUSTOMER or the newest of all. Works while the hub runs."""
    from hub.customers import profile, suggestions

    async def work(reader: Any) -> Sequence[Any]:
        if customer is None:
            return await reader.all(suggestions.newest(limit))  # type: ignore[no-any-return]
        row = await reader.first(profile.customers({customer}))
        if row is None:
            fail(f"There is no customer {customer}.")
        return (await reader.all(suggestions.for_customer(row.merged_into or row.id)))[:limit]  # type: ignore[no-any-return]

    rows = with_reader(config, work)
    for row in rows:
        pair = f"{row.left_id} {row.left_name}".strip() + "  and  " + f"{row.right_id} {row.right_name}".strip()
        click.echo(f"{row.score / 1_000:.2f}  {pair}: {' '.join(suggestions.reasons(row))}")
    if not rows:
        click.echo("Nobody looks like the same person as anybody else.", err=True)


COMMANDS = (why_command, merge, unmerge, suggestions_command)
