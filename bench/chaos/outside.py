"""The world outside the hub: providers that try again as the real ones do, an agent at a browser, and what all of them count."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage

import aiohttp

from bench.chaos.promise import BrokenPromise
from connectors.sandbox import SandboxActor, SandboxState
from connectors.sandbox.state import Failure

CUSTOMERS_AT_ONCE = 32
# Twilio with `#rc=5&rp=all` in its webhook URL, as `hub check` prints it: the first try and five more.
TRIES = 6


class Outside(SandboxState):
    """The stand-ins' state. A provider can be down, and something can happen at the very moment a message was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()
        self.answers_to_lose: Counter[str] = Counter()  # every second answer of these providers, so many times
        self._asked: Counter[str] = Counter()
        self._at = 0
        self._what: Callable[[], None] = lambda: None
        self._hooks_at = 0

    def when_sent(self, count: int, what: Callable[[], None]) -> None:
        """Call `what` as the `count`th message to Twilio from now on was taken, before its answer leaves."""
        self._at, self._what = len(self.twilio_messages) + count, what

    def when_told(self, count: int, what: Callable[[], None]) -> None:
        """The same for the marketing tool."""
        self._hooks_at, self._what = len(self.hooks) + count, what

    def changed(self) -> None:
        if 0 < self._at <= len(self.twilio_messages) or 0 < self._hooks_at <= len(self.hooks):
            self._at = self._hooks_at = 0
            self._what()
        super().changed()

    def take_failure(self, provider: str) -> Failure | None:
        if provider in self.down:
            return Failure(503)
        self._asked[provider] += 1
        # Every second one: a provider that answers nobody is soon spoken to by nobody, and rightly so.
        if self._asked[provider] % 2 and self.answers_to_lose[provider] > 0:
            self.answers_to_lose[provider] -= 1
            return Failure("drop")
        return super().take_failure(provider)


@dataclass(slots=True)
class Offer:
    """One message a customer wrote, and what its provider makes of the hub's answers."""

    sid: str
    sender: str
    text: str
    mail: bool = False
    tries: int = 0
    acknowledged: bool = False


@dataclass(slots=True)
class Answered:
    """One answer of the hub: after how long it came, what it was (0: none), and whether the request was a large one."""

    seconds: float
    status: int
    large: bool


class Provider:
    """Delivers each customer's messages in turn, many customers at once. What was not acknowledged is offered again, same id."""

    def __init__(self, actor: SandboxActor, tries: int = TRIES) -> None:
        self._actor = actor
        self._tries = tries
        self._number = 0
        self.offers: dict[str, Offer] = {}
        self.answers: list[Answered] = []
        self.on_acknowledged: Callable[[int], None] = lambda count: None
        self._acknowledged = 0

    def write(self, count: int, senders: int, *, first: int = 0, mails: int = 0, word: str = "message") -> list[Offer]:
        """`count` messages by `senders` people from number `first` on, `mails` of them mails with a file."""
        made = []
        for at in range(count):
            self._number += 1
            mail = at < mails
            sender = f"customer{at % senders}@people.example" if mail else phone(first + at % senders)
            text = f"{word} {self._number} by {sender}"
            offer = Offer(f"SM{self._number:032x}", sender, text, mail)
            self.offers[offer.sid] = offer
            made.append(offer)
        return made

    @property
    def acknowledged(self) -> list[Offer]:
        return [offer for offer in self.offers.values() if offer.acknowledged]

    @property
    def waiting(self) -> list[Offer]:
        """What the provider still has to deliver."""
        return [offer for offer in self.offers.values() if not offer.acknowledged]

    async def deliver(self, offers: Iterable[Offer], at_once: int = CUSTOMERS_AT_ONCE) -> None:
        """One try for each, a customer's messages in order; a customer whose message was not taken waits with the rest."""
        in_turn: dict[str, list[Offer]] = {}
        for offer in offers:
            if not offer.acknowledged:
                in_turn.setdefault(offer.sender, []).append(offer)
        slots = asyncio.Semaphore(at_once)

        async def one(customer: list[Offer]) -> None:
            async with slots:
                for offer in customer:
                    if await self.offer(offer) != 200:
                        return

        await asyncio.gather(*(one(customer) for customer in in_turn.values()))

    async def settle(self, patience: float = 30.0) -> None:
        """Offer what waits until all of it is acknowledged. Raises BrokenPromise where that does not come to pass."""
        deadline = time.monotonic() + patience
        while waiting := self.waiting:
            if time.monotonic() > deadline:
                raise BrokenPromise(f"{len(waiting)} messages are still refused after {patience:g} s")
            spent = [offer for offer in waiting if offer.tries >= self._tries]
            if spent:
                raise BrokenPromise(f"the hub refused {len(spent)} messages until their provider gave up ({self._tries} tries)")
            before = len(waiting)
            await self.deliver(waiting)
            if len(self.waiting) == before:
                await asyncio.sleep(0.2)  # a provider's wait between its tries, much shortened

    async def offer(self, offer: Offer, actor: SandboxActor | None = None) -> int:
        """One try. Returns the hub's status, 0 where none came."""
        offer.tries += 1
        began = time.monotonic()
        to = actor or self._actor
        answer = await (self._mail(to, offer) if offer.mail else to.sms(offer.sender, offer.text, sid=offer.sid))
        self.answers.append(Answered(time.monotonic() - began, answer.status, offer.mail))
        if answer.status == 200:
            if not offer.acknowledged:
                offer.acknowledged = True
                self._acknowledged += 1
                self.on_acknowledged(self._acknowledged)
        elif answer.status not in (0, 503):
            raise BrokenPromise(f"the hub answered {answer.status}, after which this provider never tries again: {answer.text[:200]}")
        return answer.status

    async def _mail(self, actor: SandboxActor, offer: Offer) -> object:
        mail = EmailMessage(policy=policy.SMTP)
        mail["Authentication-Results"] = f"{actor.addresses.authserv_id}; dmarc=pass header.from=people.example"
        mail["From"] = offer.sender
        mail["To"] = actor.addresses.mail
        mail["Subject"] = "A file"
        mail["Date"] = "Sun, 22 Nov 2026 12:00:00 +0000"
        mail["Message-ID"] = f"<{offer.sid}@people.example>"
        mail.set_content(offer.text + "\n")
        # Large enough that the request itself goes to the file store too, and different for each.
        mail.add_attachment(random.Random(offer.sid).randbytes(80_000), maintype="application", subtype="pdf", filename="order.pdf")
        login = f"{actor.server.secrets.mail_username}:{actor.server.secrets.mail_password}".encode()
        headers = {"Content-Type": "message/rfc822", "Authorization": f"Basic {base64.b64encode(login).decode()}"}
        # SandboxActor.mail makes a new Message-ID each time; a provider's second try must be the same mail.
        return await actor._post(actor.public_url + actor.addresses.mail_path, mail.as_bytes(), headers)


