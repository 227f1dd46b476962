"""The outbox's own units of work: claiming what is due, noting how it ended, trying again by hand.

A row is marked `sending`, and that is committed, before the other side hears a word. So a crash leaves a trace: what can
safely be repeated is repeated, what cannot becomes `unknown`, is shown, and is never silently sent again (law 9).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hub.contract import DeliveryUpdate, MessageStatus
from hub.delivery.pacing import Target
from hub.delivery.retry import next_try
from hub.delivery.states import advance, report
from hub.policy import Refusal
from hub.storage.facts import Facts, Needs, is_due
from hub.storage.records import Delivery, Message

LOST = {
    "reply": "The hub stopped while this was being sent. It may have arrived: ask the customer, or send it again yourself.",
    "card": "The hub stopped while this was being posted. It may stand in the room: look there, or post it again.",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """Lease what is due and heads its lane, to each target no more than it has room for.

    `carried` are the rows the caller carries already, or carried without being able to note how it ended: theirs is a living
    attempt, whatever a clock says of its lease. `lost`: an earlier claim may have been committed without its answer arriving.
    """

    token: str
    hands: int  # rows to one target ...
    room: Mapping[Target, int] = field(default_factory=dict)  # ... and to these, fewer
    carried: frozenset[int] = frozenset()
    lost: bool = False

    def needs(self, needs: Needs) -> None:
        needs.claim = max(needs.claim, self.hands)
        needs.claim_not |= {target for target, room in self.room.items() if room <= 0}
        needs.leased = needs.leased or self.lost

    def decide(self, facts: Facts) -> list[Delivery]:
        """Copies of the rows now leased to the caller."""
        if self.lost:
            for row in facts.leased:
                self._recover(row, facts)
        room: dict[Target, int] = dict(self.room)
        claimed: list[Delivery] = []
        for row in facts.claimable:
            # Asked again, since an earlier unit of this batch may have settled or claimed it.
            if row.id in self.carried:
                continue  # queued again or not: what is still to be said of the earlier try must not settle a later one
            if row.state == "sending" and row.lease_until <= facts.now:
                if self._recover(row, facts):
                    continue
                if not row.idempotent:
                    _lost(row, facts)
                    continue
            elif row.state != "queued" or not is_due(row.due_at, facts.now):
                continue
            target = (row.kind, row.target)
            left = room.get(target, self.hands)
            if left <= 0:
                continue
            room[target] = left - 1
            row.state = "sending"
            row.attempt += 1
            row.lease_token = self.token
            row.lease_until = facts.now + facts.policy.delivery_lease
            facts.change(row)
            message = _message(row, facts)
            if message is not None and message.status == "queued":
                message.status = "sending"
                facts.change(message)
            claimed.append(replace(row))
        return claimed

    def _recover(self, row: Delivery, facts: Facts) -> bool:
        # Ours and not carried: its claim was committed, but we were told it was not. Nobody has sent it.
        ours = row.state == "sending" and row.lease_token == self.token and row.id not in self.carried
        if ours:
            _give_back(row, facts)
        return ours


@dataclass(frozen=True, slots=True)
class ReleaseLeases:
    """At start: no other process writes here, so whoever held a lease is gone."""

    def needs(self, needs: Needs) -> None:
        needs.leased = True

    def decide(self, facts: Facts) -> int:
        """The number of deliveries that were under way."""
        for row in facts.leased:
            if row.idempotent:
                # Its tries still count: what takes the hub down with it must not be tried for ever.
                row.state = "queued"
                row.due_at = facts.now
                row.lease_token = ""
                facts.change(row)
            else:
                _lost(row, facts)
        return len(facts.leased)


Outcome = Literal["done", "later", "failed", "unknown", "back"]


def finish(delivery: Delivery, outcome: Outcome = "done", **told: Any) -> Finish:
    """The end of an attempt at a claimed delivery."""
    attachment_id = json.loads(delivery.payload)["attachment"] if delivery.kind == "media" else ""
    return Finish(delivery.id, delivery.lease_token, delivery.version, outcome, attachment_id=attachment_id, **told)


@dataclass(frozen=True, slots=True)
class Finish:
    """How one attempt ended. Counts only while the lease is still the caller's; that a message was taken is news at any time.

    `back`: it never began, and counts as no try.
    """

    delivery_id: int
    token: str
    version: int
    outcome: Outcome
    error: str = ""
    retry_after: float | None = None
    jitter: float = 0.5
    status: MessageStatus = MessageStatus.SENT
    provider_id: str = ""
    ref: str = ""
    # A file fetched for a message, and what was fetched: its stored digest, size and type.
    attachment_id: str = ""
    sha256: str = ""
    size: int = 0
    content_type: str = ""

    def needs(self, needs: Needs) -> None:
        needs.deliveries.add(self.delivery_id)
        if self.attachment_id:
            needs.attachments.add(self.attachment_id)

    def decide(self, facts: Facts) -> bool:
        """Whether the attempt still counted."""
        row = facts.deliveries.get(self.delivery_id)
        if row is None:
            return False
        if row.state != "sending" or row.lease_token != self.token:
            self._too_late(row, facts)
            return False
        if self.outcome == "back":
            _give_back(row, facts)
            return True
        row.lease_token = ""
        row.error = self.error
        if self.ref:
            row.ref = self.ref
            row.idempotent = True  # from here on it is an update of what stands there, and an update can be repeated
        facts.change(row)
        if self.outcome == "later":
            self._later(row, facts)
        elif row.slot is not None and row.version != self.version:
            # It changed while an older version was under way.
            _queue(row, facts)
        elif self.outcome == "done":
            self._done(row, facts)
        elif self.outcome == "unknown":
            _unknown(row, self.error, facts)
        else:
            self._fail(row, self.error, facts)
        return True

    def _too_late(self, row: Delivery, facts: Facts) -> None:
        # A status report settled the row meanwhile, or its lease ran out. That the provider took it is news all the same.
        message = _message(row, facts)
        if message is not None and self.outcome == "done":
            said = DeliveryUpdate(provider_key="", status=self.status, provider_message_id=self.provider_id)
            report(message, row, said, facts)

    def _done(self, row: Delivery, facts: Facts) -> None:
        row.state = "done"
        row.done_at = facts.now
        row.error = ""
        message = _message(row, facts)
        if message is not None and self.provider_id and message.provider_id != self.provider_id:
            message.provider_id = self.provider_id  # the latest attempt's: that is the one reports will name
            facts.change(message)
        _tell_message(row, self.status.value, "", facts)
        self._store_file(row, facts)

    def _later(self, row: Delivery, facts: Facts) -> None:
        wait = next_try(row.kind, row.attempt, self.retry_after, self.jitter)
        if wait is None:
            self._fail(row, f"{self.error} Given up after {row.attempt} tries.", facts)
            return
        row.state = "queued"
        row.due_at = facts.now + wait
        message = _message(row, facts)
        if message is not None and message.status == "sending":
            message.status = "queued"
            message.error = self.error
            facts.change(message)
            _updated(message, facts)

    def _fail(self, row: Delivery, error: str, facts: Facts) -> None:
        if row.kind in LAPSING:
            _lapse(row, error, facts)
            return
        row.state = "failed"
        row.done_at = facts.now
        row.error = error
        _tell_message(row, "failed", error, facts)
        self._store_file(row, facts)
        facts.emit("delivery.failed", data=json.dumps({"delivery_id": row.id, "kind": row.kind, "target": row.target}))

    def _store_file(self, row: Delivery, facts: Facts) -> None:
        attachment = facts.attachments.get(self.attachment_id)
        if attachment is None:
            return
        attachment.state = "stored" if self.sha256 else "failed"
        attachment.error = "" if self.sha256 else row.error
        attachment.sha256 = self.sha256
        attachment.size = self.size
        attachment.content_type = self.content_type or attachment.content_type
        facts.change(attachment)
        message = facts.messages.get(row.subject_id)
        if message is not None:
            _updated(message, facts)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try a failed or unknown delivery again, by a person's decision. `only_failed` leaves alone what may have arrived."""

    delivery_id: int
    only_failed: bool = False

    def needs(self, needs: Needs) -> None:
        needs.deliveries.add(self.delivery_id)

    def decide(self, facts: Facts) -> None:
        row = _known(self.delivery_id, facts)
        if row.state not in ("failed", "unknown"):
            raise Refusal(f"Delivery {row.id} is {row.state}: there is nothing to try again.")
        if row.state == "unknown" and self.only_failed:
            raise Refusal(f"Delivery {row.id} may have arrived. Confirm that it may arrive twice, or discard it.")
        _queue(row, facts)
        message = _message(row, facts)
        if message is not None:
            message.status = "queued"
            message.error = ""
            message.provider_id = None  # the coming try's name for it is what reports will be about
            facts.change(message)
            _updated(message, facts)


