"""How customers stand in marketing tools: what a tool must be told, and what its answers and reading it back come to.

The wanted state of an identifier is the gate's own answer about it, so joining and parting people needs no rule of its own here: one
held by two customers is free when both are. Everything a tool was told is kept in `mark`, and only what differs is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from hub.holds.gate import Standing
from hub.holds.ledger import iso
from hub.marketing import Fate, Marked, ReadBack, Trait, Wish
from hub.policy import DAY, SECOND
from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import Mark

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

SWEEP_HELD = 6 * HOUR  # how often a confirmed hold is read again, for drift
SWEEP_FREE = 7 * DAY  # and a confirmed release, once
PATIENCE = 10 * MINUTE  # how long a tool may go on showing the old state before that counts as drift
ABSENT_AGAIN = HOUR  # somebody held whom the tool did not know may have signed up since
FAILED_AGAIN = 6 * HOUR  # the outbox tries for a week by itself; this is for what it gave up

Key = tuple[str, str, str]  # kind, value, site
# A mark's id and its value: whatever changes one is looked up by the value, so that all of it takes the same lock.
Which = tuple[int, str]


class Told(NamedTuple):
    """What a tool was told of one identifier; equal means that there is nothing to tell."""

    held: bool
    until: str
    reasons: tuple[str, ...]
    traits: tuple[tuple[str, Trait], ...]

    @classmethod
    def of(cls, wish: Wish) -> Told:
        return cls(wish.held, wish.until, wish.reasons, tuple(sorted(wish.traits.items())))

    def text(self) -> str:
        return json.dumps([self.held, self.until, self.reasons, self.traits])


def key_of(mark: Mark) -> Key:
    return mark.kind, mark.value, mark.site


def which(mark: Mark) -> Which:
    return mark.id, mark.value


def wish_for(key: Key, standing: Standing, traits: Mapping[str, Trait], mark: Mark | None) -> Wish | None:
    """What a tool must be told of an identifier now, or None where it knows. Pure.

    A release is told only where we had told of a hold: nobody's flag is cleared that we did not set.
    """
    told_held = mark is not None and mark.accepted_at is not None
    if not standing.held and not told_held:
        return None
    wish = Wish(
        kind=key[0],
        value=key[1],
        site=key[2],
        held=standing.held,
        until=iso(standing.until) if standing.held and standing.until is not None else "",
        reasons=standing.reasons if standing.held else (),
        version=standing.version,
        traits=dict(traits),
        profile=mark.profile if mark is not None else "",
    )
    knows = mark is not None and mark.state in ("accepted", "confirmed", "effective") and mark.said == Told.of(wish).text()
    return None if knows else wish


def agrees(mark: Mark, seen: ReadBack) -> bool:
    """Whether a tool shows what it was told. Pure. Spellings of one time agree; a second is as fine as some tools keep."""
    if not seen.present or seen.held != mark.held:
        return False
    if not mark.held:
        return True
    told = json.loads(mark.said)[1]
    return _seconds(seen.until) == _seconds(told)


def _seconds(text: str) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def wait_after(looks: int) -> int:
    """Microseconds until the next look at what a tool does not show yet: 5 s, then twice as long each time, 5 minutes at most. Pure."""
    return int(min(5 * SECOND * 2 ** min(looks, 10), 5 * MINUTE))


@dataclass(frozen=True, slots=True)
class NoteMarked:
    """What a tool answered to wishes for one customer. `settles`: microseconds until it makes sense to read them back (None: never)."""

    destination: str
    customer_id: int
    asked_at: int
    results: tuple[tuple[Wish, Marked], ...]
    settles: int | None

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("mark", "value", wish.value) for wish, _ in self.results)

    def decide(self, facts: Facts) -> None:
        for wish, marked in self.results:
            mark = _mark(self.destination, wish, self.customer_id, self.asked_at, facts)
            if wish.version < mark.version and mark.accepted_at is not None:
                continue  # told of a later state meanwhile, by another process
            if mark.state not in ("pending", "failed") or not mark.asked_at:
                mark.asked_at = self.asked_at
            mark.customer_id = self.customer_id
            mark.error = marked.error
            mark.looks = 0
            if marked.fate is Fate.ACCEPTED:
                mark.state = "accepted"
                mark.profile = marked.profile or mark.profile
                if wish.held != mark.held:  # else it goes on showing what it showed
                    mark.confirmed_at = mark.effective_at = None
                mark.held, mark.version, mark.said = wish.held, wish.version, Told.of(wish).text()
                mark.until = _micros(wish.until)
                mark.accepted_at = facts.now
                mark.check_at = None if self.settles is None else facts.now + self.settles
                state("accepted", mark, facts)
            elif marked.fate is Fate.ABSENT:
                mark.state = "absent"
                mark.profile = ""
                mark.held, mark.version, mark.said = False, wish.version, ""
                mark.accepted_at = mark.confirmed_at = mark.effective_at = mark.until = None
                mark.check_at = facts.now + ABSENT_AGAIN if wish.held else None
            else:
                mark.state = "failed"
                if wish.held and not mark.profile:  # it says that it did not take it, and never did before
                    mark.held, mark.said, mark.accepted_at = False, "", None
                mark.check_at = facts.now + FAILED_AGAIN
                state("failed", mark, facts)
            facts.change(mark)


@dataclass(frozen=True, slots=True)
class NoteWaiting:
    """A tool was not told of these yet, or not as far as we know, and why; `failed`: it refuses us, and somebody must mend that.
    `perhaps`: it may have taken them all the same, so a release must be told."""

    destination: str
    customer_id: int
    asked_at: int
    wishes: tuple[Wish, ...]
    error: str = ""
    failed: bool = False
    perhaps: bool = False

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("mark", "value", wish.value) for wish in self.wishes)

    def decide(self, facts: Facts) -> None:
        for wish in self.wishes:
            mark = _mark(self.destination, wish, self.customer_id, self.asked_at, facts)
            was = mark.state
            mark.state = "failed" if self.failed else "pending"
            if was not in ("pending", "failed"):
                mark.asked_at = self.asked_at
            mark.customer_id = self.customer_id
            mark.error = self.error
            mark.check_at = facts.now + FAILED_AGAIN
            if self.perhaps and wish.held and mark.accepted_at is None:
                mark.held, mark.version, mark.said, mark.accepted_at = True, wish.version, Told.of(wish).text(), facts.now
            if self.failed and was != "failed":
                state("failed", mark, facts)
            facts.change(mark)


@dataclass(frozen=True, slots=True)
class NoteLooked:
    """What reading marks back showed: (the mark, what it had been told when it was read, what was seen)."""

    results: tuple[tuple[Which, str, ReadBack], ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("mark", "value", value) for (_, value), _, _ in self.results)

    def decide(self, facts: Facts) -> None:
        for one, said, seen in self.results:
            for mark in _these((one,), facts):
                # Told something else meanwhile, it is read back by itself.
                if mark.said == said and mark.state in ("accepted", "confirmed", "effective", "drifted"):
                    self._look(mark, seen, facts)

    def _look(self, mark: Mark, seen: ReadBack, facts: Facts) -> None:
        mark.checked_at = facts.now
        mark.looks += 1
        facts.change(mark)
        if agrees(mark, seen):
            first = mark.confirmed_at is None
            mark.error = ""
            if first:
                mark.confirmed_at = facts.now
                mark.state = "confirmed"
                state("confirmed", mark, facts, took=facts.now - mark.asked_at)
            elif mark.state in ("accepted", "drifted"):
                mark.state = "confirmed" if mark.effective_at is None else "effective"
            else:
                mark.drifts = 0  # it stayed as it was told
            if seen.effective and mark.effective_at is None:
                mark.effective_at = facts.now
                mark.state = "effective"
                state("effective", mark, facts, took=facts.now - mark.asked_at)
            elif seen.effective is False:
                mark.state = "confirmed"  # the flag is there, and the tool's own segment does not show it (yet, or any more)
            waits = seen.effective is False and mark.accepted_at is not None and facts.now - mark.accepted_at < DAY
            if waits:
                mark.check_at = facts.now + wait_after(mark.looks)
            elif mark.held:
                mark.check_at = facts.now + SWEEP_HELD
            else:
                # Looked at once more a week later; then a stranger's flag is a stranger's business.
                mark.check_at = facts.now + SWEEP_FREE if first else None
            return
        if not seen.present:
            if not mark.held:
                mark.state, mark.check_at = "absent", None
                return
        elif mark.state == "accepted" and facts.now - (mark.accepted_at or 0) < PATIENCE:
            mark.check_at = facts.now + wait_after(mark.looks)
            return
        mark.state = "drifted"
        mark.drifts += 1
        mark.confirmed_at = mark.effective_at = None
        mark.error = "It does not know this profile any more." if not seen.present else _difference(mark, seen)
        # Somebody who sets it back each time is not fought over it every second.
        mark.check_at = facts.now + min(MINUTE * 2 ** min(mark.drifts, 6), HOUR)
        state("drifted", mark, facts)


@dataclass(frozen=True, slots=True)
class PutOff:
    """These marks are being told once more: not looked at again before that had time."""

    marks: tuple[Which, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("mark", "value", value) for _, value in self.marks)

    def decide(self, facts: Facts) -> None:
        for mark in _these(self.marks, facts):
            mark.check_at = facts.now + (ABSENT_AGAIN if mark.state == "absent" else FAILED_AGAIN)
            facts.change(mark)


@dataclass(frozen=True, slots=True)
class LetGo:
    """Nothing is to be told of these any more, and nothing ever was: they were released before the tool took the hold, or it never knew
    them. Not looked at again."""

    marks: tuple[Which, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("mark", "value", value) for _, value in self.marks)

    def decide(self, facts: Facts) -> None:
        for mark in _these(self.marks, facts):
            if mark.accepted_at is None:
                mark.state, mark.error, mark.check_at = "absent", "", None
                facts.change(mark)


@dataclass(frozen=True, slots=True)
class LookNow:
    """These marks are read back at the next look, whenever that was due."""

    marks: tuple[Which, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("mark", "value", value) for _, value in self.marks)

    def decide(self, facts: Facts) -> None:
        for mark in _these(self.marks, facts):
            if mark.accepted_at is not None:
                mark.check_at = facts.now
                facts.change(mark)


def _these(marks: Iterable[Which], facts: Facts) -> list[Mark]:
    return [mark for id_, value in marks for mark in facts.found[("mark", "value", value)] if mark.id == id_]


def _difference(mark: Mark, seen: ReadBack) -> str:
    if seen.held != mark.held:
        return f"It shows the profile {'held' if seen.held else 'free'}, and was told {'held' if mark.held else 'free'}."
    return f"It shows the hold until {seen.until or 'no time'}, and was told until {json.loads(mark.said)[1]}."


def state(what: str, mark: Mark, facts: Facts, *, took: int | None = None) -> None:
    """State that a mark was accepted, confirmed, became effective, drifted or failed: for the chain of proof and for repairs."""
    data: dict[str, Any] = {
        "destination": mark.destination,
        "kind": mark.kind,
        "value": mark.value,
        "held": bool(mark.held),  # SQLite says 1
        "version": mark.version,
        "until": iso(mark.until) if mark.until is not None else None,
        "asked_at": iso(mark.asked_at),
    }
    if took is not None:
        data["took_ms"] = took // 1_000
    if mark.error:
        data["error"] = mark.error
    # Each name stands here whole, so that it can be searched for.
    event = {
        "accepted": "mark.accepted",
        "confirmed": "mark.confirmed",
        "effective": "mark.effective",
        "drifted": "mark.drifted",
        "failed": "mark.failed",
    }[what]
    facts.emit(event, customer_id=mark.customer_id, data=json.dumps(data))


def _mark(destination: str, wish: Wish, customer_id: int, asked_at: int, facts: Facts) -> Mark:
    known: Iterable[Mark] = facts.found[("mark", "value", wish.value)]
    for mark in known:
        if (mark.destination, mark.kind, mark.site) == (destination, wish.kind, wish.site):
            return mark
    mark = Mark(
        id=facts.new_id("mark"),
        destination=destination,
        kind=wish.kind,
        value=wish.value,
        site=wish.site,
        customer_id=customer_id,
        profile="",
        state="pending",
        held=False,
        version=0,
        said="",
        asked_at=asked_at,
    )
    facts.insert(mark)
    return mark


def _micros(text: str) -> int | None:
    return int(datetime.fromisoformat(text).timestamp() * SECOND) if text else None


def as_wish(mark: Mark) -> Wish:
    """What a mark's identifier was told, to read it back by."""
    held, until, reasons, traits = json.loads(mark.said)
    return Wish(
        kind=mark.kind,
        value=mark.value,
        site=mark.site,
        held=held,
        until=until,
        reasons=tuple(reasons),
        version=mark.version,
        traits=dict(traits),
        profile=mark.profile,
    )


def keys_in(payload: Mapping[str, Any], kinds: Sequence[str]) -> list[Key]:
    """The identifiers a hold event names that a tool knows people by."""
    return [(i["kind"], i["value"], i.get("site", "")) for i in payload["data"].get("identifiers", ()) if i["kind"] in kinds]
