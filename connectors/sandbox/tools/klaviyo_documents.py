"""JSON:API documents as Klaviyo answers them: one resource, a page of a collection with its cursors, errors.

https://developers.klaviyo.com/en/reference/api_overview (sparse fieldsets, pagination) and
https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling (errors).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

Resource = dict[str, Any]
JSON_API = "application/vnd.api+json"


def resource_in(body: bytes, type: str) -> dict[str, Any] | web.Response:
    """The resource of a request, or why it is none."""
    try:
        data = json.loads(body)["data"]
        if data["type"] == type and isinstance(data["attributes"], dict):
            return dict(data)
    except (ValueError, KeyError, TypeError):
        pass
    return failure(400, "invalid", "Invalid input.", f"The body must hold a resource of type {type}.", pointer="/data")


def _sparse(request: web.Request, resource: Resource) -> Resource:
    """The resource with the fields that were asked for (`fields[type]`)."""
    asked = request.query.get(f"fields[{resource['type']}]")
    if asked is None or "attributes" not in resource:
        return resource
    names = set(asked.split(","))
    return resource | {"attributes": {name: value for name, value in resource["attributes"].items() if name in names}}


def single(request: web.Request, resource: Resource, status: int = 200) -> web.Response:
    """A document of one resource."""
    document = {"data": _sparse(request, resource), "links": {"self": str(request.url)}}
    return web.json_response(document, status=status, content_type=JSON_API)


def collection(
    request: web.Request,
    resources: Sequence[Resource],
    size: int,
    largest: int,
    included: Callable[[Sequence[Resource]], list[Resource]] | None = None,
) -> web.Response:
    """One page of a collection, by cursor."""
    asked = request.query.get("page[size]", str(size))
    if not asked.isdecimal() or not 1 <= int(asked) <= largest:
        return failure(400, "invalid", "Invalid input.", f"Page size must be between 1 and {largest}.", parameter="page[size]")
    try:
        start = int(base64.urlsafe_b64decode(request.query.get("page[cursor]", "") or "MA=="))
    except ValueError:
        return failure(400, "invalid", "Invalid input.", "Invalid cursor.", parameter="page[cursor]")
    page, end = resources[start : start + int(asked)], start + int(asked)
    following = request.url.update_query({"page[cursor]": base64.urlsafe_b64encode(str(end).encode()).decode()})
    links = {"self": str(request.url), "next": str(following) if end < len(resources) else None, "prev": None}
    document: dict[str, Any] = {"data": [_sparse(request, one) for one in page], "links": links}
    if included is not None:
        document["included"] = [_sparse(request, one) for one in included(page)]
    return web.json_response(document, content_type=JSON_API)


def missing(type: str, request: web.Request) -> web.Response:
    """404 of the resource that the address names."""
    return failure(404, "not_found", "Not found.", f"A {type} with id {request.match_info['id']} does not exist.")


def failure(
    status: int, code: str, title: str, detail: str, *, pointer: str = "/data/", parameter: str = "", retry_after: str = ""
) -> web.Response:
    """An errors document of one error."""
    source = {"parameter": parameter} if parameter else {"pointer": pointer}
    error = {"id": "8f3d2c1a-0d5e-4c4b-9a55-7d1f0f6f2b10", "status": status, "code": code, "title": title, "detail": detail}
    document = {"errors": [error | {"source": source, "links": {}, "meta": {}}]}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return web.json_response(document, status=status, headers=headers, content_type=JSON_API)