@dataclass(frozen=True, slots=True)
class Discard:
    """Give up for good what failed, is of unknown fate or still waits, by a person's decision and with their reason."""

    delivery_id: int
    reason: str
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.deliveries.add(self.delivery_id)

    def decide(self, facts: Facts) -> None:
        reason = " ".join(self.reason.split())[:LONGEST_REASON]
        if not reason:
            raise Refusal("Say why it is discarded: whoever looks at it later needs to know.")
        row = _known(self.delivery_id, facts)
        if row.state not in ("failed", "unknown", "queued"):
            raise Refusal(f"Delivery {row.id} is {row.state}: there is nothing to discard.")
        waited = row.state == "queued"
        row.state = "discarded"
        row.done_at = facts.now
        row.error = f"{row.error} Discarded: {reason}".strip()
        facts.change(row)
        facts.emit(
            "delivery.discarded",
            agent_id=self.agent_id,
            data=json.dumps({"delivery_id": row.id, "kind": row.kind, "target": row.target, "reason": reason}),
        )
        if waited:  # what failed, or may have arrived, is said of the message already
            _tell_message(row, "failed", f"Not sent. Discarded: {reason}", facts)


LONGEST_REASON = 300


def _known(delivery_id: int, facts: Facts) -> Delivery:
    row = facts.deliveries.get(delivery_id)
    if row is None:
        raise Refusal(f"There is no delivery {delivery_id}.")
    return row


