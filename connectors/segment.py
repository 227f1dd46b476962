"""Segment: a hold is traits of a user, sent by `identify` and passed on to whatever is connected there.

From the vendor's pages [V]: `POST /v1/batch` with Basic authentication by the source's write key, at most 500 KB and 2,500 events a
batch and 32 KB an event, "a 200 response for all API requests except errors caused by large payloads and JSON errors", 429 with
Retry-After, events with the same `messageId` (fewer than 100 characters) counted once
(https://www.twilio.com/docs/segment/connections/sources/catalog/libraries/server/http-api); the host of EU workspaces
(https://segment.com/docs/guides/regional-segment/); a trait that is null is cleared, in the Segment profile (Twilio changelog of
2026-03-30); whether each connected tool clears it is that tool's affair [U].

So nothing here can be confirmed: a wrong write key, an unknown user and a dropped event all answer 200. The hub says so and leaves
such holds at `accepted`. Not here, on purpose: Regulations (suppress, delete), which block all data of a user at Segment.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import SecretStr

from connectors.shared.loopback import is_loopback_url
from connectors.shared.retry_after import retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Pace, Refused, TryLater
from hub.marketing import Check, Fate, Marked, Proved, ReadBack, Step, ToolSettings, Wish

HOSTS: Mapping[str, str] = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}

_TIMEOUT_SECONDS = 15.0
_EVENT_BYTES = 32_000  # 32 KB an event
_MESSAGE_ID_PREFIX = "support-hold-"
_ANONYMOUS_PREFIX = "support-hub-"


class SegmentSettings(ToolSettings):
    """A server source's write key. `user_id` says what this workspace knows its users by."""

    write_key: SecretStr
    region: Literal["us", "eu"] = "us"
    user_id: Literal["external_id", "email"] = "external_id"


