"""Twilio's Messages API as far as the connectors use it (https://www.twilio.com/docs/messaging/api/message-resource), on loopback."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import struct
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from connectors.sandbox.state import MailFile, SandboxState, TwilioInbound, TwilioMessage
from connectors.sandbox.twilio_content import content_page, rendered

_ADDRESS = re.compile(r"(?:whatsapp:)?\+[1-9][0-9]{6,14}")
_SENDER = re.compile(r"(?:whatsapp:)?\+[1-9][0-9]{6,14}|[0-9]{5,6}|[A-Za-z0-9 ]{1,11}")

# https://www.twilio.com/docs/api/errors, in Twilio's own words.
_ERRORS = {
    20003: (401, "Authenticate"),
    20404: (404, "The requested resource was not found"),
    20429: (429, "Too Many Requests"),
    21211: (400, "Invalid 'To' Phone Number: {0}"),
    21212: (400, "Invalid From Number (caller ID): {0}"),
    21602: (400, "Message body is required."),
    21603: (400, "A 'From' phone number is required."),
    21604: (400, "A 'To' phone number is required."),
    21609: (400, "Invalid 'StatusCallback' URL: {0}"),
    21617: (400, "The concatenated message body exceeds the 1600 character limit"),
    21654: (400, "The ContentSid does not exist: {0}"),
    21656: (400, "The Content Variables parameter is invalid."),
    21910: (400, "Invalid From and To pair. From and To should be of the same channel"),
}


class TwilioStandIn:
    """Takes messages, keeps them for the phone, and hands out the pictures people sent."""

    def __init__(self, state: SandboxState, account_sid: str, auth_token: str) -> None:
        self._state = state
        self._sid = account_sid
        self._credentials = b"Basic " + base64.b64encode(f"{account_sid}:{auth_token}".encode())

    def add_routes(self, app: web.Application) -> None:
        account = "/2010-04-01/Accounts/{account}"
        app.router.add_post(account + "/Messages.json", self.create)
        app.router.add_get(account + "/Messages.json", self.list)
        app.router.add_get(account + "/Messages/{sid}.json", self.read)
        app.router.add_get(account + "/Messages/{sid}/Media.json", self.media_list)
        app.router.add_get(account + "/Messages/{sid}/Media/{media}", self.media)
        app.router.add_get("/twilio-cdn/{media}", self.cdn)
        app.router.add_get("/v1/ContentAndApprovals", self.contents)
        app.router.add_post("/v2/Indicators/Typing.json", self.typing)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Accept one message: 201 with the resource, as Twilio answers, or its error with its code."""
        if denied := self._denied(request):
            return denied
        form = await request.post()
        failure = self._state.take_failure("twilio")
        if failure is not None and failure.status != "drop" and not failure.carried_out:
            return _failed(failure.status, failure.retry_after)
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        media = tuple(str(value) for value in form.getall("MediaUrl", []))
        if wrong := _check(fields, media):
            return wrong
        message = TwilioMessage(
            order=self._state.next_order(),
            at=self._state.clock(),
            sid=("MM" if media else "SM") + secrets.token_hex(16),
            to=fields["To"],
            from_=fields.get("From") or fields["MessagingServiceSid"],
            body=rendered(fields["ContentSid"], fields.get("ContentVariables", "")) if "ContentSid" in fields else fields.get("Body", ""),
            media_urls=media,
            status_callback=fields.get("StatusCallback", ""),
        )
        self._state.twilio_messages.append(message)
        self._state.changed()
        if failure is not None:
            return hang_up(request) if failure.status == "drop" else _failed(failure.status, failure.retry_after)
        return web.json_response(self._resource(message), status=201)

    async def contents(self, request: web.Request) -> web.StreamResponse:
        """The account's templates, in one page."""
        return self._denied(request) or web.json_response(content_page(self._sid, str(request.url)))

    async def typing(self, request: web.Request) -> web.StreamResponse:
        """A typing indicator for a message that came by WhatsApp (https://www.twilio.com/docs/whatsapp/api/typing-indicators-resource)."""
        if denied := self._denied(request):
            return denied
        form = await request.post()
        said = self._state.twilio_inbound.get(str(form.get("messageId", "")))
        if said is None or form.get("channel") != "whatsapp" or not said.from_.startswith("whatsapp:"):
            return _error(20404)
        return web.json_response({"success": True})

    async def read(self, request: web.Request) -> web.StreamResponse:
        """One message by its sid."""
        if denied := self._denied(request):
            return denied
        for message in self._everything():
            if message.sid == request.match_info["sid"]:
                return web.json_response(self._resource(message))
        return _error(20404)

    async def list(self, request: web.Request) -> web.StreamResponse:
        """Messages in and out, newest first, narrowed by `To`, `From` and `DateSent` (`DateSent>`, `DateSent<`), page by page.

        https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources. What waits in the queue has no DateSent,
        and is in no list that is narrowed by it. A page token names the last message of the page before, so that what comes in
        meanwhile shifts nothing.
        """
        if denied := self._denied(request):
            return denied
        if (failure := self._state.take_failure("twilio_list")) is not None:
            return hang_up(request) if failure.status == "drop" else _failed(failure.status, failure.retry_after)
        wanted = request.query
        everything = sorted(self._everything(), key=lambda one: (one.at, one.order), reverse=True)
        found = [message for message in everything if _wanted(message, wanted)]
        size = min(max(int(wanted.get("PageSize", "50")), 1), 1000) if wanted.get("PageSize", "50").isdigit() else 50
        number = int(wanted.get("Page", "0")) if wanted.get("Page", "0").isdigit() else 0
        token = wanted.get("PageToken", "").removeprefix("PA")
        start = next((at + 1 for at, message in enumerate(found) if message.sid == token), 0)
        shown = found[start : start + size]
        path = f"/2010-04-01/Accounts/{self._sid}/Messages.json"
        asked = {name: value for name, value in wanted.items() if name not in ("Page", "PageToken")} | {"PageSize": str(size)}

        def uri(page: int, after: str = "") -> str:
            return f"{path}?{urlencode(asked | {'Page': str(page)} | ({'PageToken': 'PA' + after} if after else {}))}"

        page = {
            "messages": [self._resource(message) for message in shown],
            "page": number,
            "page_size": size,
            "start": start,
            "end": max(start + len(shown) - 1, 0),
            "uri": uri(number, token),
            "first_page_uri": uri(0),
            "next_page_uri": uri(number + 1, shown[-1].sid) if start + size < len(found) else None,
            "previous_page_uri": None,
        }
        return web.json_response(page)

    async def media_list(self, request: web.Request) -> web.StreamResponse:
        """The files of one message (https://www.twilio.com/docs/messaging/api/media-resource)."""
        if denied := self._denied(request):
            return denied
        sid = request.match_info["sid"]
        message = self._state.twilio_inbound.get(sid)
        path = f"/2010-04-01/Accounts/{self._sid}/Messages/{sid}/Media"
        found = [] if message is None else [self._media(message, media) for media in message.media]
        page = {"media_list": found, "page": 0, "page_size": 50, "start": 0, "end": max(len(found) - 1, 0), "uri": path + ".json"}
        return web.json_response(page | {"first_page_uri": path + ".json", "next_page_uri": None, "previous_page_uri": None})

    async def media(self, request: web.Request) -> web.StreamResponse:
        """Lead on to the media store, as Twilio does (https://www.twilio.com/docs/messaging/api/media-resource)."""
        if denied := self._denied(request):
            return denied
        if (failure := self._state.take_failure("media")) is not None:
            return hang_up(request) if failure.status == "drop" else _failed(failure.status, failure.retry_after)
        if request.match_info["media"] not in self._state.media:
            return _error(20404)
        raise web.HTTPTemporaryRedirect(f"/twilio-cdn/{request.match_info['media']}")

    async def cdn(self, request: web.Request) -> web.StreamResponse:
        """The file itself. Its address is the secret, so there are no credentials."""
        file = self._state.media.get(request.match_info["media"])
        if file is None:
            raise web.HTTPNotFound
        headers = {"Content-Type": file.content_type, "X-Content-Type-Options": "nosniff"}
        return web.Response(body=file.data, headers=headers | {"Content-Disposition": f'inline; filename="{file.name}"'})

    def _denied(self, request: web.Request) -> web.StreamResponse | None:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._credentials):
            return _error(20003)
        return None if request.match_info.get("account", self._sid) == self._sid else _error(20404)

    def _everything(self) -> Sequence[TwilioMessage | TwilioInbound]:
        return [*self._state.twilio_messages, *self._state.twilio_inbound.values()]

    def _media(self, message: TwilioInbound, media: str) -> dict[str, Any]:
        return {
            "account_sid": self._sid,
            "content_type": self._state.media[media].content_type,
            "date_created": _rfc2822(message.at),
            "date_updated": _rfc2822(message.at),
            "parent_sid": message.sid,
            "sid": media,
            "uri": f"/2010-04-01/Accounts/{self._sid}/Messages/{message.sid}/Media/{media}.json",
        }

    def _resource(self, message: TwilioMessage | TwilioInbound) -> dict[str, Any]:
        path = f"/2010-04-01/Accounts/{self._sid}/Messages/{message.sid}"
        inbound = isinstance(message, TwilioInbound)
        files = len(message.media if isinstance(message, TwilioInbound) else message.media_urls)
        sent = _date_sent(message)
        return {
            "account_sid": self._sid,
            "api_version": "2010-04-01",
            "body": message.body,
            "date_created": _rfc2822(message.at),
            "date_sent": None if sent is None else _rfc2822(sent),
            "date_updated": _rfc2822(message.at),
            "direction": "inbound" if inbound else "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": None if message.from_.startswith("MG") else message.from_,
            "messaging_service_sid": message.from_ if message.from_.startswith("MG") else None,
            "num_media": str(files),
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "sid": message.sid,
            "status": "received" if isinstance(message, TwilioInbound) else message.status,
            "subresource_uris": {"media": path + "/Media.json"},
            "to": message.to,
            "uri": path + ".json",
        }


