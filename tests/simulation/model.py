"""What must be true, kept in plain dicts and lists beside the code under test and written from the promises, not from the code.

The world notes here what providers, customers and agents did and were told; the checks read the database and compare.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# The rungs a message's state climbs, as people are shown them. `queued` and `sending` alternate while it is tried.
RUNGS = {"queued": 0, "sending": 0, "unknown": 1, "sent": 2, "failed": 3, "delivered": 4, "read": 5}
ARRIVED = ("sent", "delivered", "read")
Node = tuple[str, str, str]  # kind, site, value of an identifier; "asserted:kind" where nobody proved it


@dataclass(slots=True)
class Said:
    """One thing a customer said, or a sign-in; `nodes` are the identifiers it proved to be one person."""

    key: str
    channel: int
    text: str
    nodes: tuple[Node, ...]
    acknowledged: bool = False


@dataclass(slots=True)
class Written:
    """An answer an agent wrote. `begun` and `confirmed` are moments of the model's own count."""

    draft: str
    text: str
    begun: int
    confirmed: int | None = None
    message_id: int | None = None


@dataclass(slots=True)
class Attempt:
    """One request to a provider: what became of it there, and what the hub heard of it."""

    taken: bool = False
    heard: str = ""  # "taken", "refused", "later"; empty: nothing, or nothing that says how it ended


