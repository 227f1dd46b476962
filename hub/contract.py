"""What connectors and the hub agree on: plain data, a few small protocols, and the ways a delivery can end.

A connector only translates between a vendor's words and these. It reads no database and no clock, knows no other
connector, and reaches the network only through the `Http` it is handed (or its vendor's SDK laid over that).
This module imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

# --- Who is speaking -------------------------------------------------------------------------------------------------


class Proof(StrEnum):
    """How an identifier came to be tied to a message. Strength follows from the kind of fact, never from its wording."""

    CHANNEL = "channel"  # the provider's signed webhook (or our own signed chat session) says this address sent it
    DMARC = "dmarc"  # the mail's From domain passed DMARC (or aligned DKIM/SPF), as told by a verdict we trust
    SIGNED = "signed"  # inside a valid, unexpired token signed by the embedding site
    OTP = "otp"  # a one-time code sent there came back
    AGENT = "agent"  # an agent said so
    RECORD = "record"  # the business's own import or API
    CLAIMED = "claimed"  # typed or written by the sender; proves nothing
    SEEN = "seen"  # merely appears: Reply-To, Cc, display name


PROVING = frozenset({Proof.CHANNEL, Proof.DMARC, Proof.SIGNED, Proof.OTP, Proof.AGENT})


@dataclass(frozen=True, slots=True)
class Claim:
    """One identifier a message carries, as the channel delivered it, with the proof for it.

    `kind` is `email`, `phone`, `wa_user_id`, `user_id` or `device`; `site` tells apart the `user_id`s of several sites.
    """

    kind: str
    value: str
    proof: Proof
    site: str = ""


# --- What comes in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook as it reached us. `url` is the configured public address plus the raw path and query: what the
    provider signed, never what a proxy's header claims. Header names are lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def query(self) -> str:
        return self.url.partition("?")[2]


class Verdict(StrEnum):
    GOOD = "good"
    BAD = "bad"  # a signature is there and wrong
    UNSIGNED = "unsigned"  # no signature or credential at all
    NO_KEY = "no_key"  # we hold no key to verify with


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider is told. Which status means "try again" differs from vendor to vendor."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Answers:
    """A vendor's answers, case by case. A `None` falls back to the case named beside it."""

    ok: Answer = Answer()
    bad_signature: int = 401
    # A wrong key looks just like a forgery. Where the vendor drops a message for good on a 4xx, this answer (one it
    # retries) is given until one delivery has verified under the current key. None: `bad_signature` at once.
    bad_signature_until_verified: int | None = None
    too_big: int = 413


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message: its bytes, or the provider's `url` to fetch it from after the commit."""

    name: str
    content_type: str
    data: bytes | None = None
    url: str = ""
    content_id: str = ""  # without angle brackets; an inline image of an HTML mail
    inline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """One thing a customer said.

    `provider_key` is unique per channel for ever: it decides duplicates. `claims[0]` is the sender's own address, where
    an answer would go. `automatic` names what kind of machine wrote it (`auto-reply`, `bounce`, `list`) or is empty.
    `doubt` says in plain words why the sender cannot be trusted (DMARC failed) or is empty. `sent_at` is microseconds UTC.
    """

    provider_key: str
    claims: tuple[Claim, ...]
    text: str = ""
    html: str = ""
    subject: str = ""
    sender_name: str = ""
    attachments: tuple[Attachment, ...] = ()
    sent_at: int | None = None
    message_id: str = ""  # RFC 5322 Message-ID with its angle brackets
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    reply_token: str = ""  # what stood behind the `+` of our own address, unchecked
    recipients: tuple[str, ...] = ()  # To and Cc, addresses only: they may be shown this mail, and prove nothing
    automatic: str = ""
    doubt: str = ""
    unchecked: bool = False  # nobody we believe has judged a signature of the sender's own that it bears: see `Checks`
    opts: Literal["", "out", "in"] = ""  # the channel's own word for "write to me no more" (a STOP), or for taking it back
    original: bytes | None = None  # the whole mail as it came, or the webhook it would have been, where the request is not already that


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """A session proved who it is, without saying anything: the claims hold together."""

    provider_key: str
    claims: tuple[Claim, ...]
    sender_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderChanged:
    """What identified somebody until now does so no more: a carrier disconnected the number, or (with `present`) a WhatsApp user
    took another one and the channel names what identifies them from now on."""

    provider_key: str
    previous: tuple[Claim, ...]
    present: tuple[Claim, ...] = ()


