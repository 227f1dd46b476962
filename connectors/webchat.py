"""Web chat: our own widget on a business's site, spoken to through the same doorway as any provider.

A visitor's session is a token and nothing else: `v1.<payload>.<signature>`, signed with a key of this channel alone. It travels in an
Authorization header and never lies in a URL. Answers need no call to anybody: they are rows the widget fetches (`hub/web/chat.py`).

Body of a POST to `/in/{channel}`, JSON:
    a message: {"id": a UUID made by the widget, "text": "...", "files": [{"name", "type", "data": base64}], "name", "email", "phone",
        "fields": {what was asked before the chat: what was typed}, "page": {"url", "title"}, "language", "at": unix ms}
    answers that arrived, or were seen: {"type": "delivered" or "read", "refs": [the `ref` of each answer]}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hub.contract import (
    Answer,
    Answers,
    Attachment,
    ChannelSettings,
    Claim,
    DeliveryUpdate,
    Http,
    Inbound,
    InboundMessage,
    MessageStatus,
    OutboundMessage,
    Place,
    Proof,
    Refused,
    Request,
    Sent,
    Unparseable,
    Verdict,
)

MAX_TEXT = 10_000  # characters
MAX_FILES = 10
MAX_REFS = 100
MAX_FIELD = 200  # characters of one answer before the chat
BESIDE = "\n\n\u2063"  # an invisible separator: what follows is told to agents beside a visitor's words, and not shown to the visitor
WHO = ("name", "email", "phone")
MAX_TOKEN = 6_000  # characters; a header may have 8,190
ANONYMOUS_SECONDS = 365 * 86_400  # a visitor's own history stays theirs for a year on the same browser
SIGNED_SECONDS = 24 * 3_600  # how long one site token speaks for the browser; the site renews it with each page
CODE_SECONDS = 24 * 3_600  # how long a one-time code speaks for it: the next visitor of a public computer is another person
MAX_PROOFS = 4

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_EMAIL = re.compile(r"[^\s@<>]{1,64}@[^\s@<>]{1,190}\.[^\s@<>.]{2,63}")
_PHONE = re.compile(r"\+?[0-9(][0-9 ()./-]{5,30}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # BCP 47, as far as a widget speaks it
_SPAN = r"^([01]?[0-9]|2[0-3]):[0-5][0-9]-(([01]?[0-9]|2[0-3]):[0-5][0-9]|24:00)$"
_ACCEPT = r"^((\.[A-Za-z0-9]+|[a-z]+/([a-z0-9.+-]+|\*)|\*/\*)(\s*,\s*(\.[A-Za-z0-9]+|[a-z]+/([a-z0-9.+-]+|\*)|\*/\*))*)?$"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")  # RFC 6838, section 4.2


Text = str | dict[str, str]  # said once, or {language: text}
Days = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _text(value: Text, longest: int) -> Text:
    for language, said in value.items() if isinstance(value, dict) else [("", value)]:
        if language and not _LANGUAGE.fullmatch(language):
            raise ValueError(f"{language!r} is no language: write its code, like en or pt-BR")
        if not said.strip() or len(said) > longest:
            raise ValueError(f"a text must have 1 to {longest} characters{f' ({language})' if language else ''}")
    if value == {}:
        raise ValueError("name at least one language, like {en: ...}")
    return value


Short = Annotated[Text, AfterValidator(lambda value: _text(value, 100))]
Long = Annotated[Text, AfterValidator(lambda value: _text(value, 500))]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Greeting(Strict):
    """What the closed chat says by itself, once in a browser."""

    text: Long
    after_seconds: int = Field(10, ge=0, le=3_600)


class Privacy(Strict):
    """What stands below the box to write in."""

    text: Long | None = None
    url: str = Field("", max_length=2_000, pattern=r"^(https://[^\s<>\"]+)?$")


class Prechat(Strict):
    """A field asked before the first message. `name`, `email` and `phone` say who they are (and prove nothing); others stand above it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    label: Short | None = None  # None: the widget's own word for it, else its name
    type: Literal["", "text", "email", "tel", "select"] = ""  # empty: what its name suggests
    options: list[Short] = Field(default_factory=list, max_length=50)
    required: bool = False

    @model_validator(mode="after")
    def _options(self) -> Self:
        if bool(self.options) is not (self.type == "select"):
            raise ValueError(f"prechat field {self.name}: `options` go with `type: select`, and it needs some")
        return self

    @property
    def kind(self) -> str:
        return self.type or {"email": "email", "phone": "tel"}.get(self.name, "text")


