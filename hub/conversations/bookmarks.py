"""Where a channel that fetches its messages has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from hub.storage.facts import Facts, Needs
from hub.storage.records import Bookmark
from hub.storage.tables import metadata

_bookmark = metadata.tables["bookmark"].c


def bookmark_of(channel_id: int) -> Select[Any]:
    """The bookmark of a channel, in its own words."""
    return select(_bookmark.value).where(_bookmark.channel_id == channel_id)


@dataclass(frozen=True, slots=True)
class SaveBookmark:
    channel_id: int
    value: str

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("bookmark", "channel_id", self.channel_id))

    def decide(self, facts: Facts) -> None:
        for row in facts.found[("bookmark", "channel_id", self.channel_id)]:
            row.value = self.value
            facts.change(row)
            return
        facts.insert(Bookmark(self.channel_id, self.value))
