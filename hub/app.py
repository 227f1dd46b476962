"""The composition root: the only file that knows everybody. It builds the hub from its settings, starts it and stops it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from pydantic import SecretStr, ValidationError

import connectors
from hub import agents, keys, reactions, sessions
from hub.config import ConfigError, Settings, explain
from hub.contract import Channel, ChannelSettings, Checked, Closes, Expands, OutboundMessage, Pace, Place, Request, Verdict
from hub.conversations.commands import WakeSnoozed
from hub.conversations.desk import AgentDesk
from hub.conversations.following_up import sweep_follow_ups
from hub.conversations.quarantine import SweepUnverified
from hub.conversations.recovery import Recovery
from hub.customers.canonical import canonical
from hub.customers.codes import sweep_codes
from hub.customers.late_proof import prove_sender
from hub.customers.site_keys import KeySets, unfetchable
from hub.customers.suggestions import Suggestions
from hub.delivery.alerting import AlertCarrier
from hub.delivery.carriers import CardCarrier, CodeCarrier, HoldCarrier, MediaCarrier, ReplyCarrier
from hub.delivery.checking import CheckCarrier
from hub.delivery.marking import MarkCarrier, ReadingBack, Tools
from hub.delivery.outbox import Outbox
from hub.delivery.owed import introduce
from hub.delivery.reconciler import Reconciler
from hub.delivery.tokens import file_token, one_time_code, reply_token, reply_token_names
from hub.delivery.unseen import UnseenCarrier, forget_unseen, link_token, mailings, sweep_unseen
from hub.delivery.watching import Watch
from hub.dns import Resolver, host_and_port
from hub.holds.renewal import RenewLeases
from hub.holds.sealing import Sealer
from hub.http import GuardedHttp
from hub.marketing import Destination, Hears, HearsSends, MarketingTool, Proved, ToolSettings
from hub.policy import DAY, Policy
from hub.rules import channel_rule, hold_rules, survey_rules
from hub.satisfaction.asking import Asking
from hub.storage.blobs import Blobs
from hub.storage.channels import RegisterChannels
from hub.storage.engines import Engine, KnowEpoch, engine
from hub.storage.writer import Clock, StorageBusy, wall_clock
from hub.team_rooms import Room
from hub.web import pages, routes
from hub.web.context import HUB, BoundChannel, Hub
from hub.web.feed import Feed
from hub.web.listening import Listeners
from hub.web.mail_dress import dress
from hub.web.visitors import CHAT

if TYPE_CHECKING:
    from connectors.sandbox.actor import SandboxActor
    from connectors.sandbox.server import SandboxSecrets

log = structlog.get_logger("hub")

SANDBOX_AGENT = "agent@shop.example"

RENEW_EVERY = 60.0  # seconds
WAKE_EVERY = 5.0
UNSEEN_EVERY = 15.0
ASK_EVERY = 30.0
SWEEP_EVERY = 3_600.0
SANDBOX_WATCH_EVERY = 5.0  # seconds: how often stand-ins are asked what is planned and what was sent
FILE_LINK_LIFE = 3_600  # seconds a provider may fetch an outgoing attachment
DRAIN = 5.0


@dataclass(slots=True)
class Configured:
    """The connectors a configuration names, built and checked but not yet started."""

    channels: dict[str, tuple[ChannelSettings, Channel, Place]]
    rooms: dict[str, Room]
    destinations: dict[str, Destination]
    tools: dict[str, tuple[MarketingTool, ToolSettings]]
    paces: dict[tuple[str, str], Pace]  # by kind of delivery and name


def configure(settings: Settings, secret: bytes) -> Configured:
    """Build every configured connector. Raises ConfigError with a line for each fault, naming the key and the fix."""
    faults: list[str] = []
    public_url = settings.server.public_url
    channels: dict[str, tuple[ChannelSettings, Channel, Place]] = {}
    paces: dict[tuple[str, str], Pace | None] = {}
    for name, entry in settings.channels.items():
        cls, own = _settings("channels", name, entry, connectors.CHANNELS, faults)
        if cls is None:
            continue
        place = Place(name, f"{public_url}/in/{name}", keys.derive(secret, f"channel:{name}"))
        channels[name] = (own, cls(own, place), place)
        paces[("reply", name)] = _pace(channels[name][1], own)
        site = getattr(own, "site", None)
        if site is not None and site not in settings.sites:
            faults.append(f"channels.{name}.site: there is no site {site!r} under `sites`. Add it there, or correct the name.")
    for name, one in settings.sites.items():
        faults += [f"sites.{name}.jwks_url: {fault}" for fault in unfetchable(one.jwks_url, settings.allowed_hosts)]
    for server in settings.identity.nameservers:
        try:
            host_and_port(server)
        except ValueError as error:
            faults.append(f"identity.nameservers: {error}.")
    rooms: dict[str, Room] = {}
    for name, entry in settings.rooms.items():
        cls, own = _settings("rooms", name, entry, connectors.ROOMS, faults)
        if cls is not None:
            rooms[name] = cls(own, name)
            paces[("card", name)] = _pace(rooms[name], own)
    destinations: dict[str, Destination] = {}
    tools: dict[str, tuple[MarketingTool, ToolSettings]] = {}
    for name, entry in settings.destinations.items():
        cls, own = _settings("destinations", name, entry, connectors.DESTINATIONS, faults)
        if cls is None:
            continue
        if isinstance(own, ToolSettings):
            tools[name] = (cls(own, name), own)
            paces[("mark", name)] = _pace(tools[name][0], own)
            faults += _unproved(name, *tools[name])
        else:
            destinations[name] = cls(own, name, source=public_url)
            paces[("hold", name)] = _pace(destinations[name], own)
    built = Configured(channels, rooms, destinations, tools, {target: pace for target, pace in paces.items() if pace is not None})
    if not faults:
        faults += sandbox_faults(settings, built)
    if faults:
        raise ConfigError("\n".join(faults))
    return built


def _unproved(name: str, tool: MarketingTool, own: ToolSettings) -> list[str]:
    """What was written from a vendor's pages alone must be switched on by somebody who then tries it."""
    if tool.proved is not Proved.DOCUMENTATION or own.accept_unproved or tool.is_sandbox():
        return []
    return [
        f"destinations.{name}.accept_unproved: what we tell {tool.label} was written from its documentation and tried on nothing but a "
        "stand-in. Set it to true, then run the live round trip on the tool's set-up page before you rely on it."
    ]


