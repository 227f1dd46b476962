"""Web chat: our own widget on a business's site, spoken to through the same doorway as any provider.

A visitor's session is a token and nothing else: `v1.<payload>.<signature>`, signed with a key of this channel alone. It travels in an
Authorization header and never lies in a URL. Answers need no call to anybody: they are rows the widget fetches (`hub/web/chat.py`).

Body of a POST to `/in/{channel}`, JSON:
    a message: {"id": a UUID made by the widget, "text": "...", "files": [{"name", "type", "data": base64}], "name", "email", "phone"}
    answers seen: {"type": "read", "refs": [the `ref` of each answer]}
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
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

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
MAX_FILE_BYTES = 5_000_000  # all files of a message together
MAX_REFS = 100
MAX_TOKEN = 6_000  # characters; a header may have 8,190
ANONYMOUS_SECONDS = 365 * 86_400  # a visitor's own history stays theirs for a year on the same browser
SIGNED_SECONDS = 24 * 3_600  # how long one site token speaks for the browser; the site renews it with each page
CODE_SECONDS = 24 * 3_600  # how long a one-time code speaks for it: the next visitor of a public computer is another person
MAX_PROOFS = 4

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_EMAIL = re.compile(r"[^\s@<>]{1,64}@[^\s@<>]{1,190}\.[^\s@<>.]{2,63}")
_PHONE = re.compile(r"\+?[0-9(][0-9 ()./-]{5,30}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")  # RFC 6838, section 4.2


class WebChatSettings(ChannelSettings):
    """One chat widget. `site` names the entry under `sites` whose pages embed it and whose server signs its visitors."""

    site: str
    welcome: str = Field("Hello! Write to us here, and we answer as soon as we can.", max_length=500)
    new_visitors_per_minute: int = Field(30, ge=1)  # from one address; raise it where many visitors share one
    public_name: str = Field("", max_length=60, pattern=r"^[^\x00-\x1f]*$")  # what visitors call you, for one-time codes; empty: `site`
    codes_per_hour: int = Field(100, ge=0)  # one-time codes sent for this widget in all, since texts cost money; 0: none are offered


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
        "presence": "not built yet",
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
        return self.settings.welcome

    @property
    def new_visitors_per_minute(self) -> int:
        return self.settings.new_visitors_per_minute

    @property
    def public_name(self) -> str:
        return self.settings.public_name or self.site

    @property
    def codes_per_hour(self) -> int:
        return self.settings.codes_per_hour

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
        to an address whose code came back would go by another channel, so those stand last.
        """
        device = Claim("device", session.device, Proof.CHANNEL)
        codes = tuple(Claim(proof.kind, proof.value, Proof.OTP) for proof in session.proofs)
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
        if kind == "read":
            return _read(session, body.get("refs"))
        if kind != "message":
            raise Unparseable("`type` is neither message nor read")
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
        files = _files(body.get("files", []))
        if not text and not files:
            raise Unparseable("neither text nor a file")
        return InboundMessage(
            provider_key=f"{session.device}:{number}",
            claims=self.claims(session) + _typed(body),
            text=_sound(text),
            sender_name=session.name or _line(body.get("name"), 100),
            attachments=files,
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


def _read(session: Session, refs: Any) -> list[Inbound]:
    if not isinstance(refs, list) or not refs or len(refs) > MAX_REFS or not all(isinstance(r, str) and _ID.fullmatch(r) for r in refs):
        raise Unparseable(f"`refs` must be 1 to {MAX_REFS} names of answers")
    return [
        DeliveryUpdate(provider_key=f"read:{session.device}:{ref}", status=MessageStatus.READ, provider_message_id=ref)
        for ref in dict.fromkeys(refs)
    ]


def _files(listed: Any) -> tuple[Attachment, ...]:
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
    if (size := sum(len(file.data or b"") for file in files)) > MAX_FILE_BYTES:
        raise Unparseable(f"{size} bytes of files; {MAX_FILE_BYTES} are accepted")
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
