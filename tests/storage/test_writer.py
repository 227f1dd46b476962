"""The one writer: batches, failures that stay alone, refusals that store nothing, events without gaps."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hub.policy import Refusal
from hub.storage import sqlite_writer as module
from hub.storage import writer
from hub.storage.facts import Facts, Needs
from hub.storage.postgres_statements import key_locks
from hub.storage.records import Customer, Event, Setting
from hub.storage.writer import StorageBusy
from tests.storage import Store, open_store


@dataclass(frozen=True)
class Put:
    """Keep a value and say so."""

    key: str
    value: Any = "1"
    runs: list[str] = field(default_factory=list)

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> str:
        self.runs.append(self.key)
        facts.insert(Setting(self.key, self.value))
        facts.emit("kept", data=f'{{"key": "{self.key}"}}')
        return self.key


@dataclass(frozen=True)
class Fail:
    error: BaseException

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        facts.insert(Setting("must not stay", "1"))
        facts.insert(Customer(facts.new_id("customer"), "must not stay", facts.now))
        facts.emit("must not be said")
        raise self.error


@dataclass(frozen=True)
class Gate:
    """Holds the writer's thread between its BEGIN and its COMMIT until it is opened."""

    entered: threading.Event
    opened: threading.Event

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        self.entered.set()
        assert self.opened.wait(30)


@dataclass(frozen=True)
class Wait:
    """Waits for a lock, as work does that another hub is busy with."""

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", "held"))

    def decide(self, facts: Facts) -> None: ...


@asynccontextmanager
async def held(store: Store) -> AsyncIterator[Callable[[], None]]:
    """While the block runs everything queues; what it yields lets the writer go on."""
    if isinstance(store.path, str):
        async with _held_by_another(store.path, store) as release:
            yield release
        return
    gate = Gate(threading.Event(), threading.Event())
    waiting = asyncio.ensure_future(store.run(gate))
    await asyncio.to_thread(gate.entered.wait, 30)
    try:
        yield gate.opened.set
    finally:
        gate.opened.set()
        await waiting


@asynccontextmanager
async def _held_by_another(url: str, store: Store) -> AsyncIterator[Callable[[], None]]:
    needs = Needs()
    Wait().needs(needs)
    other = await asyncpg.connect(url)
    await other.execute("SELECT pg_advisory_lock($1)", *key_locks(needs))
    waiting = asyncio.ensure_future(store.run(Wait()))
    async with asyncio.timeout(30):
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
    try:
        yield other.terminate  # an advisory lock ends with its connection
    finally:
        other.terminate()
        await waiting


async def queued(store: Store, *works: Any) -> list[asyncio.Future[Any]]:
    """Hand work over without waiting for its outcome."""
    tasks = [asyncio.ensure_future(store.run(work)) for work in works]
    await asyncio.sleep(0)
    return tasks


def keys(store: Store) -> set[str]:
    return {row["key"] for row in store.rows("SELECT key FROM setting")}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as opened:
        yield opened


async def test_whatever_waits_commits_together_at_most_256_at_a_time(store: Store) -> None:
    async with held(store) as release:
        tasks = await queued(store, *(Put(f"k{n}") for n in range(600)))
        release()
        assert await asyncio.gather(*tasks) == [f"k{n}" for n in range(600)]
    assert [len(events) for events in store.announced] == [256, 256, 88]
    assert len(keys(store)) == 600


async def test_nobody_is_answered_before_the_commit_and_nothing_is_announced_before_it(store: Store) -> None:
    async with held(store) as release:
        (task,) = await queued(store, Put("later"))
        assert not task.done()
        assert keys(store) == set()
        assert store.announced == []
        release()
        await task
        assert keys(store) == {"later"}
        assert [event.type for event in store.events()] == ["kept"]


@pytest.mark.parametrize(
    "error", [Refusal("no"), ValueError("a mistake"), RuntimeError("another")], ids=["refusal", "mistake", "another mistake"]
)
async def test_a_unit_that_raises_fails_alone_and_leaves_nothing(error: Exception, store: Store) -> None:
    async with held(store) as release:
        tasks = await queued(store, Put("a"), Fail(error), Put("b"))
        release()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[0] == "a"
    assert outcomes[1] is error
    assert outcomes[2] == "b"
    assert keys(store) == {"a", "b"}
    assert store.value("SELECT count(*) FROM customer") == 0
    assert [event.type for event in store.events()] == ["kept", "kept"]


