"""Opt-outs: this address must not be written to on this channel. They belong to the address, whoever it is found to be.

An opt-out is no hold and no hold an opt-out: neither moves the other, and joining or parting people moves neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from hub.customers.resolution import Known
from hub.storage.facts import Facts
from hub.storage.records import Identifier, OptOut

NAMED = {"user_id": "external_id"}  # as programs know them

WORDS_KEPT = 300  # characters of what was said


def note(
    out: bool,
    claim: Known,
    channel_id: int,
    message_id: int | None,
    facts: Facts,
    *,
    customer_id: int | None,
    words: str = "",
    actor: str = "",
    scope: str = "all",
) -> bool:
    """Keep a STOP, or end it; whether that is new. A stop is believed of anybody; only who proved the address may take it back.
    `actor` is the agent who read it so in the customer's own `words`. One of `scope` marketing leaves support free to write, and neither
    ends the other."""
    known = facts.opt_outs.setdefault((claim.kind, claim.value), [])
    standing = [row for row in known if row.channel_id == channel_id and row.ended_at is None and row.scope == scope]
    said = {
        "kind": NAMED.get(claim.kind, claim.kind),
        "value": claim.value,
        "channel_id": channel_id,
        "words": words[:WORDS_KEPT],
        "by": actor,
        "scope": scope,
    }
    if out and not standing:
        row = OptOut(facts.new_id("opt_out"), channel_id, claim.kind, claim.value, facts.now, message_id)
        row.words, row.actor, row.scope = words[:WORDS_KEPT], actor, scope
        facts.insert(row)
        known.append(row)
        facts.emit("optout.recorded", customer_id=customer_id, message_id=message_id, data=json.dumps(said))
        return True
    if out and not actor:
        for row in standing:  # they say now what an agent had read in their words: it is theirs from here on
            if row.actor:
                row.actor, row.words, row.message_id = "", words[:WORDS_KEPT], message_id
                facts.change(row)
    if not out and claim.standing == "proven" and standing:
        for row in standing:
            row.ended_at = facts.now
            facts.change(row)
        facts.emit("optout.withdrawn", customer_id=customer_id, message_id=message_id, data=json.dumps(said))
        return True
    return False


def matters(opts: str, claim: Known, channel_id: int, facts: Facts) -> bool:
    """Whether a stop or start word is one: "YES" is an answer, to whoever had not stopped anything."""
    return opts == "out" or (opts == "in" and active(facts.opt_outs.get((claim.kind, claim.value), ()), channel_id) is not None)


def opted_out(identifier: Identifier, channel_id: int, facts: Facts) -> OptOut | None:
    """The opt-out that forbids writing to this address on this channel, or None. Needs `ways_out`."""
    return active(facts.opt_outs.get((identifier.kind, identifier.value), ()), channel_id)


def active(rows: Iterable[OptOut], channel_id: int) -> OptOut | None:
    return next((row for row in rows if row.channel_id == channel_id and row.ended_at is None and row.scope == "all"), None)
