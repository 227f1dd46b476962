"""The sandbox's people and the providers between them and the hub: real requests to its public endpoints, really signed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

import aiohttp

from connectors.sandbox.server import SandboxServer
from connectors.sandbox.slack import APP, TEAM, shown
from connectors.sandbox.state import Callback, Campaign, CampaignLine, MailFile, Said, SlackPost, TwilioInbound, TwilioMessage
from connectors.shared.signatures import twilio_signature

FORM = "application/x-www-form-urlencoded"
TIMEOUT_SECONDS = 15.0  # what Twilio waits in all (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides)


class HubAnswer(NamedTuple):
    """What the hub answered; status 0 when it could not be reached."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Member:
    """One of a campaign's audience."""

    name: str
    phone: str
    email: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the sandbox's people write to: the channels of the shipped configuration."""

    whatsapp: str = "+15550100001"
    sms: str = "+15550100002"
    mail: str = "support@shop.example"
    authserv_id: str = "mx.shop.example"  # how our mail server signs its verdicts (RFC 8601)
    whatsapp_path: str = "/in/whatsapp"
    sms_path: str = "/in/sms"
    mail_path: str = "/in/email"
    slack_path: str = "/rooms/slack"
    check_path: str = "/api/v1/holds/check"
    klaviyo_path: str = "/tools/klaviyo/hooks"


