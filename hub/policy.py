"""The rules that decisions follow, as plain data: read from the configuration once, handed to every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.survey_policy import SurveyPolicy

SECOND = 1_000_000  # all times are microseconds
DAY = 86_400 * SECOND


class Refusal(Exception):
    """What was asked cannot be done; the text says why, for the person who asked. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """What a decision may know of a channel: never its name's meaning."""

    id: int
    name: str
    label: str
    brand: str
    reaches: tuple[str, ...]
    idempotent: bool
    mails: bool  # answers carry mail headers and a reply address
    site: str = ""  # the web site whose accounts it reaches, where it reaches accounts
    window: int = 0  # it takes what we write for so long after the customer wrote on it, in microseconds; 0: always


@dataclass(frozen=True, slots=True)
class HoldRules:
    """When a ticket holds its customer, and for how long. Times are microseconds."""

    statuses: frozenset[str] = frozenset({"open", "pending", "snoozed"})
    tags: frozenset[str] = frozenset()  # only tickets with one of these; none: all
    tags_not: frozenset[str] = frozenset()  # tickets with one of these hold nobody
    priorities: frozenset[str] = frozenset()  # only these; none: all
    longest: int = 21 * DAY  # a ticket holds for so long, and then no more until it is reopened
    resume: str = "at_once"  # after resolving: at_once | cool_down | good_score (then, or after the cool-down)
    cool_down: int = 0
    low_score: int = 7 * DAY  # a bad answer to a survey holds for so long
    complaint_tags: frozenset[str] = frozenset({"complaint"})
    complaint: int = 14 * DAY  # a complaint holds for so long, resolved or not


@dataclass(frozen=True, slots=True)
class Policy:
    reopen_within: int = 7 * DAY
    hold_lease: int = 7 * DAY
    hold_renew_under: int = 3 * DAY
    hold: HoldRules = field(default_factory=HoldRules)
    survey: SurveyPolicy = field(default_factory=SurveyPolicy)
    delivery_lease: int = 90 * SECOND
    unknown_blocks: int = 120 * SECOND  # how long a send of unknown fate keeps its lane shut
    rooms: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()  # destinations that are marketing tools with profiles: brought to the wanted state, not told of changes
    hears: Mapping[str, frozenset[str]] = field(default_factory=dict)  # destination -> the types of events it hears besides holds
    channels: Mapping[int, ChannelRule] = field(default_factory=dict)
    region: str = ""  # ISO 3166 country of numbers that people write without one
    own_domains: frozenset[str] = frozenset()  # whoever mails from there is one of us, and no customer
    own_addresses: frozenset[str] = frozenset()
    claims_held: int = 3  # addresses held for what one customer merely claims; 0: none
    mail_domain: str = "hub.invalid"  # right side of the Message-IDs we write
    signatures_kept: int = 1_000  # requests with a bad signature kept per channel
    signatures_kept_for: int = 30 * DAY
