"""The agents' room in Slack: one post a ticket, kept up to date, with the buttons Claim and Resolve.

Built on Slack's own SDK (outgoing) and Bolt (incoming); both are imported on first use. The app needs the bot scopes
`chat:write`, and `users:read` with `users:read.email` to know agents by their e-mail addresses.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from connectors.shared.loopback import is_loopback_url
from connectors.shared.retry_after import retry_after
from connectors.shared.slack_blocks import SECTION, alert_blocks, alert_line, blocks, fallback, plain
from hub.contract import Answer, Pace, Refused, Request, TryLater, Unknown
from hub.team_rooms import Alert, Desk, TicketCard

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp
    from slack_sdk.errors import SlackApiError
    from slack_sdk.web.async_client import AsyncWebClient

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10
_CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]{7,}", re.ASCII)

# https://docs.slack.dev/reference/methods/chat.postMessage and chat.update, "Errors".
_AGAIN = frozenset({"ratelimited", "rate_limited", "service_unavailable", "request_timeout", "team_added_to_org"})
# "It's possible some aspect of the operation succeeded before the error was raised."
_IN_DOUBT = frozenset({"internal_error", "fatal_error"})
# The post cannot be updated where it was; a new one takes its place.
_POST_ANEW = frozenset({"message_not_found", "channel_not_found", "is_archived", "cant_update_message"})
_MEND: Mapping[str, str] = {
    "invalid_auth": "Slack does not know the bot token: set bot_token to the app's Bot User OAuth Token.",
    "not_authed": "Slack received no bot token: set bot_token to the app's Bot User OAuth Token.",
    "token_revoked": "The bot token was revoked: install the app again and set bot_token to the new one.",
    "token_expired": "The bot token has expired: install the app again and set bot_token to the new one.",
    "account_inactive": "The bot or its workspace was deactivated: install the app again and set bot_token to the new token.",
    "not_allowed_token_type": "This kind of token cannot post: bot_token must be the Bot User OAuth Token (xoxb-).",
    "missing_scope": "The app may not do this: give it the bot scopes chat:write, users:read and users:read.email and install it again.",
    "channel_not_found": "Slack finds no such channel, or the bot may not see it: check channel, and invite the bot if it is private.",
    "not_in_channel": "The bot is not in the channel: write /invite @ and the bot's name there.",
    "is_archived": "The channel is archived: set channel to another one.",
    "restricted_action": "The workspace's settings do not let the bot post in this channel.",
    "ekm_access_denied": "The workspace's administrators have suspended posting.",
    "org_login_required": "The workspace is being moved into an organisation; install the app again afterwards.",
    "edit_window_closed": "The workspace's settings do not let posts be changed any more.",
    "msg_too_long": "The post is longer than Slack takes.",
    "invalid_blocks": "Slack does not accept the form of the post.",
}


class SlackSettings(BaseModel):
    """One Slack app in one workspace, and the channel its posts go to."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str
    bot_token: SecretStr
    signing_secret: SecretStr
    channel: str = Field(min_length=1)  # its id (C0123456789) or its name; with the id, clicks elsewhere are refused
    base_url: str = "https://slack.com/api/"
    agents: dict[str, str] = {}  # Slack member id -> the agent's e-mail address, where the two addresses differ
    max_per_second: float | None = Field(default=None, gt=0)  # posts and updates; None: Slack's own limit

    @field_validator("bot_token", "signing_secret")
    @classmethod
    def _check_given(cls, secret: SecretStr) -> SecretStr:
        # An empty signing secret would let anyone sign.
        if not secret.get_secret_value().strip():
            raise ValueError("must not be empty: copy it from the app's pages at api.slack.com/apps")
        return secret

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url))):
            raise ValueError("base_url must be https:// (http only on this machine): the bot token travels with every call")
        return url if url.endswith("/") else url + "/"