class MessageStatus(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryUpdate:
    """What a provider tells of a message we sent. `delivery_id` is ours, echoed back; else `provider_message_id` finds it."""

    provider_key: str
    status: MessageStatus
    delivery_id: int | None = None
    provider_message_id: str = ""
    error: str = ""  # in plain words, with the vendor's code


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Understood and of no consequence (a typing notice, a vendor's ping): answered 200, kept raw, nothing made of it."""

    provider_key: str
    reason: str


Inbound = InboundMessage | Identified | HolderChanged | DeliveryUpdate | Ignored


class Unparseable(Exception):
    """The request is authentic but cannot be understood. It is kept whole in quarantine and can be replayed."""


# --- What goes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutboundAttachment:
    name: str
    content_type: str
    size: int
    read: Callable[[], bytes]
    public_url: str  # a short-lived signed URL a provider can fetch it from


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """One answer on its way. `delivery_id` names this attempt's outbox row and is the same on every retry."""

    delivery_id: int
    to: str  # the customer's address as the channel delivered it
    text: str
    subject: str = ""
    attachments: tuple[OutboundAttachment, ...] = ()
    callback_url: str = ""  # where the provider should report what became of it
    sender_name: str = ""  # the agent, as customers may see them
    message_id: str = ""
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    reply_token: str = ""
    quoted: str = ""  # the text being answered, for mail's quoted context
    automatic: bool = False  # a machine wrote it: machines must not answer (RFC 3834)
    cc: tuple[str, ...] = ()  # who else an agent chose to send this mail to


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it. `status` is usually `sent`."""

    provider_message_id: str = ""
    status: MessageStatus = MessageStatus.SENT


class Refused(Exception):
    """The provider refused for good: trying again cannot help. The text is shown to the agent."""


class TryLater(Exception):
    """It did not go and may be tried again; `retry_after` in seconds where the provider named it."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unknown(Exception):
    """It may or may not have gone: the answer was lost in flight. Never sent again without asking."""


# --- The network -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]  # names lower case
    body: bytes


class NotSent(Exception):
    """No byte of the request reached the other side (refused connection, DNS, blocked address): safe to try again."""


class NoAnswer(Exception):
    """The request went out and no whole answer came back: it may have been carried out."""


class Http(Protocol):
    """The guarded client: public addresses only (or the hosts the configuration allows), no redirects, no cookies,
    capped in time and size."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 15.0,
        max_bytes: int = 1_000_000,
    ) -> HttpResponse:
        """Send one request. Raises NotSent or NoAnswer."""
        ...


# --- Connectors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a provider takes messages: so many at once, then so many a second. A connector whose provider limits it has one as
    its class attribute `pace`; `max_per_second` in the configuration overrides it."""

    per_second: float
    burst: int = 1


class ChannelSettings(BaseModel):
    """The part of a channel's configuration every type shares; a connector adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    address: str = ""  # the number or mailbox customers write to
    brand: str = "default"
    signature: Literal["enforce", "observe"] = "enforce"
    max_per_second: float | None = Field(default=None, gt=0)  # messages out; None: as fast as the provider takes them


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connector lives: its configured name, the public URL of its webhook, and a key of its own for signing."""

    name: str
    inbound_url: str
    key: bytes = field(repr=False)


@runtime_checkable
class Channel(Protocol):
    """A configured way in and out. Built once at start as `cls(settings, place)`; holds no state of a message."""

    Settings: ClassVar[type[ChannelSettings]]
    label: ClassVar[str]  # "WhatsApp", as people read it
    icon: ClassVar[str]  # name of a symbol in the sprite
    reaches: ClassVar[tuple[str, ...]]  # identifier kinds this channel can write to
    answers: ClassVar[Answers]
    idempotent: ClassVar[bool]  # sending the same delivery_id twice has the effect of once
    max_text: ClassVar[int]  # longest text one message can carry, in characters
    live: ClassVar[bool]  # speaks to the outside world; False only for what stays within the hub

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the signature or credential; `now` is unix seconds."""
        ...

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Translate an authentic request. Pure. Raises Unparseable."""
        ...

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Hand one message to the provider. Raises Refused, TryLater or Unknown."""
        ...

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Fetch a media `url` the provider gave us, with its credentials only on its own hosts. Raises Refused or TryLater."""
        ...

    def is_sandbox(self) -> bool:
        """Whether it speaks to a loopback stand-in instead of the real provider."""
        ...


# What a channel may be able to do besides; asked for with isinstance().


@runtime_checkable
class Recovers(Protocol):
    """A channel whose provider can be asked what customers wrote while nobody answered its webhooks."""

    def received(self, since: float, until: float, http: Http) -> AsyncIterator[Sequence[InboundMessage]]:
        """What came in between two times (unix seconds, by the provider's clock), the oldest page first and the oldest message
        of each page first. Each bears the `provider_key` its webhook bore, so that it is stored once whichever way it came, and
        as its `original` what that webhook's body would have been. Raises TryLater, or Refused where asking again cannot help."""
        ...


@runtime_checkable
class Finds(Protocol):
    """A channel whose provider can be asked whether a message of unknown fate went."""

    async def find(self, message: OutboundMessage, sent_after: float, sent_before: float, http: Http) -> Sequence[DeliveryUpdate]:
        """Every message the provider took between two times (unix seconds) that is the same as this one to whoever reads it: to the
        same address, the same text, as many files. Which of them (if any) this one became is for the hub to judge. Raises TryLater
        or Refused."""
        ...


class Lookup(Protocol):
    async def __call__(self, name: str) -> Sequence[bytes]:
        """The TXT records of a DNS name, each in one piece; none where there are none. Raises TryLater where nobody could say."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a message's own signature came to. `proved` is its sender's address with the proof for it, or None; `source` names the key
    that proved it, `why` tells people what was found."""

    said: InboundMessage
    why: str
    proved: Claim | None = None
    source: str = ""


@runtime_checkable
class Checks(Protocol):
    """A channel whose messages may bear a signature of their sender's own, which nobody else has judged. Checking it asks the DNS, so
    such a message comes in `unchecked`, proving nothing, and is checked after the commit."""

    def what_is_checked(self) -> str:
        """Which messages are, in words for the administrator."""
        ...

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the messages of a request as it came at `received` (unix seconds). Raises Unparseable, or TryLater where a key could
        not be looked up."""
        ...


@runtime_checkable
class Advises(Protocol):
    """A channel whose provider wants more than its webhook's address."""

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """(what the provider's console calls the field, what to paste there), in the order they stand there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldNotice:
    """A change of a customer's hold (or of who a customer is, see `Hears`), as destinations are told it. Times are ISO 8601 UTC."""

    id: str  # the same on every retry
    type: str  # hold.placed | hold.renewed | hold.released
    time: str
    data: Mapping[str, Any]  # {customer_id, identifiers[], reasons, scope, until, version}


class Destination(Protocol):
    """A marketing tool or webhook that must know about holds. Telling it the same version twice changes nothing."""

    Settings: ClassVar[type[BaseModel]]

    async def tell(self, notice: HoldNotice, http: Http, now: float) -> None:
        """Deliver one change. Raises Refused or TryLater (a lost answer is TryLater: versions make repeats harmless)."""
        ...

    def is_sandbox(self) -> bool: ...


@runtime_checkable
class Hears(Protocol):
    """A destination that is told of more than holds, by the same `tell`: of events of these types (customer.merged,
    customer.unmerged, customer.split), each with the identifiers both customers have now."""

    hears: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something a team should look at, for its room. `ended`: it is over."""

    title: str
    text: str
    url: str
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketCard:
    """What a team's room shows of a ticket; rebuilt from the present state on every update."""

    ticket_id: int
    version: int
    status: str  # open | pending | snoozed | resolved
    customer: str
    channel: str  # label of the channel last written on
    subject: str
    preview: str
    assignee: str  # empty: nobody
    held: bool
    url: str


class Desk(Protocol):
    """What may act for agents from outside the web inbox (Slack) through. Each call is checked and recorded as that agent's."""

    async def agent_for(self, room: str, user: str, email: str) -> int | None:
        """The agent behind a room's user, or None."""
        ...

    async def claim(self, ticket_id: int, agent_id: int) -> str:
        """Assign the ticket to the agent; returns what happened, in plain words."""
        ...

    async def resolve(self, ticket_id: int, agent_id: int) -> str:
        """Resolve the ticket; returns what happened, in plain words."""
        ...


class Room(Protocol):
    """The agents' room in a chat tool: one post a ticket, kept up to date, with buttons."""

    Settings: ClassVar[type[BaseModel]]

    async def show(self, card: TicketCard, ref: str) -> str:
        """Post the card, or update the post named by `ref`; returns the post's reference. Raises Refused, TryLater, Unknown."""
        ...

    async def alert(self, alert: Alert, ref: str) -> str:
        """Post an alert, or update the post named by `ref`; returns the post's reference. Raises Refused, TryLater, Unknown."""
        ...

    async def handle(self, request: Request, desk: Desk) -> Answer:
        """Answer an interaction (verified by the room itself)."""
        ...

    async def close(self) -> None: ...

    def is_sandbox(self) -> bool: ...
