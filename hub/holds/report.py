"""What the chain of proof comes to over a period: who was held when, what was sent meanwhile, how long each tool took. Pure.

Everything in a report but `made_at` and `latest` follows from the links beside it, by the rules of docs/proof.md: whoever has the
file computes it anew, so that a lie in the report is found as surely as one in the chain.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hub.holds.ledger import iso
from hub.holds.proof import OWN, Link
from hub.policy import SECOND

STEPS = {"mark.accepted": "accepted", "mark.confirmed": "confirmed", "mark.effective": "effective"}
TROUBLES = ("mark.drifted", "mark.failed")
LISTED = (*TROUBLES, "send.seen", "gate.answered", "campaign.warned", *OWN)  # of which each one is looked at
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Period(NamedTuple):
    """From when until when (microseconds UTC; the end is not in it), of whom (None: of everybody), and how many seconds before it the
    chain is shown from: as long as a hold runs without being renewed, so that nobody held at its beginning is missed."""

    begin: int
    end: int
    customer_id: int | None = None
    lead: int = 7 * 86_400


@dataclass(slots=True)
class Span:
    """A time somebody was held."""

    begin: int
    end: int
    reasons: set[str]
    versions: list[list[int]]  # customer, first version, last version


def micros(text: str) -> int:
    """ISO 8601 as microseconds UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} names no zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def day_or_time(text: str, *, end: bool = False) -> int:
    """A day, of which its first moment is meant (or, as an `end`, the first after it), or a time: ISO 8601, UTC where it names no zone.

    Microseconds. Raises ValueError.
    """
    moment = datetime.fromisoformat(text.strip())
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if end and _DAY.fullmatch(text.strip()):
        moment += timedelta(days=1)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def percentile(sorted_values: list[int], percent: int) -> int:
    """The nearest rank: the smallest value that so many per cent do not exceed."""
    return sorted_values[-(-percent * len(sorted_values) // 100) - 1]


def union(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap or touch as one."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.begin, one.end, one.versions)):
        if joined and span.begin <= joined[-1].end:
            last = joined[-1]
            last.end = max(last.end, span.end)
            last.reasons |= span.reasons
            last.versions += span.versions
        else:
            joined.append(Span(span.begin, span.end, set(span.reasons), list(span.versions)))
    return joined


def held_at(spans: list[Span], at: int) -> bool:
    return any(span.begin <= at < span.end for span in spans)


@dataclass(slots=True)
class Assembly:
    """Takes the links of a slice in order, and tells what they come to."""

    period: Period
    spans: dict[int, list[Span]] = field(default_factory=dict)  # by customer
    running: dict[int, Span] = field(default_factory=dict)  # the last span of each, which the next link may end or extend
    into: dict[int, int] = field(default_factory=dict)  # customer -> whom they were merged into; themselves where into nobody
    known_by: dict[int, dict[tuple[str, str], str]] = field(default_factory=dict)  # customer -> (kind, digest) -> because
    sources: dict[str, int] = field(default_factory=dict)  # digest -> number of an event that names its value
    # Of the period. Most links are of holds and of what tools were told: little is kept of each.
    counts: Counter[tuple[str, int | None]] = field(default_factory=Counter)  # by type and customer
    took: list[tuple[int | None, str, str, bool, int]] = field(default_factory=list)  # customer, tool, step, held, milliseconds
    links: list[tuple[Link, dict[str, Any]]] = field(default_factory=list)  # the rest, with their data

    def add(self, link: Link, data: dict[str, Any]) -> None:
        """Take the next link, and its data read."""
        customer_id, readable = link.customer_id, "unreadable" not in data
        if readable and customer_id is not None:
            self._standing(customer_id, link, data)
        if not self.period.begin <= link.at < self.period.end:
            return
        self.counts[link.type, customer_id] += 1
        if link.type in STEPS and readable:
            took = max(0, link.at // 1_000 - micros(data["asked_at"]) // 1_000)
            self.took.append((customer_id, link.destination, STEPS[link.type], data["held"], took))
        elif readable and link.type in LISTED:
            self.links.append((link._replace(data=""), data))

    def _standing(self, customer_id: int, link: Link, data: dict[str, Any]) -> None:
        if link.type.startswith("hold."):
            self.into.setdefault(customer_id, customer_id)
            self._hold(customer_id, link, data)
        elif link.type == "customer.merged":
            self.into[data["other"]] = customer_id
            self.into.setdefault(customer_id, customer_id)
        elif link.type in ("customer.unmerged", "customer.split"):
            self.into[data["other"]] = data["other"]
            self.into.setdefault(customer_id, customer_id)

    def _hold(self, customer_id: int, link: Link, data: dict[str, Any]) -> None:
        current = self.running.get(customer_id)
        if link.type == "hold.released":
            if current is not None:
                current.end = min(current.end, link.at)
                del self.running[customer_id]
            return
        until, version = micros(data["until"]), data["version"]
        known = self.known_by.setdefault(customer_id, {})
        for one in data["identifiers"]:
            known[(one["kind"], one["value"])] = one["because"]
            self.sources.setdefault(one["value"], link.event_seq)
        if current is not None and link.at <= current.end:
            current.end = until
            current.reasons |= set(data["reasons"])
            current.versions[0][2] = version
            return
        span = Span(link.at, until, set(data["reasons"]), [[customer_id, version, version]])
        self.running[customer_id] = span
        self.spans.setdefault(customer_id, []).append(span)

    # --- what it comes to ---

    def person(self, customer_id: int) -> int:
        """Whoever this customer turned out to be by the end of the slice."""
        seen = set()
        while self.into.get(customer_id, customer_id) != customer_id and customer_id not in seen:
            seen.add(customer_id)
            customer_id = self.into[customer_id]
        return customer_id

    def report(self) -> dict[str, Any]:
        """The report, without what only its maker knows (`chain`, `made_at`, `latest`)."""
        begin, end, wanted, lead = self.period
        of = None if wanted is None else self.person(wanted)
        persons: dict[int, list[Span]] = {}
        for customer_id, own in self.spans.items():
            persons.setdefault(self.person(customer_id), []).extend(span for span in own if span.begin < span.end)
        united = {person: union(spans) for person, spans in persons.items()}

        def counts(type_: str, customer_id: int | None) -> bool:
            return of is None or type_ in OWN or (customer_id is not None and self.person(customer_id) == of)

        links = [(link, data) for link, data in self.links if counts(link.type, link.customer_id)]
        kinds: Counter[str] = Counter()
        for (type_, customer), number in self.counts.items():
            kinds[type_] += number if counts(type_, customer) else 0
        sends, reached = self._sends(links, united)
        return {
            "from": iso(begin),
            "to": iso(end),
            "lead_s": lead,
            "customer": wanted,
            "links": {type_: number for type_, number in kinds.items() if number},
            "held": [one for person in sorted(united) if of in (None, person) for one in self._held(person, united[person])],
            "sends": sends,
            "reached": reached,
            "gate": _gate(links),
            "tools": _tools(one for one in self.took if counts("", one[0])),
            "troubles": [
                {
                    **{"link": link.seq, "at": iso(link.at), "type": link.type, "destination": link.destination},
                    **{"customer": link.customer_id, "error": data.get("error", "")},
                }
                for link, data in links
                if link.type in TROUBLES
            ],
            "opt_outs": {word: kinds[f"optout.{word}"] for word in ("recorded", "withdrawn")},
            "warnings": [
                {
                    **{"link": link.seq, "at": iso(link.at), "destination": link.destination, "campaign": data["campaign"]},
                    **{"campaign_id": data["campaign_id"], "risk": data["risk"], "endangered": len(data["endangered"])},
                }
                for link, data in links
                if link.type == "campaign.warned"
            ],
            "breaks": [{"link": link.seq, "at": iso(link.at), "type": link.type} for link, _ in links if link.type in OWN[1:]],
        }

    def _held(self, person: int, spans: list[Span]) -> list[dict[str, Any]]:
        begin, end = self.period.begin, self.period.end
        inside = [span for span in spans if span.begin < end and span.end > begin]
        if not inside:
            return []
        known: dict[tuple[str, str], str] = {}
        also = sorted(customer for customer in self.into if customer != person and self.person(customer) == person)
        for customer in (*also, person):
            known |= self.known_by.get(customer, {})
        told = [
            {
                **{"from": iso(max(span.begin, begin)), "to": iso(min(span.end, end)), "before": span.begin < begin},
                **{"after": span.end > end, "reasons": sorted(span.reasons), "versions": span.versions},
            }
            for span in inside
        ]
        seconds = sum(min(span.end, end) - max(span.begin, begin) for span in inside) // SECOND
        identifiers = [{"kind": kind, "value": value, "because": because} for (kind, value), because in sorted(known.items())]
        return [{"customer": person, "also": also, "identifiers": identifiers, "spans": told, "seconds": seconds}]

    def _sends(
        self, links: list[tuple[Link, dict[str, Any]]], united: dict[int, list[Span]]
    ) -> tuple[dict[str, int], list[dict[str, Any]]]:
        seen = {"seen": 0, "prevented": 0, "leaks": 0, "noted_leaks": 0}
        reached = []
        for link, data in links:
            if link.type != "send.seen" or link.customer_id is None:
                continue
            held = held_at(united.get(self.person(link.customer_id), []), micros(data["at"]))
            leak = held and not data["prevented"]
            seen["seen"] += 1
            seen["prevented"] += data["prevented"]
            seen["leaks"] += leak
            seen["noted_leaks"] += data["leak"]
            if held or data["leak"]:
                told = {name: data[name] for name in ("at", "destination", "campaign", "campaign_id", "channel", "prevented", "cause")}
                reached.append(
                    told
                    | {"link": link.seq, "seen": iso(link.at), "customer": link.customer_id, "held": held}
                    | {"leak": leak, "noted_leak": data["leak"]}
                )
        return seen, reached


def _gate(links: list[tuple[Link, dict[str, Any]]]) -> list[dict[str, Any]]:
    counted: dict[tuple[str, ...], Counter[str]] = {}
    for link, data in links:
        if link.type == "gate.answered":
            about = tuple(data[name] for name in ("campaign", "brand", "class", "channel"))
            counts = counted.setdefault(about, Counter())
            for name in ("asked", "held", "degraded"):
                counts[name] += data[name]
            counts["receipts"] += len(data.get("receipts", ()))
    names = ("asked", "held", "degraded", "receipts")
    return [
        dict(zip(("campaign", "brand", "class", "channel"), about, strict=True)) | {name: counted[about][name] for name in names}
        for about in sorted(counted)
    ]


def _tools(took: Iterable[tuple[int | None, str, str, bool, int]]) -> list[dict[str, Any]]:
    by_step: dict[tuple[str, str, bool], list[int]] = {}
    for _, destination, step, held, milliseconds in took:
        by_step.setdefault((destination, step, held), []).append(milliseconds)
    told = []
    for (destination, step, held), values in sorted(by_step.items()):
        values.sort()
        figures = {"p50_ms": percentile(values, 50), "p95_ms": percentile(values, 95), "max_ms": values[-1]}
        told.append({"destination": destination, "step": step, "held": held, "n": len(values), **figures})
    return told
