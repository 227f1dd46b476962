"""What the stand-ins were sent and what the sandbox's people said: plain data, and a way to wait for it without polling."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

PROVIDERS = ("twilio", "twilio_list", "media", "slack", "mail", "marketing")

_Found = TypeVar("_Found")


@dataclass(slots=True, kw_only=True)
class TwilioMessage:
    """One message the hub handed to the Twilio stand-in."""

    order: int
    at: float  # unix seconds
    sid: str
    to: str  # as sent, `whatsapp:` included
    from_: str
    body: str
    media_urls: tuple[str, ...]
    status_callback: str
    status: str = "queued"

    @property
    def channel(self) -> str:
        return "whatsapp" if self.to.startswith("whatsapp:") else "sms"

    @property
    def number(self) -> str:
        return self.to.removeprefix("whatsapp:")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioInbound:
    """One message a person wrote to a number: in Twilio's list whether or not a webhook told the hub of it."""

    order: int
    at: float  # unix seconds
    sid: str
    to: str  # `whatsapp:` included
    from_: str
    body: str
    media: tuple[str, ...] = ()  # media ids


@dataclass(slots=True, kw_only=True)
class SlackPost:
    """One message in the Slack stand-in, as it looks after its latest update."""

    order: int
    at: float
    channel: str
    ts: str
    text: str
    blocks: list[dict[str, Any]]
    thread_ts: str = ""
    updates: int = 0
    deleted: bool = False


@dataclass(slots=True, kw_only=True)
class SlackNotice:
    """Something only one user sees: `chat.postEphemeral`, or an answer through a `response_url`."""

    order: int
    at: float
    user: str
    text: str
    blocks: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SlackUser:
    id: str
    name: str
    real_name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailFile:
    name: str
    content_type: str
    data: bytes = field(repr=False)


@dataclass(slots=True, kw_only=True)
class Mail:
    """One mail the hub sent by SMTP. Message ids keep their angle brackets; addresses are bare, in lower case."""

    order: int
    at: float
    envelope_from: str
    recipients: tuple[str, ...]
    raw: bytes = field(repr=False)
    from_name: str
    from_address: str
    reply_to: str
    subject: str
    text: str
    html: str
    message_id: str
    in_reply_to: str
    references: tuple[str, ...]
    files: tuple[MailFile, ...]


@dataclass(slots=True, kw_only=True)
class Hook:
    """One hold event the marketing stand-in was told. `problem` says why its signature was refused; empty: it verified."""

    order: int
    at: float
    id: str
    type: str
    time: str
    data: Mapping[str, Any]
    problem: str = ""

    @property
    def verified(self) -> bool:
        return not self.problem


@dataclass(slots=True, kw_only=True)
class Said:
    """One message a person of the sandbox wrote, and what the hub answered its provider."""

    order: int
    at: float
    channel: str  # whatsapp | sms | email
    address: str
    text: str
    subject: str = ""
    message_id: str = ""
    media_path: str = ""
    status: int = 0  # 0: on its way


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One delivery status told to the hub, and its answer."""

    sid: str
    url: str
    word: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignLine:
    """What became of one member of a campaign's audience. `held` is what the hub's gate said; None: it said nothing."""

    name: str
    phone: str
    email: str
    held: bool | None
    until: str | None
    why: str

    @property
    def sent(self) -> bool:
        return self.held is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    order: int
    at: float
    lines: tuple[CampaignLine, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """How a stand-in is told to misbehave: answer this status, or (`drop`) do as asked and hang up without an answer."""

    status: int | Literal["drop"]
    retry_after: int | None = None
    carried_out: bool = False  # it did as asked before it answered so


class SandboxState:
    """Everything the stand-ins know. Lists only grow, in the order things happened; `version` counts the changes."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.version = 0
        self.twilio_messages: list[TwilioMessage] = []
        self.twilio_inbound: dict[str, TwilioInbound] = {}  # by sid, in the order they came
        self.slack_posts: list[SlackPost] = []
        self.slack_notices: list[SlackNotice] = []
        self.mails: list[Mail] = []
        self.hooks: list[Hook] = []
        self.said: list[Said] = []
        self.callbacks: list[Callback] = []
        self.campaigns: list[Campaign] = []
        self.marks: set[str] = set()  # steps of the tour only a browser can tell of
        self.media: dict[str, MailFile] = {}  # media id -> a picture a person sent
        self.slack_channel = "support"  # the channel's name, as Slack shows it
        # Somebody who answers customers, and somebody who does not.
        self.slack_users = {
            user.id: user
            for user in (
                SlackUser("U0AGENT", "robin", "Robin Vale", "agent@shop.example"),
                SlackUser("U0GUEST", "gil", "Gil Passerby", "gil@elsewhere.example"),
            )
        }
        self._order = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._failures: dict[str, deque[Failure]] = {name: deque() for name in PROVIDERS}

    def next_order(self) -> int:
        """A number that grows over all lists, so that what came first can be told."""
        self._order += 1
        return self._order

    def changed(self) -> None:
        """Wake everybody who waits for something."""
        self.version += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for(self, predicate: Callable[[], _Found], timeout: float | None = 10) -> _Found:
        """Return what `predicate()` returns once that is true; it is asked again after each change. Raises TimeoutError.

        `timeout` in seconds; None waits for ever.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (found := predicate()):
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.add(future)
                    try:
                        await future
                    finally:
                        self._waiting.discard(future)
                return found
        except TimeoutError:
            raise TimeoutError(f"It did not happen within {timeout:g} s; the sandbox holds {self.summary()}.") from None

    def summary(self) -> str:
        """How much of each there is, for an error's text."""
        counts: dict[str, Sequence[object]] = {
            "messages by Twilio": self.twilio_messages,
            "Slack posts": self.slack_posts,
            "mails": self.mails,
            "hooks": self.hooks,
            "things said": self.said,
        }
        return ", ".join(f"{len(found)} {name}" for name, found in counts.items())

    def twilio_sent(self) -> Counter[tuple[str, str]]:
        """How often each text went to each address: more than once, and somebody read it twice."""
        return Counter((message.to, message.body) for message in self.twilio_messages)

    def fail_next(
        self,
        provider: str,
        *,
        status: int | Literal["drop"] = 500,
        times: int = 1,
        retry_after: int | None = None,
        carried_out: bool = False,
    ) -> None:
        """Let the next `times` requests to `provider` (twilio, twilio_list, media, slack, mail, marketing) fail.

        A number is answered as the vendor would and nothing is carried out (for `mail` it is the SMTP reply code), unless
        `carried_out` (Twilio's error 20500 leaves that open); `drop` carries the request out and then closes the connection
        without an answer.
        """
        if provider not in self._failures:
            raise ValueError(f"{provider!r} is none of {', '.join(PROVIDERS)}")
        self._failures[provider].extend([Failure(status, retry_after, carried_out)] * times)

    def take_failure(self, provider: str) -> Failure | None:
        """The failure ordered for this request, if any."""
        waiting = self._failures[provider]
        return waiting.popleft() if waiting else None