def _queue(row: Delivery, facts: Facts) -> None:
    """Due now, as if never tried."""
    row.state = "queued"
    row.due_at = facts.now
    row.attempt = 0
    row.lease_token = ""
    row.done_at = None
    row.error = ""
    facts.change(row)


def _give_back(row: Delivery, facts: Facts) -> None:
    """Due now; the try that never began is not counted."""
    row.state = "queued"
    row.due_at = facts.now
    row.attempt = max(0, row.attempt - 1)
    row.lease_token = ""
    facts.change(row)
    message = _message(row, facts)
    if message is not None and message.status == "sending":
        message.status = "queued"
        facts.change(message)


def _lost(row: Delivery, facts: Facts) -> None:
    _unknown(row, LOST.get(row.kind, LOST["reply"]), facts)


LAPSING = ("code", "check", "unseen")


def _lapse(row: Delivery, error: str, facts: Facts) -> None:
    """A one-time code that did not go, or may have: by the time anybody looks it has run out and whoever asked has asked again. A check
    of a signature that came to nothing: the message stays what it is, unproven. Nothing is left for a person to do, and strangers must
    not be able to fill the list of what is."""
    row.state = "discarded"
    row.done_at = facts.now
    row.error = error
    row.lease_token = ""
    facts.change(row)


def _unknown(row: Delivery, error: str, facts: Facts) -> None:
    if row.kind in LAPSING:
        _lapse(row, error, facts)
        return
    row.state = "unknown"
    row.error = error
    row.lease_token = ""
    row.due_at = facts.now + facts.policy.unknown_blocks
    facts.change(row)
    _tell_message(row, "unknown", error, facts)


def _message(row: Delivery, facts: Facts) -> Message | None:
    """The message a reply's row carries; other kinds have another subject, or none to tell."""
    return facts.messages.get(row.subject_id) if row.kind == "reply" else None


def _tell_message(row: Delivery, status: str, error: str, facts: Facts) -> None:
    message = _message(row, facts)
    if message is None:
        return
    # "sending" stands below "unknown" and "sent" on the ladder, so our own reports climb like the provider's.
    after = advance(message.status, status)
    if after == message.status and error == message.error:
        return
    message.status = after
    message.error = error if after in ("failed", "unknown") else ""
    facts.change(message)
    _updated(message, facts)


def _updated(message: Message, facts: Facts) -> None:
    facts.emit("message.updated", customer_id=message.conversation_id, ticket_id=message.ticket_id, message_id=message.id)