@dataclass(frozen=True, slots=True)
class _Click:
    """A pressed button, out of Slack's block_actions payload."""

    action: str
    ticket_id: int
    user: str
    team: str  # the workspace the person belongs to, which in a shared channel need not be ours
    channel: str


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a call failed: Slack's error code (empty when it gave none) and whether the call may have been carried out."""

    code: str
    words: str
    in_doubt: bool
    retry_after: float | None = None

    @property
    def passing(self) -> bool:
        return not self.code or self.code in _AGAIN or self.code in _IN_DOUBT


class Slack:
    """`contract.Room` in a Slack channel. `name` is the room's configured name."""

    Settings: ClassVar[type[BaseModel]] = SlackSettings
    # "1 per second per channel ... short bursts of >1 allowed" (https://docs.slack.dev/apis/web-api/rate-limits, chat.postMessage).
    pace: ClassVar[Pace] = Pace(per_second=1.0, burst=5)

    def __init__(self, settings: SlackSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._built_client: AsyncWebClient | None = None
        self._built_app: AsyncApp | None = None
        self._home_team = ""
        self._work: set[asyncio.Task[None]] = set()
        self._closing = False

    # --- outgoing

    def _client(self) -> AsyncWebClient:
        if self._built_client is None:
            import aiohttp
            from slack_sdk.web.async_client import AsyncWebClient

            self._built_client = AsyncWebClient(
                # Left to itself the SDK makes one for every call. Connections are not kept: one that Slack closes at the moment of
                # use would leave a post in doubt.
                session=aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(force_close=True),
                    timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
                    cookie_jar=aiohttp.DummyCookieJar(),
                ),
                token=self._settings.bot_token.get_secret_value(),
                base_url=self._settings.base_url,
                timeout=_TIMEOUT_SECONDS,
                # The SDK's default sends a request again after a reset connection: a second post. The outbox decides that.
                retry_handlers=[],
                logger=_quiet("slack_sdk"),
            )
            self._built_client.proxy = None  # the SDK takes it from the environment, for calls to loopback as well
        return self._built_client

    async def show(self, card: TicketCard, ref: str) -> str:
        """Post the card, or update the post `ref` (`channel:ts`); returns the reference of the post that now shows it.

        A post whose answer is lost is Unknown, since Slack takes no idempotency key; a lost update is TryLater.
        """
        return await self._post(fallback(card), blocks(card), ref)

    async def alert(self, alert: Alert, ref: str) -> str:
        """Post an alert, or update the post `ref`; in the manner of `show`."""
        return await self._post(alert_line(alert), alert_blocks(alert), ref)

    async def _post(self, text: str, shown: list[dict[str, Any]], ref: str) -> str:
        client = self._client()
        channel, _, ts = ref.partition(":")
        if channel and ts:
            try:
                await client.chat_update(channel=channel, ts=ts, text=text, blocks=shown, parse="none")
                return ref
            except Exception as error:
                failure = _failure(error)
                if failure.code not in _POST_ANEW:
                    raise self._verdict(failure, "updated") from error
        try:
            answer = await client.chat_postMessage(
                channel=self._settings.channel,
                text=text,
                blocks=shown,
                parse="none",
                unfurl_links=False,  # Slack would fetch links a customer wrote, and show what is behind them
                unfurl_media=False,
            )
        except Exception as error:
            failure = _failure(error)
            if failure.in_doubt:
                raise Unknown(f"The post in Slack may or may not be there: {failure.words}") from error
            raise self._verdict(failure, "posted") from error
        channel, ts = str(answer.get("channel") or ""), str(answer.get("ts") or "")
        if not channel or not ts:
            raise Unknown("Slack took the post without naming it, so it cannot be updated.")
        return f"{channel}:{ts}"

    def _verdict(self, failure: _Failure, done: str) -> Exception:
        if failure.passing:
            return TryLater(f"It was not {done} in Slack: {failure.words} It will be tried again.", failure.retry_after)
        return Refused(f"It was not {done} in Slack (room {self._name}). {failure.words}")

    # --- incoming

    def _app(self) -> AsyncApp:
        """The Bolt app: it verifies the signature and the five-minute window, and answers Slack's own checks."""
        if self._built_app is None:
            from slack_bolt.async_app import AsyncApp
            from slack_bolt.authorization import AuthorizeResult

            async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
                # Bolt's own would call auth.test for the token before each acknowledgement.
                return AuthorizeResult(enterprise_id=enterprise_id, team_id=team_id, bot_token=self._settings.bot_token.get_secret_value())

            async def on_button(ack: Any, body: dict[str, Any], action: dict[str, Any], context: Mapping[str, Any]) -> None:
                await ack()
                self._begin(self._press(context["desk"], body, action))

            async def on_link(ack: Any) -> None:
                await ack()  # the browser has opened the link; unacknowledged, Slack would show a warning beside it

            async def on_error(error: Exception) -> None:
                log.error("slack room %s: a request failed: %s", self._name, _trace(error))

            self._built_app = AsyncApp(
                name="support-hub",
                signing_secret=self._settings.signing_secret.get_secret_value(),
                authorize=authorize,
                # Bolt's other way runs listeners as tasks nobody holds; ours are held in `_work` and awaited by `close`.
                process_before_response=True,
                logger=_quiet("slack_bolt"),
            )
            self._built_app.error(on_error)
            self._built_app.action(re.compile("^(claim|resolve)$"))(on_button)
            self._built_app.action("open")(on_link)
        return self._built_app

    async def handle(self, request: Request, desk: Desk) -> Answer:
        """Answer an interaction: 401 for a bad or stale signature, else at once, with the work following behind."""
        if self._closing:
            return Answer(503, "The hub is shutting down; press the button again in a moment.")
        from slack_bolt.request.async_request import AsyncBoltRequest

        timestamp = request.headers.get("x-slack-request-timestamp", "")
        signature = request.headers.get("x-slack-signature", "")
        if not re.fullmatch("[0-9]{0,12}", timestamp) or not signature.isascii():
            return Answer(401, "The signature headers cannot be read.")  # the SDK's verifier would raise
        # Only these headers: the signature covers none, and some names of Bolt's own steer it.
        headers = {"content-type": request.content_type, "x-slack-request-timestamp": timestamp or "0", "x-slack-signature": signature}
        try:
            bolt_request = AsyncBoltRequest(body=request.body.decode(), headers=dict(headers), context={"desk": desk})
        except Exception:
            # Bolt parses before it verifies, so here anything may be raised by anybody's input.
            return Answer(400, "The body cannot be read.")
        response = await self._app().async_dispatch(bolt_request)
        content_type = response.first_headers().get("content-type", "text/plain").partition(";")[0]
        return Answer(response.status, response.body, content_type)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _press(self, desk: Desk, body: Mapping[str, Any], action: Mapping[str, Any]) -> None:
        """Carry out a pressed button and tell the person, to them alone, what came of it."""
        try:
            click = _read_click(body, action)
        except (KeyError, TypeError, ValueError) as error:
            log.error("slack room %s: a button's payload was not understood and was ignored: %s", self._name, _trace(error))
            return
        try:
            said = await self._carry_out(desk, click)
        except Exception as error:
            log.error("slack room %s: %s of ticket %s failed: %s", self._name, click.action, click.ticket_id, _trace(error))
            said = "Something went wrong. Look at the ticket in the inbox before you try again."
        try:
            # Not the payload's response_url: no address out of a request is ever called.
            await self._client().chat_postEphemeral(channel=click.channel, user=click.user, text=plain(said, SECTION))
        except Exception as error:
            log.warning("slack room %s: the person could not be told: %s", self._name, _failure(error).words)

    async def _carry_out(self, desk: Desk, click: _Click) -> str:
        configured = self._settings.channel
        if _CHANNEL_ID.fullmatch(configured) and click.channel != configured:
            return "This channel is not the support room any more. Open the ticket in the inbox instead."
        email = self._settings.agents.get(click.user, "")
        if not email:
            # Whoever runs another workspace decides which e-mail its members show: only ours is believed.
            if click.team != await self._team():
                return "You belong to another Slack workspace, so you cannot act here. Use the inbox instead."
            email = await self._email(click.user)
        agent_id = await desk.agent_for(self._name, click.user, email)
        if agent_id is None and not email:
            return (
                "Slack does not tell us your e-mail address, so we cannot know which agent you are. An administrator can give the app "
                f"the scope users:read.email, or add {click.user} to agents in the room's settings."
            )
        if agent_id is None:
            return f"No agent has the address {email}. An administrator can add you: hub agents add {email}"
        if click.action == "claim":
            return await desk.claim(click.ticket_id, agent_id)
        return await desk.resolve(click.ticket_id, agent_id)

    async def _team(self) -> str:
        if not self._home_team:
            self._home_team = str((await self._client().auth_test()).get("team_id") or "")
        return self._home_team

    async def _email(self, user: str) -> str:
        """The person's address in our workspace; empty without the scope for it, and for bots and removed members."""
        person = (await self._client().users_info(user=user)).get("user") or {}
        if person.get("is_bot") or person.get("deleted") or person.get("is_stranger"):
            return ""
        return str((person.get("profile") or {}).get("email") or "")

    async def close(self) -> None:
        """Take no more clicks, and wait for those acknowledged to be carried out."""
        self._closing = True
        while self._work:
            await asyncio.gather(*self._work, return_exceptions=True)
        if self._built_client is not None and self._built_client.session is not None:
            await self._built_client.session.close()  # a call after this one makes a session of its own again

    def is_sandbox(self) -> bool:
        """Whether it speaks to a stand-in on this machine."""
        return is_loopback_url(self._settings.base_url)