class Segment:
    """A destination that identifies users to a Segment source. It cannot be asked anything."""

    Settings: ClassVar[type[ToolSettings]] = SegmentSettings
    label: ClassVar[str] = "Segment"
    kinds: ClassVar[tuple[str, ...]] = ("external_id", "email")
    proved: ClassVar[Proved] = Proved.SPECIFICATION  # against the vendor's own client
    lapse: ClassVar[str] = (
        "Segment keeps support_hold until the hub changes it; a tool behind it lets a hold lapse only if its own filter also asks that "
        "support_hold_until is in the future."
    )
    settles: ClassVar[float] = 0.0
    reads_back: ClassVar[bool] = False
    pace: ClassVar[Pace] = Pace(per_second=50.0, burst=50)  # requests, of the 1,000 a second that a workspace should not exceed

    def __init__(self, settings: SegmentSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._base = (settings.base_url or HOSTS[settings.region]).rstrip("/")
        self._authorization = "Basic " + b64encode(f"{settings.write_key.get_secret_value()}:".encode()).decode()

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Send one `identify` a user, all in one batch. Accepted means that Segment took it, and no more.

        An e-mail address in a workspace that knows its users by id is nobody there that could be named: it is absent, unless
        `create_profiles` lets it become a user without an id, whom Segment joins by the trait `email`.
        """
        answers: list[Marked] = []
        events: dict[str, tuple[int, dict[str, Any]]] = {}  # the user -> the latest event of theirs
        for wish in wishes:
            user = self._user(wish)
            if user is None:
                answers.append(Marked(fate=Fate.ABSENT, error=f"Segment knows its users by {self._settings.user_id} here."))
                continue
            key, keys = user
            event = _event(wish, keys, now)
            if len(json.dumps(event).encode()) > _EVENT_BYTES:
                answers.append(Marked(fate=Fate.REFUSED, error="Segment takes at most 32 KB an event."))
                continue
            if key not in events or wish.version >= events[key][0]:
                events[key] = (wish.version, event)
            answers.append(Marked(fate=Fate.ACCEPTED, profile=key))
        if events:
            await self._send([event for _, event in events.values()], http)
        return answers

    def _user(self, wish: Wish) -> tuple[str, dict[str, Any]] | None:
        """(the id answered as `profile`, what names the user in an event), or None for one who cannot be named."""
        if wish.kind == self._settings.user_id:
            known = {"email": wish.value} if wish.kind == "email" else {}
            return wish.value, {"userId": wish.value, "traits": known}
        if wish.kind == "email" and self._settings.create_profiles:
            anonymous = _ANONYMOUS_PREFIX + hashlib.sha256(wish.value.lower().encode()).hexdigest()[:32]
            return anonymous, {"anonymousId": anonymous, "traits": {"email": wish.value}}
        return None

    async def _send(self, events: Sequence[Mapping[str, Any]], http: Http) -> None:
        """Raises TryLater, or Refused where Segment takes none of it."""
        response = await self._post({"batch": list(events)}, http)
        if 200 <= response.status < 300:
            return
        if response.status in {401, 403}:
            raise Refused(f"Segment does not accept the write key ({response.status}). Mend destinations.{self.name}.write_key.")
        if response.status == 429 or response.status >= 500:
            hint = "asks for fewer calls" if response.status == 429 else "failed at its own end"
            raise TryLater(f"Segment ({self.name}) {hint} ({response.status}). It will be told again.", retry_after(response.headers))
        raise Refused(f"Segment refuses the batch ({response.status}). Is destinations.{self.name}.base_url right?")

    async def _post(self, body: Mapping[str, Any], http: Http) -> HttpResponse:
        headers = {"authorization": self._authorization, "content-type": "application/json"}
        try:
            return await http.request(
                "POST", f"{self._base}/v1/batch", headers=headers, body=json.dumps(body).encode(), timeout=_TIMEOUT_SECONDS
            )
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Segment ({self.name}) was not told: {error} It will be told again.") from error

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """Raises Refused always: a source can be written to and not read."""
        raise Refused(
            f"Segment cannot be asked how a user stands, so the holds at {self.name} stay unconfirmed. Connect the tools behind it."
        )

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Send a batch of no events: whether Segment answers. Whether it knows the write key it does not say."""
        response = await self._post({"batch": []}, http)
        if response.status in {401, 403}:
            text = f"Segment does not accept the write key ({response.status}). Mend destinations.{self.name}.write_key."
            return [Check(name="credentials", ok=False, text=text)]
        if response.status == 429 or response.status >= 500:
            raise TryLater(f"Segment ({self.name}) answered {response.status}.", retry_after(response.headers))
        text = "Segment answers. It answers 200 to a wrong write key too: see in the source's Debugger whether events arrive."
        return [Check(name="reachable", ok=True, text=text)]

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Nothing has to be made: a trait is there once it was sent."""
        return await self.test(http, now)

    def steps(self) -> Sequence[Step]:
        """What a person does in Segment and behind it."""
        return (
            Step(text="Connections > Sources > your source > Debugger: see that an Identify with support_hold arrives after a test."),
            Step(text="Connections > Destinations: see that each marketing tool is connected to this source and passes the traits on."),
            Step(
                text="With Unify: create an audience of held users and exclude it from every campaign of the tools behind Segment.",
                paste="Custom trait support_hold equals true",
            ),
            Step(
                text="In each tool behind Segment, leave out whoever matches. Better, connect that tool to the hub itself: then holds "
                "there are confirmed.",
                paste="support_hold is true AND support_hold_until is in the future",
            ),
        )

    def is_sandbox(self) -> bool:
        """Whether it speaks to a stand-in on this machine."""
        return is_loopback_url(self._base)


def _event(wish: Wish, keys: Mapping[str, Any], now: float) -> dict[str, Any]:
    """One `identify`. Its id follows from what it says, so that a repeat is counted once."""
    traits: dict[str, Any] = {
        **keys["traits"],
        **wish.traits,
        "support_hold": wish.held,
        "support_hold_until": wish.until if wish.held else None,
        "support_hold_reason": ", ".join(wish.reasons) if wish.held else None,
        "support_hold_version": wish.version,
    }
    said = {**keys, "traits": traits}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:40]
    return {
        "type": "identify",
        **said,
        "messageId": f"{_MESSAGE_ID_PREFIX}{wish.version}-{digest}",
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "context": {"library": {"name": "support-hub"}},
    }
