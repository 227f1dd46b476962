"""How each kind of delivery reaches its target: what a channel, a room or a destination is handed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from hub.contract import Attachment, Claim, MessageStatus, OutboundMessage, Place, Proof, Refused, Sent, TryLater
from hub.conversations.commands import Assign, NewFile, Resolve
from hub.delivery.carriers import LONGEST_CHAIN, MAILS, CardCarrier, HoldCarrier, MediaCarrier, ReplyCarrier, Thread, thread
from hub.delivery.works import finish
from hub.marketing import HoldNotice
from hub.storage.blobs import Blobs
from hub.storage.records import Agent
from hub.team_rooms import TicketCard
from tests.delivery import ADA, CHANNELS, MAIL, MARKETING, SMS, START, Ground, Insert, delivery, ground

# --- mail threads ---


def mail(name: str, direction: str = "in", subject: str = "", text: str = "") -> tuple[str, str, str, str]:
    return f"<{name}@x>", subject, direction, text or name


# the ticket's earlier mails, oldest first -> subject, what it answers, References, what is quoted
THREADS: dict[str, tuple[list[tuple[str, str, str, str]], Thread]] = {
    "none yet: the ticket began elsewhere": ([], Thread("", "", (), "")),
    "one question": ([mail("q", subject="Parcel")], Thread("Re: Parcel", "<q@x>", ("<q@x>",), "q")),
    "a second answer to one question": (
        [mail("q", subject="Parcel"), mail("a", "out")],
        Thread("Re: Parcel", "<q@x>", ("<q@x>",), "q"),
    ),
    "question, answer, question": (
        [mail("q", subject="Parcel"), mail("a", "out"), mail("q2", subject="Re: Parcel")],
        Thread("Re: Parcel", "<q2@x>", ("<q@x>", "<a@x>", "<q2@x>"), "q2"),
    ),
    "our later mails are no part of what led to the question": (
        [mail("q", subject="Parcel"), mail("q2", subject="Parcel"), mail("a", "out")],
        Thread("Re: Parcel", "<q2@x>", ("<q@x>", "<q2@x>"), "q2"),
    ),
    "we wrote first, and again": ([mail("a", "out"), mail("b", "out")], Thread("", "<b@x>", ("<a@x>", "<b@x>"), "")),
    "a subject that is only Re:": ([mail("q", subject="Re: re: RE: Parcel")], Thread("Re: Parcel", "<q@x>", ("<q@x>",), "q")),
    "no subject at all": ([mail("q")], Thread("Re: your message", "<q@x>", ("<q@x>",), "q")),
    "the last mail has none, the one before had": (
        [mail("q", subject="Parcel"), mail("q2")],
        Thread("Re: Parcel", "<q2@x>", ("<q@x>", "<q2@x>"), "q2"),
    ),
    "a new subject on the way": (
        [mail("q", subject="Parcel"), mail("q2", subject="Invoice")],
        Thread("Re: Invoice", "<q2@x>", ("<q@x>", "<q2@x>"), "q2"),
    ),
    "one id twice": (
        [mail("q", subject="Parcel"), mail("q", subject="Parcel"), mail("q2", subject="Parcel")],
        Thread("Re: Parcel", "<q2@x>", ("<q@x>", "<q2@x>"), "q2"),
    ),
    "a word that begins like Re": ([mail("q", subject="Return label")], Thread("Re: Return label", "<q@x>", ("<q@x>",), "q")),
}


@pytest.mark.parametrize("case", THREADS)
def test_what_an_answer_answers(case: str) -> None:
    earlier, expected = THREADS[case]
    assert thread(earlier) == expected


@pytest.mark.parametrize("length", [1, 9, 10, 11, 50])
def test_a_long_chain_keeps_its_first_and_its_latest_and_ends_in_what_it_answers(length: int) -> None:
    earlier = [mail(f"m{number}", subject="Parcel") for number in range(length)]
    found = thread(earlier)
    assert len(found.references) == min(length, LONGEST_CHAIN)
    assert found.references[0] == "<m0@x>"
    assert found.references[-1] == found.in_reply_to == f"<m{length - 1}@x>"
    assert list(found.references[1:]) == [row[0] for row in earlier][-len(found.references) + 1 :][: len(found.references) - 1]


# --- the ports, on the other side of which something is noted ---


@dataclass
class Phone:
    """A channel that keeps what it is handed."""

    handed: list[OutboundMessage] = field(default_factory=list)
    files: dict[str, Attachment] = field(default_factory=dict)

    async def send(self, message: OutboundMessage, http: Any) -> Sent:
        self.handed.append(message)
        return Sent(f"SM{message.delivery_id}", MessageStatus.SENT)

    async def fetch(self, url: str, http: Any) -> Attachment:
        return self.files[url]


@dataclass
class Wall:
    """A room that keeps what it shows."""

    shown: list[tuple[TicketCard, str]] = field(default_factory=list)

    async def show(self, card: TicketCard, ref: str) -> str:
        self.shown.append((card, ref))
        return ref or "C1:1.0"


@dataclass
class Tool:
    told: list[tuple[HoldNotice, float]] = field(default_factory=list)

    async def tell(self, notice: HoldNotice, http: Any, now: float) -> None:
        self.told.append((notice, now))


@dataclass
class Stage:
    hub: Ground
    phone: Phone
    wall: Wall
    tool: Tool
    reply: ReplyCarrier
    card: CardCarrier
    hold: HoldCarrier
    media: MediaCarrier
    blobs: Blobs

    async def carries(self) -> list[Any]:
        """Everything due, carried and finished."""
        ended = []
        for row in await self.hub.claims():
            outcome = await getattr(self, row.kind).carry(row)
            await self.hub.run(outcome)
            ended.append(outcome)
        return ended


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with ground(tmp_path, rooms=("slack",), destinations=MARKETING) as hub:
        await hub.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        phone, wall, tool, blobs, http = Phone(), Wall(), Tool(), Blobs(tmp_path / "files"), SimpleNamespace()
        bound = {
            rule.name: SimpleNamespace(rule=rule, place=Place(rule.name, f"https://hub.example/in/{rule.name}", b""), connector=phone)
            for rule in CHANNELS.values()
        }
        yield Stage(
            hub,
            phone,
            wall,
            tool,
            ReplyCarrier(bound, hub.reader, blobs, http, lambda t, i: f"token.{t}.{i}", lambda id_: f"https://hub.example/files/{id_}"),
            CardCarrier({"slack": wall}, hub.reader, {rule.id: rule.label for rule in CHANNELS.values()}, "https://hub.example"),
            HoldCarrier({"marketing": tool}, http, hub.clock),
            MediaCarrier(bound, hub.reader, blobs, http),
            blobs,
        )


# --- answers ---


async def test_a_channel_is_handed_whom_what_and_where_to_report(stage: Stage) -> None:
    ticket = await stage.hub.hears("+1 202-555-0123", sender_name="Ada")
    sha256 = stage.blobs.put(b"a label")
    sent = await stage.hub.answers(ticket, "Here it is.", attachments=(NewFile("label.pdf", "application/pdf", 7, sha256),))
    await stage.carries()
    (handed,) = stage.phone.handed
    (row,) = await stage.hub.deliveries()
    (file,) = handed.attachments
    assert handed == OutboundMessage(
        delivery_id=row.id,
        to="+1 202-555-0123",  # as the channel delivered it, not our spelling
        text="Here it is.",
        attachments=(file,),
        callback_url=f"https://hub.example/in/sms?delivery={row.id}",
        sender_name="Robin",
    ), "and no mail headers, which are of no use here"
    assert (file.name, file.content_type, file.size, file.read()) == ("label.pdf", "application/pdf", 7, b"a label")
    assert file.public_url == f"https://hub.example/files/{(await stage.hub.all('attachment'))[0].id}"
    told = await stage.hub.row("message", sent)
    assert (told.status, told.provider_id) == ("sent", f"SM{row.id}")


async def test_a_mail_is_handed_its_thread(stage: Stage) -> None:
    hub = stage.hub
    ticket = await hub.hears("ada@example.com", "Where?", MAIL, subject="Parcel", message_id="<q@x>")
    await hub.hears("ben@example.com", "Other", MAIL, subject="Other", message_id="<other@x>")
    sent = await hub.answers(ticket, "Tomorrow.")
    await stage.carries()
    (handed,) = stage.phone.handed
    own = (await hub.row("message", sent)).mail_id
    assert (handed.subject, handed.in_reply_to, handed.references, handed.quoted) == ("Re: Parcel", "<q@x>", ("<q@x>",), "Where?")
    assert (handed.message_id, handed.reply_token) == (own, f"token.{ticket}.1")
    assert own.endswith("@shop.example>")


async def test_a_mail_after_a_very_long_thread_answers_the_latest_one(stage: Stage) -> None:
    hub = stage.hub
    for number in range(MAILS + 5):
        ticket = await hub.hears("ada@example.com", f"mail {number}", MAIL, subject="Parcel", message_id=f"<m{number}@x>")
    await hub.answers(ticket)
    await stage.carries()
    assert stage.phone.handed[0].in_reply_to == f"<m{MAILS + 4}@x>"


async def test_an_answer_quotes_only_what_that_very_address_wrote_on_that_ticket(stage: Stage) -> None:
    """Two addresses of one person may be read by two people, and an old matter is none of a new one's."""
    hub = stage.hub
    old = await hub.hears("ada@example.com", "An old matter", MAIL, subject="Old", message_id="<old@x>")
    await hub.run(Resolve(old, 1))
    hub.clock.pass_(30 * 86_400)
    work = Claim("email", "ada@work.example", Proof.SIGNED)
    ticket = await hub.hears("ada@example.com", "From home", MAIL, subject="Home", message_id="<home@x>", claims=(work,))
    assert await hub.hears("ada@work.example", "From work", MAIL, subject="Work", message_id="<work@x>") == ticket != old
    at = {one.value: one.id for one in await hub.all("identifier")}
    for address in ("ada@example.com", "ada@work.example"):
        await hub.answers(ticket, f"To {address}", identifier_id=at[address])
        await stage.carries()
    home, office = stage.phone.handed
    assert (home.to, home.subject, home.references, home.quoted) == ("ada@example.com", "Re: Home", ("<home@x>",), "From home")
    assert (office.to, office.subject, office.references, office.quoted) == ("ada@work.example", "Re: Work", ("<work@x>",), "From work")


