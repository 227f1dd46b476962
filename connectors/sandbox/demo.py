"""The sandbox as its page shows it: who is there, what each device holds, and what a visitor may do. See `hub.web.sandbox`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.sandbox.actor import HubAnswer, Member, SandboxActor
from connectors.sandbox.people import PEOPLE, Person
from connectors.sandbox.state import Campaign, CampaignLine, Hook, MailFile, SandboxState
from connectors.sandbox.twilio import parcel_photo

SHOWN = 200  # of each list: enough for an afternoon's play
MAX_TEXT = 4_000
PROMOTION = "Winter sale: 20 % off everything until Sunday. Just for you!"


class SandboxDemo:
    """Answers the sandbox page: a snapshot of everything, and one doorway for what its people do.

    `api_token` is what the marketing tool presents at the hub's check endpoint.
    """

    def __init__(self, actor: SandboxActor, api_token: str) -> None:
        self._actor = actor
        self._state: SandboxState = actor.state
        self._api_token = api_token
        self._photo: MailFile | None = None

    @property
    def version(self) -> int:
        return self._state.version

    async def wait(self, seen: int) -> None:
        """Return once there is something newer than version `seen`."""
        await self._state.wait_for(lambda: self._state.version != seen, timeout=None)

    # --- what is shown ---

    def snapshot(self) -> dict[str, Any]:
        """Everything the page shows, as JSON."""
        state, addresses = self._state, self._actor.addresses
        return {
            "version": state.version,
            "people": [{"id": one.id, "name": one.name, "phone": one.phone, "email": one.email} for one in PEOPLE],
            "addresses": {"whatsapp": addresses.whatsapp, "sms": addresses.sms, "mail": addresses.mail},
            "texts": self._texts(),
            "mails": self._mails(),
            "slack": self._slack(),
            "marketing": {
                "held": [_hook(hook) for hook in held_now(state.hooks)],
                "hooks": [_hook(hook) for hook in state.hooks[-SHOWN:]],
                "campaigns": [
                    {"order": one.order, "at": one.at, "lines": [_campaign_line(line) for line in one.lines]}
                    for one in state.campaigns[-20:]
                ],
                "klaviyo": self._actor.server.klaviyo.snapshot(),
            },
            "steps": steps(state),
        }

    def _texts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {
                "order": said.order,
                "at": said.at,
                "channel": said.channel,
                "phone": said.address,
                "mine": True,
                "text": said.text,
                "status": _told(said.status),
                "pictures": [f"/sandbox/media/{said.media_path.rpartition('/')[2]}"] if said.media_path else [],
            }
            for said in self._state.said[-SHOWN:]
            if said.channel in ("sms", "whatsapp")
        ]
        found += [
            {
                "order": message.order,
                "at": message.at,
                "channel": message.channel,
                "phone": message.number,
                "mine": False,
                "text": message.body,
                "status": message.status,
                # A path of the hub's, so that the picture shows whatever name the browser knows the hub by.
                "pictures": [url.removeprefix(self._actor.public_url) for url in message.media_urls],
            }
            for message in self._state.twilio_messages[-SHOWN:]
        ]
        found += [
            {"order": one.order, "at": one.at, "channel": "sms", "phone": line.phone, "mine": False, "text": PROMOTION, "promotion": True}
            | {"status": "delivered", "pictures": []}
            for one in self._state.campaigns[-20:]
            for line in one.lines
            if line.sent
        ]
        return sorted(found, key=lambda text: int(text["order"]))

    def _mails(self) -> list[dict[str, Any]]:
        addresses = self._actor.addresses
        found: list[dict[str, Any]] = [
            {
                "order": said.order,
                "at": said.at,
                "box": said.address,
                "mine": True,
                "from": said.address,
                "to": addresses.mail,
                "subject": said.subject,
                "text": said.text,
                "message_id": said.message_id,
                "status": _told(said.status),
            }
            for said in self._state.said[-SHOWN:]
            if said.channel == "email"
        ]
        found += [
            {
                "order": mail.order,
                "at": mail.at,
                "box": recipient,
                "mine": False,
                "from": mail.from_name or mail.from_address,
                "to": recipient,
                "subject": mail.subject,
                "text": mail.text,
                "message_id": mail.message_id,
                "files": [file.name for file in mail.files],
            }
            for mail in self._state.mails[-SHOWN:]
            for recipient in mail.recipients
        ]
        return sorted(found, key=lambda mail: int(mail["order"]))

    def _slack(self) -> dict[str, Any]:
        state = self._state
        posts = [
            {"order": post.order, "at": post.at, "ts": post.ts, "text": post.text, "blocks": post.blocks, "updates": post.updates}
            for post in state.slack_posts[-SHOWN:]
            if not post.deleted
        ]
        notices = [{"order": one.order, "at": one.at, "user": one.user, "text": one.text} for one in state.slack_notices[-SHOWN:]]
        users = [{"id": user.id, "name": user.real_name} for user in state.slack_users.values()]
        return {"channel": state.slack_channel, "users": users, "posts": posts, "notices": notices}

    def picture(self, media_id: str) -> tuple[str, bytes] | None:
        """The content type and bytes of a picture one of the people sent."""
        file = self._state.media.get(media_id)
        return (file.content_type, file.data) if file else None

    # --- what is done ---

    async def act(self, what: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Do one thing as one of the people; returns the hub's status. Raises ValueError with a text for the visitor."""
        actor = self._actor
        if what == "whatsapp":
            person = _person(data)
            picture = self._picture_to_send() if data.get("picture") else None
            return _answer(await actor.whatsapp(person.phone, _text(data, empty=bool(picture)), person.name, picture))
        if what == "sms":
            return _answer(await actor.sms(_person(data).phone, _text(data)))
        if what == "mail":
            person, answers = _person(data), str(data.get("in_reply_to") or "")
            subject = " ".join(str(data.get("subject") or "").split())[:200] or "(no subject)"
            return _answer(await actor.mail(person.email, person.name, subject, _text(data), answers or None))
        if what == "slack":
            post = next((post for post in self._state.slack_posts if post.ts == data.get("ts") and not post.deleted), None)
            if post is None:
                raise ValueError("This post is no longer there.")
            user = str(data.get("user") or next(iter(self._state.slack_users)))
            if user not in self._state.slack_users:
                raise ValueError("Slack knows no such user.")
            return _answer(await actor.slack_click(post, str(data.get("action") or ""), user))
        if what == "campaign":
            return _answer(await actor.campaign([Member(one.name, one.phone, one.email) for one in PEOPLE], self._api_token))
        if what == "planned":
            return _answer(await actor.send_planned())
        if what == "sign-in":
            person = _person(data)
            return {"token": actor.visitor_token(person.user_id, person.name, person.email), "name": person.name}
        if what == "inbox":
            self._state.marks.add("inbox")
            self._state.changed()
            return {"status": 200}
        raise ValueError(f"The sandbox cannot do {what[:40]!r}.")

    def _picture_to_send(self) -> MailFile:
        self._photo = self._photo or parcel_photo()
        return self._photo


