"""The business's own records: who its customers are, by what addresses and account ids, and what else it knows of them.

A record ties what belongs to one person (proof `record`), as its own import and API say so. It proves nothing of today: it shows no
history to anybody, takes nothing from a customer that somebody proved, holds nobody and sends nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hub.contract import Claim, Proof
from hub.customers.bonds import home_of
from hub.customers.canonical import BLOCKED, LONGEST, canonical
from hub.customers.resolution import TYING, Known, need, resolve, weigh
from hub.storage.facts import Facts, Needs
from hub.storage.records import Attribute, Customer, Evidence, Identifier
from hub.storage.writer import StorageBusy, Writer

KINDS = {"external_id": "user_id", "wa_user_id": "wa_user_id", "email": "email", "phone": "phone"}  # the strongest name first
MOST_IDENTIFIERS = 20  # of one person: more is a list of people
MOST_ATTRIBUTES = 100
LONGEST_NAME = 500  # characters
LONGEST_VALUE = 10_000
LONGEST_SOURCE = 100
NAME = "name"  # the attribute a record's name is kept under: by it a later import of the same source knows what it said before

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_ROUNDED = re.compile(r"[0-9][.,][0-9]+E[+]?[0-9]+", re.IGNORECASE)
_SOURCE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")


class BadRecord(Exception):
    """What a row says cannot be recorded. `faults` say why, each in a sentence for whoever made the row."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(" ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Given:
    """A row as a file or a program gives it. What it does not tell of (None; no such column) stays as it is."""

    external_ids: tuple[tuple[str, str], ...] | None = None  # (site, id)
    wa_user_ids: tuple[str, ...] | None = None
    emails: tuple[str, ...] | None = None
    phones: tuple[str, ...] | None = None
    name: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()  # an empty value: it has none


@dataclass(frozen=True, slots=True)
class Record:
    """One person as a source has them on record. `key` names the record among those of its source: its account id, else its first
    address. `tells` are the kinds of identifier it is complete about."""

    known: tuple[Known, ...]
    key: str
    tells: frozenset[str]
    name: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()


def check_source(source: str) -> str:
    """The name of a source as it is kept. Raises BadRecord."""
    name = source.strip()
    if not _SOURCE.fullmatch(name) or len(name) > LONGEST_SOURCE:
        raise BadRecord([f"The source needs a name of 1 to {LONGEST_SOURCE} characters."])
    return name


def read(given: Given, region: str, sites: Collection[str]) -> Record:
    """A row's record. `region` is the country (ISO 3166) of phone numbers without a country code; `sites` are those we have.

    What stands where nobody knew a value (null, n/a, 0) counts as none. Raises BadRecord, with everything that is wrong.
    """
    faults: list[str] = []
    claims = [*_accounts(given.external_ids or (), sites, faults)]
    for kind, values in (("wa_user_id", given.wa_user_ids), ("email", given.emails), ("phone", given.phones)):
        claims += _addresses(kind, values or (), region, faults)
    known: tuple[Known, ...] = ()
    if claims:
        known = tuple({one.key: one for one in weigh(claims, trusted=True, region=region, proving=TYING)}.values())
    if len(known) > MOST_IDENTIFIERS:
        faults.append(f"{len(known)} identifiers: one person has at most {MOST_IDENTIFIERS}. Is it several?")
    if not known and not faults:
        faults.append("Nothing to know this person by: give an email, a phone, an external_id or a wa_user_id.")
    name = _text(NAME, given.name, LONGEST_NAME, faults) if given.name is not None else None
    attributes = _attributes(given.attributes, faults)
    if faults:
        raise BadRecord(faults)
    told = {"user_id": given.external_ids, "wa_user_id": given.wa_user_ids, "email": given.emails, "phone": given.phones}
    tells = frozenset(kind for kind, values in told.items() if values is not None)
    first = known[0]
    return Record(known, f"{first.site}/{first.value}" if first.kind == "user_id" else first.value, tells, name, attributes)


def _given(values: Iterable[str]) -> list[str]:
    stripped = (value.strip() for value in values)
    return [value for value in stripped if not BLOCKED.fullmatch(value)]


def _accounts(ids: Iterable[tuple[str, str]], sites: Collection[str], faults: list[str]) -> list[Claim]:
    found: dict[str, str] = {}
    for site, raw in ids:
        for value in _given([raw]):
            if site not in sites:
                known = ", ".join(sorted(sites)) or "none; add one to `sites` in the configuration"
                faults.append(f"external_id: {_which_site(site)} Known: {known}.")
            elif canonical("user_id", value) is None:
                faults.append(f"external_id: {_short(value)} cannot be an id.")
            elif found.setdefault(site, value) != value:
                faults.append(
                    f"external_id: two accounts of {site} ({_short(found[site])}, {_short(value)}) are two people: a record each."
                )
    return [Claim("user_id", value, Proof.RECORD, site) for site, value in found.items()]