def _rfc2822(at: float) -> str:
    return formatdate(at).replace("-0000", "+0000")


def _date_sent(message: TwilioMessage | TwilioInbound) -> float | None:
    return None if isinstance(message, TwilioMessage) and message.status == "queued" else message.at


def _wanted(message: TwilioMessage | TwilioInbound, wanted: Mapping[str, str]) -> bool:
    if wanted.get("To", message.to) != message.to or wanted.get("From", message.from_) != message.from_:
        return False
    for name in ("DateSent", "DateSent>", "DateSent<"):
        if name not in wanted:
            continue
        sent, limit = _date_sent(message), datetime.fromisoformat(wanted[name].replace("Z", "+00:00"))
        limit = limit if limit.tzinfo else limit.replace(tzinfo=UTC)
        if sent is None:
            return False
        # Whole seconds, as the list shows them. The signs stand for "on or after" and "on or before".
        second = datetime.fromtimestamp(int(sent), UTC)
        if name == "DateSent" and second.date() != limit.date():
            return False
        if (name == "DateSent>" and second < limit) or (name == "DateSent<" and second > limit):
            return False
    return True


def _check(fields: Mapping[str, str], media: tuple[str, ...]) -> web.Response | None:
    to, sender = fields.get("To", ""), fields.get("From", "")
    if not to:
        return _error(21604)
    if not sender and not fields.get("MessagingServiceSid"):
        return _error(21603)
    if not _ADDRESS.fullmatch(to):
        return _error(21211, to)
    if sender and not _SENDER.fullmatch(sender):
        return _error(21212, sender)
    if sender and sender.startswith("whatsapp:") != to.startswith("whatsapp:"):
        return _error(21910)
    if sid := fields.get("ContentSid"):
        try:
            rendered(sid, fields.get("ContentVariables", ""))
        except KeyError as error:
            return _error(21654, sid) if error.args == (sid,) else _error(21656)
        except ValueError:
            return _error(21656)
    elif not fields.get("Body") and not media:
        return _error(21602)
    if len(fields.get("Body", "")) > 1_600:
        return _error(21617)
    callback = fields.get("StatusCallback", "")
    if callback and (urlsplit(callback).scheme not in ("http", "https") or not urlsplit(callback).hostname):
        return _error(21609, callback)
    return None


