"""Klaviyo's filter language, as its stand-in reads it: https://developers.klaviyo.com/en/docs/filtering_ (operator(field,literal),
joined by commas or `and`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_NAME = re.compile(r"[a-z][a-z-]*(?=\()")
_FIELD = re.compile(r"\s*([A-Za-z_][\w.]*)\s*,")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
_BARE = re.compile(r"[^,()\[\]\s]+")


class BadFilter(Exception):
    """A filter that Klaviyo would not take; the text says why."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One `op(field,value)`; the value of `any` is a list."""

    op: str
    field: str
    value: Any


def parse(text: str, allowed: Mapping[str, str]) -> list[Condition]:
    """The conditions of a filter, all of which must hold. `allowed` gives each field's operators. Raises BadFilter."""
    found: list[Condition] = []
    at = _conditions(text, 0, found) if text else 0
    if at != len(text):
        raise BadFilter(f"Invalid filter at character {at}.")
    for one in found:
        if one.op not in allowed.get(one.field, "").split():
            raise BadFilter(f"Filter operator {one.op} is not allowed for the field {one.field}.")
    return found


def matches(conditions: Iterable[Condition], record: Mapping[str, Any]) -> bool:
    """Whether a record meets all of them."""
    return all(_meets(one, record.get(one.field)) for one in conditions)


def _meets(condition: Condition, value: Any) -> bool:
    wanted = condition.value
    match condition.op:
        case "any" | "equals":
            return value is not None and value in (wanted if isinstance(wanted, list) else [wanted])
        case "contains":
            return str(wanted) in str(value)
        case "greater-or-equal":
            return bool(value >= _number(wanted))
        case "greater-than":
            return bool(value > _number(wanted))
        case "less-or-equal":
            return bool(value <= _number(wanted))
        case "less-than":
            return bool(value < _number(wanted))
    return False


def _number(value: Any) -> float:
    """A number, or the unix seconds of a time."""
    try:
        return float(value) if isinstance(value, int | float) else datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        raise BadFilter(f"{value} is neither a number nor a time.") from None


def _conditions(text: str, at: int, found: list[Condition]) -> int:
    """Read conditions joined by commas; returns where they end."""
    while True:
        name = _NAME.match(text, at)
        if name is None:
            raise BadFilter(f"Invalid filter at character {at}.")
        at = name.end() + 1
        if name[0] == "and":
            at = _conditions(text, at, found)
        else:
            field = _FIELD.match(text, at)
            if field is None:
                raise BadFilter(f"Invalid filter at character {at}.")
            value, at = _value(text, field.end())
            found.append(Condition(name[0], field[1], value))
        if text[at : at + 1] != ")":
            raise BadFilter(f"Invalid filter at character {at}.")
        at += 1
        if text[at : at + 1] != ",":
            return at
        at += 1


def _value(text: str, at: int) -> tuple[Any, int]:
    if text[at : at + 1] == "[":
        values: list[Any] = []
        at += 1
        while text[at : at + 1] != "]":
            value, at = _value(text, at)
            values.append(value)
            at += text[at : at + 1] == ","
            if at >= len(text):
                raise BadFilter("A list does not end.")
        return values, at + 1
    if said := _TEXT.match(text, at):
        inner = said[0][1:-1]
        return (json.loads(said[0]) if said[0][0] == '"' else inner.replace("\\'", "'").replace("\\\\", "\\")), said.end()
    if bare := _BARE.match(text, at):
        word = bare[0]
        if word in ("true", "false"):
            return word == "true", bare.end()
        return (float(word) if re.fullmatch(r"-?\d+(\.\d+)?", word) else word), bare.end()
    raise BadFilter(f"Invalid filter at character {at}.")