def _which_site(site: str) -> str:
    return f"there is no site {_short(site)}." if site else "say of which site it is the id."


def _addresses(kind: str, values: Iterable[str], region: str, faults: list[str]) -> list[Claim]:
    claims = []
    for value in _given(values):
        plain = kind != "phone" or region or value[:1] in ("+", "\uff0b")
        found = canonical(kind, value, region) if plain and not (kind == "phone" and _ROUNDED.search(value)) else None
        if found is None:
            faults.append(f"{kind}: {_short(value)} {_why(kind, value, bool(plain))}")
        else:
            # A number is written to as it is dialled from anywhere; an address as its owner writes it.
            claims.append(Claim(kind, found if kind == "phone" else value, Proof.RECORD))
    return claims


def _why(kind: str, value: str, plain: bool) -> str:
    if len(value) > LONGEST:
        return "is too long."
    if kind != "phone":
        return "is no e-mail address." if kind == "email" else "cannot be an id."
    if _ROUNDED.search(value):
        return "was rounded by a spreadsheet: its digits are lost. Format the column as text and export it again."
    if not plain:
        return "has no country code. Write it like +442079460000, or set identity.default_region."
    return "is no possible phone number."


def _text(name: str, value: str, longest: int, faults: list[str]) -> str:
    if len(value) > longest:
        faults.append(f"{name}: longer than {longest:,} characters.")
    if _CONTROL.search(value):
        faults.append(f"{name}: holds control characters.")
    return value.strip()


