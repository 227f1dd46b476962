"""Every way to write to a customer, as the composer offers it: which are shut, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hub.contract import KnowsTemplates, OneWay
from hub.conversations import wording
from hub.conversations.commands import reachable
from hub.conversations.ways import named, why_stop
from hub.conversations.windows import closes_in, why_shut
from hub.web.context import Hub

Heard = Mapping[tuple[int, int], int]  # (channel, identifier) -> when they last wrote


def ways_out(
    hub: Hub,
    known: Mapping[int, Any],
    identifiers: Sequence[Any],
    opt_outs: Sequence[Any],
    ticket: Any,
    proofs: Sequence[tuple[int, int]],
    heard: Heard,
    now: int,
) -> list[dict[str, Any]]:
    """A channel and an address of theirs that it reaches, each with what speaks against it. `known` are the channels as pages show them."""
    own = [row for row in identifiers if row.own]
    stopped = {(row.channel_id, row.kind, row.value): row for row in opt_outs if row.scope == "all"}
    last = next((row for row in own if ticket is not None and row.id == ticket.identifier_id), None)
    found = []
    for row in own:
        doubt = why_stop(last, row, own, proofs) if ticket is not None else ""
        if row.bounced_at is not None:
            doubt = f"What was sent to {named(row)} came back: {row.bounce} {doubt}".strip()
        for bound in hub.channels.values():
            if not reachable(bound.rule, row):
                continue
            way = known[bound.rule.id]
            left = closes_in(bound.rule, heard.get((bound.rule.id, row.id)), now)
            templates = isinstance(bound.connector, KnowsTemplates)
            stop = stopped.get((way.id, row.kind, row.value))
            shut = why_shut(bound.rule) if left == 0 else ""
            found.append(
                {
                    "value": f"{way.id}:{row.id}",
                    "way": way,
                    "name": bound.rule.name,
                    "identifier_id": row.id,
                    "address": wording.address(row.kind, row.address or row.value),
                    "unproven": row.proof in wording.UNPROVEN or row.standing == "asserted",
                    "doubt": doubt,
                    "elsewhere": f"They last wrote from {named(last)}." if last is not None and last.id != row.id else "",
                    "stopped": stop,
                    "closes_at": now + left if left else None,
                    "shut": shut,
                    "templates": templates,
                    "unusable": bool(stop or (shut and not templates)),
                    "one_way": bound.connector.one_way() if isinstance(bound.connector, OneWay) else "",
                    "segments": bool(getattr(bound.connector, "counts_segments", False)),
                    "mails": bound.rule.mails,
                }
            )
    return found


def preferred(reach: Sequence[dict[str, Any]], ticket: Any) -> str:
    """The way out that is offered first: back to where the customer last wrote from, as `Reply` goes by itself."""
    open_ways = [way for way in reach if not way["unusable"]]
    if ticket is None or not open_ways:
        return ""

    def distance(way: dict[str, Any]) -> tuple[bool, bool, bool]:
        return (way["way"].id != ticket.channel_id, way["identifier_id"] != ticket.identifier_id, bool(way["doubt"]))

    return str(min(open_ways, key=distance)["value"])