def phone(sender: int) -> str:
    """A possible number, different for each."""
    return f"+1{2_120_000_000 + sender}"


def share(values: list[float], part: float) -> float:
    """The value below which this part of them lies; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


@dataclass
class Agent:
    """An agent in a browser, who presses Send again until it was taken; a draft keeps its key."""

    url: str
    email: str
    password: str
    browser: aiohttp.ClientSession = field(init=False)
    wanted: dict[str, int] = field(default_factory=dict)  # text -> ticket
    taken: set[str] = field(default_factory=set)
    _csrf: str = ""

    async def sign_in(self) -> None:
        # IP addresses as cookie hosts: a browser keeps them, aiohttp wants to be told.
        self.browser = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(total=20))
        async with self.browser.post(
            f"{self.url}/login", data={"email": self.email, "password": self.password}, allow_redirects=False
        ) as answer:
            if answer.status != 303:
                raise BrokenPromise(f"the agent could not sign in ({answer.status})")
        found = re.search(r'<meta name="csrf" content="([^"]+)">', await self.page("/inbox/open"))
        if not found:
            raise BrokenPromise("the inbox holds no CSRF token")
        self._csrf = found.group(1)

    async def close(self) -> None:
        if hasattr(self, "browser"):
            await self.browser.close()

    async def page(self, path: str) -> str:
        async with self.browser.get(self.url + path) as page:
            if page.status != 200:
                raise BrokenPromise(f"{path} answered {page.status}")
            return await page.text()

    async def reply(self, ticket_id: int, text: str, url: str = "") -> bool:
        """Whether the hub took it; the same text again is the same draft."""
        self.wanted.setdefault(text, ticket_id)
        form = {"text": text, "draft_key": "draft-" + re.sub(r"[^a-z0-9]", "-", text)}
        headers = {"X-CSRF-Token": self._csrf}
        try:
            async with self.browser.post(
                f"{url or self.url}/tickets/{ticket_id}/reply", data=form, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status not in (204, 503):
                    raise BrokenPromise(f"a reply was answered {answer.status}: {(await answer.text())[:200]}")
                if answer.status == 204:
                    self.taken.add(text)
                return answer.status == 204
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def press_again(self, patience: float = 20.0) -> None:
        """Send every draft that was not taken, until it is. Raises BrokenPromise where that does not come to pass."""
        deadline = time.monotonic() + patience
        while left := [text for text in self.wanted if text not in self.taken]:
            if time.monotonic() > deadline:
                raise BrokenPromise(f"{len(left)} replies are still not taken after {patience:g} s")
            if not any(await asyncio.gather(*(self.reply(self.wanted[text], text) for text in left))):
                await asyncio.sleep(0.2)
