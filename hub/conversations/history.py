"""What the inbox reads inside one conversation: its messages, events and files, and what is known of its customer.

Statements only; `hub.storage.reader` runs them. Times are microseconds UTC. Every list is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, case, func, literal, literal_column, or_, select, text, union_all

from hub.customers.resolution import TYING
from hub.storage.tables import metadata

ticket = metadata.tables["ticket"]
message = metadata.tables["message"]
message_change = metadata.tables["message_change"]
identifier = metadata.tables["identifier"]
evidence = metadata.tables["evidence"]
attachment = metadata.tables["attachment"]
event = metadata.tables["event"]
hold = metadata.tables["hold"]
customer = metadata.tables["customer"]
hold_ledger = metadata.tables["hold_ledger"]
delivery = metadata.tables["delivery"]
opt_out = metadata.tables["opt_out"]
send_seen = metadata.tables["send_seen"]
join_log = metadata.tables["join_log"]

TEXT_SHOWN = 8_000  # characters of one message on the page; the rest is a click away
EVENTS_UPTO = 200

# --- the timeline ----------------------------------------------------------------------------------------------------


def messages(customer_id: int, before: int | None = None, limit: int = 50, since: int | None = None) -> Select[Any]:
    """The last messages of a conversation, newest first, one more than `limit` where there are older ones.

    `before` pages back; `since` (a message id) reaches back to a little before that message instead, 500 messages at most.
    """
    columns = [column for column in message.c if column.name not in ("text", "reply_text", "html", "raw_id", "draft_key")]
    statement = select(
        *columns,
        func.substr(message.c.text, 1, TEXT_SHOWN).label("text"),
        func.substr(message.c.reply_text, 1, TEXT_SHOWN).label("reply_text"),
        (func.length(message.c.text) > TEXT_SHOWN).label("cut"),
        message.c.html.is_not(None).label("has_html"),
        identifier.c.kind,
        identifier.c.address,
    )
    statement = statement.select_from(message.outerjoin(identifier, identifier.c.id == message.c.identifier_id))
    statement = statement.where(message.c.conversation_id == customer_id)
    if before is not None:
        statement = statement.where(message.c.id < before)
    if since is not None:
        lead = select(message.c.id).where(message.c.conversation_id == customer_id, message.c.id <= since)
        start = lead.order_by(message.c.id.desc()).limit(8).subquery()
        statement = statement.where(message.c.id >= select(func.coalesce(func.min(start.c.id), 0)).scalar_subquery())
        limit = 500
    return statement.order_by(message.c.id.desc()).limit(limit + 1)


# What a timeline tells of a ticket's life. Messages and notes are there themselves; renewals of a hold would be noise.
TOLD = (
    "ticket.opened",
    "ticket.reopened",
    "ticket.resolved",
    "ticket.assigned",
    "ticket.snoozed",
    "ticket.woken",
    "ticket.moved",
    "message.moved",
    "customer.merged",
    "customer.unmerged",
    "customer.split",
    "suggestion.rejected",
    "hold.placed",
    "hold.released",
    "ticket.tagged",
    "ticket.prioritised",
    "ticket.spam",
    "ticket.hold_overdue",
    "customer.hold_ended",
    "survey.answered",
    "follow_up.added",
    "follow_up.sent",
    "follow_up.refused",
    "follow_up.cancelled",
    "follow_up.expired",
    "optout.recorded",
    "optout.withdrawn",
    "send.seen",
    "participant.admitted",
    "participant.dismissed",
    "ticket.reviewed",
)
# The predicate of the partial index, word for word: as a list of bound values SQLite would not recognise it.
_by_customer = next(index for index in event.indexes if index.name == "ix_event_customer_id")
_HISTORY = text(str(_by_customer.dialect_options["sqlite"]["where"].compile(compile_kwargs={"literal_binds": True})))


def homes(customer_id: int) -> Select[Any]:
    """A live customer's nodes, itself among them: what is over keeps the node it happened to."""
    return select(customer.c.id).where(or_(customer.c.id == customer_id, customer.c.merged_into == customer_id))


def events(customer_id: int, since: int | None, until: int | None) -> Select[Any]:
    """What happened to a customer's tickets and holds in [since, until), newest first; an open end is None."""
    statement = (
        select(event.c.seq, event.c.type, event.c.at, event.c.ticket_id, event.c.message_id, event.c.agent_id, event.c.data)
        .where(event.c.customer_id.in_(homes(customer_id)), _HISTORY, event.c.type.in_(TOLD))
        .order_by(event.c.seq.desc())
        .limit(EVENTS_UPTO)
    )
    if since is not None:
        statement = statement.where(event.c.at >= since)
    if until is not None:
        statement = statement.where(event.c.at < until)
    return statement


def events_between(after: int, upto: int, limit: int) -> Select[Any]:
    """Every event in (after, upto], oldest first, column for column as a record: what a browser that was away has missed."""
    return select(*event.c).where(event.c.seq > after, event.c.seq <= upto).order_by(event.c.seq).limit(limit)


