"""Opt-outs: this address must not be written to on this channel. They belong to the address, whoever it is found to be.

An opt-out is no hold and no hold an opt-out: neither moves the other, and joining or parting people moves neither.
"""

from __future__ import annotations

from collections.abc import Iterable

from hub.customers.resolution import Known
from hub.storage.facts import Facts
from hub.storage.records import Identifier, OptOut


def note(out: bool, claim: Known, channel_id: int, message_id: int, facts: Facts) -> None:
    """Keep a STOP, or end it. A stop is believed of anybody; only who proved the address may take it back."""
    known = facts.opt_outs.setdefault((claim.kind, claim.value), [])
    standing = [row for row in known if row.channel_id == channel_id and row.ended_at is None]
    if out and not standing:
        row = OptOut(facts.new_id("opt_out"), channel_id, claim.kind, claim.value, facts.now, message_id)
        facts.insert(row)
        known.append(row)
    elif not out and claim.standing == "proven":
        for row in standing:
            row.ended_at = facts.now
            facts.change(row)


def matters(opts: str, claim: Known, channel_id: int, facts: Facts) -> bool:
    """Whether a stop or start word is one: "YES" is an answer, to whoever had not stopped anything."""
    return opts == "out" or (opts == "in" and active(facts.opt_outs.get((claim.kind, claim.value), ()), channel_id) is not None)


def opted_out(identifier: Identifier, channel_id: int, facts: Facts) -> OptOut | None:
    """The opt-out that forbids writing to this address on this channel, or None. Needs `ways_out`."""
    return active(facts.opt_outs.get((identifier.kind, identifier.value), ()), channel_id)


def active(rows: Iterable[OptOut], channel_id: int) -> OptOut | None:
    return next((row for row in rows if row.channel_id == channel_id and row.ended_at is None), None)