class Weekly(Strict):
    """When somebody answers: spans of the day like `09:00-17:30`, by the wall clock of `time_zone`. A day that is not named is closed."""

    week: dict[Days, list[Annotated[str, Field(pattern=_SPAN)]]]
    time_zone: str = "UTC"
    holidays: list[date] = Field(default_factory=list, max_length=1_000)
    text: Long | None = None  # said while nobody is there

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            ZoneInfo(self.time_zone)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"{self.time_zone!r} is no time zone: write it like Europe/Berlin") from error
        for day, spans in self.week.items():
            for span in spans:
                begin, end = ([int(part) for part in one.split(":")] for one in span.split("-"))
                if not begin < end <= [24, 0]:
                    raise ValueError(f"hours of {day}: {span} must end after it begins, and at 24:00 at the latest")
        return self


class WebChatSettings(ChannelSettings):
    """One chat widget. `site` names the entry under `sites` whose pages embed it and whose server signs its visitors."""

    site: str
    title: Short | Literal[""] = ""  # the heading; empty: the widget's own word for a chat
    welcome: Long = "Hello! Write to us here, and we answer as soon as we can."
    greeting: Greeting | None = None
    accent: str = Field("", pattern=r"^(#[0-9a-fA-F]{6})?$")  # the colour of the button and the heading, like #0b6b4f
    position: Literal["", "left", "right"] = ""  # empty: where a line ends in the language spoken
    language: str = Field("en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")  # where the visitor's is not spoken
    prechat: list[Prechat] = Field(default_factory=list, max_length=8)
    hours: Weekly | None = None  # None: always open
    privacy: Privacy | None = None
    max_file_bytes: int = Field(5_000_000, ge=1, le=5_000_000)  # all files of a message together
    file_types: str = Field("", max_length=500, pattern=_ACCEPT)  # as HTML's `accept` has it; empty: all
    mail_after_minutes: float = Field(2, ge=0, le=1_440)  # an answer nobody saw is mailed after so long; 0: never
    mail_channel: str = ""  # the mail channel it goes by; empty: the one codes go by
    new_visitors_per_minute: int = Field(30, ge=1)  # from one address; raise it where many visitors share one
    public_name: str = Field("", max_length=60, pattern=r"^[^\x00-\x1f]*$")  # what visitors call you, for one-time codes; empty: `site`
    codes_per_hour: int = Field(100, ge=0)  # one-time codes sent for this widget in all, since texts cost money; 0: none are offered

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [field.name for field in self.prechat]
        if len(names) != len(set(names)):
            raise ValueError("prechat: every field needs a name of its own")
        return self


class Proven(NamedTuple):
    """An address whose one-time code came back in this session: its canonical value, and until when (unix seconds) that counts."""

    kind: str
    value: str
    until: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """What a visitor token says. Times are unix seconds. `user_id` is empty for an anonymous visitor; `email` and `phone` are there
    only where the site's word for them is trusted."""

    device: str
    channel: str
    site: str
    issued_at: int
    expires_at: int
    user_id: str = ""
    email: str = ""
    name: str = ""
    phone: str = ""
    proofs: tuple[Proven, ...] = ()

    @property
    def good_until(self) -> int:
        """When this token must be renewed: at the end of the session, or of the first thing it says was proved."""
        return min((self.expires_at, *(proof.until for proof in self.proofs)))