def _pace(connector: Channel | Room | Destination | MarketingTool, own: Any) -> Pace | None:
    """How fast it may be spoken to: what the configuration says, else what its provider is known to take. A stand-in takes anything."""
    asked = getattr(own, "max_per_second", None)
    if asked is not None:
        return Pace(asked, burst=max(1, int(asked)))
    return None if connector.is_sandbox() else getattr(connector, "pace", None)


def _settings(kind: str, name: str, entry: dict[str, Any], registry: dict[str, str], faults: list[str]) -> tuple[Any, Any]:
    where = f"{kind}.{name}"
    known = registry.get(entry["type"])
    if known is None:
        faults.append(f"{where}.type: there is no {entry['type']!r}. One of: {', '.join(sorted(registry))}.")
        return None, None
    cls = connectors.load(known)
    try:
        return cls, cls.Settings.model_validate(entry)
    except ValidationError as error:
        faults += explain(error, where)
        return None, None


def sandbox_faults(settings: Settings, built: Configured) -> list[str]:
    """The sandbox must never stand beside what reaches real people without somebody having said so. Pure."""
    everything: list[tuple[str, Any]] = [(f"channels.{name}", channel) for name, (_, channel, _) in built.channels.items() if channel.live]
    everything += [(f"rooms.{name}", room) for name, room in built.rooms.items()]
    everything += [(f"destinations.{name}", destination) for name, destination in built.destinations.items()]
    everything += [(f"destinations.{name}", tool) for name, (tool, _) in built.tools.items()]
    real = [where for where, one in everything if not one.is_sandbox()]
    pretended = [where for where, one in everything if one.is_sandbox()]
    if settings.sandbox.enabled and real and not settings.sandbox.beside_real:
        return [
            f"sandbox.enabled: the sandbox is on beside {', '.join(real)}, which reach real people. "
            "Set sandbox.enabled to false, or sandbox.beside_real to true if you mean it."
        ]
    if not settings.sandbox.enabled and pretended:
        return [
            f"{where}: points at a loopback address but the sandbox is off. Give it the provider's own, or turn sandbox.enabled on."
            for where in pretended
        ]
    return []


