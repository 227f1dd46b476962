"""The templates of the stand-in's account, as Twilio's Content API lists them (https://www.twilio.com/docs/content/content-api-resources)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_VARIABLE = re.compile(r"\{\{(\w+)\}\}")
_DATE = "2026-01-07T09:00:00Z"


def _content(
    number: int, name: str, category: str, status: str, kind: str, shape: Mapping[str, Any], samples: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "sid": f"HX{number:032x}",
        "date_created": _DATE,
        "date_updated": _DATE,
        "friendly_name": name,
        "language": "en",
        "variables": dict(samples),
        "types": {kind: dict(shape)},
        "approval_requests": {
            "name": name,
            "category": category,
            "content_type": kind,
            "status": status,
            "rejection_reason": "The text promotes a product." if status == "rejected" else "",
            "allow_category_change": True,
        },
    }


CONTENTS = (
    _content(
        *(1, "continue_conversation", "UTILITY", "approved", "twilio/quick-reply"),
        {
            "body": "Hi {{1}}, we have news about your question. Shall we go on here?",
            "actions": [{"title": "Yes, please", "id": "go_on"}, {"title": "Not now", "id": "later"}],
        },
        {"1": "Ann"},
    ),
    _content(
        *(2, "order_shipped", "UTILITY", "approved", "twilio/text"),
        {"body": "Hi {{1}}, order {{2}} has left our warehouse and should reach you on {{3}}."},
        {"1": "Ann", "2": "A-1042", "3": "Friday"},
    ),
    _content(
        *(3, "spring_sale", "MARKETING", "rejected", "twilio/text"),
        {"body": "Hi {{1}}, everything is 20% off this week!"},
        {"1": "Ann"},
    ),
    _content(
        *(4, "refund_made", "UTILITY", "pending", "twilio/text"),
        {"body": "Hi {{1}}, we have refunded {{2}}. It takes up to five days to arrive."},
        {"1": "Ann", "2": "\u20ac20"},
    ),
)


def content_page(account_sid: str, url: str) -> dict[str, Any]:
    """The whole list as its one page, `url` being where it was asked for."""
    contents = [content | {"account_sid": account_sid} for content in CONTENTS]
    meta = {"page": 0, "page_size": 50, "first_page_url": url, "previous_page_url": None, "next_page_url": None, "url": url}
    return {"contents": contents, "meta": meta | {"key": "contents"}}


def rendered(sid: str, variables: str) -> str:
    """What a customer reads of a template with these ContentVariables (JSON). Raises KeyError where there is no such template or one
    of its variables is missing, ValueError where they are no JSON object of texts."""
    [shape] = {content["sid"]: content["types"] for content in CONTENTS}[sid].values()
    values = json.loads(variables or "{}")
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError("ContentVariables is no JSON object of texts")
    return _VARIABLE.sub(lambda found: str(values[found[1]]), str(shape["body"]))