class WebChat:
    """The chat widget as a channel (`contract.Channel`), and the keeper of its visitors' tokens."""

    Settings: ClassVar[type[ChannelSettings]] = WebChatSettings
    label: ClassVar[str] = "Web chat"
    icon: ClassVar[str] = "chat"
    reaches: ClassVar[tuple[str, ...]] = ("device", "user_id")
    answers: ClassVar[Answers] = Answers(ok=Answer(200, "{}", "application/json"))
    idempotent: ClassVar[bool] = True
    max_text: ClassVar[int] = MAX_TEXT
    live: ClassVar[bool] = False
    can: ClassVar[Mapping[str, str]] = {
        "files_in": "",
        "files_out": "",
        "delivered": "",
        "read": "",
        "quotes": "the chat shows one line after the other",
        "reactions": "not built",
        "edits": "not built",
        "templates": "the chat is ours and needs no approval",
        "presence": "shown by the hub's own stream",
        "recovers": "the widget keeps what it could not hand over, and tries again",
        "finds": "a message is in the chat or it is not: there is no doubt",
    }

    def __init__(self, settings: WebChatSettings, place: Place) -> None:
        self.settings = settings
        self.place = place
        self._visitor_key = hmac.digest(place.key, b"visitor", hashlib.sha256)
        self._receipt_key = hmac.digest(place.key, b"receipt", hashlib.sha256)

    @property
    def site(self) -> str:
        return self.settings.site

    @property
    def welcome(self) -> str:
        """What an older widget, which reads no configuration, says first."""
        return _said(self.settings.welcome, self.settings.language)

    @property
    def new_visitors_per_minute(self) -> int:
        return self.settings.new_visitors_per_minute

    @property
    def public_name(self) -> str:
        return self.settings.public_name or self.site

    @property
    def codes_per_hour(self) -> int:
        return self.settings.codes_per_hour

    def configuration(self) -> dict[str, Any]:
        """What the widget is told of how it is to look, to greet and to ask, but for what changes with the clock."""
        told = self.settings
        return {
            "title": told.title,
            "welcome": told.welcome,
            "greeting": told.greeting.model_dump() if told.greeting is not None else None,
            "language": told.language,
            "accent": told.accent,
            "position": told.position,
            "prechat": [
                {"name": one.name, "label": one.label or "", "type": one.kind, "options": one.options, "required": one.required}
                for one in told.prechat
            ],
            "privacy": {"text": told.privacy.text or "", "url": told.privacy.url} if told.privacy is not None else None,
            "max_file_bytes": told.max_file_bytes,
            "file_types": told.file_types,
        }

    def closed_text(self) -> Text:
        """What is said while nobody is there, in any language; empty: the widget's own words."""
        return (self.settings.hours.text if self.settings.hours is not None else None) or ""

    def business_hours(self) -> tuple[dict[str, list[str]], str, frozenset[date]] | None:
        """When somebody answers, as (spans by day of the week, time zone, holidays); None: always."""
        weekly = self.settings.hours
        return ({str(day): spans for day, spans in weekly.week.items()}, weekly.time_zone, frozenset(weekly.holidays)) if weekly else None

    @property
    def mail_after(self) -> int:
        """Seconds after which an answer nobody saw is mailed; 0: never."""
        return int(self.settings.mail_after_minutes * 60)

    @property
    def mail_channel(self) -> str:
        return self.settings.mail_channel

    # --- visitors' tokens ---

    def issue(
        self,
        device: str,
        now: float,
        *,
        user_id: str = "",
        email: str = "",
        phone: str = "",
        name: str = "",
        proofs: Iterable[tuple[str, str] | tuple[str, str, int]] = (),
        until: int | None = None,
    ) -> str:
        """A token for this browser session, naming the visitor where the site's own token proved who it is.

        `proofs` are addresses whose one-time code came back: (kind, canonical value), for CODE_SECONDS from now, or with the time a
        former token gave. Those whose time is over are left out. `until` keeps the end of a former token.
        """
        lifetime = SIGNED_SECONDS if user_id else ANONYMOUS_SECONDS
        ends = int(now) + lifetime if until is None else until
        fields: dict[str, Any] = {"d": device, "c": self.place.name, "s": self.site, "i": int(now), "x": ends}
        fields.update({key: value for key, value in (("u", user_id), ("e", email), ("p", phone), ("n", name)) if value})
        latest: dict[tuple[str, str], int] = {}
        for proof in map(Proven._make, ((*proof, int(now) + CODE_SECONDS)[:3] for proof in proofs)):
            if proof.until > now:
                latest.pop(proof[:2], None)
                latest[proof[:2]] = proof.until
        if latest:
            fields["o"] = [(*key, end) for key, end in latest.items()][-MAX_PROOFS:]
        payload = "v1." + _encode(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode())
        return f"{payload}.{self._signature(payload)}"

    def session(self, token: str) -> Session | None:
        """What a token of ours says, or None if this channel never signed it. The caller judges `good_until`."""
        payload, _, signature = token.rpartition(".")
        if len(token) > MAX_TOKEN or not token.isascii() or not hmac.compare_digest(self._signature(payload).encode(), signature.encode()):
            return None
        fields = json.loads(_decode(payload.removeprefix("v1.")))
        return Session(
            device=fields["d"],
            channel=fields["c"],
            site=fields["s"],
            issued_at=fields["i"],
            expires_at=fields["x"],
            user_id=fields.get("u", ""),
            email=fields.get("e", ""),
            name=fields.get("n", ""),
            phone=fields.get("p", ""),
            proofs=tuple(Proven._make(proof) for proof in fields.get("o", ())),
        )

    def claims(self, session: Session) -> tuple[Claim, ...]:
        """What a session proves, the address an answer goes to first: the person where the site told us who it is, else the browser.

        An answer to the person is seen on each of their devices, and not by whoever kept an older token of the same browser. An answer
        to an address whose code came back would go by another channel, so those stand last. Another browser, whose chat a mail's link
        lets this one read, is not this one: it is claimed of nobody.
        """
        device = Claim("device", session.device, Proof.CHANNEL)
        codes = tuple(Claim(proof.kind, proof.value, Proof.OTP) for proof in session.proofs if proof.kind != "device")
        if not session.user_id:
            return (device, *codes)
        person = Claim("user_id", session.user_id, Proof.SIGNED, session.site)
        signed = (("email", session.email), ("phone", session.phone))
        return (person, device, *(Claim(kind, value, Proof.SIGNED) for kind, value in signed if value), *codes)

    def _signature(self, payload: str) -> str:
        return _encode(hmac.digest(self._visitor_key, payload.encode(), hashlib.sha256))

    # --- coming in ---

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the visitor token in `Authorization: Bearer`; one past its time counts as bad (the widget renews it and tries again)."""
        token = bearer(request.headers)
        if not token:
            return Verdict.UNSIGNED
        session = self.session(token)
        return Verdict.GOOD if session is not None and now < session.good_until else Verdict.BAD

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Translate one POST of the widget: a message, or answers it has shown. Raises Unparseable."""
        session = self.session(bearer(request.headers))
        if session is None:
            raise Unparseable("no visitor token of this channel: nobody can say whose message this is")
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise Unparseable(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise Unparseable("the body is not a JSON object")
        kind = body.get("type", "message")
        if kind in ("read", "delivered"):
            return _seen(session, MessageStatus(kind), body.get("refs"))
        if kind != "message":
            raise Unparseable("`type` is none of message, delivered and read")
        return [self._message(session, body)]

    def _message(self, session: Session, body: Mapping[str, Any]) -> InboundMessage:
        number, text = body.get("id"), body.get("text", "")
        if not isinstance(number, str) or not _ID.fullmatch(number):
            raise Unparseable("`id` must be 8 to 64 letters, digits, - or _ (a UUID)")
        if not isinstance(text, str):
            raise Unparseable("`text` must be a string")
        text = text.replace("\r\n", "\n").replace("\x00", "").strip()
        if len(text) > MAX_TEXT:
            raise Unparseable(f"`text` has {len(text)} characters; {MAX_TEXT} are accepted")
        files = _files(body.get("files", []), self.settings.max_file_bytes)
        if not text and not files:
            raise Unparseable("neither text nor a file")
        fields = body.get("fields")
        fields = {name: value for name, value in fields.items() if isinstance(value, str)} if isinstance(fields, dict) else {}
        # What was filled in before the chat stands for what the body says by itself.
        who = {**body, **{name: value for name, value in fields.items() if name in WHO}}
        at = body.get("at")
        beside = self._beside(fields)
        return InboundMessage(
            provider_key=f"{session.device}:{number}",
            claims=self.claims(session) + _typed(who),
            text=_sound(f"{text}{BESIDE}{beside}" if beside else text),
            subject=_page(body.get("page")),
            sender_name=session.name or _line(who.get("name"), 100),
            attachments=files,
            # By the browser's clock: shown, and never trusted for an order.
            sent_at=at * 1_000 if type(at) is int and 0 < at < 1 << 42 else None,
        )

    def _beside(self, fields: Mapping[str, str]) -> str:
        """What agents read below a first message: the answers of the fields that were asked before it."""
        return "\n".join(
            f"Before the chat: {_said(field.label, self.settings.language) or field.name}: {said}"
            for field in self.settings.prechat
            if field.name not in WHO and (said := _line(fields.get(field.name), MAX_FIELD))
        )

    # --- going out ---

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Nothing to call: the answer lies where the widget fetches it. Raises Refused for what no widget shows."""
        if len(message.text) > MAX_TEXT:
            raise Refused(f"Not sent: {len(message.text)} characters; web chat carries {MAX_TEXT}. Split the text.")
        # Only who can see the answer learns this name of it, so that nobody marks other people's answers as read.
        named = hmac.digest(self._receipt_key, f"{message.delivery_id}\n{message.to}".encode(), hashlib.sha256)[:16]
        return Sent(f"chat-{_encode(named)}")

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Files come inside the request; there is nothing to fetch. Raises Refused."""
        raise Refused("Not fetched: web chat files come with their message.")

    def is_sandbox(self) -> bool:
        return False


def bearer(headers: Mapping[str, str]) -> str:
    """The token of an `Authorization: Bearer` header (RFC 6750), or ""."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _typed(body: Mapping[str, Any]) -> tuple[Claim, ...]:
    """What a visitor types proves nothing; a slip in it must not cost the message."""
    claims = []
    for kind, shape in (("email", _EMAIL), ("phone", _PHONE)):
        value = body.get(kind)
        if isinstance(value, str) and value.isprintable() and shape.fullmatch(value.strip()):
            claims.append(Claim(kind, value.strip(), Proof.CLAIMED))
    return tuple(claims)


def _seen(session: Session, status: MessageStatus, refs: Any) -> list[Inbound]:
    if not isinstance(refs, list) or not refs or len(refs) > MAX_REFS or not all(isinstance(r, str) and _ID.fullmatch(r) for r in refs):
        raise Unparseable(f"`refs` must be 1 to {MAX_REFS} names of answers")
    return [
        DeliveryUpdate(provider_key=f"{status}:{session.device}:{ref}", status=status, provider_message_id=ref)
        for ref in dict.fromkeys(refs)
    ]


def _page(told: Any) -> str:
    """The page a visitor wrote on, as their browser claims it: its title and its address without query and fragment, which hold tokens."""
    if not isinstance(told, dict):
        return ""
    try:
        parts = urlsplit(_line(told.get("url"), 2_000))
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    url = _sound(f"{parts.scheme}://{host}{parts.path}")[:300]
    title = _sound(_line(told.get("title"), 100))
    return f"On the page {title} ({url})" if title else f"On the page {url}"


def _said(text: Text | None, language: str) -> str:
    if not isinstance(text, dict):
        return text or ""
    return text.get(language) or text.get("en") or next(iter(text.values()))


def _files(listed: Any, most: int) -> tuple[Attachment, ...]:
    if not isinstance(listed, list) or len(listed) > MAX_FILES or not all(isinstance(file, dict) for file in listed):
        raise Unparseable(f"`files` must be a list of at most {MAX_FILES} objects")
    files = []
    for number, file in enumerate(listed, 1):
        try:
            data = base64.b64decode(file.get("data", ""), validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise Unparseable(f"file {number}: `data` is not base64") from error
        if not data:
            raise Unparseable(f"file {number} is empty")
        declared = file.get("type")
        content_type = (
            declared.lower() if isinstance(declared, str) and _MEDIA_TYPE.fullmatch(declared.lower()) else "application/octet-stream"
        )
        name = re.split(r"[/\\]", _line(file.get("name"), 200))[-1].strip(". ") or f"file-{number}"
        files.append(Attachment(name=name, content_type=content_type, data=data))
    if (size := sum(len(file.data or b"") for file in files)) > most:
        raise Unparseable(f"{size} bytes of files; {most} are accepted")
    return tuple(files)


def _line(value: Any, longest: int) -> str:
    """One printable line of what a visitor typed."""
    return "".join(c for c in value if c.isprintable()).strip()[:longest] if isinstance(value, str) else ""


def _sound(text: str) -> str:
    """JSON can spell half a surrogate pair, which no UTF-8 column takes."""
    return text.encode("utf-8", "replace").decode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
