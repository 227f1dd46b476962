"""What marketing tools and the hub agree on, besides `contract`: profiles brought to a wanted state and read back, campaigns watched.

A `Destination` is told of changes. A tool here is level-triggered: each of its profiles is brought to the state that is
wanted, and read back until it agrees. Its connector translates like any other: no database, no clock, the network only through
the `Http` it is handed. No call here touches consent: to unsubscribe or suppress somebody is not in this vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from hub.contract import Answers, Http, Request, Verdict

Trait = str | int | bool | None  # None: to be unset


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
class Wish:
    """How one identifier should stand in a marketing tool. Applying the same twice changes nothing; a later `version` wins.

    `kind` is `email`, `phone`, `external_id` or `wa_user_id`. `traits` are further attributes (support_status, support_resolved_at, ...);
    a trait is a flag, a number, a short word or an ISO time, never what anybody wrote.
    """

    kind: str
    value: str
    site: str = ""
    held: bool
    until: str = ""  # ISO 8601 UTC, when the hold runs out by itself; empty where not held
    reasons: tuple[str, ...] = ()
    version: int = 0
    traits: Mapping[str, Trait] = field(default_factory=dict)
    profile: str = ""  # the tool's own id of the profile, where it is known from an earlier time


class Fate(StrEnum):
    ACCEPTED = "accepted"  # the tool took it
    ABSENT = "absent"  # it knows nobody by this identifier: nobody to hold, and none was created
    REFUSED = "refused"  # it refuses this one, whatever becomes of the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """What became of one wish. Several identifiers may be one profile: each is answered."""

    fate: Fate
    profile: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """How a profile stands in the tool, read there. `effective`: its own segment or filter shows the same; None: it cannot say."""

    present: bool
    held: bool = False
    until: str = ""
    profile: str = ""
    effective: bool | None = None


class Proved(StrEnum):
    """How we know that a connector says what the tool understands."""

    LIVE = "live"  # tried on the tool itself
    SPECIFICATION = "specification"  # every call checked against the vendor's own machine-readable specification or client
    DOCUMENTATION = "documentation"  # written from the vendor's pages: needs `accept_unproved: true` and a live round trip of yours


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing a set-up needs, and whether it is there. `text` says what was found and what to do."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step a person takes in the tool; `paste` is the exact text to paste there, or empty."""

    text: str
    paste: str = ""


class ToolSettings(BaseModel):
    """The part of a marketing tool's configuration that all share; a connector adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str
    base_url: str = ""  # empty: the vendor's own
    brands: tuple[str, ...] = ()  # only holds of these brands are told; none: of all
    channel: str = ""  # only holds that reach this channel (email, sms, ...); empty: any
    create_profiles: bool = False  # True: a customer the tool does not know becomes a profile there
    accept_unproved: bool = False
    max_per_second: float | None = Field(default=None, gt=0)


@runtime_checkable
class MarketingTool(Protocol):
    """A marketing tool with profiles, built once at start as `cls(settings, name)`. Holds no state of a profile."""

    Settings: ClassVar[type[ToolSettings]]
    label: ClassVar[str]  # "Klaviyo", as people read it
    kinds: ClassVar[tuple[str, ...]]  # the kinds of identifier it knows profiles by
    proved: ClassVar[Proved]
    lapse: ClassVar[str]  # how soon a lease that ran out frees its profile there, in a sentence for people
    settles: ClassVar[float]  # seconds after which reading back usually shows a write
    reads_back: ClassVar[bool]  # False: it cannot be asked, so a hold there is never confirmed

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Bring profiles to the wanted state; one answer a wish, in order. At most 50 wishes. `now` is unix seconds.

        Looks a profile up first and creates none (unless `create_profiles`). Raises Refused where the tool refuses all of it (a
        revoked key), TryLater where it may be done again; both change nothing that doing it again does not mend.
        """
        ...

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """How the profiles stand there now; one answer a wish, in order. Raises Refused or TryLater."""
        ...

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Whether the credentials work and what the hold needs is there. Changes nothing. Raises TryLater."""
        ...

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Create or find what the hold needs (property, segment) where the tool's API can. Done again it changes nothing. Raises
        Refused or TryLater."""
        ...

    def steps(self) -> Sequence[Step]:
        """What a person does in the tool so that held profiles are left out: the exact filter, word for word."""
        ...

    def is_sandbox(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign that is planned, or going out. Times are unix seconds."""

    id: str
    name: str
    channel: str  # email | sms | push | other
    status: str  # draft | scheduled | sending | sent | cancelled
    send_at: float | None = None
    frozen_at: float | None = None  # since when its recipients are fixed, so that a hold placed later does not reach it; None: they are not
    excludes_hold: bool | None = None  # whether it leaves held profiles out; None: the tool cannot say
    audiences: tuple[str, ...] = ()  # ids of the lists and segments it goes to
    mend: str = ""  # the one step that mends it, in words
    url: str = ""  # where a person sees it in the tool
    revertable: bool = False  # it can be put back to draft by API


@runtime_checkable
class WatchesCampaigns(Protocol):
    """A tool that tells which campaigns are coming."""

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        """Every campaign that is scheduled or going out. Reads only. Raises Refused or TryLater."""
        ...


@runtime_checkable
class KnowsAudiences(Protocol):
    """A tool that tells which lists and segments a profile is in."""

    async def audiences(self, profile: str, http: Http) -> frozenset[str]:
        """Ids of the lists and segments of one profile. Raises Refused or TryLater."""
        ...


@runtime_checkable
class RevertsCampaigns(Protocol):
    """A tool that can put a scheduled campaign back to draft. That stops it for everybody, so only a person asks for it."""

    async def revert(self, campaign_id: str, http: Http) -> str:
        """Put it back to draft; returns what happened, in words. Raises Refused or TryLater."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SendSeen:
    """A marketing message the tool says it sent (or, by our gate, did not). `provider_key` is the tool's own id of the event."""

    provider_key: str
    at: float  # unix seconds, by the tool's clock
    kind: str = ""  # the recipient: email | phone | external_id, or empty where only `profile` is known
    value: str = ""
    profile: str = ""
    channel: str = ""  # email | sms | push | whatsapp | other
    campaign_id: str = ""
    campaign: str = ""  # its name; never the text sent
    prevented: bool = False  # True: the tool skipped or aborted it


@runtime_checkable
class ReportsSends(Protocol):
    """A tool that can be asked what it sent."""

    async def sends(self, since: float, http: Http, now: float) -> Sequence[SendSeen]:
        """Marketing messages sent since then (unix seconds), oldest first, at most 1,000; fewer than 1,000 means there are no more
        until now. Raises Refused or TryLater."""
        ...


@runtime_checkable
class HearsSends(Protocol):
    """A tool that tells by webhook what it sent."""

    answers: ClassVar[Answers]

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the signature as the vendor signs; `now` is unix seconds."""
        ...

    def parse_sends(self, request: Request) -> Sequence[SendSeen]:
        """What a genuine request tells. Pure. Raises Unparseable."""
        ...
