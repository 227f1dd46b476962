"""Who is who, in plain sets: a small model of the decision, written from its description and without a database.

People are groups of homes held together by ties; an identifier belongs to one home for ever, a message to its identifier. There is no
cache, no merged id and no bulk statement here: who somebody is, is walked anew each time it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

RANK = {"user_id": 0, "wa_user_id": 1, "phone": 3, "email": 3, "device": 4}
OWN = 2  # whatever else somebody speaks from
ADDRESSES = ("phone", "email")
ROLES = ("info@",)
MOST_TIED = 3  # by one address


@dataclass(frozen=True, slots=True)
class Said:
    """One identifier an event names."""

    kind: str
    value: str
    proven: bool = True
    site: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.kind, self.site, self.value, "proven" if self.proven else "asserted")


@dataclass(slots=True, eq=False)
class Name:
    """An identifier in the hands of one holder."""

    said: Said
    epoch: int
    home: int | None = None
    ended: bool = False
    shared: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        return (*self.said.key, self.epoch)


@dataclass(slots=True, eq=False)
class Tie:
    left: int
    right: int
    by: tuple[Name, Name] | None = None  # None: an agent said so


@dataclass(slots=True, eq=False)
class Uttered:
    """A message. `proved` is what its sender had proved, or whom it was written to; `given` the home an agent gave it to."""

    text: str
    name: Name
    proved: frozenset[tuple[str, str, str, str]]
    copies: frozenset[str] = frozenset()
    given: int | None = None


class Refused(Exception):
    """What an agent asked for cannot be; nothing changed."""


@dataclass
class People:
    names: list[Name] = field(default_factory=list)
    newest: dict[tuple[str, str, str, str], Name] = field(default_factory=dict)
    ties: list[Tie] = field(default_factory=list)
    apart: list[tuple[int, int]] = field(default_factory=list)
    beside: set[frozenset[Name]] = field(default_factory=set)  # what was ever named together by one event
    uttered: dict[str, Uttered] = field(default_factory=dict)
    stopped: set[tuple[int, str, str]] = field(default_factory=set)
    _homes: count[int] = field(default_factory=lambda: count(1))

    # --- who is who ---

    def person(self, home: int, without: Iterable[Tie] = ()) -> frozenset[int]:
        """The homes that are one person with this one."""
        left_out = set(without)
        reached, walk = {home}, [home]
        while walk:
            at = walk.pop()
            for tie in self.ties:
                for here, there in ((tie.left, tie.right), (tie.right, tie.left)):
                    if tie not in left_out and here == at and there not in reached:
                        reached.add(there)
                        walk.append(there)
        return frozenset(reached)

    def names_of(self, person: frozenset[int]) -> list[Name]:
        return [name for name in self.names if name.home in person]

    def current(self, said: Said) -> Name | None:
        name = self.newest.get(said.key)
        return name if name is not None and not name.ended else None

    def owner(self, said: Said) -> frozenset[int] | None:
        name = self.current(said)
        return self.person(name.home) if name is not None and name.home is not None else None

    # --- what happens ---

    def event(self, said: Sequence[Said]) -> Name:
        """Somebody speaks or is identified; `said[0]` is their own address. Whom it comes from."""
        own = said[0]
        proven = [one for one in said if one.proven] if own.proven else [own]
        strength = {one.key: min(RANK[one.kind], OWN if one is own else 4) for one in proven}
        party = sorted((one for one in proven if self._may_tie(one)), key=lambda one: strength[one.key]) or [own]
        self._new_holders(party)
        lead: Name | None = None  # whose person the event is about
        for one in list(party):
            name = self.current(one)
            if name is None or name.home is None or (lead is not None and name.home in self.person(lead.home or 0)):
                continue
            verdict = "join" if one is party[0] else self._verdict(name, party, lead)
            if verdict == "join" and lead is None:
                lead = name
            elif verdict == "join":
                assert lead is not None
                self._tie(lead, name)
            else:
                party.remove(one)
                if verdict == "shared":
                    self.share(name)
        # The home of what is new: that of the strongest that was known; else it is a new home for all of it.
        known = [name for one in party if (name := self.current(one)) is not None and name.home is not None]
        home = known[0].home if known else next(self._homes)
        held = [self._hold(one, home or 0) for one in party]
        speaker = next((name for name, one in zip(held, party, strict=True) if one is own), held[0])
        for other in held:
            if other is not speaker and frozenset((speaker, other)) not in self.beside:
                if other.home != speaker.home:
                    self.ties.append(Tie(speaker.home or 0, other.home or 0, (speaker, other)))
                self.beside.add(frozenset((speaker, other)))
        for one in said:
            if one not in party:
                self.beside.add(frozenset((speaker, self.newest.get(one.key) or self._make(one, 0))))
        return speaker

    def _may_tie(self, said: Said) -> bool:
        name = self.newest.get(said.key)
        return not said.value.startswith(ROLES) and not (name is not None and name.shared)

    def _new_holders(self, party: Sequence[Said]) -> None:
        """A number that comes with another WhatsApp account than before has passed on."""
        speaking = {one.value for one in party if one.kind == "wa_user_id"}
        for one in party:
            number = self.current(one) if one.kind == "phone" and speaking else None
            if number is None or number.home is None:
                continue
            for other in self.names_of(self.person(number.home)):
                other_account = other.said.kind == "wa_user_id" and not other.ended and other.said.value not in speaking
                if other_account and frozenset((other, number)) in self.beside:
                    number.ended = True

    def _verdict(self, name: Name, party: Sequence[Said], lead: Name | None) -> str:
        there = self.person(name.home or 0)
        here = self.person(lead.home or 0) if lead is not None else frozenset()
        own = {(one.site, one.value) for one in party if one.kind == "user_id"} | self.accounts(here)
        if any(site == other_site and value != other for site, value in own for other_site, other in self.accounts(there)):
            return "shared" if name.said.kind in ADDRESSES else "not theirs"
        if any((left in here and right in there) or (left in there and right in here) for left, right in self.apart):
            return "parted"
        if lead is not None and name.said.kind in ADDRESSES:
            through = [tie for tie in self.ties if tie.by and name in tie.by and {tie.left, tie.right} & (here | there)]
            if sum(all(end.said.kind != "device" for end in tie.by or ()) for tie in through) >= MOST_TIED:
                return "shared"
        return "join"

    def accounts(self, person: frozenset[int]) -> set[tuple[str, str]]:
        return {(name.said.site, name.said.value) for name in self.names_of(person) if name.said.kind == "user_id" and name.said.proven}

    def _tie(self, left: Name, right: Name) -> None:
        self.ties.append(Tie(left.home or 0, right.home or 0, (left, right)))
        self.beside.add(frozenset((left, right)))

    def _make(self, said: Said, epoch: int, home: int | None = None) -> Name:
        name = Name(said, epoch, home)
        self.names.append(name)
        self.newest[said.key] = name
        return name

    def _hold(self, said: Said, home: int) -> Name:
        name = self.newest.get(said.key)
        if name is None or name.ended:
            return self._make(said, name.epoch + 1 if name is not None else 0, home)
        if name.home is None:
            name.home = home
        return name

    def changed_hands(self, previous: Sequence[Said], present: Sequence[Said]) -> None:
        """The channel or a carrier says that what identified somebody does so no more."""
        gone = [name for one in previous if (name := self.current(one)) is not None and name.home is not None]
        if gone and present:
            lead = min((name.said for name in gone), key=lambda one: RANK[one.kind])
            self.event((lead, *present))
        for name in gone:
            if name.said not in present:
                name.ended = True
        if gone and len(present) > 1:
            self.event(present)

    # --- what agents do ---

    def merge(self, left: int, right: int) -> Tie:
        here, there = self.person(left), self.person(right)
        if here == there:
            raise Refused
        self.apart = [(a, b) for a, b in self.apart if not ((a in here and b in there) or (a in there and b in here))]
        self.ties.append(Tie(left, right))
        return self.ties[-1]

    def unmerge(self, left: int, right: int) -> None:
        """Take back all that ties these two homes directly; what ties them otherwise stays."""
        if not any({tie.left, tie.right} == {left, right} for tie in self.ties):
            raise Refused
        self.ties = [tie for tie in self.ties if {tie.left, tie.right} != {left, right}]
        if right not in self.person(left):
            self.apart.append((left, right))

    def reject(self, left: int, right: int) -> None:
        if self.person(left) == self.person(right):
            raise Refused
        self.apart.append((left, right))

    def take_out(self, name: Name) -> None:
        assert name.home is not None
        rest = [other for other in self.names_of(self.person(name.home)) if other is not name]
        cut = [tie for tie in self.ties if tie.by and name in tie.by]
        stays = any(other.home == name.home for other in rest)
        if not rest or (not stays and any(other.home in self.person(name.home, without=cut) for other in rest)):
            raise Refused
        self._set_apart(name)
        if name.home is not None:
            others = {self.person(other.home) for other in rest if other.home is not None}
            self.apart += [(min(other), name.home) for other in others]

    def share(self, name: Name) -> None:
        """An address two people proved: it ties nobody any more, and what came by it is neither's."""
        name.shared = True
        self._set_apart(name)

    def _set_apart(self, name: Name) -> None:
        self.ties = [tie for tie in self.ties if not (tie.by and name in tie.by)]
        if any(other is not name and other.home == name.home for other in self.names):
            spoke = any(one.name is name and one.given is None for one in self.uttered.values())
            name.home = next(self._homes) if spoke else None

    def home_of(self, one: Uttered) -> int | None:
        """Whose message it is: its identifier's, or whoever an agent gave it to."""
        return one.given if one.given is not None else one.name.home
