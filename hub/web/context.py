"""What request handlers may reach. The composition root fills it in; handlers never build any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jinja2
from aiohttp import web

from hub.capped import CappedChild
from hub.config import Settings
from hub.contract import Channel, ChannelSettings, Http, Place
from hub.delivery.marking import Tools
from hub.delivery.outbox import Outbox
from hub.policy import ChannelRule, Policy
from hub.sessions import Principal
from hub.storage.blobs import Blobs
from hub.storage.hot import HotReads
from hub.storage.reader import Reader
from hub.storage.records import ChannelState
from hub.storage.writer import Writer
from hub.team_rooms import Desk, Room
from hub.web.feed import Feed


@dataclass(slots=True)
class BoundChannel:
    """A configured channel: its connector, where it lives, and whether a delivery has verified under its present key."""

    rule: ChannelRule
    place: Place
    connector: Channel
    state: ChannelState
    observes: bool = False  # accepts unverified deliveries, as proof of nothing, until one verifies
    settings: ChannelSettings | None = None  # what the connector was made of, to make it again in another process


@dataclass(slots=True)
class Hub:
    settings: Settings
    policy: Policy
    writer: Writer
    reader: Reader
    hot: HotReads
    blobs: Blobs
    feed: Feed
    pages: jinja2.Environment
    secret: bytes = field(repr=False)
    channels: Mapping[str, BoundChannel]
    rooms: Mapping[str, Room]
    tools: Tools
    http: Http
    desk: Desk
    outbox: Outbox
    reading: CappedChild = field(default_factory=CappedChild)  # where large requests are read

    def channel(self, channel_id: int) -> BoundChannel | None:
        return next((bound for bound in self.channels.values() if bound.rule.id == channel_id), None)


HUB = web.AppKey("hub", Hub)
PRINCIPAL = web.RequestKey("principal", Principal)  # who is signed in; set by `auth.sessions`
