"""Slack's Web API as far as the room uses it (https://docs.slack.dev/reference/methods), on loopback."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from connectors.sandbox.state import SandboxState, SlackNotice, SlackPost
from connectors.sandbox.twilio import hang_up

TEAM = "T0SANDBOX"
BOT_USER = "U0HUBBOT"
BOT = "B0HUBBOT"
APP = "A0HUB"


class SlackStandIn:
    """Keeps posts, updates and private notices; refuses in Slack's words, which come with status 200."""

    def __init__(self, state: SandboxState, bot_token: str) -> None:
        self._state = state
        self._token = bot_token
        self._methods = {
            "api.test": self._api_test,
            "auth.test": self._auth_test,
            "users.info": self._users_info,
            "users.lookupByEmail": self._users_lookup,
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "chat.delete": self._delete,
            "chat.postEphemeral": self._ephemeral,
        }

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/slack/api/{method}", self.call)
        app.router.add_get("/slack/api/{method}", self.call)
        app.router.add_post("/slack/response/{user}/{ts}", self.respond)

    async def call(self, request: web.Request) -> web.StreamResponse:
        """One method call: arguments as JSON, as a form or in the query; bearer token in the header."""
        arguments = await _arguments(request)
        failure = self._state.take_failure("slack")
        if failure is not None and failure.status != "drop":
            error = "ratelimited" if failure.status == 429 else "internal_error"
            wait = failure.retry_after if failure.retry_after is not None else (1 if failure.status == 429 else None)
            headers = {} if wait is None else {"Retry-After": str(wait)}
            return web.json_response({"ok": False, "error": error}, status=failure.status, headers=headers)
        bearer = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        method = self._methods.get(request.match_info["method"])
        if not bearer:
            answer = _no("not_authed")
        elif not hmac.compare_digest(bearer, b"Bearer " + self._token.encode()):
            answer = _no("invalid_auth")
        elif method is None:
            answer = _no("unknown_method")
        elif arguments is None:
            answer = _no("invalid_json")
        else:
            answer = method(arguments)
        if failure is not None:
            return hang_up(request)
        return web.json_response(answer)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """A `response_url`: a private answer to one click, or (`replace_original`) the post's new content."""
        arguments = await _arguments(request) or {}
        post = self._find(arguments.get("channel"), request.match_info["ts"])
        if arguments.get("replace_original") and post is not None:
            self._rewrite(post, arguments)
        else:
            self._notice(request.match_info["user"], arguments)
        return web.Response(text="ok")

    def _find(self, channel: object, ts: object) -> SlackPost | None:
        for post in self._state.slack_posts:
            if post.ts == ts and channel in (None, post.channel) and not post.deleted:
                return post
        return None

    def _api_test(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {"ok": True, "args": dict(arguments)}

    def _auth_test(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "ok": True,
            "url": "https://sandbox.slack.com/",
            "team": "Sandbox",
            "user": "support-hub",
            "team_id": TEAM,
            "user_id": BOT_USER,
            "bot_id": BOT,
            "is_enterprise_install": False,
        }

    def _users_info(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._user(str(arguments.get("user", "")), "user_not_found")

    def _users_lookup(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        email = str(arguments.get("email", "")).lower()
        found = next((user.id for user in self._state.slack_users.values() if user.email.lower() == email), "")
        return self._user(found, "users_not_found")

    def _user(self, user_id: str, missing: str) -> dict[str, Any]:
        user = self._state.slack_users.get(user_id)
        if user is None:
            return _no(missing)
        profile = {"real_name": user.real_name, "display_name": user.name, "email": user.email, "team": TEAM}
        flags = {"deleted": False, "is_bot": False, "is_admin": False, "is_app_user": False}
        about = {"id": user.id, "team_id": TEAM, "name": user.name, "real_name": user.real_name, "tz": "Etc/UTC", "profile": profile}
        return {"ok": True, "user": about | flags}

    def _post(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        blocks = _blocks(arguments)
        if not arguments.get("channel"):
            return _no("channel_not_found")
        if blocks is None:
            return _no("invalid_blocks_format")
        if not arguments.get("text") and not blocks:
            return _no("no_text")
        order, at = self._state.next_order(), self._state.clock()
        post = SlackPost(
            order=order,
            at=at,
            channel=str(arguments["channel"]),
            ts=f"{int(at)}.{order:06d}",  # unique within a channel, growing: Slack's own shape
            text=str(arguments.get("text") or ""),
            blocks=blocks,
            thread_ts=str(arguments.get("thread_ts") or ""),
        )
        self._state.slack_posts.append(post)
        self._state.changed()
        return {"ok": True, "channel": post.channel, "ts": post.ts, "message": shown(post)}

    def _update(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        post = self._find(arguments.get("channel"), arguments.get("ts"))
        if post is None:
            return _no("message_not_found")
        if _blocks(arguments) is None:
            return _no("invalid_blocks_format")
        self._rewrite(post, arguments)
        return {"ok": True, "channel": post.channel, "ts": post.ts, "text": post.text, "message": shown(post)}

    def _delete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        post = self._find(arguments.get("channel"), arguments.get("ts"))
        if post is None:
            return _no("message_not_found")
        post.deleted = True
        self._state.changed()
        return {"ok": True, "channel": post.channel, "ts": post.ts}

    def _ephemeral(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if not arguments.get("channel"):
            return _no("channel_not_found")
        if arguments.get("user") not in self._state.slack_users:
            return _no("user_not_in_channel")
        notice = self._notice(str(arguments["user"]), arguments)
        return {"ok": True, "message_ts": f"{int(notice.at)}.{notice.order:06d}"}

    def _rewrite(self, post: SlackPost, arguments: Mapping[str, Any]) -> None:
        post.text = str(arguments.get("text") or "")
        post.blocks = _blocks(arguments) or []
        post.updates += 1
        self._state.changed()

    def _notice(self, user: str, arguments: Mapping[str, Any]) -> SlackNotice:
        notice = SlackNotice(
            order=self._state.next_order(),
            at=self._state.clock(),
            user=user,
            text=str(arguments.get("text") or ""),
            blocks=_blocks(arguments) or [],
        )
        self._state.slack_notices.append(notice)
        self._state.changed()
        return notice


def shown(post: SlackPost) -> dict[str, Any]:
    """A post as Slack's API shows it."""
    message: dict[str, Any] = {
        "type": "message",
        "user": BOT_USER,
        "bot_id": BOT,
        "app_id": APP,
        "team": TEAM,
        "ts": post.ts,
        "text": post.text,
        "blocks": post.blocks,
    }
    return message | ({"thread_ts": post.thread_ts} if post.thread_ts else {})


def _no(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


async def _arguments(request: web.Request) -> dict[str, Any] | None:
    """What a call was given, whichever of the three ways it came by; None where its JSON is none."""
    found: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = json.loads(await request.read() or b"{}")
        except ValueError:
            return None
        if not isinstance(body, dict):
            return None
        found.update(body)
    elif request.method == "POST":
        found.update(await request.post())
    return found


def _blocks(arguments: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The blocks of a message: a list, or a list as JSON text in a form; None where they are neither."""
    blocks = arguments.get("blocks") or []
    if isinstance(blocks, str):
        try:
            blocks = json.loads(blocks)
        except ValueError:
            return None
    if not isinstance(blocks, list) or not all(isinstance(block, dict) and "type" in block for block in blocks):
        return None
    return blocks
