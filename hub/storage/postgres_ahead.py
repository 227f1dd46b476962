"""What nearly every batch asks of PostgreSQL, in one crossing: ids, the time, and everything around the conversations it locked.

A batch asks some eight questions one after another, and a crossing costs more than an answer (docs/performance.md). Here they are
one statement, whose rows travel as JSON; `lookups` asks as ever and is answered from it. What it does not cover is asked by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from hub.storage.columns import COLUMNS
from hub.storage.facts import Needs
from hub.storage.lookups import Query, Rows
from hub.storage.postgres_statements import BY_KEYS, DRAW, DRAWN, PAIRED, Asked

_AFTER_DRAW = len(DRAWN)


def _rows(table: str, alias: str, source: str) -> str:
    columns = ", ".join(f'{alias}."{name}"' for name in COLUMNS[table])
    return f"(SELECT coalesce(json_agg(json_build_array({columns})), '[]') FROM {source} AS {alias})"  # noqa: S608


def _numbered(statement: str, first: int) -> str:
    """A statement with its parameters counted from `first` on."""
    return re.sub(r"\$(\d)", lambda found: f"${first + int(found[1]) - 1}", statement)


_DEDUPE, _IDENTIFIERS, _LOCKED = _AFTER_DRAW + 1, _AFTER_DRAW + 3, _AFTER_DRAW + 7


def _around(name: str) -> str:
    """The rows a look-up by conversation finds, for the conversations locked."""
    return _numbered(BY_KEYS[name], _LOCKED)


_SOURCES = {
    "identifiers": ("identifier", _numbered(PAIRED["identifiers"], _IDENTIFIERS)),
    "customers": ("customer", _around("customers")),
    "identifiers_of": ("identifier", _around("identifiers_of")),
    "evidence_of": (
        "evidence",
        f"SELECT e.* FROM identifier o JOIN evidence e ON e.identifier_id = o.id WHERE o.customer_id = ANY(${_LOCKED}::bigint[])",  # noqa: S608
    ),
    "tickets_of": ("ticket", _around("tickets_of")),
    "holds_of": ("hold", _around("holds_of")),
    "cards": (
        "delivery",
        f"SELECT d.* FROM ({_around('tickets_of')}) AS w JOIN delivery d ON d.subject_id = w.id AND d.slot IS NOT NULL",  # noqa: S608
    ),
}
# The column by which each is asked for.
_KEY = {"customers": "id", "identifiers_of": "customer_id", "evidence_of": "identifier_id", "tickets_of": "conversation_id"} | {
    "holds_of": "customer_id",
    "cards": "subject_id",
}
_AT = {name: COLUMNS[_SOURCES[name][0]].index(key) for name, key in _KEY.items()}

STATEMENT = ", ".join(
    [
        DRAW,
        f"(SELECT coalesce(json_agg(json_build_array(channel_id, provider_key)), '[]') "  # noqa: S608
        f"FROM ({_numbered(PAIRED['dedupe'], _DEDUPE)}) AS d)",
        *(_rows(table, "r", f"({source})") for table, source in _SOURCES.values()),
    ]
)


def ask(needs: Needs, wanted: Sequence[int], locked: Collection[int]) -> Asked:
    """The statement, for the ids wanted of each table and the conversations locked."""
    dedupe = [list(column) for column in zip(*needs.dedupe, strict=True)] or [[], []]
    identifiers = [list(column) for column in zip(*needs.identifiers, strict=True)] or [[], [], [], []]
    return STATEMENT, [*wanted, *dedupe, *identifiers, list(locked)]


class Ahead:
    """What the statement found: the database's time, the ids drawn, and answers to questions yet to come."""

    def __init__(self, record: Sequence[Any], locked: Collection[int]) -> None:
        self.now: int = record[0]
        self.drawn: Sequence[list[int]] = record[1 : _AFTER_DRAW + 1]
        found = [json.loads(rows) for rows in record[_AFTER_DRAW + 1 :]]
        self._rows: dict[str, list[Any]] = dict(zip(("dedupe", *_SOURCES), found, strict=True))
        known = frozenset(locked)
        self._known: dict[str, frozenset[Any]] = dict.fromkeys(("customers", "identifiers_of", "tickets_of", "holds_of"), known)
        self._known["evidence_of"] = frozenset(row[0] for row in self._rows["identifiers_of"])
        self._known["cards"] = frozenset(row[0] for row in self._rows["tickets_of"])

    def answer(self, query: Query) -> Rows | None:
        """The rows a question asks for, or None where it has to be asked by itself."""
        rows = self._rows.get(query.name)
        if rows is None or query.name in ("dedupe", "identifiers"):  # these two are asked for all of the batch at once
            return rows
        keys, known = frozenset(query.keys), self._known[query.name]
        if keys == known:
            return rows
        at = _AT[query.name]
        return [row for row in rows if row[at] in keys] if keys < known else None
