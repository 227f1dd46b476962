"""Proof on paper: a slice of the chain read and checked, written into one file with what it comes to, and such a file checked again.

The file is JSON in one spelling only, a link a line, so that a byte changed anywhere is a file we did not write. docs/verify_holds.py
checks it without a line of ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select

from hub.holds.ledger import iso
from hub.holds.proof import (
    FORMAT,
    Broken,
    Head,
    Link,
    Verifier,
    begins,
    canonical,
    digest,
    genesis,
    opening,
    public_key,
    sign,
    signed_by,
    spelled,
)
from hub.holds.report import Assembly, Period, micros
from hub.holds.sealing import KEY, Progress, chain_of, progress_in, unsealed
from hub.policy import SECOND
from hub.storage.reader import Reader
from hub.storage.tables import metadata

PAGE = 500  # links read and checked at a time: some 5 ms

_proof = metadata.tables["proof"].c
_event = metadata.tables["event"].c
_hold = metadata.tables["hold"].c
_mark = metadata.tables["mark"].c

MEMBERS = ("anchor", "chain", "format", "head", "identifiers", "public_key", "report", "signature")
OURS = ("chain", "made_at", "latest")  # of the report: what its maker alone knows
NOTHING = "Nothing is sealed yet. A hub that runs begins the chain as it starts."


class Keys(NamedTuple):
    """What reports are signed with, and what identifiers are digested with: `derive(secret, ...)` of "proof signature" and of
    "proof identifiers"."""

    seed: bytes
    identifiers: bytes


class Proved(NamedTuple):
    """What was written: the file but for the links in it, how many these are, and how many facts are in no link yet."""

    document: dict[str, Any]
    links: int
    unsealed: int


class TooMany(Exception):
    """More links than were wanted in one report."""


def _text_around(document: Mapping[str, Any]) -> tuple[str, str]:
    """What stands in the file before the links and after them."""
    rest = ",\n".join(f'"{name}":{canonical(document[name])}' for name in MEMBERS if name not in ("anchor", "chain"))
    return f'{{"anchor":{canonical(document["anchor"])},\n"chain":[\n', f"\n],\n{rest}}}\n"


def signed_part(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the signature is made over: all but itself and the links, which the head stands for."""
    return {name: document[name] for name in MEMBERS if name not in ("chain", "signature")}


# --- reading the chain ---


async def newest_head(reader: Reader) -> tuple[str, Head] | None:
    """(the chain's name, where it stands), or None where nothing is sealed. Raises Broken where the table does not end where it was
    noted to."""
    before = await _noted(reader)
    last = await reader.first(select(_proof.seq, _proof.hash, _proof.at).order_by(_proof.seq.desc()).limit(1))
    noted = await _noted(reader)  # meanwhile more may have been sealed: what is there now is noted by now
    if last is None and noted is None:
        return None
    if before is not None and before.head.seq:
        found = await reader.value(select(_proof.hash).where(_proof.seq == before.head.seq))
        if found != before.head.hash:
            there = f"the chain ends at link {last.seq if last is not None else 0}" if found is None else "another one stands there"
            raise Broken(f"Link {before.head.seq} was noted as the newest, and {there}: links were changed or taken out of the database.")
    if last is None:
        raise Broken("The chain is gone from the database.")
    if noted is None or noted.head.seq < last.seq:
        raise Broken(f"Links up to {last.seq} stand in the database, and are not noted: they were put there by something else.")
    return await chain_of(reader), Head(last.seq, last.hash, last.at)


async def _noted(reader: Reader) -> Progress | None:
    setting = metadata.tables["setting"].c
    noted = await reader.value(select(setting.value).where(setting.key == KEY))
    return progress_in(noted) if noted is not None else None


async def links_between(reader: Reader, first: int, last: int) -> AsyncIterator[Sequence[Link]]:
    """The links of these numbers in order, some at a time."""
    after = first - 1
    while after < last:
        statement = select(metadata.tables["proof"]).where(_proof.seq > after, _proof.seq <= last).order_by(_proof.seq).limit(PAGE)
        rows = [Link._make(row) for row in await reader.all(statement)]
        if not rows:
            raise Broken(f"The links after {after}, up to {last}, are gone from the database.")
        yield rows
        after = rows[-1].seq


async def slice_of(reader: Reader, period: Period, newest: int) -> tuple[int, int]:
    """The first and the last link a report on this period shows: one before its lead and one after its end, where there are such."""
    begin = period.begin - period.lead * SECOND
    first = await reader.value(select(func.min(_proof.seq)).where(_proof.at > begin))
    last = await reader.value(select(func.max(_proof.seq)).where(_proof.at < period.end))
    first, last = max(1, (first or newest + 1) - 1), min(newest, (last or 0) + 1)
    return first, max(first, last)