def sandbox_secrets(settings: Settings) -> SandboxSecrets:
    """What the stand-in providers must share with the channels that speak to them, taken from those channels' settings."""
    from connectors.sandbox.server import SandboxSecrets

    def first(entries: dict[str, dict[str, Any]], *types: str) -> dict[str, Any]:
        return next((entry for entry in entries.values() if entry["type"] in types), {})

    twilio = first(settings.channels, "twilio_whatsapp", "twilio_sms")
    mail = first(settings.channels, "mime")
    slack = first(settings.rooms, "slack")
    klaviyo = first(settings.destinations, "klaviyo")
    site = next(iter(settings.sites.values()), None)
    return SandboxSecrets(
        twilio_account_sid=str(twilio.get("account_sid", "")),
        twilio_auth_token=str(twilio.get("auth_token", "")),
        mail_username=str(mail.get("username", "")),
        mail_password=str(mail.get("password", "")),
        slack_signing_secret=str(slack.get("signing_secret", "")),
        slack_bot_token=str(slack.get("bot_token", "")),
        webhook_secret=str(first(settings.destinations, "webhook").get("secret", "")),
        site_key=next((key.get_secret_value() for _, key in site.secrets), "") if site else "",
        site_audience=site.audience if site else "",
        klaviyo_api_key=str(klaviyo.get("api_key", "")),
        klaviyo_webhook_secret=str(klaviyo.get("webhook_secret", "")),
    )


def sandbox_token(secret: bytes) -> str:
    """The sandbox marketing tool's API token: derived, so that every start has the same one and none is left behind."""
    return "hub_" + base64.urlsafe_b64encode(keys.derive(secret, "sandbox marketing tool")).decode().rstrip("=")


def _key_digest(secret: bytes, own: ChannelSettings) -> str:
    """Changes when the channel's credentials change: then nothing has verified under the new ones yet."""
    secrets_of = {name: value.get_secret_value() for name, value in own if isinstance(value, SecretStr)}
    return hashlib.sha256(secret + json.dumps(secrets_of, sort_keys=True).encode()).hexdigest()