def _attributes(given: Iterable[tuple[str, str]], faults: list[str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for raw, value in given:
        name = _text("An attribute's name", raw, 100, faults)
        if not name or name.lower() == NAME:
            faults.append(f"An attribute cannot be named {_short(raw)}.")
        elif name in found:
            faults.append(f"{name}: given twice.")
        else:
            found[name] = _text(name, value, LONGEST_VALUE, faults)
    if len(found) > MOST_ATTRIBUTES:
        faults.append(f"{len(found)} attributes: at most {MOST_ATTRIBUTES} are kept of one person.")
    return tuple(found.items())


def _short(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:79] + "…")


# --- the unit of work ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a record. `status` is `created`, `updated` or `unchanged`."""

    status: str
    customer_id: int
    joined: int = 0  # customers that the record made one with this one
    suggested: int = 0  # customers an agent is asked about
    withdrawn: int = 0  # identifiers the source no longer has beside this one ...
    kept: int = 0  # ... of which so many stay with the customer all the same


@dataclass(frozen=True, slots=True)
class RecordCustomer:
    """Find or make the customer a record is about, and keep what the record says. Said again, it changes nothing."""

    record: Record
    source: str

    def needs(self, needs: Needs) -> None:
        need(self.record.known, needs)
        needs.attributes = True

    def decide(self, facts: Facts) -> Recorded:
        by = f"record:{self.source}"
        stated, written = len(facts.events), _written(facts)
        sender = resolve(self.record.known, self.record.name or "", by, facts, actor=by)
        customer, speaker = sender.customer, sender.identifier
        named = {facts.identifiers[claim.key].id for claim in self.record.known}
        _note(speaker, named, by, facts)
        gone, kept = _withdraw(self.record, speaker, named, by, customer, facts)
        told = _tell(self.record, self.source, home_of(speaker), customer, facts)
        said = [event.type for event in facts.events[stated:]]
        changed = told or gone > 0 or _written(facts) > written
        if changed and not said:
            facts.emit("customer.identified", customer_id=customer.id)
        status = "created" if "customer.created" in said else "updated" if changed else "unchanged"
        return Recorded(status, customer.id, said.count("customer.merged"), said.count("suggestion.added"), gone, kept)


def _written(facts: Facts) -> int:
    return sum(len(facts.inserted.get(table, ())) for table in ("identifier", "evidence", "join_log", "suggestion"))


def _live(rows: Iterable[Evidence], by: str) -> list[Evidence]:
    return [e for e in rows if e.proof == Proof.RECORD and e.source == by and e.withdrawn_at is None]


def _note(speaker: Identifier, named: set[int], by: str, facts: Facts) -> None:
    """Each source has its own say: what it withdraws one day, another may go on to hold."""
    known = {e.other_id for e in _live(facts.evidence_of.get(speaker.id, ()), by)}
    for other in (None, *sorted(named - {speaker.id})):
        if other not in known:
            facts.add_evidence(Evidence(facts.new_id("evidence"), speaker.id, other, Proof.RECORD.value, by, facts.now))


def _withdraw(record: Record, speaker: Identifier, named: set[int], by: str, customer: Customer, facts: Facts) -> tuple[int, int]:
    """End what this source said of the account before and says no more: (identifiers, of which so many stay with the customer).

    Only an account id is a record's name for ever; where another identifier leads, a row that differs is another record. What came
    with the record alone is let go of; what spoke, what another source or proof stands for, and what joined people stays.
    """
    if speaker.kind != "user_id":
        return 0, 0
    gone = kept = 0
    for evidence in _live(facts.evidence_of.get(speaker.id, ()), by):
        other = facts.identifiers_by_id.get(evidence.other_id or 0)
        if other is None or other.id in named or other.kind not in record.tells:
            continue
        evidence.withdrawn_at = facts.now
        facts.change(evidence)
        gone += 1
        if other.customer_id != customer.id:
            continue
        for own in _live(facts.evidence_of.get(other.id, ()), by):
            if own.other_id is None:
                own.withdrawn_at = facts.now
                facts.change(own)
        if _stands(other, speaker, customer, facts):
            kept += 1
            continue
        other.home_id = other.customer_id = None
        facts.identifiers_of[customer.id].remove(other)
        facts.change(other)
    if gone:
        facts.emit("customer.identified", customer_id=customer.id)
    return gone, kept


def _stands(identifier: Identifier, speaker: Identifier, customer: Customer, facts: Facts) -> bool:
    """Whether an identifier belongs to the customer for more reasons than the record that has just let go of it."""
    if identifier.proof != Proof.RECORD or home_of(identifier) != home_of(speaker):
        return True  # somebody spoke by it, or it had a home of its own, which it joined to this one
    about = (e for one in facts.identifiers_of[customer.id] for e in facts.evidence_of.get(one.id, ()))
    return any(identifier.id in (e.identifier_id, e.other_id) and e.withdrawn_at is None for e in about)


def _tell(record: Record, source: str, home: int, customer: Customer, facts: Facts) -> bool:
    """Keep what the record says beside identifiers, in the place of what the same record said before. Whether anything changed."""
    source = f"{source} {record.key}"
    rows = facts.attributes_of.setdefault(home, [])
    said = {row.name: row for row in rows if row.source == source}
    told = dict(record.attributes)
    changed = False
    if record.name is not None:
        changed = _rename(said.get(NAME), record.name, home, customer, facts)
        told[NAME] = record.name
    for name, value in told.items():
        row = said.get(name)
        if row is None and value:
            row = Attribute(facts.new_id("attribute"), home, name, value, source, facts.now)
            facts.insert(row)
            rows.append(row)
            changed = True
        elif row is not None and not value:
            rows.remove(row)
            facts.remove("attribute", "id", row.id)
            changed = True
        elif row is not None and row.value != value:
            row.value, row.at = value, facts.now
            facts.change(row)
            changed = True
    return changed


def _rename(before: Attribute | None, name: str, home: int, customer: Customer, facts: Facts) -> bool:
    """A new name in the place of the one this very record gave; a name that people gave themselves is theirs."""
    node = facts.customers[home]
    if before is None or not name or before.value == name or node.own_name != before.value:
        return False
    if customer.name == node.own_name:
        customer.name = name
        facts.change(customer)
    node.own_name = name
    facts.change(node)
    return True


STRETCH = 8  # records handed over at once: whoever else writes waits for no more than these (docs/identity.md has the figures)


async def write(records: Sequence[Record], source: str, writer: Writer, *, patience: float = 0.0) -> list[Recorded]:
    """Record these customers, a stretch at a time, letting others write in between: what became of each.

    Each record is committed whole or not at all. Where the database is behind, it is tried again for `patience` seconds; raises
    StorageBusy after that. What was recorded by then stays, and recording all of them again completes it.
    """
    done: list[Recorded] = []
    for start in range(0, len(records), STRETCH):
        done += await _stretch(records[start : start + STRETCH], source, writer, patience)
    return done


async def _stretch(records: Sequence[Record], source: str, writer: Writer, patience: float) -> list[Recorded]:
    found: dict[int, Recorded] = {}
    pause = 0.1
    while True:
        left = [n for n in range(len(records)) if n not in found]
        outcomes = await asyncio.gather(*(writer.run(RecordCustomer(records[n], source)) for n in left), return_exceptions=True)
        busy: StorageBusy | None = None
        for number, outcome in zip(left, outcomes, strict=True):
            if isinstance(outcome, StorageBusy):
                busy = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                found[number] = outcome
        if busy is None:
            return [found[n] for n in range(len(records))]
        if patience <= 0:
            raise busy
        await asyncio.sleep(pause)
        patience, pause = patience - pause, min(2 * pause, 2.0)