def attachments(message_ids: Sequence[int]) -> Select[Any]:
    """The files of these messages, in the order they came."""
    columns = [
        attachment.c[name] for name in ("id", "message_id", "name", "content_type", "size", "inline", "content_id", "state", "error")
    ]
    return (
        select(*columns)
        .where(attachment.c.message_id.in_(message_ids))
        .order_by(attachment.c.message_id, attachment.c.position, attachment.c.id)
    )


def changes(message_ids: Sequence[int]) -> Select[Any]:
    """What was done to these messages since they were said, oldest first."""
    columns = (
        message_change.c.message_id,
        message_change.c.what,
        message_change.c.text,
        message_change.c.identifier_id,
        message_change.c.at,
    )
    return select(*columns).where(message_change.c.message_id.in_(message_ids)).order_by(message_change.c.id).limit(1_000)


def heard(customer_id: int) -> Select[Any]:
    """When the customer last wrote on each channel from each address, wherever an agent may have put it."""
    own = select(identifier.c.id).where(identifier.c.customer_id == customer_id)
    here = select(message.c.channel_id, message.c.identifier_id, message.c.created_at).where(
        message.c.conversation_id == customer_id, message.c.direction == "in", message.c.channel_id.is_not(None)
    )
    elsewhere = select(message.c.channel_id, message.c.identifier_id, message.c.created_at).where(
        message.c.placed, message.c.identifier_id.in_(own), message.c.direction == "in", message.c.channel_id.is_not(None)
    )
    said = union_all(here, elsewhere).subquery()
    latest = func.max(said.c.created_at).label("at")
    return select(said.c.channel_id, said.c.identifier_id, latest).group_by(said.c.channel_id, said.c.identifier_id)


def last_said(ticket_id: int) -> Select[Any]:
    """The customer's last message on a ticket, as its channel names it."""
    joined = ticket.join(message, message.c.id == ticket.c.last_inbound_id)
    return select(message.c.channel_id, message.c.provider_id).select_from(joined).where(ticket.c.id == ticket_id)


def moment_of(message_id: int) -> Select[Any]:
    """When a message was stored."""
    return select(message.c.created_at).where(message.c.id == message_id)


def failed_reply(message_id: int) -> Select[Any]:
    """A message, and the delivery of it that failed or whose fate is unknown, or None."""
    # The states are spelled out, so that the partial indexes on what failed and what is still owed apply.
    d = delivery.c
    own = (d.kind == "reply", d.subject_id == message_id)
    failed = select(d.id).where(d.state == literal_column("'failed'"), *own)
    live = d.state.in_([literal_column(f"'{state}'") for state in ("queued", "sending", "unknown")])
    unknown = select(d.id).where(live, d.state == literal_column("'unknown'"), *own)
    stuck = union_all(failed, unknown).subquery()
    return select(message.c.id, select(func.max(stuck.c.id)).scalar_subquery().label("delivery_id")).where(message.c.id == message_id)


# --- the customer ----------------------------------------------------------------------------------------------------


def identifiers(customer_id: int) -> Select[Any]:
    """A customer's identifiers, then what they merely claimed (`own` false), of whoever it is: at most 60."""
    names = (
        *("id", "kind", "site", "value", "standing", "proof", "address"),
        *("first_seen", "last_proof_at", "home_id", "customer_id", "shared_at", "ended_at", "bounced_at", "bounce"),
    )
    columns = [identifier.c[name] for name in names]
    own = select(*columns, literal(1).label("own")).where(identifier.c.customer_id == customer_id)
    speaker = identifier.alias("speaker")
    said = (
        select(evidence.c.other_id, func.max(case((evidence.c.proof == "claimed", 1), else_=0)).label("claimed"))
        .join(speaker, speaker.c.id == evidence.c.identifier_id)
        .where(speaker.c.customer_id == customer_id, evidence.c.other_id.is_not(None), evidence.c.withdrawn_at.is_(None))
        .group_by(evidence.c.other_id)
        .subquery()
    )
    # What proof tied to somebody who has been parted since is theirs alone; what was claimed stays claimed, whoever writes from it.
    foreign = or_(identifier.c.customer_id.is_(None), and_(identifier.c.customer_id != customer_id, said.c.claimed == 1))
    claimed = select(*columns, literal(0).label("own")).join(said, said.c.other_id == identifier.c.id).where(foreign)
    both = union_all(own, claimed).subquery()
    return select(both).order_by(both.c.own.desc(), both.c.id).limit(60)


def proofs(customer_id: int) -> Select[Any]:
    """Pairs of a customer's identifiers that were proved to be one person's: what `ways.why_stop` goes by."""
    speaker, other = identifier.alias("speaker"), identifier.alias("other")
    return (
        select(evidence.c.identifier_id, evidence.c.other_id)
        .distinct()
        .select_from(
            evidence.join(speaker, speaker.c.id == evidence.c.identifier_id).join(other, other.c.id == evidence.c.other_id),
        )
        .where(
            speaker.c.customer_id == customer_id,
            other.c.customer_id == customer_id,
            evidence.c.proof.in_([each.value for each in TYING]),
            evidence.c.withdrawn_at.is_(None),
        )
        .limit(1_000)
    )