def _error(code: int, value: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    status, text = _ERRORS[code]
    body = {"code": code, "message": text.format(value), "more_info": f"https://www.twilio.com/docs/errors/{code}", "status": status}
    return web.json_response(body, status=status, headers=headers)


def _failed(status: int, retry_after: int | None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 429:
        return _error(20429, headers=headers)
    body = {"code": 20500, "message": "An internal server error has occurred", "status": status}
    return web.json_response(body | {"more_info": "https://www.twilio.com/docs/errors/20500"}, status=status, headers=headers)


def hang_up(request: web.Request) -> web.Response:
    """Close the connection with the answer unsent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def parcel_photo(width: int = 320, height: int = 240) -> MailFile:
    """A small picture of a parcel, drawn here: what people in the sandbox send."""

    def colour(x: int, y: int) -> bytes:
        left, right, top, bottom = width // 5, width - width // 5, height // 4, height - height // 6
        if left <= x < right and top <= y < bottom:
            if abs(x - width // 2) < width // 26:
                return bytes((214, 190, 150))  # tape
            if right - width // 5 <= x < right - width // 26 and bottom - height // 5 <= y < bottom - height // 14:
                return bytes((247, 244, 238))  # label
            shade = (y - top) * 24 // (bottom - top)
            return bytes((184 - shade, 140 - shade, 92 - shade))
        light = y * 40 // height
        return bytes((226 - light, 232 - light, 238 - light)) if y < bottom else bytes((190, 196, 204))

    rows = b"".join(b"\x00" + b"".join(colour(x, y) for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # PNG (https://www.w3.org/TR/png-3/): 8 bits a channel, RGB, no filter, no interlace.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return MailFile(name="parcel.png", content_type="image/png", data=png)
