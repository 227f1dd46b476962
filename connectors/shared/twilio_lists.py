"""Twilio's message list (https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources): reading it page by
page, and what a listed message would have looked like as a webhook.

Plain HTTP and not the SDK: its pager follows whatever address a page names, and ours must stay on Twilio's own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from connectors.shared.retry_after import retry_after
from hub.contract import Http, NoAnswer, NotSent, Refused, TryLater

PAGE_SIZE = 200  # of at most 1,000; a page with its files is understood and stored well within a minute
MAX_PAGE_BYTES = 8_000_000  # 200 messages of 1,600 characters, each of them escaped
MAX_PAGES = 5_000  # a million messages: a list that never ends is no list
KEPT_PAGES = 10  # of a long list the oldest are kept at hand; what lies between is asked for a second time

Resource = Mapping[str, Any]


class MessageLists:
    """One account's lists, asked for with its credentials at `base_url` and nowhere else."""

    def __init__(self, base_url: str, account_sid: str, authorization: str, http: Http) -> None:
        self._base_url = base_url
        self._account = f"/2010-04-01/Accounts/{account_sid}"
        self._headers = {"Authorization": authorization, "Accept": "application/json"}
        self._http = http

    async def newest_first(self, filters: Mapping[str, str]) -> AsyncIterator[Sequence[Resource]]:
        """The pages as Twilio gives them: by DateSent, the most recent messages first."""
        url: str | None = self._first(filters)
        for _ in range(MAX_PAGES):
            if url is None:
                return
            items, url = await self._page(url)
            yield items
        raise Refused(f"Twilio's list has more than {MAX_PAGES} pages. Ask for a shorter time.")

    async def oldest_first(self, filters: Mapping[str, str]) -> AsyncIterator[Sequence[Resource]]:
        """The same pages in the order things were said.

        The list can be walked only from its newest end. So its pages' addresses are noted on the way, and those whose content was let
        go are asked for again on the way back. The first one is not: it has no token, and new messages move into it meanwhile.
        """
        pages: list[tuple[str, Sequence[Resource] | None]] = []
        url: str | None = self._first(filters)
        while url is not None:
            if len(pages) >= MAX_PAGES:
                raise Refused(f"Twilio's list has more than {MAX_PAGES} pages. Ask for a shorter time.")
            items, following = await self._page(url)
            pages.append((url, items))
            if len(pages) > KEPT_PAGES + 1:
                pages[-KEPT_PAGES - 1] = (pages[-KEPT_PAGES - 1][0], None)
            url = following
        while pages:
            url, kept = pages.pop()
            yield list(reversed(kept if kept is not None else (await self._page(url))[0]))

    async def media(self, message_sid: str) -> Sequence[Resource]:
        """The files of one message, in their order (https://www.twilio.com/docs/messaging/api/media-resource)."""
        answer = await self._get(f"{self._base_url}{self._account}/Messages/{message_sid}/Media.json")
        return _items(answer, "media_list")

    def media_url(self, message_sid: str, media_sid: str) -> str:
        """The address a webhook would have given for this file."""
        return f"{self._base_url}{self._account}/Messages/{message_sid}/Media/{media_sid}"

    def _first(self, filters: Mapping[str, str]) -> str:
        return f"{self._base_url}{self._account}/Messages.json?{urlencode(dict(filters) | {'PageSize': str(PAGE_SIZE)})}"

    async def _page(self, url: str) -> tuple[Sequence[Resource], str | None]:
        answer = await self._get(url)
        following = answer.get("next_page_uri")
        if not following:
            return _items(answer, "messages"), None
        # Our credentials go with it: nowhere but to the account's own resources.
        joined = urljoin(self._base_url + "/", str(following))
        ours, theirs = urlsplit(self._base_url), urlsplit(joined)
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc) or not theirs.path.startswith(ours.path + self._account + "/"):
            raise Refused(f"Twilio's list goes on at {theirs.netloc or 'another address'}, which is not its own. Not followed.")
        return _items(answer, "messages"), joined

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            answer = await self._http.request("GET", url, headers=self._headers, timeout=30.0, max_bytes=MAX_PAGE_BYTES)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Twilio could not be reached: {error}") from error
        if answer.status in (401, 403, 404):
            raise Refused(f"Twilio answered {answer.status}. Check account_sid and auth_token in this channel's settings.")
        if answer.status != 200:
            raise TryLater(f"Twilio answered {answer.status} for its message list.", retry_after(answer.headers))
        try:
            read = json.loads(answer.body)
        except ValueError as error:
            raise TryLater("Twilio's message list cannot be read.") from error
        if not isinstance(read, dict):
            raise TryLater("Twilio's message list cannot be read.")
        return read


def _items(answer: Mapping[str, Any], name: str) -> list[Resource]:
    found = answer.get(name)
    if not isinstance(found, list):
        raise TryLater(f"Twilio's answer names no {name}.")
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("sid"), str)]


def iso(moment: float) -> str:
    """Unix seconds as the list's filters take them."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def when(resource: Resource, *names: str) -> float | None:
    """The first of these times that the resource has, in unix seconds (RFC 2822 there)."""
    for name in names:
        try:
            if resource.get(name):
                return parsedate_to_datetime(str(resource[name])).timestamp()
        except ValueError:
            continue
    return None


def files(resource: Resource) -> int:
    """How many files a message has."""
    said = str(resource.get("num_media") or "0")
    return int(said) if said.isascii() and said.isdigit() else 0


def as_webhook(resource: Resource, media: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The fields Twilio posts for a message (https://www.twilio.com/docs/messaging/guides/webhook-request), as far as the list knows them:
    the sender's profile name, WhatsApp's own id of the sender and a shared location come by webhook only.

    `media` is each file's address and type."""
    form = {
        "MessageSid": str(resource["sid"]),
        "From": str(resource.get("from") or ""),
        "To": str(resource.get("to") or ""),
        "Body": str(resource.get("body") or ""),
        "NumMedia": str(len(media)),
    }
    for number, (url, content_type) in enumerate(media):
        form |= {f"MediaUrl{number}": url, f"MediaContentType{number}": content_type}
    return form
