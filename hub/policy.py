"""The rules that decisions follow, as plain data: read from the configuration once, handed to every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Policy:
    reopen_within: int = 7 * DAY
    hold_lease: int = 7 * DAY
    hold_renew_under: int = 3 * DAY
    delivery_lease: int = 90 * SECOND
    unknown_blocks: int = 120 * SECOND  # how long a send of unknown fate keeps its lane shut
    rooms: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    hears: Mapping[str, frozenset[str]] = field(default_factory=dict)  # destination -> the types of events it hears besides holds
    channels: Mapping[int, ChannelRule] = field(default_factory=dict)
    region: str = ""  # ISO 3166 country of numbers that people write without one
    own_domains: frozenset[str] = frozenset()  # whoever mails from there is one of us, and no customer
    own_addresses: frozenset[str] = frozenset()
    claims_held: int = 3  # addresses held for what one customer merely claims; 0: none
    mail_domain: str = "hub.invalid"  # right side of the Message-IDs we write
    signatures_kept: int = 1_000  # requests with a bad signature kept per channel
    signatures_kept_for: int = 30 * DAY