def steps(state: SandboxState) -> dict[str, bool]:
    """Which steps of the tour have happened. Each is read from what the stand-ins saw, in its order."""
    wrote = min((said.order for said in state.said if said.channel == "whatsapp" and said.status == 200), default=None)
    writers = {said.address for said in state.said if said.channel == "whatsapp" and said.status == 200}
    if wrote is None:
        return dict.fromkeys(("wrote", "inbox", "skipped", "answered", "resolved", "sent", "sms"), False)
    skipped = {line.phone for one in _after(state.campaigns, wrote) for line in one.lines if line.held}
    resolved = min((h.order for h in state.hooks if h.order > wrote and h.verified and h.type == "hold.released"), default=None)
    later = state.campaigns if resolved is not None else []
    return {
        "wrote": True,
        "inbox": "inbox" in state.marks,
        "skipped": bool(skipped),
        "answered": any(message.order > wrote and message.number in writers for message in state.twilio_messages),
        "resolved": resolved is not None,
        "sent": any(line.sent and line.phone in writers for one in _after(later, resolved or 0) for line in one.lines),
        "sms": any(
            said.channel == "sms" and said.status == 200 and said.address in writers and resolved is not None and said.order > resolved
            for said in state.said
        ),
    }


def held_now(hooks: list[Hook]) -> list[Hook]:
    """The holds that stand: per customer the latest version told, unless that released it. Unverified events count for nothing."""
    latest: dict[str, Hook] = {}
    for hook in hooks:
        known = latest.get(str(hook.data.get("customer_id")))
        if hook.type.startswith("hold.") and hook.verified and (known is None or _version(hook) >= _version(known)):
            latest[str(hook.data.get("customer_id"))] = hook
    return [hook for hook in latest.values() if hook.type != "hold.released"]


def _after(campaigns: list[Campaign], order: int) -> list[Campaign]:
    return [one for one in campaigns if one.order > order]


def _version(hook: Hook) -> int:
    version = hook.data.get("version")
    return version if isinstance(version, int) else 0


def _hook(hook: Hook) -> dict[str, Any]:
    data = hook.data
    identifiers = [one for one in data.get("identifiers") or [] if isinstance(one, dict)]
    values = {str(one.get("value")) for one in identifiers}
    who = next((one.name for one in PEOPLE if values & {one.phone, one.email, one.user_id}), "")
    return {
        "order": hook.order,
        "at": hook.at,
        "type": hook.type,
        "who": who or f"customer {data.get('customer_id', '')}",
        "version": data.get("version"),
        "reasons": [str(reason).replace("_", " ") for reason in data.get("reasons") or []],
        "until": data.get("until"),
        "identifiers": [{name: str(one.get(name, "")) for name in ("kind", "value", "because")} for one in identifiers],
        "problem": hook.problem,
    }


def _campaign_line(line: CampaignLine) -> dict[str, Any]:
    return {"name": line.name, "sent": line.sent, "why": line.why, "held": line.held, "until": line.until}


def _person(data: Mapping[str, Any]) -> Person:
    for person in PEOPLE:
        if person.id == data.get("person"):
            return person
    raise ValueError("Choose one of the people first.")


def _text(data: Mapping[str, Any], *, empty: bool = False) -> str:
    text = str(data.get("text") or "").strip()
    if not text and not empty:
        raise ValueError("Write something first.")
    if len(text) > MAX_TEXT:
        raise ValueError(f"That is longer than {MAX_TEXT} characters. Shorten it.")
    return text


def _told(status: int) -> str:
    if status == 0:
        return "sending"
    return "sent" if 200 <= status < 300 else "failed"


def _answer(answer: HubAnswer) -> dict[str, Any]:
    if 200 <= answer.status < 300:
        return {"status": answer.status}
    if answer.status == 0:
        return {"status": 0, "problem": "The hub could not be reached."}
    return {"status": answer.status, "problem": f"The hub answered {answer.status}. {answer.text[:200]}".strip()}