async def check_head(reader: Reader, head: Head) -> None:
    """That the chain still holds a head that was published once. Raises Broken."""
    found = await reader.value(select(_proof.hash).where(_proof.seq == head.seq))
    if found is None:
        raise Broken(f"The chain has no link {head.seq}, which was published: its end was taken out, or this is an older life of it.")
    if found != head.hash:
        raise Broken(f"Link {head.seq} was published with another hash: the chain was written anew.")


async def prove(
    reader: Reader,
    period: Period,
    made_at: int,
    keys: Keys,
    write: Callable[[str], object],
    *,
    whole: bool = True,
    identifiers: bool = False,
    heads: Sequence[Head] = (),
    most: int | None = None,
) -> Proved:
    """Check the chain and write the report on a period, in pieces, to `write`.

    `whole`: check it from its first link on, not only what is shown. `identifiers`: name in clear who was held. `heads`: published
    once, and to be found again. Raises Broken, TooMany (more than `most` links to show), StorageBusy.
    """
    period = period._replace(begin=period.begin // 1_000 * 1_000, end=period.end // 1_000 * 1_000)  # as fine as it is written down
    standing = await newest_head(reader)
    if standing is None:
        raise Broken(NOTHING)
    chain, newest = standing
    for head in heads:
        await check_head(reader, head)
    first, last = await slice_of(reader, period, newest.seq)
    if most is not None and last - first >= most:
        raise TooMany(f"{last - first + 1:,} links are more than {most:,}, the most that is shown at once.")
    begin = 1 if whole else first
    anchor = Head(0, genesis(chain))
    if begin > 1:
        anchor = Head(begin - 1, await reader.value(select(_proof.hash).where(_proof.seq == begin - 1)) or "")
    verifier, assembly, written, shown_head = Verifier(anchor), Assembly(period), 0, anchor

    def take(links: Sequence[Link]) -> list[str]:
        nonlocal anchor, shown_head
        lines = []
        for link in links:
            if link.seq == 1:
                begins(link)
            if link.seq == first:
                anchor = verifier.head
            data = verifier.take(link)
            if first <= link.seq <= last:
                assembly.add(link, data)
                lines.append(spelled(link, with_hash=True))
                shown_head = verifier.head
        return lines

    async for links in links_between(reader, begin, newest.seq if whole else last):
        lines = await asyncio.to_thread(take, links)  # 10 ms of work: a hub that serves meanwhile must not stand still for it
        if lines:
            write(",\n" if written else _text_around(_empty(anchor))[0])
            write(",\n".join(lines))
            written += len(lines)
    report = await asyncio.to_thread(assembly.report)
    report |= {"chain": chain, "made_at": iso(made_at), "latest": {"seq": newest.seq, "hash": newest.hash}}
    document = _empty(anchor) | {
        "head": {"seq": shown_head.seq, "hash": shown_head.hash, "at": shown_head.at},
        "identifiers": await _named(reader, report, assembly.sources, keys.identifiers) if identifiers else {},
        "public_key": public_key(keys.seed),
        "report": report,
    }

    def finish() -> str:
        document["signature"] = sign(keys.seed, signed_part(document))
        return _text_around(document)[1]

    write(await asyncio.to_thread(finish))
    noted = await _noted(reader)
    missing = await reader.value(unsealed(noted.after)) if noted is not None else 0
    return Proved(document, written, missing)


def _empty(anchor: Head) -> dict[str, Any]:
    return dict.fromkeys(MEMBERS, None) | {"anchor": {"seq": anchor.seq, "hash": anchor.hash}, "format": FORMAT}


async def _named(reader: Reader, report: dict[str, Any], sources: Mapping[str, int], key: bytes) -> dict[str, Any]:
    """What opens the digests of those a report says were held, as far as the events still name them."""
    wanted = {one["value"] for held in report["held"] for one in held["identifiers"]}
    numbers = sorted({sources[value] for value in wanted if value in sources})
    named: dict[str, Any] = {}
    for at in range(0, len(numbers), PAGE):
        rows = await reader.all(select(_event.data).where(_event.seq.in_(numbers[at : at + PAGE])))
        for row in rows:
            for one in json.loads(row.data).get("identifiers", ()):
                opened = opening(key, one["kind"], one["value"])
                name = digest(opened, one["kind"], one["value"])
                if name in wanted:
                    named[name] = {"kind": one["kind"], "value": one["value"], "opening": opened}
    return named


# --- checking a file ---


class Checked(NamedTuple):
    """A file that holds: what it says, and who signed it."""

    report: dict[str, Any]
    head: Head
    links: int
    public_key: str


def check_file(text: str, *, key: str = "", heads: Sequence[Head] = ()) -> Checked:
    """That a report is as it was written, its chain whole, and all it says what follows from that. Pure.

    `key`: the public key it must be signed with; empty: whichever it names. Raises Broken.
    """
    try:
        return _check(text, key.lower(), heads)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise Broken(f"This is no report of ours, or not as it was written ({type(error).__name__}).") from None


def _check(text: str, key: str, heads: Sequence[Head]) -> Checked:
    document = json.loads(text)
    if set(document) != set(MEMBERS) or document["format"] != FORMAT:
        raise Broken(f"This is no report in the form {FORMAT!r}.")
    before, after = _text_around(document)
    if text != before + ",\n".join(canonical(row) for row in document["chain"]) + after:
        raise Broken("The file is not spelled as reports are written: it was changed.")
    said = document["report"]
    if not signed_by(document["public_key"], document["signature"], signed_part(document)):
        raise Broken("The signature is not that of the key named: the report was changed after it was signed.")
    if key and document["public_key"] != key:
        raise Broken(f"It is signed with the key {document['public_key']}, and not with {key}.")
    period = Period(micros(said["from"]), micros(said["to"]), said["customer"], said["lead_s"])
    anchor = Head(document["anchor"]["seq"], document["anchor"]["hash"])
    verifier, assembly, published = Verifier(anchor), Assembly(period), {head.seq: head.hash for head in heads}
    rows = [_link(row) for row in document["chain"]]
    for link in rows:
        assembly.add(link, verifier.take(link))
        if published.pop(link.seq, link.hash) != link.hash:
            raise Broken(f"Link {link.seq} was published with another hash: the chain was written anew.")
    published = {seq: hash_ for seq, hash_ in published.items() if (seq, hash_) != anchor[:2]}
    if published:
        raise Broken(f"The link {min(published)} that was published is not among those shown, {rows[0].seq} to {rows[-1].seq}.")
    head, latest = verifier.head, said["latest"]
    if rows[0].seq == 1 and (begins(rows[0]) != said["chain"] or anchor[:2] != (0, genesis(said["chain"]))):
        raise Broken("The first link does not begin the chain that the report names.")
    if document["head"] != {"seq": head.seq, "hash": head.hash, "at": head.at}:
        raise Broken("The head is not the last of the links shown.")
    if rows[0].seq > 1 and rows[0].at > period.begin - period.lead * SECOND:
        raise Broken("The links do not reach back as far as the report needs: some at the beginning are left out.")
    if head.at < period.end and latest != {"seq": head.seq, "hash": head.hash}:
        raise Broken("The links do not reach the end of the period: some at the end are left out.")
    if latest["seq"] < head.seq or micros(said["made_at"]) < period.end:
        raise Broken("The report says it was made before its period ended, or before its last link.")
    computed = assembly.report()
    for name in sorted(computed | said):
        if name not in OURS and canonical(computed.get(name)) != canonical(said.get(name)):
            raise Broken(f"What the report says under {name!r} does not follow from its links.")
    wanted = {one["value"] for held in said["held"] for one in held["identifiers"]}
    for name, one in document["identifiers"].items():
        if name not in wanted or digest(one["opening"], one["kind"], one["value"]) != name:
            raise Broken("An identifier named in clear is not the one that was sealed.")
    return Checked(said, head, len(rows), document["public_key"])


def _link(row: dict[str, Any]) -> Link:
    """A link as it stands in a report. Raises TypeError or ValueError where it is none."""
    link = Link(**(row | {"data": canonical(row["data"])}))
    if spelled(link, with_hash=True) != canonical(row):  # a number in place of a word, say
        raise ValueError("a link")
    return link


# --- who is held now ---


def held_now(now: int, limit: int, customer_id: int | None = None) -> Select[Any]:
    """(customer_id, reason, source, scope, placed_at, lease_until, ends_at, note) of the holds that run at `now`, the oldest first."""
    statement = (
        select(_hold.customer_id, _hold.reason, _hold.source, _hold.scope, _hold.placed_at, _hold.lease_until, _hold.ends_at, _hold.note)
        .where(_hold.released_at.is_(None), _hold.lease_until > now)
        .order_by(_hold.placed_at, _hold.id)
        .limit(limit)
    )
    return statement if customer_id is None else statement.where(_hold.customer_id == customer_id)


def marks_of(customer_ids: Sequence[int]) -> Select[Any]:
    """(customer_id, destination, state, n): how tools were told of these customers, counted by state."""
    return (
        select(_mark.customer_id, _mark.destination, _mark.state, func.count().label("n"))
        .where(_mark.customer_id.in_(customer_ids))
        .group_by(_mark.customer_id, _mark.destination, _mark.state)
        .order_by(_mark.customer_id, _mark.destination, _mark.state)
    )