def opt_outs(customer_ids: Sequence[int]) -> Select[Any]:
    """The addresses of these customers that must not be written to, each with its channel."""
    same = and_(opt_out.c.value == identifier.c.value, opt_out.c.kind == identifier.c.kind)
    return (
        select(
            identifier.c.customer_id,
            opt_out.c.id,
            opt_out.c.channel_id,
            opt_out.c.kind,
            opt_out.c.value,
            opt_out.c.at,
            opt_out.c.actor,
            opt_out.c.scope,
        )
        .distinct()  # a value may be known twice, proven and merely said, and is one address
        .select_from(identifier.join(opt_out, same))
        .where(identifier.c.customer_id.in_(customer_ids), opt_out.c.ended_at.is_(None))
        .order_by(opt_out.c.id)
        .limit(60)
    )


def join(join_id: int) -> Select[Any]:
    """A tie between two homes, and whether a later row undid it."""
    ends = join_log.alias("ends")
    undone = select(func.max(ends.c.id)).where(ends.c.undoes == join_log.c.id, ends.c.left_id == join_log.c.left_id).scalar_subquery()
    return select(*join_log.c, undone.label("undone")).where(join_log.c.id == join_id, join_log.c.undoes.is_(None))


def customer_tickets(customer_id: int) -> Select[Any]:
    """A customer's tickets, unresolved ones first, newest first: at most 30."""
    names = ("id", "status", "subject", "preview", "channel_id", "opened_at", "last_at", "resolved_at")
    return (
        select(*(ticket.c[name] for name in names))
        .where(ticket.c.conversation_id == customer_id)
        .order_by(case((ticket.c.status == "resolved", 1), else_=0), ticket.c.last_at.desc(), ticket.c.id.desc())
        .limit(30)
    )


def holds(customer_id: int, now: int) -> Select[Any]:
    """The reasons for which a customer is held now."""
    return (
        select(
            hold.c.id,
            hold.c.reason,
            hold.c.source,
            hold.c.scope,
            hold.c.placed_at,
            hold.c.lease_until,
            hold.c.ends_at,
            hold.c.note,
            hold.c.actor,
        )
        .where(hold.c.customer_id == customer_id, hold.c.released_at.is_(None), hold.c.lease_until > now)
        .order_by(hold.c.id)
        .limit(20)
    )


def leaks(customer_id: int, since: int) -> Select[Any]:
    """Marketing messages that reached a customer although they were on hold, the newest first."""
    return (
        select(send_seen.c.id, send_seen.c.at, send_seen.c.campaign, send_seen.c.channel, send_seen.c.cause)
        .where(send_seen.c.customer_id.in_(homes(customer_id)), send_seen.c.leak, send_seen.c.at >= since)
        .order_by(send_seen.c.at.desc())
        .limit(3)
    )


def ledger(customer_id: int) -> Select[Any]:
    """The last entries of a customer's hold ledger."""
    names = ("id", "op", "reason", "source", "version", "at", "lease_until")
    return (
        select(*(hold_ledger.c[name] for name in names))
        .where(hold_ledger.c.customer_id.in_(homes(customer_id)))
        .order_by(hold_ledger.c.id.desc())
        .limit(6)
    )


def identifier_kind(identifier_id: int) -> Select[Any]:
    """What kind of identifier this is; no row where there is none."""
    return select(identifier.c.kind).where(identifier.c.id == identifier_id)


def said(message_id: int) -> Select[Any]:
    """A message in short, with where it stands: what an agent sees before giving it to another customer."""
    names = ("id", "conversation_id", "ticket_id", "direction", "channel_id", "created_at", "subject")
    columns = [message.c[name] for name in names]
    return select(*columns, func.substr(message.c.text, 1, 300).label("text")).where(message.c.id == message_id)


# --- single messages and files ---------------------------------------------------------------------------------------


def file(attachment_id: str) -> Select[Any]:
    """A stored file's row, by way of its message: a file of no message is nobody's to open."""
    return (
        select(*(attachment.c[name] for name in ("id", "name", "content_type", "size", "sha256", "state", "thumbnail", "scan")))
        .join(message, message.c.id == attachment.c.message_id)
        .where(attachment.c.id == attachment_id)
    )


def original(message_id: int, characters: int) -> Select[Any]:
    """A message's text, subject and the beginning of its HTML."""
    return select(
        message.c.id,
        message.c.conversation_id,
        message.c.subject,
        message.c.text,
        func.substr(message.c.html, 1, characters).label("html"),
        (func.length(message.c.html) > characters).label("cut"),
    ).where(message.c.id == message_id)


def inline_files(message_id: int) -> Select[Any]:
    """The stored files of a mail that its HTML may name by Content-ID."""
    return (
        select(attachment.c.id, attachment.c.content_id, attachment.c.size, attachment.c.sha256)
        .where(attachment.c.message_id == message_id, attachment.c.content_id != "", attachment.c.state == "stored")
        .limit(40)
    )