class Running:
    """A started hub: its parts, its server, and how to stop it without losing what was accepted."""

    def __init__(self, settings: Settings, clock: Clock = wall_clock, *, serving: bool = True) -> None:
        self.settings = settings
        self._serving = serving
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._engine: Engine
        self._runner: web.AppRunner | None = None
        # Why the writer ended by itself. Nothing is stored any more then, so whoever runs this must end too.
        self.died: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.sandbox: SandboxActor | None = None
        self.hub: Hub
        self.port = 0

    async def start(self) -> None:
        """Migrate, open the database, build the connectors, listen. Raises ConfigError, DatabaseInUse, DatabaseTooNew or OSError."""
        settings = self.settings
        secret = keys.load_secret(settings.storage.secret_file)
        built = configure(settings, secret)
        for name in keyless(built):
            log.error("no key to verify with: every delivery is refused until config.yaml names one", channel=name)
        url = settings.database_url
        self._engine = engine(settings.storage.database, url.get_secret_value() if url is not None else None)
        try:
            await self._engine.prepare()
            await self._open(built, secret)
        except BaseException:
            await self.stop()
            raise

    async def _open(self, built: Configured, secret: bytes) -> None:
        settings = self.settings
        await self._engine.open(reactions.react, self._clock, self.died.set_result)
        self._writer = writer = self._engine.writer
        self._reader = reader = self._engine.reader
        newest, epoch = await self._engine.newest_event(), await writer.run(KnowEpoch())
        feed = Feed(newest, epoch)
        states = await writer.run(RegisterChannels(tuple((name, _key_digest(secret, own)) for name, (own, _, _) in built.channels.items())))
        channels = {}
        for name, (own, connector, place) in built.channels.items():
            state = states[name]
            rule = channel_rule(state.id, name, own, connector)
            channels[name] = BoundChannel(rule, place, connector, state, observes=own.signature == "observe", settings=own)
        policy = Policy(
            reopen_within=int(settings.conversations.reopen_within_days * DAY),
            hold_lease=int(settings.holds.lease_days * DAY),
            hold_renew_under=int(settings.holds.renew_under_days * DAY),
            hold=hold_rules(settings.holds),
            survey=survey_rules(settings.satisfaction),
            rooms=tuple(built.rooms),
            destinations=tuple(built.destinations),
            tools=tuple(built.tools),
            hears={name: one.hears for name, one in built.destinations.items() if isinstance(one, Hears)},
            channels={bound.rule.id: bound.rule for bound in channels.values()},
            region=settings.identity.default_region,
            own_domains=frozenset(domain.lower().lstrip("@") for domain in settings.identity.own_domains),
            own_addresses=frozenset(
                address
                for name, bound in channels.items()
                if bound.rule.mails and (address := canonical("email", built.channels[name][0].address)) is not None
            ),
            claims_held=settings.identity.claimed_addresses_held,
            mail_domain=settings.server.public_url.partition("//")[2].partition("/")[0].partition(":")[0],
        )
        self._engine.follow_rules(policy)
        blobs = Blobs(settings.storage.files)
        self._http = http = GuardedHttp(self._allowed_hosts())
        public_url = settings.server.public_url

        def file_url(attachment_id: str) -> str:
            return f"{public_url}/files/{file_token(secret, attachment_id, int(time.time()) + FILE_LINK_LIFE)}"

        async def prove(message_id: int, checked: Checked) -> None:
            await prove_sender(message_id, checked, reader, writer, policy, lambda token: reply_token_names(secret, token))

        tools = Tools(built.tools)
        templates = pages.environment()

        def dressed(name: str, mail: OutboundMessage) -> OutboundMessage:
            return dress(templates, str(getattr(channels[name].settings, "footer", "")), mail)

        outbox = Outbox(
            writer,
            {
                "reply": ReplyCarrier(channels, reader, blobs, http, lambda t, i: reply_token(secret, t, i), file_url, dressed),
                "card": CardCarrier(built.rooms, reader, {b.rule.id: b.rule.label for b in channels.values()}, public_url),
                "hold": HoldCarrier(built.destinations, http, self._clock),
                "alert": AlertCarrier(built.rooms, public_url),
                "mark": MarkCarrier(tools, reader, self._engine.hot, writer, http),
                "media": MediaCarrier(channels, reader, blobs, http),
                "code": CodeCarrier(channels, reader, http, lambda code: one_time_code(secret, code), writer.clock, policy.mail_domain),
                "unseen": UnseenCarrier(channels, reader, http, lambda code: link_token(secret, code), public_url, policy.mail_domain),
                "check": CheckCarrier(channels, reader, blobs, Resolver(settings.identity.nameservers).txt, prove),
            },
            paces=built.paces,
        )
        self.hub = hub = Hub(
            settings=settings,
            policy=policy,
            writer=writer,
            reader=reader,
            hot=self._engine.hot,
            blobs=blobs,
            feed=feed,
            pages=templates,
            secret=secret,
            channels=channels,
            rooms=built.rooms,
            tools=tools,
            http=http,
            desk=AgentDesk(writer, reader),
            outbox=outbox,
        )
        self._recovery = Recovery(channels, reader, writer, blobs, http, lambda token: reply_token_names(secret, token))
        self._suggestions = Suggestions(reader, writer)
        self._asking = Asking(reader, writer, policy, secret, public_url)
        self._sealer = Sealer(reader, writer, keys.derive(secret, "proof identifiers"))
        self._reading_back = ReadingBack(tools, reader, writer, http)
        share, minutes = settings.holds.alarm_share, settings.holds.alarm_confirm_minutes
        self._watch = Watch(tools, reader, writer, http, share=share, minutes=minutes)
        self._reconciler = Reconciler(channels, reader, writer, http, policy)
        self._listeners = Listeners(hub)
        try:
            self._mailings = mailings(channels.values(), policy)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if not self._serving:
            return
        await self._engine.follow(newest, feed.publish, outbox.wake)
        app = routes.build(hub)
        app[CHAT].key_sets = KeySets(http)
        if settings.sandbox.enabled:
            await self._start_sandbox(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN, handle_signals=False)
        app.on_shutdown.append(_close_streams)
        await self._introduce_destinations()
        await self._runner.setup()
        site = web.TCPSite(self._runner, settings.server.host, settings.server.port, backlog=1_024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if self.sandbox is not None:
            self.sandbox.hub_url = f"http://127.0.0.1:{self.port}"
            await self.sandbox.start()
        # Beside other hubs nobody's leases are ours to release: a dead one's run out.
        await outbox.start(release_leases=not self._engine.shared)
        await self._reconciler.start()
        await self._recovery.start()
        await self._suggestions.start()
        await self._reading_back.start()
        await self._watch.start()
        await self._sealer.start()
        self._listeners.start()
        self._every(ASK_EVERY, self._asking.ask_due)
        self._every(RENEW_EVERY, self._renew_leases)
        self._every(WAKE_EVERY, self._wake_snoozed)
        self._every(UNSEEN_EVERY, self._mail_unseen)
        self._every(SWEEP_EVERY, self._sweep_logins)
        self._every(SWEEP_EVERY, self._sweep_codes)
        self._every(SWEEP_EVERY, self._sweep_follow_ups)
        self._every(SWEEP_EVERY, self._sweep_quarantine)

    def _allowed_hosts(self) -> list[str]:
        allowed = list(self.settings.allowed_hosts)
        if self.settings.sandbox.enabled:
            allowed += [f"{host}:{self.settings.sandbox.port}" for host in ("127.0.0.1", "localhost")]
        return allowed

    async def _start_sandbox(self, app: web.Application) -> None:
        from connectors.sandbox.actor import SandboxActor
        from connectors.sandbox.demo import SandboxDemo
        from connectors.sandbox.server import SandboxServer
        from hub.web import sandbox as sandbox_pages

        settings, hub = self.settings, self.hub
        server = SandboxServer(port=settings.sandbox.port, smtp_port=settings.sandbox.smtp_port, secrets=sandbox_secrets(settings))
        # Listening port and public address are known once the hub itself listens.
        self.sandbox = SandboxActor(server, hub_url="", public_url=settings.server.public_url)
        await server.start()
        token = sandbox_token(hub.secret)
        if await agents.token_of(hub.reader, keys.digest(token)) is None:
            await hub.writer.run(agents.CreateApiToken("Sandbox marketing tool", keys.digest(token)))
        sandbox_pages.add_routes(app, SandboxDemo(self.sandbox, token), login=SANDBOX_AGENT)
        tools = [hub.tools.get(name) for name in hub.tools]
        if tools and all(tool is not None and tool.is_sandbox() for tool in tools):
            # Whoever tries it sees within seconds what a real tool is asked every few minutes.
            self._every(SANDBOX_WATCH_EVERY, self._watch.look_at_campaigns)
            self._every(SANDBOX_WATCH_EVERY, self._watch.look_at_sends)

    def _every(self, seconds: float, work: Callable[[], Any]) -> None:
        async def repeat() -> None:
            while True:
                try:
                    await work()
                except StorageBusy as error:
                    log.warning("housekeeping put off", work=work.__name__, error=str(error))
                except Exception:
                    log.exception("housekeeping failed", work=work.__name__)
                await asyncio.sleep(seconds)

        self._tasks.append(asyncio.create_task(repeat(), name=work.__name__))

    async def _introduce_destinations(self) -> None:
        # Before anybody can write: from then on the ordinary way tells the new ones too.
        try:
            await introduce(self.hub.policy.destinations + self.hub.policy.tools, self._reader, self._writer)
        except StorageBusy as error:
            log.warning("new destinations not told of present holds; the next start or renewal tells them", error=str(error))

    async def _renew_leases(self) -> None:
        # 500 leases a unit of work, so that no one waits long behind it.
        renewed = 1
        while renewed:
            renewed = await self._writer.run(RenewLeases(self._clock() + self.hub.policy.hold_renew_under))

    async def _wake_snoozed(self) -> None:
        await self._writer.run(WakeSnoozed(self._clock()))

    async def _mail_unseen(self) -> None:
        await sweep_unseen(self._mailings, self._reader, self._writer, self._clock())

    async def _sweep_logins(self) -> None:
        await sessions.sweep_logins(self._reader, self._writer, self._clock())

    async def _sweep_codes(self) -> None:
        await sweep_codes(self._reader, self._writer, self._clock())
        await forget_unseen(self._reader, self._writer, self._clock())

    async def _sweep_follow_ups(self) -> None:
        await sweep_follow_ups(self._reader, self._writer, self._clock())

    async def _sweep_quarantine(self) -> None:
        await self._writer.run(SweepUnverified(tuple(self.hub.policy.channels)))

    async def stop(self) -> None:
        """Take no new work, end the streams, finish what was accepted, give leases back, close the database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        looking = ("_listeners", "_watch", "_sealer", "_reading_back", "_suggestions", "_recovery", "_reconciler")
        for part in (getattr(self, name, None) for name in looking):
            if part is not None:
                await part.stop()
        hub = getattr(self, "hub", None)
        # Side by side: both have their patience, and ten seconds is what a supervisor gives us.
        ending = [self._runner.cleanup()] if self._runner is not None else []
        if hub is not None:
            ending.append(hub.outbox.stop(DRAIN))
        await asyncio.gather(*ending)
        if hub is not None:
            await hub.reading.close()
            for bound in hub.channels.values():
                if isinstance(bound.connector, Closes):
                    await bound.connector.close()
            for room in hub.rooms.values():
                await room.close()
        if self.sandbox is not None:
            await self.sandbox.close()
            await self.sandbox.server.stop()
        http = getattr(self, "_http", None)
        if http is not None:
            await http.close()
        if hasattr(self, "_engine"):
            await self._engine.close()


async def _close_streams(app: web.Application) -> None:
    # A stream left open would keep the server from stopping until its patience runs out.
    app[HUB].feed.close()


@contextlib.asynccontextmanager
async def running(settings: Settings, clock: Clock = wall_clock) -> Any:
    """A started hub for the length of a `with` block."""
    hub = Running(settings, clock)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def keyless(built: Configured) -> list[str]:
    """The channels that hold no key to verify with: they answer 503 to every delivery."""
    empty = Request("POST", "", {}, b"")
    known = [(name, channel) for name, (_, channel, _) in built.channels.items() if not isinstance(channel, Expands)]  # fetch theirs
    return [name for name, channel in known if channel.verify(empty, 0) is Verdict.NO_KEY]


def webhook_urls(settings: Settings, built: Configured) -> list[tuple[str, str]]:
    """What to paste at each provider: (where, URL)."""
    lines = [(f"{channel.label} ({name})", place.inbound_url) for name, (_, channel, place) in built.channels.items()]
    lines += [
        (f"{tool.label} ({name}): webhook of sent messages", f"{settings.server.public_url}/tools/{name}/hooks")
        for name, (tool, _) in built.tools.items()
        if isinstance(tool, HearsSends)
    ]
    lines += [(f"Room {name}: interactivity request URL", f"{settings.server.public_url}/rooms/{name}") for name in built.rooms]
    return lines


# What a connector insists on but parsing does not need.
FILLERS: dict[str, dict[str, Any]] = {
    "twilio_sms": {"address": "+15550100002", "account_sid": "AC00000000000000000000000000000001", "auth_token": "none"},
    "twilio_whatsapp": {"address": "+15550100001", "account_sid": "AC00000000000000000000000000000001", "auth_token": "none"},
    "sendgrid": {"address": "support@shop.example", "smtp": {"host": "127.0.0.1"}},
    **{
        type_: {"address": "support@shop.example", "smtp": {"host": "127.0.0.1"}}
        for type_ in ("mime", "mailgun", "mailersend", "postmark", "resend", "brevo", "mandrill")
    },
    "smtp_listener": {"address": "support@shop.example", "smtp": {"host": "127.0.0.1"}},
    "imap": {
        "address": "support@shop.example",
        "smtp": {"host": "127.0.0.1"},
        "imap": {"host": "127.0.0.1", "password": "none"},
    },
    "amazon_ses": {
        "address": "support@shop.example",
        "smtp": {"host": "127.0.0.1"},
        "topics": ["arn:aws:sns:us-east-1:000000000000:recorded"],
    },
    "telnyx_sms": {"address": "+15550100002"},
    "webchat": {"site": "shop"},
}


def stand_in(tool: str) -> Any:
    """The class of a marketing tool's stand-in. Raises KeyError for a tool there is none of."""
    from connectors.sandbox.tools import load

    return load(tool)


def lone_channel(type_: str, settings: dict[str, Any]) -> Channel:
    """One connector apart from any configuration, to show what it makes of a recorded request. Raises ConfigError."""
    faults: list[str] = []
    cls, own = _settings("channels", "recorded", {"type": type_, **FILLERS.get(type_, {}), **settings}, connectors.CHANNELS, faults)
    if cls is None:
        raise ConfigError("\n".join(faults))
    built: Channel = cls(own, Place("recorded", "http://localhost/in/recorded", b"recorded"))
    return built


def channel_types() -> dict[str, type]:
    """Every type of channel there is, imported: what each is called in config.yaml, and its class."""
    return {type_: connectors.load(entry) for type_, entry in connectors.CHANNELS.items()}
