"""What connectors and the hub agree on: plain data, a few small protocols, and the ways a delivery can end.

A connector only translates between a vendor's words and these. It reads no database and no clock, knows no other
connector, and reaches the network only through the `Http` it is handed (or its vendor's SDK laid over that).
This module imports nothing of ours. Its neighbours are `hub.marketing` (marketing tools) and `hub.team_rooms` (the agents' rooms).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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
    busy: int = 503  # nothing was stored: come back later. Another one where the vendor takes a 5xx for the end


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message: its bytes, or the provider's `url` to fetch it from after the commit."""

    name: str
    content_type: str
    data: bytes | None = None
    url: str = ""
    content_id: str = ""  # without angle brackets; an inline image of an HTML mail
    inline: bool = False


class MessageStatus(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    UNKNOWN = "unknown"


class DeliveryEvent(StrEnum):
    """A provider's own news of a message, finer than the state the message is in after it."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    REJECTED = "rejected"
    COMPLAINED = "complained"  # the recipient called it spam
    OPENED = "opened"
    CLICKED = "clicked"
    UNSUBSCRIBED = "unsubscribed"
    OTHER = "other"


# What a message is after such news. An opened mail counts as delivered and no more: mail programs open mails nobody reads.
STATUS_AFTER: Mapping[DeliveryEvent, MessageStatus] = {
    DeliveryEvent.SENT: MessageStatus.SENT,
    DeliveryEvent.DELIVERED: MessageStatus.DELIVERED,
    DeliveryEvent.READ: MessageStatus.READ,
    DeliveryEvent.DEFERRED: MessageStatus.SENT,
    DeliveryEvent.BOUNCED: MessageStatus.FAILED,
    DeliveryEvent.REJECTED: MessageStatus.FAILED,
    DeliveryEvent.COMPLAINED: MessageStatus.DELIVERED,
    DeliveryEvent.OPENED: MessageStatus.DELIVERED,
    DeliveryEvent.CLICKED: MessageStatus.READ,
    DeliveryEvent.UNSUBSCRIBED: MessageStatus.DELIVERED,
    DeliveryEvent.OTHER: MessageStatus.SENT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryUpdate:
    """What a provider tells of a message we sent. `delivery_id` is ours, echoed back; else `provider_message_id` finds it, else the
    Message-ID of a mail (`mail_id`), else (a bounce) the latest mail to `recipient`."""

    provider_key: str
    status: MessageStatus
    delivery_id: int | None = None
    provider_message_id: str = ""
    error: str = ""  # in plain words, with the vendor's code
    event: DeliveryEvent | None = None  # None: no more than `status` says
    recipient: str = ""  # the address it is about, where the provider names it
    mail_id: str = ""  # with its angle brackets
    permanent: bool = False  # the address takes nothing, now or later: it is marked


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """One thing a customer said.

    `provider_key` is unique per channel for ever: it decides duplicates. `claims[0]` is the sender's own address, where an answer would
    go; without one it is nobody's message and kept aside. `automatic` names what kind of machine wrote it (`auto-reply`, `bounce`,
    `complaint`, `list`) or is empty; of a bounce or complaint only what it `reports` is used. `doubt` says in plain words why the sender
    cannot be trusted (DMARC failed) or is empty. `sent_at` is microseconds UTC.
    """

    provider_key: str
    claims: tuple[Claim, ...]
    external_id: str = ""  # the provider's id of it, as later messages (a quote, a reaction) name it
    text: str = ""
    reply_text: str | None = None  # of `text`, what they wrote this time, without quotes and signature; None: all of it
    html: str = ""
    subject: str = ""
    sender_name: str = ""
    attachments: tuple[Attachment, ...] = ()
    sent_at: int | None = None
    message_id: str = ""  # RFC 5322 Message-ID with its angle brackets
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    reply_token: str = ""  # what stood behind the `+` of our own address, unchecked
    quoted_id: str = ""  # the `external_id` (or our provider message id) of the message they answer, where the channel has such
    to: tuple[str, ...] = ()  # To and Cc, addresses only: they may be shown this mail, and prove nothing
    cc: tuple[str, ...] = ()
    automatic: str = ""
    reports: tuple[DeliveryUpdate, ...] = ()  # what a bounce or complaint tells of mails we sent
    spam: Mapping[str, Any] = field(default_factory=dict)  # what a filter made of it: `score` (number), `flagged` (bool), where told
    doubt: str = ""
    unchecked: bool = False  # nobody we believe has judged a signature of the sender's own that it bears: see `Checks`
    opts: Literal["", "out", "in"] = ""  # the channel's own word for "write to me no more" (a STOP), or for taking it back
    original: bytes | None = None  # the whole mail as it came, or the webhook it would have been, where the request is not already that

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody the mail was addressed to, each once."""
        return tuple(dict.fromkeys((*self.to, *self.cc)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Altered:
    """Something done to a message said before, ours or theirs: a reaction (`text` is the emoji, empty where it was taken back), an
    edit (`text` is the new wording), or a deletion. `about` is that message's `external_id` or provider message id."""

    provider_key: str
    claims: tuple[Claim, ...]
    about: str
    what: Literal["reaction", "edit", "deletion"]
    text: str = ""
    sent_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChanged:
    """A customer told the channel, and not us, whether they want marketing there. Support may go on writing to them."""

    provider_key: str
    claims: tuple[Claim, ...]
    opts: Literal["out", "in"]
    words: str = ""  # what the channel says of it


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Understood and of no consequence (a typing notice, a vendor's ping): answered 200, kept raw, nothing made of it."""

    provider_key: str
    reason: str


Inbound = InboundMessage | Identified | HolderChanged | DeliveryUpdate | Altered | ConsentChanged | Ignored


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
    content_id: str = ""  # without angle brackets: an image that stands within the HTML of a mail


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """An approved template with its variables filled in, by the names the template lists. The message's text is how it reads."""

    id: str  # Twilio: ContentSid; Meta: the template's name
    language: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    header: str = ""  # what `Template.header` was: a media header needs its file, a text header its variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A message a provider has approved (or has not yet), which may open a conversation. `text` has its variables as `{{name}}`."""

    id: str
    name: str
    language: str
    category: str  # utility | marketing | authentication, in small letters
    approved: bool
    state: str  # the provider's word for it: approved, pending, rejected ...
    text: str
    header: str = ""  # text, or `image`, `video`, `document`, `location` in angle brackets
    footer: str = ""
    buttons: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # the names in `text` and `header`, in their order
    samples: Mapping[str, str] = field(default_factory=dict)


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
    html: str = ""  # a mail's HTML body, rendered from its template; empty: the connector makes one of `text`
    quoted_id: str = ""  # the provider's id of the message it answers, for channels that show quotes
    template: TemplateUse | None = None  # send this approved template instead of free text
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
    can: ClassVar[Mapping[str, str]]  # what of `hub.abilities` it can do: empty for yes, else the reason why not, as a short sentence

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
class KnowsTemplates(Protocol):
    """A channel on which only an approved template may be written outside its window."""

    async def templates(self, http: Http) -> Sequence[Template]:
        """All templates of the account, approved or not. Raises TryLater or Refused."""
        ...


@runtime_checkable
class ShowsPresence(Protocol):
    """A channel whose customer can see that their message was read, and that somebody is writing. Nobody is owed either: a loss
    changes nothing."""

    async def seen(self, external_id: str, http: Http, *, typing: bool = False) -> None:
        """Tell the customer that this message of theirs was read, with `typing` also that an answer is being written. Raises TryLater
        or Refused."""
        ...


class Bookmark(Protocol):
    """Where a listener has come to, kept on disk by the hub."""

    async def load(self) -> str: ...
    async def save(self, value: str) -> None: ...


@runtime_checkable
class Listens(Protocol):
    """A channel that fetches what comes in (a mailbox read by IMAP) or takes it by itself (an SMTP port), beside the webhook's door."""

    async def listen(self, deliver: Callable[[Request], Awaitable[Answer]], bookmark: Bookmark, http: Http) -> None:
        """Take in messages until cancelled. Each goes through `deliver` as a request this channel's own `verify` and `parse` know; 200
        means that it is on disk (in its conversation or in quarantine), 503 that it is not and must be handed over again. Raises
        Refused where the settings are wrong, TryLater where it should be begun again after a pause."""
        ...


@runtime_checkable
class Expands(Protocol):
    """A channel whose webhooks only point to what came in, or are signed with keys that must be fetched. Asked before `verify`."""

    async def prepare(self, request: Request, http: Http) -> None:
        """Fetch what `verify` needs to judge this request (a certificate, from the provider's own hosts only). Raises TryLater."""
        ...

    async def expand(self, request: Request, http: Http) -> Request:
        """After `verify`: fetch what an authentic request only points to, and return the request with that in its body, for `parse`.
        The same request where there is nothing to fetch. Raises TryLater, or Unparseable where it is gone."""
        ...


@runtime_checkable
class Challenged(Protocol):
    """A channel whose provider asks by GET whether the webhook's address is ours."""

    def challenge(self, request: Request) -> Answer:
        """The answer to the provider's question."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A channel that keeps connections open."""

    async def close(self) -> None: ...


@runtime_checkable
class OneWay(Protocol):
    """A channel that may write from a sender nobody can answer."""

    def one_way(self) -> str:
        """Why customers cannot answer there, as a sentence for agents; empty where they can."""
        ...


@runtime_checkable
class Advises(Protocol):
    """A channel whose provider wants more than its webhook's address."""

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """(what the provider's console calls the field, what to paste there), in the order they stand there."""
        ...