class SandboxActor:
    """Writes to the hub as a provider would. `hub_url` is where it is reached, `public_url` the address signatures cover."""

    def __init__(self, server: SandboxServer, *, hub_url: str, public_url: str, addresses: Addresses | None = None) -> None:
        self.server = server
        self.state = server.state
        self.addresses = addresses or Addresses()
        self.hub_url = hub_url.rstrip("/")
        self.public_url = public_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._reported = 0  # how many of the messages have been told of

    async def start(self) -> None:
        """Begin to report deliveries: each message the Twilio stand-in takes is told as sent, delivered and (WhatsApp) read."""
        self._reporting = asyncio.create_task(self._report_deliveries(), name="sandbox-delivery-reports")

    async def close(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
            self._reporting = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- phones ---

    async def sms(self, from_: str, body: str, *, sid: str = "", told: bool = True) -> HubAnswer:
        """One SMS from the number `from_`. `sid` repeats a delivery, as a provider does that lost our answer; without being `told`
        the hub can find it in Twilio's list only, as if it had been away."""
        return await self._text("sms", from_, body, {}, None, sid, told)

    async def whatsapp(
        self, from_: str, body: str, name: str, media: MailFile | None = None, *, sid: str = "", told: bool = True
    ) -> HubAnswer:
        """One WhatsApp message from the number `from_`, with a picture if there is one."""
        extra = {"ProfileName": name, "WaId": from_.removeprefix("+"), "MessageType": "image" if media else "text"}
        return await self._text("whatsapp", from_, body, extra, media, sid, told)

    async def _text(
        self, channel: str, number: str, body: str, extra: Mapping[str, str], media: MailFile | None, sid: str, told: bool
    ) -> HubAnswer:
        prefix, to, path = (
            ("whatsapp:", self.addresses.whatsapp, self.addresses.whatsapp_path)
            if channel == "whatsapp"
            else ("", self.addresses.sms, self.addresses.sms_path)
        )
        sid = sid or ("MM" if media else "SM") + secrets.token_hex(16)
        account = self.server.secrets.twilio_account_sid
        # The fields of https://www.twilio.com/docs/messaging/guides/webhook-request, in an order seen in the wild.
        fields = {"SmsMessageSid": sid, "NumMedia": "1" if media else "0"} | dict(extra)
        fields |= {"SmsSid": sid, "SmsStatus": "received", "Body": body, "To": prefix + to, "NumSegments": "1"}
        fields |= {"MessageSid": sid, "AccountSid": account, "From": prefix + number, "ApiVersion": "2010-04-01"}
        media_path = media_id = ""
        if media is not None:
            media_id = "ME" + secrets.token_hex(16)
            self.state.media[media_id] = media
            media_path = f"/twilio-cdn/{media_id}"
            url = f"{self.server.url}/2010-04-01/Accounts/{account}/Messages/{sid}/Media/{media_id}"
            fields |= {"MediaContentType0": media.content_type, "MediaUrl0": url}
        if sid not in self.state.twilio_inbound:
            self.state.twilio_inbound[sid] = TwilioInbound(
                order=self.state.next_order(),
                at=self.state.clock(),
                sid=sid,
                to=prefix + to,
                from_=prefix + number,
                body=body,
                media=(media_id,) if media_id else (),
            )
        said = self._said(channel, number, body, media_path=media_path)
        if not told:
            return self._heard(said, HubAnswer(0, "the hub was not told"))
        return self._heard(said, await self._twilio_post(self.public_url + path, fields))

    async def _twilio_post(self, url: str, fields: Mapping[str, str]) -> HubAnswer:
        """Call a webhook as Twilio does: a failure to connect is tried once more, anything else is left at that, unless the overrides
        behind the address's # ask for more (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides)."""
        url, _, overrides = url.partition("#")
        asked = parse_qs(overrides)
        retried = set(asked.get("rp", ["ct"])[0].split(","))
        answer = HubAnswer(0, "")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                for _ in range(1 + min(int(asked.get("rc", ["1"])[0]), 5)):
                    answer = await self._twilio_attempt(url, fields)
                    if not retried & {_failure(answer), "all"} or not _failure(answer):
                        break
        return answer

    async def _twilio_attempt(self, url: str, fields: Mapping[str, str]) -> HubAnswer:
        signature = twilio_signature(self.server.secrets.twilio_auth_token.encode(), url, fields.items())
        headers = {
            "Content-Type": f"{FORM}; charset=utf-8",
            "X-Twilio-Signature": signature,
            "I-Twilio-Idempotency-Token": secrets.token_hex(16),
            "User-Agent": "TwilioProxy/1.1",
        }
        return await self._post(url, urlencode(fields).encode(), headers)

    async def _report_deliveries(self) -> None:
        while True:
            await self.state.wait_for(lambda: len(self.state.twilio_messages) > self._reported, timeout=None)
            message = self.state.twilio_messages[self._reported]
            self._reported += 1
            for word in ("sent", "delivered", "read") if message.channel == "whatsapp" else ("sent", "delivered"):
                await self.report(message, word)

    async def report(self, message: TwilioMessage, word: str, *, error: str = "") -> HubAnswer:
        """Tell the hub, at the address its connector gave, what became of a message: `sent`, `delivered`, `read`, `failed` ...

        https://www.twilio.com/docs/messaging/guides/track-outbound-message-status; `error` is one of Twilio's codes.
        """
        message.status = word
        self.state.changed()
        if not message.status_callback:
            return HubAnswer(0, "no status callback was asked for")
        fields = {"SmsSid": message.sid, "SmsStatus": word, "MessageStatus": word, "To": message.to, "MessageSid": message.sid}
        fields |= {"AccountSid": self.server.secrets.twilio_account_sid, "From": message.from_, "ApiVersion": "2010-04-01"}
        if message.channel == "whatsapp":
            fields |= {"ChannelToAddress": message.number, "ChannelPrefix": "whatsapp"}
            fields |= {"EventType": word.upper()} if word in ("delivered", "read") else {}
        if error:
            fields["ErrorCode"] = error
        answer = await self._twilio_post(message.status_callback, fields)
        self.state.callbacks.append(Callback(sid=message.sid, url=message.status_callback, word=word, status=answer.status))
        self.state.changed()
        return answer

    # --- mail ---

    async def mail(
        self,
        from_address: str,
        name: str,
        subject: str,
        body: str,
        in_reply_to: str | None = None,
        references: Sequence[str] = (),
        *,
        dmarc: str = "pass",
    ) -> HubAnswer:
        """One mail as our own mail server would post it, with its verdict on top (`dmarc`: pass, fail, none).

        `in_reply_to` is the Message-ID of the mail it answers: it then goes where that one asked answers to go.
        """
        domain = from_address.rpartition("@")[2]
        answered = next((mail for mail in self.state.mails if in_reply_to and mail.message_id == in_reply_to), None)
        message = EmailMessage(policy=policy.SMTP)
        when = datetime.fromtimestamp(self.state.clock(), UTC)
        # RFC 8601: written by the receiving server, above everything the sender wrote.
        message["Authentication-Results"] = (
            f"{self.addresses.authserv_id}; spf={'pass' if dmarc == 'pass' else 'none'} smtp.mailfrom={domain};"
            f" dmarc={dmarc} (p=reject dis=none) header.from={domain}"
        )
        message["Delivered-To"] = self.addresses.mail
        message["From"] = formataddr((name, from_address))
        message["To"] = answered.reply_to if answered else self.addresses.mail
        message["Subject"] = subject
        message["Date"] = format_datetime(when)
        message["Message-ID"] = f"<{secrets.token_hex(12)}@{domain}>"
        if in_reply_to:
            # RFC 5322 section 3.6.4: the parent's References, then the parent.
            chain = dict.fromkeys([*(references or (answered.references if answered else ())), in_reply_to])
            message["In-Reply-To"] = in_reply_to
            message["References"] = " ".join(chain)
        message.set_content(body + "\n")
        said = self._said("email", from_address.lower(), body, subject=subject, message_id=str(message["Message-ID"]))
        login = f"{self.server.secrets.mail_username}:{self.server.secrets.mail_password}".encode()
        headers = {"Content-Type": "message/rfc822", "Authorization": f"Basic {base64.b64encode(login).decode()}"}
        return self._heard(said, await self._post(self.public_url + self.addresses.mail_path, message.as_bytes(), headers))

    # --- Slack ---

    async def slack_click(self, post: SlackPost, action_id: str, user: str) -> HubAnswer:
        """Press a button of a post as the user with this Slack id. Raises ValueError where the post has no such button.

        https://docs.slack.dev/reference/interaction-payloads/block_actions-payload
        """
        person = self.state.slack_users[user]
        block_id, element = _button(post, action_id)
        stamp = self.state.clock()
        pressed = {name: element[name] for name in ("type", "action_id", "text", "value", "style", "url") if name in element}
        payload: dict[str, Any] = {
            "type": "block_actions",
            "user": {"id": person.id, "username": person.name, "name": person.name, "team_id": TEAM},
            "api_app_id": APP,
            "token": "sandbox",
            "container": {"type": "message", "message_ts": post.ts, "channel_id": post.channel, "is_ephemeral": False},
            "trigger_id": f"{int(stamp)}.{secrets.randbelow(10**9)}.{secrets.token_hex(16)}",
            "team": {"id": TEAM, "domain": "sandbox"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": post.channel, "name": self.state.slack_channel},
            "message": shown(post),
            "state": {"values": {}},
            "response_url": f"{self.server.url}/slack/response/{person.id}/{post.ts}",
            "actions": [pressed | {"block_id": block_id, "action_ts": f"{stamp:.6f}"}],
        }
        return await self.slack_post({"payload": json.dumps(payload)})

    async def slack_post(self, fields: Mapping[str, str]) -> HubAnswer:
        """Post a form to the room, signed (https://docs.slack.dev/authentication/verifying-requests-from-slack)."""
        body = urlencode(fields).encode()
        stamp = str(int(self.state.clock()))
        digest = hmac.new(self.server.secrets.slack_signing_secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": FORM,
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": f"v0={digest}",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
        }
        return await self._post(self.public_url + self.addresses.slack_path, body, headers)

    # --- the marketing tool ---

    async def campaign(self, audience: Sequence[Member], api_token: str, *, name: str = "winter-sale") -> HubAnswer:
        """Send a campaign: ask the hub about the whole audience at once, send to those who are not held. Returns the hub's answer.

        Any held identifier holds its owner. Where the hub gives no clear answer the member is skipped too: a promotion can
        wait, an upset customer cannot.
        """
        asked = [pair for member in audience for pair in (("phone", member.phone), ("email", member.email))]
        question = {
            "identifiers": [{"kind": kind, "value": value} for kind, value in asked],
            "campaign": name,
            "class": "marketing",
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {api_token}"}
        answer = await self._post(self.public_url + self.addresses.check_path, json.dumps(question).encode(), headers)
        results = _results(answer, len(asked))
        lines = tuple(_line(member, results[2 * at : 2 * at + 2], answer.status) for at, member in enumerate(audience))
        self.state.campaigns.append(Campaign(order=self.state.next_order(), at=self.state.clock(), lines=lines))
        self.state.changed()
        return answer

    async def send_planned(self) -> HubAnswer:
        """Let Klaviyo send its planned campaigns now and tell the hub by webhook whom they reached. Returns the hub's answer."""
        account = self.server.klaviyo
        events = account.send_now()
        secret = self.server.secrets.klaviyo_webhook_secret
        if not (events and secret):
            return HubAnswer(200, "told to nobody: the hub asks for it by itself")
        headers, body = account.webhook(events, secret)
        return await self._post(self.public_url + self.addresses.klaviyo_path, body, headers)

    # --- the shop ---

    def visitor_token(self, user_id: str, name: str, email: str, *, lifetime: int = 1_800) -> str:
        """What the shop's own server hands a visitor who has signed in: a JWT (RFC 7519, HS256) under the site's key."""
        now = int(self.state.clock())
        claims = {"sub": user_id, "aud": self.server.secrets.site_audience, "iat": now, "exp": now + lifetime}
        claims |= {"name": name, "email": email, "email_verified": True}
        signed = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        digest = hmac.digest(self.server.secrets.site_key.encode(), signed.encode(), hashlib.sha256)
        return f"{signed}.{_base64url(digest)}"

    # --- the wire ---

    def _said(self, channel: str, address: str, text: str, *, subject: str = "", message_id: str = "", media_path: str = "") -> Said:
        said = Said(
            order=self.state.next_order(),
            at=self.state.clock(),
            channel=channel,
            address=address,
            text=text,
            subject=subject,
            message_id=message_id,
            media_path=media_path,
        )
        self.state.said.append(said)
        self.state.changed()
        return said

    def _heard(self, said: Said, answer: HubAnswer) -> HubAnswer:
        said.status = answer.status or 599  # not reached at all
        self.state.changed()
        return answer

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HubAnswer:
        """POST to the hub, and to nobody else: `url` must be one of its public addresses."""
        if not url.startswith(self.public_url + "/"):
            return HubAnswer(0, f"the sandbox calls only the hub, at {self.public_url}")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), trust_env=False)
        target = self.hub_url + url.removeprefix(self.public_url)
        try:
            async with self._session.post(target, data=body, headers=headers, allow_redirects=False) as response:
                return HubAnswer(response.status, await response.text(errors="replace"))
        except (aiohttp.ClientError, TimeoutError) as error:
            return HubAnswer(0, f"the hub could not be reached: {type(error).__name__}")


def _failure(answer: HubAnswer) -> str:
    """What went wrong in Twilio's words: no connection, no answer, an error; empty: nothing."""
    if answer.status == 0:
        return "ct" if "Connector" in answer.text else "rt"
    return f"{answer.status // 100}xx" if answer.status >= 400 else ""


def _button(post: SlackPost, action_id: str) -> tuple[str, dict[str, Any]]:
    for number, block in enumerate(post.blocks):
        for element in [*block.get("elements", ()), block.get("accessory") or {}]:
            if isinstance(element, dict) and element.get("action_id") == action_id:
                return str(block.get("block_id") or f"b{number}"), element
    raise ValueError(f"This post has no button {action_id!r}.")


def _results(answer: HubAnswer, asked: int) -> list[dict[str, Any]]:
    """One standing for each identifier asked about, in that order; none at all where the answer is not just that."""
    try:
        results = json.loads(answer.text)["results"] if answer.status == 200 else []
    except (ValueError, TypeError, KeyError):
        return []
    whole = isinstance(results, list) and len(results) == asked
    return results if whole and all(isinstance(one, dict) and isinstance(one.get("held"), bool) for one in results) else []


def _line(member: Member, standings: Sequence[Mapping[str, Any]], status: int) -> CampaignLine:
    if not standings:
        held, until, why = None, None, f"not sent: the hub's check gave no answer ({status or 'not reached'})"
    else:
        holding = [one for one in standings if one["held"]]
        held = bool(holding)
        until = next((str(one["until"]) for one in holding if one.get("until")), None)
        reasons = dict.fromkeys(str(reason).replace("_", " ") for one in holding for reason in one.get("reasons") or ())
        why = ", ".join(reasons) or ("held" if held else "no hold" if any(one.get("known") for one in standings) else "unknown to support")
    return CampaignLine(name=member.name, phone=member.phone, email=member.email, held=held, until=until, why=why)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
