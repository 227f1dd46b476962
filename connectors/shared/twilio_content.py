"""Twilio's Content API: the templates of an account and what WhatsApp thinks of them (https://www.twilio.com/docs/content/content-api-resources).

Plain HTTP and not the SDK, as for the message list: its pager follows whatever address a page names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from connectors.shared.retry_after import retry_after
from connectors.shared.twilio_settings import TwilioSettings
from connectors.shared.twilio_webhook import clean
from hub.contract import Http, NoAnswer, NotSent, Refused, Template, TryLater

PAGE_SIZE = 200  # of at most 1,000
MAX_PAGE_BYTES = 8_000_000
MAX_PAGES = 100  # WhatsApp takes at most 6,000 templates of one account

CONTENT_SID = re.compile(r"HX[0-9a-fA-F]{32}")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")

# Which of a content's several shapes WhatsApp shows: the richest it was made in (https://www.twilio.com/docs/content/content-types-overview).
_SHAPES = (
    *("whatsapp/card", "whatsapp/flows", "whatsapp/authentication", "twilio/card", "twilio/carousel", "twilio/catalog"),
    *("twilio/list-picker", "twilio/call-to-action", "twilio/quick-reply", "twilio/media", "twilio/text"),
)

# Categories from before Meta renamed them in 2023.
_CATEGORIES = {"transactional": "utility", "otp": "authentication", "account_update": "utility"}


async def read_templates(settings: TwilioSettings, http: Http) -> Sequence[Template]:
    """All templates of the account, page by page. Raises TryLater or Refused."""
    url: str | None = f"{settings.content_url}/v1/ContentAndApprovals?PageSize={PAGE_SIZE}"
    read: list[Template] = []
    for _ in range(MAX_PAGES):
        if url is None:
            return read
        answer = await _get(url, settings, http)
        contents = answer.get("contents")
        if not isinstance(contents, list):
            raise TryLater("Twilio's answer names no contents.")
        read += [made for one in contents if isinstance(one, dict) and (made := template(one)) is not None]
        url = _following(answer, settings)
    raise Refused(f"Twilio's list of templates has more than {MAX_PAGES} pages.")


def template(content: Mapping[str, Any]) -> Template | None:
    """One Content resource as a template; None where it has no id or no words. Pure."""
    sid, types = content.get("sid"), content.get("types")
    if not isinstance(sid, str) or not CONTENT_SID.fullmatch(sid) or not isinstance(types, dict):
        return None
    name = next((shape for shape in _SHAPES if isinstance(types.get(shape), dict)), "")
    shape = types[name] if name else next((one for one in types.values() if isinstance(one, dict)), {})
    approval = content.get("approval_requests")
    approval = approval if isinstance(approval, dict) else {}
    state = _word(approval.get("status")).lower() or "unsubmitted"
    category = _word(approval.get("category")).lower()
    header = _word(shape.get("header_text"))
    body = _word(shape.get("body")) or _word(shape.get("title"))
    text = "\n".join([body, _word(shape.get("subtitle")) if name == "twilio/card" and not shape.get("body") else ""]).strip()
    samples = content.get("variables")
    samples = {str(key): _word(value) for key, value in samples.items()} if isinstance(samples, dict) else {}
    if not text and name != "whatsapp/authentication":
        return None
    return Template(
        id=sid,
        name=_word(content.get("friendly_name")) or _word(approval.get("name")) or sid,
        language=_word(content.get("language")),
        category=_CATEGORIES.get(category, category),
        approved=state == "approved",
        state=state,
        text=_spelt(text) if text else "(a code WhatsApp puts in)",
        header=_spelt(header),
        footer=_word(shape.get("footer")) or _word(shape.get("subtitle") if name != "twilio/card" else ""),
        buttons=tuple(_buttons(shape)),
        variables=_variables(header, text, shape),
        samples=samples,
    )


def _buttons(shape: Mapping[str, Any]) -> Iterator[str]:
    for action in shape.get("actions") or ():
        if isinstance(action, dict) and (title := _word(action.get("title")) or _word(action.get("copy_code_text"))):
            yield title
    if title := _word(shape.get("button")):
        yield title


def _variables(header: str, text: str, shape: Mapping[str, Any]) -> tuple[str, ...]:
    """Every variable that must be filled, those of the header and the text first: Twilio sends nothing (error 21656) where one in a
    button's or a picture's address is missing."""
    return tuple(dict.fromkeys(_VARIABLE.findall("\n".join([header, text, json.dumps(shape, ensure_ascii=False)]))))


def _spelt(text: str) -> str:
    return _VARIABLE.sub(lambda found: "{{" + found[1] + "}}", text)


def _word(value: Any) -> str:
    return clean(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def _following(answer: Mapping[str, Any], settings: TwilioSettings) -> str | None:
    meta = answer.get("meta")
    following = meta.get("next_page_url") if isinstance(meta, dict) else None
    if not following:
        return None
    # Our credentials go with it: nowhere but to the list it came from.
    joined = urljoin(settings.content_url + "/", str(following))
    ours, theirs = urlsplit(settings.content_url), urlsplit(joined)
    if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc) or theirs.path != ours.path + "/v1/ContentAndApprovals":
        raise Refused(f"Twilio's list of templates goes on at {theirs.netloc or 'another address'}, which is not its own. Not followed.")
    return joined


async def _get(url: str, settings: TwilioSettings, http: Http) -> Mapping[str, Any]:
    headers = {"Authorization": settings.authorization, "Accept": "application/json"}
    try:
        answer = await http.request("GET", url, headers=headers, timeout=30.0, max_bytes=MAX_PAGE_BYTES)
    except (NotSent, NoAnswer) as error:
        raise TryLater(f"Twilio could not be reached: {error}") from error
    if answer.status in (401, 403, 404):
        raise Refused(f"Twilio answered {answer.status} for its templates. Check account_sid and auth_token in this channel's settings.")
    if answer.status != 200:
        raise TryLater(f"Twilio answered {answer.status} for its templates.", retry_after(answer.headers))
    try:
        read = json.loads(answer.body)
    except ValueError as error:
        raise TryLater("Twilio's list of templates cannot be read.") from error
    if not isinstance(read, dict):
        raise TryLater("Twilio's list of templates cannot be read.")
    return read
