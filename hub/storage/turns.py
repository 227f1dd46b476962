"""Whose turn it is: work that any process may do and one does at a time, by a row of the setting table and the database's clock.

A turn is a courtesy and no lock: what is done in it must be harmless when done twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.policy import SECOND
from hub.storage.facts import Facts, Needs
from hub.storage.records import Setting


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """Take or keep the turn named `name` for so many seconds; True if it is the caller's."""

    name: str
    token: str
    seconds: float

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", self._key))

    @property
    def _key(self) -> str:
        return f"turn.{self.name}"

    def decide(self, facts: Facts) -> bool:
        until = facts.now + int(self.seconds * SECOND)
        value = f"{until} {self.token}"
        known = facts.found[("setting", "key", self._key)]
        if not known:
            facts.insert(Setting(self._key, value))
            return True
        taken_until, _, token = known[0].value.partition(" ")
        # A turn that lasts longer than anybody takes one for was taken by a clock that ran ahead.
        if token != self.token and facts.now < int(taken_until) <= until + LONGEST:
            return False
        known[0].value = value
        facts.change(known[0])
        return True


LONGEST = 3_600 * SECOND


@dataclass(frozen=True, slots=True)
class GiveTurn:
    """Let the next one have it at once."""

    name: str
    token: str

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", f"turn.{self.name}"))

    def decide(self, facts: Facts) -> None:
        for row in facts.found[("setting", "key", f"turn.{self.name}")]:
            if row.value.partition(" ")[2] == self.token:
                row.value = f"0 {self.token}"
                facts.change(row)