async def test_an_integrity_error_redoes_the_batch_unit_by_unit(store: Store) -> None:
    runs: list[str] = []
    async with held(store) as release:
        tasks = await queued(store, Put("a", runs=runs), Put("twin", runs=runs), Put("twin", runs=runs), Put("z", runs=runs))
        release()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[:2] == ["a", "twin"]
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    assert outcomes[3] == "z"
    assert runs == ["a", "twin", "twin", "z"] * 2, "first together, then one by one"
    assert keys(store) == {"a", "twin", "z"}


@pytest.mark.parametrize(
    "value",
    [object(), "half a surrogate pair: \ud83d", 2**70],
    ids=["a type SQLite does not know", "text that is no Unicode", "a number too large"],
)
async def test_a_value_the_database_cannot_take_is_its_own_units_fault(value: Any, store: Store) -> None:
    async with held(store) as release:
        tasks = await queued(store, Put("a"), Put("odd", value), Put("z"))
        release()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == ("a", "z")
    assert isinstance(outcomes[1], Exception)
    assert not isinstance(outcomes[1], StorageBusy), "trying again cannot help"
    assert keys(store) == {"a", "z"}


async def test_no_exception_of_one_unit_keeps_the_others_waiting(store: Store) -> None:
    """A future refuses StopIteration; whoever stood behind that unit would have waited for ever."""
    async with held(store) as release:
        tasks = await queued(store, Fail(StopIteration()), Put("b"))
        release()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert isinstance(outcomes[0], RuntimeError)
    assert outcomes[1] == "b"


async def test_events_are_numbered_in_commit_order_without_gaps(store: Store) -> None:
    async def one(number: int) -> None:
        try:
            await store.run(Fail(ValueError("gap?")) if number % 7 == 3 else Put(f"k{number % 90}"))
        except (ValueError, sqlite3.IntegrityError):
            pass

    for _ in range(3):
        await asyncio.gather(*(one(number) for number in range(100)))
    stored = [row["seq"] for row in store.rows("SELECT seq FROM event ORDER BY seq")]
    assert stored == list(range(1, len(stored) + 1))
    assert [event.seq for event in store.events()] == stored, "announced in the order they were committed"
    assert len(stored) == len(keys(store)) > 70


@dataclass(frozen=True)
class Meet:
    """Make a customer; the id it got."""

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> int:
        customer = Customer(facts.new_id("customer"), "", facts.now)
        facts.add_customer(customer)
        return customer.id


async def test_a_number_handed_out_in_a_unit_that_failed_is_handed_out_again(store: Store) -> None:
    for number in (1, 2, 3):
        with pytest.raises(ValueError, match="fails"):
            await store.run(Fail(ValueError("fails")))
        assert await store.run(Meet()) == number


async def test_ids_that_are_sequences_are_never_used_again_even_after_a_restart(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.run(Put("a"))
        await store.run(Put("b"))
    connection = sqlite3.connect(store.path)
    connection.execute("DELETE FROM event")
    connection.commit()
    connection.close()
    async with open_store(tmp_path) as store:
        await store.run(Put("c"))
        assert [event.seq for event in store.events()] == [3]


async def test_a_caller_that_stopped_waiting_takes_nothing_from_the_others(store: Store) -> None:
    async with held(store) as release:
        tasks = await queued(store, Put("gone"), Put("here"))
        tasks[0].cancel()
        release()
        assert await tasks[1] == "here"
    assert keys(store) == {"gone", "here"}, "what was handed over is stored; its sender will ask again and be told so"


async def test_a_queue_past_its_bound_refuses_and_stores_nothing_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 5)
    async with held(store) as release:
        tasks = await queued(store, *(Put(f"k{n}") for n in range(8)))
        refused = [task for task in tasks if task.done()]
        assert [type(task.exception()) for task in refused] == [StorageBusy] * 3
        release()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert keys(store) == {f"k{n}" for n in range(5)}
    assert await store.run(Put("after")) == "after"


async def test_a_queue_whose_oldest_unit_waits_too_long_refuses(tmp_path: Path) -> None:
    now = [0.0]
    async with open_store(tmp_path, monotonic=lambda: now[0]) as store:
        async with held(store) as release:
            first = await queued(store, Put("first"))
            now[0] = writer.MAX_AGE
            on_time = await queued(store, Put("on time"))
            now[0] = writer.MAX_AGE + 0.001
            (late,) = await queued(store, Put("late"))
            assert isinstance(late.exception(), StorageBusy)
            release()
            await asyncio.gather(*first, *on_time)
        assert keys(store) == {"first", "on time"}
        assert await store.run(Put("after")) == "after"


