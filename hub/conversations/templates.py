"""Approved templates filled in: how the message will read, and what its provider is told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hub.contract import Template, TemplateUse
from hub.policy import Refusal

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_]{1,60})\s*\}\}")


def chosen(templates: Iterable[Template], id_: str, language: str = "") -> Template:
    """The template of this id (and language, where there are several). Raises Refusal."""
    named = [one for one in templates if one.id == id_ and (not language or one.language == language)]
    if not named:
        raise Refusal("There is no such template any more. Choose another one.")
    if not named[0].approved:
        raise Refusal(f"The template {named[0].name} is not approved (it is {named[0].state}). Choose another one.")
    return named[0]


def fill(template: Template, variables: Mapping[str, str]) -> tuple[str, TemplateUse]:
    """How it reads, and how it is sent. Raises Refusal where a variable is left empty or holds a line break."""
    given = {name: variables.get(name, "").strip() for name in template.variables}
    empty = [name for name, value in given.items() if not value]
    if empty:
        raise Refusal(f"Fill in {', '.join(empty)}: the template {template.name} cannot be sent without.")
    # https://developers.facebook.com/docs/whatsapp (error 132018): no line breaks, tabs or more than four blanks in a variable.
    wrong = [name for name, value in given.items() if re.search(r"[\n\r\t]| {5}", value)]
    if wrong:
        raise Refusal(f"{wrong[0]} must be one line without tabs or long gaps.")

    def put(text: str) -> str:
        return _VARIABLE.sub(lambda match: given.get(match[1], match[0]), text)

    header = "" if template.header.startswith("<") else put(template.header)
    lines = [line for line in (header, put(template.text), template.footer) if line]
    return "\n\n".join(lines), TemplateUse(template.id, template.language, given, template.header)