def _read_click(body: Mapping[str, Any], action: Mapping[str, Any]) -> _Click:
    """Raises KeyError, TypeError or ValueError where the payload is not what Slack documents for block_actions."""
    user = body["user"]
    return _Click(
        action=str(action["action_id"]),
        ticket_id=int(action["value"]),
        user=str(user["id"]),
        team=str(user.get("team_id") or ""),
        channel=str((body.get("channel") or {}).get("id") or body["container"]["channel_id"]),
    )


def _failure(error: Exception) -> _Failure:
    """Read an exception of the SDK; it lets those of its transport (aiohttp) through as they are."""
    from slack_sdk.errors import SlackApiError

    if isinstance(error, SlackApiError):
        return _api_failure(error)
    # Only the transport's connection errors carry `os_error`: no connection stood, so nothing was sent.
    if isinstance(error, OSError) and hasattr(error, "os_error"):
        return _Failure("", "Slack could not be reached.", in_doubt=False)
    return _Failure("", f"Slack's answer was lost ({type(error).__name__}).", in_doubt=True)


def _api_failure(error: SlackApiError) -> _Failure:
    response = error.response
    data = getattr(response, "data", None)
    code = str(data.get("error") or "") if isinstance(data, dict) else ""
    # An answer that is not JSON comes as the transport's own response, whose status is called otherwise.
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0))
    wait = retry_after({str(name).lower(): str(value) for name, value in dict(getattr(response, "headers", None) or {}).items()})
    if status == 429 or code in {"ratelimited", "rate_limited"}:
        return _Failure("ratelimited", "Slack asks for fewer messages.", in_doubt=False, retry_after=wait)
    if code:
        words = _MEND.get(code, f"Slack answered with the error {code}.")
        return _Failure(code, words, in_doubt=code in _IN_DOUBT)
    if status == 503:
        return _Failure("", "Slack is not available (503).", in_doubt=False, retry_after=wait)
    return _Failure("", f"Slack answered {status} without saying what became of the request.", in_doubt=True)


def _quiet(library: str) -> logging.Logger:
    """A logger for a library that writes whole payloads, customers' words included, at its lower levels."""
    logger = logging.getLogger(f"{__name__}.{library}")
    logger.setLevel(logging.ERROR)
    return logger


def _trace(error: BaseException) -> str:
    """Where an exception came from, without its message, which may hold a token or a customer's words."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}\n{frames}"