async def test_a_mail_on_a_ticket_that_began_elsewhere_names_the_ticket(stage: Stage) -> None:
    hub = stage.hub
    ticket = await hub.hears(claims=(Claim("email", "ada@example.com", Proof.SIGNED),))
    for text in ("By mail, as you wished.", "And again."):
        await hub.answers(ticket, text, channel_id=MAIL.id)
        await stage.carries()
    first, second = stage.phone.handed
    assert first.subject == second.subject == f"Your request #{ticket}", "one subject, so that both stand in one thread"
    assert (first.in_reply_to, second.in_reply_to) == ("", first.message_id)


@pytest.mark.parametrize("kind", ["reply", "card", "hold", "media"])
async def test_a_target_that_is_no_longer_configured_is_said_to_be_and_nothing_is_tried(stage: Stage, kind: str) -> None:
    row = delivery(kind=kind, target="gone", payload=json.dumps({"attachment": "x"}))
    with pytest.raises(Refused, match="gone is no longer configured"):
        await getattr(stage, kind).carry(row)


@pytest.mark.parametrize(("kind", "target"), [("reply", "sms"), ("card", "slack"), ("media", "sms")])
async def test_what_was_erased_meanwhile_is_not_sent(stage: Stage, kind: str, target: str) -> None:
    row = delivery(kind=kind, target=target, subject_id=404, payload=json.dumps({"attachment": "404"}))
    with pytest.raises(Refused, match="erased"):
        await getattr(stage, kind).carry(row)
    assert stage.phone.handed == stage.wall.shown == []