async def test_a_full_disk_refuses_everything_keeps_what_was_stored_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[int] = []
    connect = module.connect

    def small(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        if pages:
            connection.execute(f"PRAGMA max_page_count={pages[0]}")
        return connection

    monkeypatch.setattr(module, "connect", small)
    async with open_store(tmp_path) as store:
        pages.append(store.value("PRAGMA page_count") + 60)
        await store.run(Put("before"))
        store.writer._connection.execute(f"PRAGMA max_page_count={pages[0]}")
        stored = ["before"]

        async def fill() -> None:
            for number in range(1_000):
                stored.append(await store.run(Put(f"k{number}", "x" * 20_000)))

        with pytest.raises(StorageBusy, match="full"):
            await fill()
        assert keys(store) == set(stored), "what was acknowledged stays, nothing of the refused one does"
        # Full is full: small things too, until there is room; everybody of a batch is told.
        async with held(store) as release:
            tasks = await queued(store, *(Put(f"big{n}", "x" * 200_000) for n in range(3)))
            release()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StorageBusy] * 3
        assert keys(store) == set(stored)
        pages.clear()  # somebody made room
        with pytest.raises(StorageBusy):
            await store.run(Put("big", "x" * 2_000_000))  # the connection still has the old limit, and is replaced after this
        assert await store.run(Put("big", "x" * 2_000_000)) == "big"
        seqs = [row["seq"] for row in store.rows("SELECT seq FROM event ORDER BY seq")]
        assert seqs == list(range(1, len(stored) + 2)), "refusals left no gap"
    assert store.value("PRAGMA integrity_check") == "ok"


async def test_closing_finishes_what_waits_and_then_refuses(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        async with held(store) as release:
            tasks = await queued(store, *(Put(f"k{n}") for n in range(300)))
            closing = asyncio.ensure_future(store.writer.close())
            await asyncio.sleep(0)
            with pytest.raises(StorageBusy, match="closing"):
                await store.run(Put("too late"))
            release()
            await closing
            assert all(task.done() for task in tasks), "answered before close() returns"
        assert await asyncio.gather(*tasks) == [f"k{n}" for n in range(300)]
        with pytest.raises(StorageBusy):
            await store.run(Put("after"))
        assert keys(store) == {f"k{n}" for n in range(300)}
        await store.writer.close()  # again is nothing
    assert not store.path.with_name("hub.db-wal").exists(), "the log was written back and removed"


async def test_closing_at_every_moment_of_a_stream_of_work_leaves_nobody_waiting(tmp_path: Path) -> None:
    for many in range(0, 60, 3):
        directory = tmp_path / str(many)
        directory.mkdir()
        async with open_store(directory) as store:
            tasks = await queued(store, *(Put(f"k{n}") for n in range(many)))
            await asyncio.gather(store.writer.close(), *(store.run(Put(f"l{n}")) for n in range(3)), return_exceptions=True)
            outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        assert outcomes == [f"k{n}" for n in range(many)]


class Death(BaseException):
    """What no code expects."""


async def test_a_dead_writer_answers_everybody_says_so_and_refuses(tmp_path: Path) -> None:
    told: list[BaseException] = []
    async with open_store(tmp_path, on_death=told.append) as store:
        async with held(store) as release:
            first = await queued(store, Put("same batch"), Fail(Death()), *(Put(f"k{n}") for n in range(400)))
            release()
            outcomes = await asyncio.wait_for(asyncio.gather(*first, return_exceptions=True), 30)
        assert {type(outcome) for outcome in outcomes} == {StorageBusy}
        assert len(outcomes) == 402
        with pytest.raises(StorageBusy):
            await store.run(Put("after"))
        await store.writer.close()
        await asyncio.sleep(0)
        assert [type(error) for error in told] == [Death], "the process must learn of it, to end"
    assert keys(store) == set()


async def test_reactions_are_decided_in_the_transaction_of_their_cause(tmp_path: Path) -> None:
    def react(facts: Facts, event: Event) -> None:
        if event.type == "kept" and event.data == '{"key": "bad"}':
            raise ValueError("a reaction failed")
        if event.type == "kept":
            facts.insert(Setting(f"because of {event.data}", "1"))
            facts.emit("followed")

    async with open_store(tmp_path, react=react) as store:
        await store.run(Put("good"))
        with pytest.raises(ValueError, match="a reaction failed"):
            await store.run(Put("bad"))
        assert keys(store) == {"good", 'because of {"key": "good"}'}
        assert [event.type for event in store.events()] == ["kept", "followed"]


async def test_an_idle_writer_sleeps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to index it waits to be woken, not for a moment at a time."""
    waits: list[float | None] = []
    wait = store.writer._wake.wait

    def note(timeout: float | None = None) -> bool:
        waits.append(timeout)
        return wait(timeout)

    monkeypatch.setattr(store.writer._wake, "wait", note)
    for number in range(5):
        await store.run(Put(f"k{number}"))
    assert set(waits) <= {None}
