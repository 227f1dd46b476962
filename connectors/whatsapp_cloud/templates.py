"""The message templates of a WhatsApp business account.

https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/template-management
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from connectors.whatsapp_cloud.api import Graph
from connectors.whatsapp_cloud.content import Fields, fields, items, word
from connectors.whatsapp_cloud.outgoing import HEADER
from hub.contract import Refused, Template, TryLater

PAGE_SIZE = 100
MAX_PAGES = 100  # an account has at most 6,000 templates
ASKED = "name,language,status,category,components,parameter_format"

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_]{1,60})\s*\}\}")
_MEDIA_HEADERS = {"IMAGE": "<image>", "VIDEO": "<video>", "DOCUMENT": "<document>", "LOCATION": "<location>"}
# What an agent's composer has nothing to fill in with.
_BEYOND = {
    "CAROUSEL": "a carousel, which is not sent from here",
    "LIMITED_TIME_OFFER": "a limited offer, which is not sent from here",
    "CALL_PERMISSION_REQUEST": "a question about calls, which is not sent from here",
}
_BEYOND_BUTTONS = {"MPM": "a list of products, which is not sent from here", "SPM": "a product, which is not sent from here"}
_BEYOND_BUTTONS["ORDER_DETAILS"] = "an order to pay, which is not sent from here"


async def read_templates(graph: Graph, waba_id: str) -> Sequence[Template]:
    """All templates of the account, page by page. Raises TryLater or Refused.

    The address of the next page is not followed, since it may carry the token: only its cursor is taken."""
    after, read = "", []
    for _ in range(MAX_PAGES):
        query = {"fields": ASKED, "limit": str(PAGE_SIZE)} | ({"after": after} if after else {})
        answer = await graph.get(f"{waba_id}/message_templates", query)
        if not isinstance(answer.get("data"), list):
            raise TryLater("Meta's answer names no templates.")
        read += [made for one in items(answer["data"]) if (made := template(one)) is not None]
        paging = fields(answer.get("paging"))
        following = word(fields(paging.get("cursors")).get("after"))
        if not paging.get("next") or not following or following == after:
            return read
        after = following
    raise Refused(f"Meta's list of templates has more than {MAX_PAGES} pages.")


def template(told: Fields) -> Template | None:
    """One template in our words; None where it has no name. Pure.

    Meta counts the variables of header and body apart, so those of the header are called `header_1` (or `header_name`) here; those of
    buttons `button_0_url` (what comes behind the address) and `button_0_code`.
    """
    name, language = word(told.get("name")), word(told.get("language"))
    if not name or not language:
        return None
    parts = items(told.get("components"))
    kinds = {word(part.get("type")).upper(): part for part in parts}
    header, body = kinds.get("HEADER", {}), kinds.get("BODY", {})
    buttons = items(kinds.get("BUTTONS", {}).get("buttons"))
    form = word(header.get("format")).upper()
    shown = _MEDIA_HEADERS.get(form) or (f"<{form.lower()}>" if form not in ("", "TEXT") else _spelt(word(header.get("text")), HEADER))
    text = _spelt(word(body.get("text"))) or ("(a code WhatsApp puts in)" if word(told.get("category")).upper() == "AUTHENTICATION" else "")
    state = word(told.get("status")).lower() or "unknown"
    beyond = next(_beyond(kinds, buttons, shown), "")
    named = [*_names(shown), *_names(text)]
    extra = dict(_button_variables(buttons))
    return Template(
        id=name,
        name=name,
        language=language,
        category=word(told.get("category")).lower(),
        approved=state == "approved" and not beyond,
        state=f"{state}, but {beyond}" if beyond else state,
        text=text,
        header=shown,
        footer=word(kinds.get("FOOTER", {}).get("text")),
        buttons=tuple(filter(None, (word(one.get("text")) for one in buttons))),
        variables=tuple(dict.fromkeys([*named, *extra])),
        samples={key: value for key, value in (_samples(header, body) | extra).items() if value},
    )


def _beyond(kinds: Mapping[str, Fields], buttons: Sequence[Fields], header: str) -> Iterator[str]:
    yield from (why for kind, why in _BEYOND.items() if kind in kinds)
    yield from (why for one in buttons if (why := _BEYOND_BUTTONS.get(word(one.get("type")).upper())))
    if header == "<location>" or (header.startswith("<") and header not in _MEDIA_HEADERS.values()):
        yield f"one that begins with {header.strip('<>')}, which is not sent from here"


def _spelt(text: str, prefix: str = "") -> str:
    return _VARIABLE.sub(lambda found: "{{" + prefix + found[1] + "}}", text)


def _names(text: str) -> list[str]:
    found = list(dict.fromkeys(_VARIABLE.findall(text)))
    return sorted(found, key=int) if all(name.isdigit() for name in found) else found


def _button_variables(buttons: Sequence[Fields]) -> Iterator[tuple[str, str]]:
    """Their names, with Meta's example where there is one."""
    for index, one in enumerate(buttons[:10]):
        kind = word(one.get("type")).upper()
        example = one.get("example")
        sample = word(example[0]) if isinstance(example, list) and example else word(example)
        if kind == "COPY_CODE":
            yield f"button_{index}_code", sample
        elif (kind == "URL" and _VARIABLE.search(word(one.get("url")))) or kind == "OTP":
            # The example is a whole address; a variable is only what comes behind the fixed part.
            fixed = word(one.get("url")).partition("{{")[0]
            yield f"button_{index}_url", sample.removeprefix(fixed) if fixed else sample


def _samples(header: Fields, body: Fields) -> dict[str, str]:
    shown, said = fields(header.get("example")), fields(body.get("example"))
    samples = dict(_numbered(shown.get("header_text"), HEADER)) | _named(shown.get("header_text_named_params"), HEADER)
    lists = said.get("body_text")
    first = lists[0] if isinstance(lists, list) and lists and isinstance(lists[0], list) else lists
    return samples | dict(_numbered(first)) | _named(said.get("body_text_named_params"))


def _numbered(values: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, list):
        yield from ((f"{prefix}{place}", word(value)) for place, value in enumerate(values, 1))


def _named(values: object, prefix: str = "") -> dict[str, str]:
    return {prefix + word(one.get("param_name")): word(one.get("example")) for one in items(values) if word(one.get("param_name"))}
