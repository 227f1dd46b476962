"""The stand-in providers together: one HTTP server and one mail server on loopback, in the hub's own process."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from connectors.sandbox.klaviyo_account import KlaviyoAccount
from connectors.sandbox.mail import MailStandIn
from connectors.sandbox.marketing import MarketingStandIn
from connectors.sandbox.slack import SlackStandIn
from connectors.sandbox.state import SandboxState
from connectors.sandbox.twilio import TwilioStandIn

HOST = "127.0.0.1"
MAX_BODY = 1_000_000
KLAVIYO = "/klaviyo"  # where the Klaviyo stand-in is reached


@dataclass(frozen=True, slots=True)
class SandboxSecrets:
    """What the stand-ins and the hub share. In the shipped configuration these are public constants that open nothing real."""

    twilio_account_sid: str
    twilio_auth_token: str = field(repr=False)
    mail_username: str
    mail_password: str = field(repr=False)
    slack_signing_secret: str = field(repr=False)
    slack_bot_token: str = field(repr=False)
    webhook_secret: str = field(repr=False)  # whsec_...
    site_key: str = field(repr=False)
    site_audience: str
    klaviyo_api_key: str = field(default="", repr=False)
    klaviyo_webhook_secret: str = field(default="", repr=False)


class SandboxServer:
    """Twilio, Slack, a marketing tool of one's own and Klaviyo on `port`, a mail server on `smtp_port`; with 0 the system picks them."""

    def __init__(self, *, port: int, smtp_port: int, secrets: SandboxSecrets, state: SandboxState | None = None) -> None:
        self.port = port
        self.smtp_port = smtp_port
        self.secrets = secrets
        self.state = state or SandboxState()
        self.klaviyo = KlaviyoAccount(self.state, secrets.klaviyo_api_key)
        self._mail = MailStandIn(self.state)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen; `.port` and `.smtp_port` then tell the real ports. Raises OSError naming the setting of a port that is taken."""
        app = web.Application(client_max_size=MAX_BODY)
        TwilioStandIn(self.state, self.secrets.twilio_account_sid, self.secrets.twilio_auth_token).add_routes(app)
        SlackStandIn(self.state, self.secrets.slack_bot_token).add_routes(app)
        MarketingStandIn(self.state, self.secrets.webhook_secret).add_routes(app)
        self.klaviyo.add_routes(app, KLAVIYO)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, HOST, self.port)
            try:
                await site.start()
            except OSError as error:
                raise _taken("sandbox.port", self.port, error) from error
            self.port = self._runner.addresses[0][1]
            self.klaviyo.url = self.url + KLAVIYO
            try:
                self.smtp_port = await self._mail.start(self.smtp_port)
            except OSError as error:
                raise _taken("sandbox.smtp_port", self.smtp_port, error) from error
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        await self._mail.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def _taken(key: str, port: int, error: OSError) -> OSError:
    return OSError(
        error.errno,
        f"{key}: the sandbox cannot listen on port {port} ({error.strerror}). "
        "Stop what uses it, or change the port there and wherever a channel names it.",
    )