@dataclass
class Model:
    db: sqlite3.Connection
    fail: Callable[[str], None]
    moment: int = 0
    said: dict[str, Said] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)
    attempts: dict[int, list[Attempt]] = field(default_factory=lambda: defaultdict(list))  # by delivery
    doubts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))  # by delivery: why its end may be unknown
    retries: Counter[int] = field(default_factory=Counter)  # by delivery: tries a person asked for
    used: Counter[int] = field(default_factory=Counter)
    reports: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))  # by delivery: what was told, and we confirmed
    told: dict[str, dict[int, tuple[int, bool]]] = field(default_factory=dict)  # destination -> customer -> newest (version, held)
    told_rows: set[int] = field(default_factory=set)
    posts: dict[str, int] = field(default_factory=dict)  # in the room: reference -> version shown
    first_posts: Counter[int] = field(default_factory=Counter)  # by delivery
    by_hand: set[int] = field(default_factory=set)  # tickets an agent reopened beside another open one
    refused_notes: Counter[int] = field(default_factory=Counter)
    in_hand: dict[int, Any] = field(default_factory=dict)  # deliveries under way in the living process, as they were claimed
    statuses: dict[int, str] = field(default_factory=dict)
    last_seq: int = 0
    seen: Counter[str] = field(default_factory=Counter)  # what this seed came across

    def count(self) -> int:
        self.moment += 1
        return self.moment

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(sql, arguments).fetchall()

    # --- asked while it runs ---

    def committed(self, written: Sequence[Any]) -> None:
        """After every commit: the cheap promises."""
        changed: set[str] = set()
        for facts in written:
            changed.update(facts.inserted, facts.changed)
            for event in facts.events:
                if event.seq != self.last_seq + 1:
                    self.fail(f"event {event.seq} ({event.type}) follows event {self.last_seq}")
                self.last_seq = event.seq
            for row in facts.changed.get("delivery", {}).values():
                carried = self.in_hand.get(row.id)
                if carried is not None and (row.state == "unknown" or (row.state == "sending" and row.attempt != carried.attempt)):
                    self.fail(f"delivery {row.id} is taken from a living worker: {row.state}, try {row.attempt}")
        if "message" in changed:
            self._ladder()
        if changed & {"ticket", "hold", "join_log"}:
            self._tickets()

    def _ladder(self) -> None:
        for id_, status in self.rows("SELECT id, status FROM message WHERE direction = 'out'"):
            before = self.statuses.get(id_, "queued")
            if before == status:
                continue
            self.statuses[id_] = status
            self.seen[f"message {status}"] += 1
            if RUNGS[status] < RUNGS[before]:
                row = self.rows("SELECT id FROM delivery WHERE kind = 'reply' AND subject_id = ?", id_)
                if not row or not self.retries[row[0][0]]:
                    self.fail(f"message {id_} went back from {before} to {status}, and nobody asked for it")

    def _tickets(self) -> None:
        apart = self.rows(
            "SELECT t.id, h.id FROM ticket t LEFT JOIN hold h ON h.source = 'ticket:' || t.id AND h.released_at IS NULL "
            "AND h.customer_id = t.conversation_id WHERE (t.status <> 'resolved') <> (h.id IS NOT NULL)"
        )
        if apart:
            self.fail(f"tickets and their holds disagree (ticket, hold): {apart}")
        many = self.rows("SELECT conversation_id FROM ticket WHERE status <> 'resolved' GROUP BY 1 HAVING count(*) > 1")
        for (customer,) in many:
            ids = {id_ for (id_,) in self.rows("SELECT id FROM ticket WHERE conversation_id = ? AND status <> 'resolved'", customer)}
            if not ids & self.by_hand and not self.rows("SELECT 1 FROM customer WHERE merged_into = ?", customer):
                self.fail(f"customer {customer} has the unresolved tickets {sorted(ids)}, and nobody split or joined anything")
        odd = self.rows(
            "SELECT id, status FROM ticket WHERE (status = 'resolved') <> (resolved_at IS NOT NULL) "
            "OR (status = 'snoozed') <> (snoozed_until IS NOT NULL)"
        )
        if odd:
            self.fail(f"tickets whose times do not fit their state: {odd}")

    def may_send(self, delivery: Any) -> None:
        """A provider is about to hear of an answer: may it, and is it its turn?"""
        before = self.attempts[delivery.id]
        if not delivery.idempotent and before and before[-1].heard != "later":
            if self.retries[delivery.id] <= self.used[delivery.id]:
                ended = before[-1].heard or "in doubt"
                self.fail(f"delivery {delivery.id} (message {delivery.subject_id}) is sent again though its last try ended {ended}")
            self.used[delivery.id] += 1
        self._in_turn(delivery)

    def _in_turn(self, delivery: Any) -> None:
        mine = next((one for one in self.written.values() if one.message_id == delivery.subject_id), None)
        if mine is None or self.retries[delivery.id]:
            return
        for other in self.written.values():
            if other.confirmed is None or other.confirmed >= mine.begun:
                continue
            rows = self.rows(
                "SELECT d.id, a.status FROM message a "
                "JOIN message b ON a.conversation_id = b.conversation_id AND a.channel_id = b.channel_id "
                "JOIN delivery d ON d.kind = 'reply' AND d.subject_id = a.id WHERE a.id = ? AND b.id = ?",
                *(other.message_id, mine.message_id),
            )
            for id_, status in rows:
                waits = status in ("queued", "sending") and not self.retries[id_]
                if waits and not any(one.taken for one in self.attempts[id_]):
                    self.fail(f"message {mine.message_id} leaves before message {other.message_id}, written first and {status}")

    # --- asked at the end ---

    def finished(self) -> None:
        """When nothing is due any more: every promise."""
        self._tickets()
        self._inbound()
        self._people()
        self._replies()
        self._ledger()
        self._destinations()
        self._room()
        self._events()

    def _inbound(self) -> None:
        stored = Counter(text for (text,) in self.rows("SELECT text FROM message WHERE direction = 'in'"))
        offered = {one.text for one in self.said.values() if one.text}
        if stored.keys() - offered:
            self.fail(f"stored and never said: {stored.keys() - offered}")
        for one in self.said.values():
            if one.text and stored[one.text] > 1:
                self.fail(f"{one.text} stands {stored[one.text]} times in the timeline")
            if one.text and one.acknowledged and not stored[one.text]:
                self.fail(f"{one.text} was acknowledged and is lost")

    def _people(self) -> None:
        """Identifiers proved together are one customer; those never proved together are not."""
        leader: dict[Node, Node] = {}

        def find(node: Node) -> Node:
            while leader.setdefault(node, node) != node:
                node = leader[node]
            return node

        home = dict(self.rows("SELECT text, conversation_id FROM message WHERE direction = 'in'"))
        signed = {key for (key,) in self.rows("SELECT provider_key FROM dedupe")}
        there = [one for one in self.said.values() if one.text in home or (not one.text and one.key in signed)]
        for one in there:
            for node in one.nodes:
                leader[find(node)] = find(one.nodes[0])
        merged = {id_ for (id_,) in self.rows("SELECT id FROM customer WHERE merged_into IS NOT NULL")}
        of: dict[Node, int] = {}
        for one in there:
            if not one.text:
                continue
            person, customer = find(one.nodes[0]), home[one.text]
            if customer in merged:
                self.fail(f"{one.text} stands in conversation {customer}, which was joined into another")
            if of.setdefault(person, customer) != customer:
                self.fail(f"one person, two conversations: {customer} and {of[person]}")
        if len(set(of.values())) != len(of):
            self.fail(f"two people share a conversation: {of}")
        astray = self.rows(
            "SELECT m.id FROM message m JOIN identifier i ON i.id = m.identifier_id WHERE i.customer_id <> m.conversation_id "
            "UNION SELECT m.id FROM message m JOIN ticket t ON t.id = m.ticket_id WHERE t.conversation_id <> m.conversation_id"
        )
        if astray:
            self.fail(f"messages in another conversation than their sender or ticket: {astray}")

    def _replies(self) -> None:
        stored = defaultdict(list)
        for draft, id_ in self.rows("SELECT draft_key, id FROM message WHERE direction = 'out'"):
            stored[draft].append(id_)
        for one in self.written.values():
            if len(stored[one.draft]) > 1 or (one.confirmed is not None and stored[one.draft] != [one.message_id]):
                self.fail(f"{one.text}: confirmed as message {one.message_id}, stored as {stored[one.draft]}")
        fits = {"done": ARRIVED, "failed": ("failed",), "unknown": ("unknown",)}
        rows = self.rows(
            "SELECT m.id, m.status, d.id, d.state, d.idempotent, d.target, d.error FROM message m "
            "LEFT JOIN delivery d ON d.kind = 'reply' AND d.subject_id = m.id WHERE m.direction = 'out'"
        )
        for message, status, delivery, state, idempotent, target, error in rows:
            if state not in fits or status not in fits[state]:
                self.fail(f"message {message} is {status} while its delivery {delivery} is {state}: {error}")
                continue
            attempts, reports = self.attempts[delivery], self.reports[delivery]
            taken = sum(one.taken for one in attempts)
            if status in ARRIVED and not taken:
                self.fail(f"message {message} is shown as {status}, and {target} never took it")
            if not idempotent and taken > 1 + self.retries[delivery]:
                self.fail(f"message {message} reached {target} {taken} times")
            if state == "unknown" and (idempotent or not self.doubts[delivery]):
                self.fail(f"message {message} is unknown without any doubt: {error} {[a.heard for a in attempts]}")
            heard = {one.heard for one in attempts}
            if state == "failed" and "failed" not in reports and "refused" not in heard:
                self.fail(f"message {message} has failed, and nobody refused it: {error}")
            if taken and not self.retries[delivery] and (state != "unknown" or reports):
                expected = max(["sent", *reports], key=RUNGS.__getitem__)
                if status != expected:
                    self.fail(f"message {message} is {status}, but {target} took it and told {reports}: it should be {expected}")
        left = self.rows("SELECT id, kind, state, error FROM delivery WHERE state IN ('queued', 'sending')")
        if left:
            self.fail(f"still owed at the end: {left}")

    def _ledger(self) -> None:
        held: dict[int, str] = {}
        versions: dict[int, int] = {}
        for hold, customer, op, version in self.rows("SELECT hold_id, customer_id, op, version FROM hold_ledger ORDER BY id"):
            before = held.get(hold, "released")
            if (op == "placed") == (before != "released") or (op == "released" and before == "released"):
                self.fail(f"hold {hold} was {op} after it was {before}")
            held[hold] = op
            if version < versions.get(customer, 0):
                self.fail(f"the version of customer {customer}'s hold went back to {version}")
            versions[customer] = version
        for hold, released in self.rows("SELECT id, released_at IS NOT NULL FROM hold"):
            if (held.get(hold) == "released") != bool(released):
                self.fail(f"the ledger says of hold {hold} that it was {held.get(hold)}")

    def _destinations(self) -> None:
        truth = {
            customer: (version, bool(held), joined)
            for customer, version, joined, held in self.rows(
                "SELECT c.id, c.hold_version, c.merged_into IS NOT NULL, EXISTS (SELECT 1 FROM ticket t WHERE t.conversation_id = c.id "
                "AND t.status <> 'resolved') FROM customer c"
            )
        }
        for name, newest in self.told.items():
            for customer, (version, held, joined) in truth.items():
                known = newest.get(customer)
                if known is None and held:
                    self.fail(f"{name} never heard that customer {customer} is held")
                if known is not None and (known[1] != held or (known[0] != version and not joined)):
                    self.fail(f"{name} believes of customer {customer} (version, held) {known}; true is {(version, held)}")
        for id_, state in self.rows("SELECT id, state FROM delivery WHERE kind = 'hold'"):
            if state != "done" or id_ not in self.told_rows:
                self.fail(f"notice {id_} is {state}; {'it arrived' if id_ in self.told_rows else 'it never arrived'}")

    def _room(self) -> None:
        for id_, state, version, ref, error in self.rows("SELECT id, state, version, ref, error FROM delivery WHERE kind = 'card'"):
            if state == "done" and self.posts.get(ref) != version:
                self.fail(f"card {id_} is done at version {version}; the room shows {self.posts.get(ref)}")
            if state == "unknown" and not self.doubts[id_]:
                self.fail(f"card {id_} is unknown without any doubt: {error}")
            if self.first_posts[id_] > 1 + len(self.doubts[id_]) + self.retries[id_]:
                self.fail(f"card {id_} was posted {self.first_posts[id_]} times")

    def _events(self) -> None:
        count, newest = self.rows("SELECT count(*), coalesce(max(seq), 0) FROM event")[0]
        if count != newest or newest != self.last_seq:
            self.fail(f"{count} events, the newest is {newest}, the last one announced {self.last_seq}")

    def doubt(self, ids: Iterable[int], why: str) -> None:
        for id_ in ids:
            self.doubts[id_].append(why)
