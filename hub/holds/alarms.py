"""Alarms: what a person should look at about holds. Raised while it is so, ended when it is over, told to the team's room both times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import Alarm

Level = Literal["warning", "critical"]
LEAST = 25  # held customers below which their share says nothing: of a new hub's first ten customers all may be held


class Concern(NamedTuple):
    """Something that should not be so; `url` is a path of ours where it is seen and mended."""

    level: Level
    title: str
    text: str
    url: str


class ToolFigures(NamedTuple):
    """How one marketing tool stands, in numbers of identifiers."""

    label: str
    late: int  # held, and not confirmed for longer than allowed
    refused: int  # it refuses our key, or these
    fought: int  # set back by somebody else again and again
    error: str = ""


def concerns(
    held: int, customers: int, share: float, minutes: float, tools: Mapping[str, ToolFigures], campaigns: Mapping[str, Concern]
) -> dict[str, Concern]:
    """What is wrong now, by a key that stays the same while it is. Pure."""
    found: dict[str, Concern] = {}
    if held >= LEAST and held / customers > share:
        found["holds.share"] = Concern(
            "warning",
            f"{held / customers:.1%} of all customers are held",
            f"{held:,} of {customers:,} customers get no campaigns now; the alarm is set at {share:.0%}. "
            "Look at the oldest holds: a ticket that nobody resolves holds for weeks.",
            "/holds",
        )
    for name, tool in tools.items():
        where = f"/holds/tools/{name}"
        if tool.refused:
            found[f"tool.{name}.refused"] = Concern(
                "critical",
                f"{tool.label} refuses what we tell it",
                f"{tool.refused:,} holds could not be set or cleared there. {tool.error}".strip(),
                where,
            )
        if tool.late:
            found[f"tool.{name}.late"] = Concern(
                "critical",
                f"{tool.label} has not confirmed {tool.late:,} holds",
                f"They were told, or should have been, more than {minutes:g} minutes ago. Until then a campaign may reach these customers. "
                f"{tool.error}".strip(),
                where,
            )
        if tool.fought:
            found[f"tool.{name}.drift"] = Concern(
                "warning",
                f"Something in {tool.label} takes holds back",
                f"{tool.fought:,} profiles were changed there again and again after we set them. Look for another integration or a "
                "workflow that writes support_hold.",
                where,
            )
    return found | dict(campaigns)


@dataclass(frozen=True, slots=True)
class SetAlarms:
    """Bring the alarms to what is wrong now: raise what is new, end what is over, bring the words of the rest up to date."""

    wanted: tuple[tuple[str, Concern], ...]
    known: tuple[str, ...]  # keys of the alarms that are raised, as read just before

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("alarm", "key", key) for key in {*self.known, *(key for key, _ in self.wanted)})

    def decide(self, facts: Facts) -> None:
        wanted = dict(self.wanted)
        for key in sorted({*self.known, *wanted}):
            row: Alarm | None = next(iter(facts.found[("alarm", "key", key)]), None)
            concern = wanted.get(key)
            if concern is None:
                if row is not None and row.ended_at is None:
                    row.ended_at = facts.now
                    facts.change(row)
                    facts.emit("alarm.ended", data=_data(row))
            elif row is None:
                row = Alarm(facts.new_id("alarm"), key, *concern, facts.now)
                facts.insert(row)
                facts.emit("alarm.raised", data=_data(row))
            else:
                again = row.ended_at is not None
                row.level, row.title, row.text, row.url = concern
                if again:
                    row.raised_at, row.ended_at = facts.now, None
                    facts.emit("alarm.raised", data=_data(row))
                facts.change(row)


def _data(row: Alarm) -> str:
    return json.dumps({"alarm": row.id, "key": row.key, "level": row.level, "title": row.title, "text": row.text, "url": row.url})
