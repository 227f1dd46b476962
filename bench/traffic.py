"""Unique, genuinely signed Twilio webhooks as the bytes of HTTP requests, made before the clock starts.

The form is the one Twilio posts for an incoming SMS (https://www.twilio.com/docs/messaging/guides/webhook-request).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.parse import urlencode

from connectors.shared.signatures import form_pairs, twilio_signature

PUBLIC_URL = "https://hub.example"
PATH = "/in/sms"
ACCOUNT = "AC0123456789abcdef0123456789abcdef"
TOKEN = "0123456789abcdef0123456789abcdef"
NUMBER = "+15550100002"
KNOWN = 2_000  # senders who have written before
NEW = 0.05  # share of messages from people nobody has seen
_SAYING = (
    "hello where is my order the parcel has not come yet and it says delivered please can you help I need it by friday thank "
    "you the size does not fit how do I send it back what about a refund number blue shoes address changed street second floor"
)


class Traffic:
    """Messages of KNOWN senders, with NEW of them by people of their own. The same seed makes the same traffic."""

    def __init__(self, seed: int, people: int = 0) -> None:
        """`people`: so many have written before; KNOWN of them, chosen anywhere among these, write. 0: the first KNOWN numbers."""
        self._random = random.Random(seed)
        self._known = self._random.sample(range(1, people), KNOWN) if people else list(range(KNOWN))
        self._strangers = max(people, KNOWN)
        self._words = _SAYING.split()

    def bodies(self, count: int) -> list[bytes]:
        """`count` forms of known senders and new people, in random order."""
        chosen = self._random
        return [self._body(self._stranger() if chosen.random() < NEW else chosen.choice(self._known)) for _ in range(count)]

    def introductions(self, count: int = KNOWN) -> list[bytes]:
        """One message of each of the known senders, or of the first `count` numbers where that is another one: everybody's first."""
        return [self._body(sender) for sender in (self._known if count == KNOWN else range(count))]

    def requests(self, count: int) -> list[bytes]:
        """`bodies` as signed HTTP requests."""
        return [signed(body) for body in self.bodies(count)]

    def _stranger(self) -> int:
        self._strangers += 1
        return self._strangers

    def _body(self, sender: int) -> bytes:
        sid = f"SM{self._random.getrandbits(128):032x}"
        text = " ".join(self._random.choices(self._words, k=self._random.randint(4, 22)))
        return urlencode(
            {
                "ToCountry": "US",
                "ToState": "CA",
                "SmsMessageSid": sid,
                "NumMedia": "0",
                "ToCity": "SAN FRANCISCO",
                "FromZip": "94105",
                "SmsSid": sid,
                "FromState": "CA",
                "SmsStatus": "received",
                "FromCity": "SAN FRANCISCO",
                "Body": text,
                "FromCountry": "US",
                "To": NUMBER,
                "ToZip": "94105",
                "NumSegments": "1",
                "MessageSid": sid,
                "AccountSid": ACCOUNT,
                "From": phone(sender),
                "ApiVersion": "2010-04-01",
            }
        ).encode()


def phone(sender: int) -> str:
    """The sender's number: a possible one of the North American plan, different for each."""
    return f"+1{2_120_000_000 + sender}"


def signed(body: bytes) -> bytes:
    """A keep-alive POST of this form, signed as Twilio signs it."""
    signature = twilio_signature(TOKEN.encode(), PUBLIC_URL + PATH, form_pairs(body))
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: hub.example\r\nUser-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n"
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        f"X-Twilio-Signature: {signature}\r\nI-Twilio-Idempotency-Token: {body[-24:].hex()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str, **headers: str) -> bytes:
    """A keep-alive GET; header names are given with underscores."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: hub.example\r\n{lines}\r\n".encode()


def chunks(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