async def test_a_database_that_cannot_be_read_puts_an_answer_off_instead_of_leaving_it_in_doubt(stage: Stage) -> None:
    class Locked:
        async def first(self, *_: Any) -> Any:
            raise OperationalError("SELECT", {"phone": ADA}, Exception("database is locked"))

    stage.reply._reader = Locked()  # type: ignore[assignment]
    with pytest.raises(TryLater, match="Nothing was sent yet") as caught:
        await stage.reply.carry(delivery())
    assert ADA not in str(caught.value)


# --- cards ---


async def test_a_card_shows_the_ticket_as_it_stands_now(stage: Stage) -> None:
    hub = stage.hub
    ticket = await hub.hears(subject="", sender_name="Ada Okafor")
    await hub.run(Assign(ticket, 1, 1))
    await stage.carries()
    card, ref = stage.wall.shown[0]
    assert ref == ""
    assert card == TicketCard(
        ticket_id=ticket,
        version=2,
        status="open",
        customer="Ada Okafor",
        channel="SMS",
        subject="",
        preview="Where is my parcel?",
        assignee="Robin",
        held=True,
        url=f"https://hub.example/inbox/all?ticket={ticket}",
    )
    await hub.run(Resolve(ticket, 1))
    await stage.carries()
    card, ref = stage.wall.shown[-1]
    assert (card.status, card.held, card.version, ref) == ("resolved", False, 3, "C1:1.0"), "the same post, brought up to date"


