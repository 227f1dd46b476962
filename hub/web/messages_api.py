"""Messages nobody asked for, by a program: `POST /api/v1/messages` writes into the customer's one conversation, or says why not."""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from hub.contract import TemplateUse
from hub.conversations.proactive import Write
from hub.holds.gate import KINDS, BadQuestion, ask
from hub.policy import Refusal
from hub.web.api import problem
from hub.web.auth import require_token
from hub.web.context import HUB
from hub.web.customers_api import Strict, answer, body_of
from hub.web.message_templates import TEMPLATES

routes = web.RouteTableDef()


class To(Strict):
    """Whom to write to: exactly one address, as the business knows it."""

    email: str = Field("", max_length=320)
    phone: str = Field("", max_length=40)
    wa_user_id: str = Field("", max_length=200)
    external_id: str = Field("", max_length=300)
    site: str = Field("", max_length=60)


class Chosen(Strict):
    """An approved template of the channel, with its variables by name."""

    id: str = Field(min_length=1, max_length=600)
    language: str = Field("", max_length=20)
    variables: dict[str, str] = Field(default_factory=dict, max_length=50)


class MessageRequest(Strict):
    """The body of `POST /api/v1/messages`: either `text` or a `template`. `marketing`: it is advertising, so a hold or an opt-out of
    marketing forbids it too."""

    channel: str = Field(min_length=1, max_length=41)
    to: To
    text: str = Field("", max_length=200_000)
    subject: str = Field("", max_length=300)
    template: Chosen | None = None
    marketing: bool = False


@routes.post("/api/v1/messages")
async def write(request: web.Request) -> web.Response:
    """Write to one address. An `Idempotency-Key` is required: the same key again sends nothing twice and answers as before. 201 with the
    message's and the customer's number; 409 where it may not go now, with the reason."""
    await require_token(request)
    hub, key = request.app[HUB], request.headers.get("Idempotency-Key", "").strip()
    if not 1 <= len(key) <= 200:
        raise BadQuestion("Send an Idempotency-Key header of 1 to 200 characters, the same on every try of this message.")
    asked = await body_of(request, MessageRequest)
    bound = hub.channels.get(asked.channel)
    if bound is None:
        raise BadQuestion(f"channel: there is none named {asked.channel}. One of: {', '.join(hub.channels)}.")
    given = [(name, value) for name in KINDS if name != "site" and (value := getattr(asked.to, name, ""))]
    if len(given) != 1:
        raise BadQuestion(f"to: name exactly one of {', '.join(KINDS)}.")
    one = ask(given[0][0], given[0][1], asked.to.site)
    if one.value is None:
        raise BadQuestion(f"to.{given[0][0]}: this cannot be read as one. A phone number needs its country code.")
    if (asked.template is None) == (not asked.text.strip()):
        raise BadQuestion("Give either a text or a template.")
    text, use = asked.text, None
    try:
        if asked.template is not None:
            chosen = asked.template
            text, use = await request.app[TEMPLATES].filled(hub, bound, chosen.id, chosen.language, chosen.variables)
        sent = await hub.writer.run(_work(bound.rule.id, KINDS[one.name], one.value, one.site, asked, text, use, key))
    except Refusal as refusal:
        return problem(409, str(refusal))
    told = {"message_id": sent.message_id, "customer_id": sent.customer_id, "duplicate": sent.duplicate}
    return answer(told, status=200 if sent.duplicate else 201)


def _work(channel_id: int, kind: str, value: str, site: str, asked: MessageRequest, text: str, use: TemplateUse | None, key: str) -> Write:
    return Write(channel_id, kind, value, text, key, subject=asked.subject, site=site, template=use, marketing=asked.marketing)


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