async def test_a_customer_without_a_name_is_shown_as_the_inbox_shows_them(stage: Stage) -> None:
    await stage.hub.hears()
    await stage.carries()
    assert stage.wall.shown[0][0].customer == "+1 202-555-0123"


# --- holds ---


async def test_a_destination_is_told_the_same_on_every_try_signed_with_the_time_of_the_try(stage: Stage) -> None:
    await stage.hub.hears()
    (row,) = [row for row in await stage.hub.claims() if row.kind == "hold"]
    await stage.hold.carry(row)
    stage.hub.clock.pass_(60)
    await stage.hold.carry(replace(row, attempt=2))
    (first, at), (again, later) = stage.tool.told
    assert first == again
    assert (first.type, first.time, first.data["version"]) == ("hold.placed", "2027-01-15T08:00:00.000Z", 1)
    assert (at, later) == (1_800_000_000.0, 1_800_000_060.0)


async def test_no_two_notices_share_an_id_even_after_a_restore_counts_anew(stage: Stage) -> None:
    payload = json.dumps({"type": "hold.placed", "at": START, "data": {}})
    for created_at in (START, START + 1):
        await stage.hold.carry(delivery(kind="hold", target="marketing", payload=payload, created_at=created_at))
    first, second = (notice.id for notice, _ in stage.tool.told)
    assert first != second


# --- files ---


async def test_a_fetched_file_is_on_disk_before_its_row_says_so(stage: Stage) -> None:
    id_ = await stage.hub.hears_of_picture()
    stage.phone.files["https://media.example/p"] = Attachment("p.png", "image/png", data=b"png")
    (outcome,) = [one for one in await stage.carries() if one.attachment_id]
    assert stage.blobs.get(outcome.sha256) == b"png"
    kept = await stage.hub.row("attachment", id_)
    assert (kept.state, kept.size, kept.content_type, kept.sha256) == ("stored", 3, "image/png", outcome.sha256)


def test_the_end_of_a_fetch_names_its_file_and_of_nothing_else() -> None:
    media = delivery(kind="media", target=SMS.name, payload=json.dumps({"attachment": "f1"}))
    assert finish(media, "failed", error="no").attachment_id == "f1"
    assert finish(delivery()).attachment_id == ""
