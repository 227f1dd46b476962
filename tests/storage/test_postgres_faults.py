"""When PostgreSQL, or the way to it, breaks: nobody is told that something is stored which is not, and everything heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest
import structlog
from sqlalchemy import text

from hub import reactions
from hub.storage import postgres_writer
from hub.storage.facts import Facts, Needs
from hub.storage.postgres import CONVERSATION_LOCKS
from hub.storage.postgres_hot import PostgresHot
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.reader import postgres_reader
from hub.storage.writer import StorageBusy
from tests.postgres import Cluster, shared
from tests.storage import POLICY, SMS, heard, message, phone, postgres_rows
from tests.storage.several import PATIENCE, Proxy, Several, following, holding, needs_postgres, several
from tests.storage.test_writer import Fail, Put

pytestmark = needs_postgres

ADA = phone("+12025550123")


def says(key: str) -> Any:
    return heard(SMS, message(ADA, text=key, key=key))


# --- a COMMIT whose answer is lost ---


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Several, PostgresWriter, Proxy]]:
    """A writer whose wire to the server can be cut."""
    async with several(0) as hubs:
        proxy = Proxy(shared().port)
        port = await proxy.start()
        there = PostgresWriter(hubs.url.replace(f":{shared().port}/", f":{port}/"), POLICY, reactions.react)
        await there.start()
        try:
            yield hubs, there, proxy
        finally:
            await there.close()
            await proxy.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_in_doubt_is_never_called_stored_and_done_again_it_is_stored_once(when: str) -> None:
    async with wired() as (hubs, there, proxy):
        await there.run(says("first"))
        for number in range(3):
            proxy.cut = when
            key = f"doubt {number}"
            with pytest.raises(StorageBusy):
                await asyncio.wait_for(there.run(says(key)), PATIENCE)
            assert proxy.cuts == number + 1
            assert await hubs.value("SELECT count(*) FROM message WHERE text = $1", key) == (1 if when == "after" else 0)
            again = await asyncio.wait_for(there.run(says(key)), PATIENCE)
            assert (again.stored, again.duplicates) == ((0, 1) if when == "after" else (1, 0))
        assert proxy.connections == 4, "it connected again by itself"
        assert await hubs.value("SELECT count(*) FROM message") == 4
        assert [row[0] for row in await hubs.rows("SELECT seq FROM event ORDER BY seq")] == list(
            range(1, await hubs.value("SELECT seq FROM event_head") + 1)
        )


async def test_everybody_of_a_batch_in_doubt_is_told_so() -> None:
    async with wired() as (hubs, there, proxy):
        await there.run(says("first"))
        proxy.cut = "after"
        outcomes = await asyncio.gather(*(there.run(says(f"k{n}")) for n in range(50)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StorageBusy] * 50
        again = await asyncio.gather(*(there.run(says(f"k{n}")) for n in range(50)))
        assert sum(outcome.duplicates for outcome in again) == 50
        assert await hubs.value("SELECT count(*) FROM message") == 51


# --- a connection that is ended, a server that restarts ---


async def test_a_server_process_ended_in_the_middle_of_a_batch_stores_nothing_of_it() -> None:
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        async with holding(hubs.url, CONVERSATION_LOCKS + 1):
            waiting = [asyncio.create_task(there.run(says(f"k{n}"))) for n in range(5)]
            (pid,) = await hubs.waiting()
            assert await hubs.value("SELECT pg_terminate_backend($1, 10000)", pid)
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StorageBusy}
        assert await hubs.value("SELECT count(*) FROM message") == 1
        assert (await there.run(says("k0"))).stored == 1


async def test_an_idle_connection_that_was_ended_costs_one_refusal_at_most() -> None:
    """A pooler or an administrator ends what is idle; the next message must find a way."""
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        assert there._connection is not None
        pid = there._connection.get_server_pid()
        assert await hubs.value("SELECT pg_terminate_backend($1, 10000)", pid)
        try:
            await there.run(says("second"))
        except StorageBusy:
            await there.run(says("second"))
        assert await hubs.value("SELECT count(*) FROM message") == 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server of this module's own: it is restarted."""
    with Cluster() as own:
        yield own


async def _prepared(cluster: Cluster) -> str:
    from tests.storage import _migrated

    return await asyncio.to_thread(cluster.create_database, _migrated)


def _more(stored: set[str], than: int) -> bool:
    return len(stored) > than


async def test_a_crash_of_the_server_under_load_loses_nothing_that_was_acknowledged(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.storage.postgres_follower.random.uniform", lambda low, high: 0.05)
    url = await _prepared(cluster)
    there = PostgresWriter(url, POLICY, reactions.react)
    await there.start()
    reader, hot = postgres_reader(url), PostgresHot(url)
    await hot.start()
    count = text("SELECT count(*) FROM message")
    stored: set[str] = set()
    refused = 0
    stop = asyncio.Event()

    async def send(who: int) -> None:
        nonlocal refused
        number = 0
        while not stop.is_set():
            key = f"{who} {number}"
            try:
                await there.run(says(key))
            except StorageBusy:
                refused += 1
                await asyncio.sleep(0.01)  # the provider tries again
            else:
                stored.add(key)
                number += 1
            async with news:
                news.notify_all()

    news = asyncio.Condition()

    async def until(check: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), news:
            await news.wait_for(check)

    async with following(url) as (told, _):
        sending = [asyncio.create_task(send(who)) for who in range(20)]
        assert await reader.value(count) >= 0
        for mode in ("immediate", "fast"):
            await until(partial(_more, stored, len(stored) + 100))
            before = refused
            await asyncio.to_thread(cluster.stop, mode)
            await until(partial(lambda known: refused > known, before))
            acknowledged = len(stored)
            # While it is down every way in says so, in words; none hangs, none shows a driver's error.
            with pytest.raises(StorageBusy, match="could not be read"):
                await reader.value(count)
            with pytest.raises(StorageBusy, match="could not be read"):
                await hot.api_token("x")
            assert len(stored) == acknowledged
            await asyncio.to_thread(cluster.start)
            # The first to ask afterwards is answered, though every connection it finds is dead.
            assert await reader.value(count) >= acknowledged
            assert await hot.api_token("x") is None
        await until(partial(_more, stored, len(stored) + 100))
        stop.set()
        await asyncio.gather(*sending)
        kept = {row[0] for row in await asyncio.to_thread(postgres_rows, url, "SELECT text FROM message")}
        assert stored <= kept
        assert await reader.value(text("SELECT count(*) FROM (SELECT text FROM message GROUP BY text HAVING count(*) > 1) AS t")) == 0
        head = await reader.value(text("SELECT seq FROM event_head"))
        await told.upto(head)
        assert [event.seq for event in told.events] == list(range(1, head + 1)), "and whoever follows has missed nothing"
    await reader.close()
    await hot.close()
    await there.close()


async def test_a_reader_whose_connections_were_ended_reads_the_next_page() -> None:
    async with several(0) as hubs:
        reader = postgres_reader(hubs.url)
        one = text("SELECT 1")
        assert await asyncio.gather(*(reader.value(one) for _ in range(4))) == [1] * 4
        ended = await hubs.rows(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert len(ended) == 4
        assert await asyncio.gather(*(reader.value(one) for _ in range(4))) == [1] * 4
        await reader.close()


async def test_a_statement_that_is_wrong_is_not_passed_off_as_a_busy_database() -> None:
    async with several(0) as hubs:
        reader = postgres_reader(hubs.url)
        with pytest.raises(Exception, match="nonsense") as raised:
            await reader.all(text("SELECT nonsense FROM message"))
        assert not isinstance(raised.value, StorageBusy)
        await reader.close()


async def test_after_a_failover_it_looks_for_the_server_that_takes_writes() -> None:
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        assert there._connection is not None
        await there._connection.execute("SET default_transaction_read_only = on")  # as a primary that became a standby
        with pytest.raises(StorageBusy):
            await there.run(says("second"))
        assert (await there.run(says("second"))).stored == 1


async def test_ids_of_what_is_committed_are_not_handed_out_again_when_the_next_batch_fails_before_it_has_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(postgres_writer.LIMITS, "lock_timeout", "20ms")
    async with several(1) as hubs:
        (there,) = hubs.writers
        for number in range(3):
            await there.run(heard(SMS, message(phone(f"+1202555010{number}"))))
            async with holding(hubs.url, CONVERSATION_LOCKS + 1):
                with pytest.raises(StorageBusy):
                    await there.run(heard(SMS, message(phone("+12025550100"))))
        assert await hubs.value("SELECT count(*) FROM message") == 3


# --- locks that are not given back ---


async def test_a_lock_that_is_never_given_back_refuses_in_time_and_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres_writer.LIMITS, "lock_timeout", "100ms")
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        async with holding(hubs.url, CONVERSATION_LOCKS + 1):
            with pytest.raises(StorageBusy):
                await asyncio.wait_for(there.run(says("stuck")), PATIENCE)
            await there.run(heard(SMS, message(phone("+12025550199"))))
            with pytest.raises(StorageBusy):
                await asyncio.wait_for(there.run(says("stuck")), PATIENCE)
        await there.run(says("stuck"))


async def test_a_batch_done_again_unit_by_unit_hangs_once_and_not_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres_writer.LIMITS, "lock_timeout", "100ms")
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        begun: list[int] = []
        transaction = there._transaction

        async def counted(connection: Any, batch: list[Any], *args: Any) -> Any:
            begun.append(len(batch))
            return await transaction(connection, batch, *args)

        monkeypatch.setattr(there, "_transaction", counted)
        async with AsyncExitStack() as stack:
            # Somebody takes the lock between the first try, which fails for another reason, and the second.
            monkeypatch.setattr(there, "_decide", lambda batch, facts: (_ for _ in ()).throw(postgres_writer._Undecided(KeyError())))
            one = there._one_by_one

            async def first_hold(batch: list[Any], error: Exception) -> bool:
                if len(batch) > 1:
                    await stack.enter_async_context(holding(hubs.url, CONVERSATION_LOCKS + 1))
                return await one(batch, error)

            monkeypatch.setattr(there, "_one_by_one", first_hold)
            outcomes = await asyncio.wait_for(
                asyncio.gather(*(there.run(says(f"k{n}")) for n in range(40)), return_exceptions=True), PATIENCE
            )
        assert {type(outcome) for outcome in outcomes} == {StorageBusy}
        assert begun == [40, 1], "who stands behind the first one would hang as long"


def test_a_lock_is_waited_for_no_longer_than_a_provider_waits_for_us() -> None:
    assert postgres_writer.LIMITS["lock_timeout"] == "2s"
    assert "statement_timeout" not in postgres_writer.LIMITS, "it would end a COMMIT's wait for a standby as a success"


async def test_who_waits_behind_a_batch_that_hangs_is_told_so_and_the_batch_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_writer, "MAX_AGE", 0.05)
    monkeypatch.setitem(postgres_writer.LIMITS, "lock_timeout", "60s")
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        async with holding(hubs.url, CONVERSATION_LOCKS + 1) as release:
            hanging = asyncio.create_task(there.run(says("hangs")))
            await hubs.waiting()
            behind = await asyncio.wait_for(
                asyncio.gather(*(there.run(says(f"behind {n}")) for n in range(200)), return_exceptions=True), PATIENCE
            )
            assert {type(outcome) for outcome in behind} == {StorageBusy}
            assert not hanging.done()
            release()
            assert (await hanging).stored == 1
        assert await hubs.value("SELECT count(*) FROM message") == 2, "nothing of what was refused"
        assert (await there.run(says("behind 0"))).stored == 1


async def test_a_hub_that_freezes_in_the_middle_of_a_transaction_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is suspended, or cut off without a word, holds its locks until the server takes them away."""
    monkeypatch.setitem(postgres_writer.LIMITS, "idle_in_transaction_session_timeout", "200ms")
    async with several(2) as hubs:
        frozen, other = hubs.writers
        await frozen.run(says("first"))
        await other.run(says("second"))
        thaw, there = asyncio.Event(), asyncio.Event()
        decide = frozen._read

        async def freeze(*args: Any) -> Any:
            there.set()
            await thaw.wait()
            return await decide(*args)

        monkeypatch.setattr(frozen, "_read", freeze)
        cold = asyncio.create_task(frozen.run(says("frozen")))
        await asyncio.wait_for(there.wait(), PATIENCE)
        await asyncio.wait_for(other.run(says("third")), PATIENCE)
        thaw.set()
        with pytest.raises(StorageBusy):
            await asyncio.wait_for(cold, PATIENCE)
        assert (await frozen.run(says("frozen"))).stored == 1
        assert await hubs.value("SELECT count(*) FROM message") == 4


# --- a unit that is at fault itself ---


class Twin:
    """A row that is there already."""

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        Put("there").decide(facts)


class Unready:
    """Its needs cannot be said."""

    def needs(self, needs: Needs) -> None:
        raise KeyError("a mistake")

    def decide(self, facts: Facts) -> None: ...


@pytest.mark.parametrize(
    "poison",
    [
        Twin(),
        Unready(),
        Put("odd", "NUL \x00 in it"),
        Put("odd", "half a surrogate pair: \ud83d"),
        Put("odd", 2**70),
        Put("odd", object()),
        Fail(ValueError("a mistake")),
        Fail(OSError("of its own making")),
        Fail(TimeoutError()),
        Fail(StopIteration()),
        Fail(asyncpg.PostgresError("a strange one")),
    ],
    ids=["twin", "needs", "NUL", "surrogate", "integer", "type", "mistake", "OSError", "timeout", "StopIteration", "driver's"],
)
async def test_a_unit_at_fault_fails_alone_among_its_batch(poison: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(Put("there"))
        async with holding(hubs.url, CONVERSATION_LOCKS + 1) as release:
            first = asyncio.create_task(there.run(_Wait()))
            await hubs.waiting()
            tasks = [asyncio.create_task(there.run(work)) for work in (Put("a"), poison, Put("b"), Put("c"))]
            await asyncio.sleep(0)
            release()
            await first
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcomes[0], *outcomes[2:]] == ["a", "b", "c"]
        assert isinstance(outcomes[1], Exception)
        assert not isinstance(outcomes[1], StorageBusy), "trying again cannot help"
        assert await hubs.rows("SELECT key FROM setting ORDER BY key") == [("a",), ("b",), ("c",), ("there",)]
        assert [tuple(row) for row in await hubs.rows("SELECT seq, data FROM event ORDER BY seq")] == [
            (n, f'{{"key": "{key}"}}') for n, key in enumerate(("there", "a", "b", "c"), 1)
        ]


class _Wait:
    def needs(self, needs: Needs) -> None:
        needs.customers.add(1)

    def decide(self, facts: Facts) -> None: ...


# --- the end ---


async def test_closing_finishes_what_waits_also_while_another_hub_is_in_the_way() -> None:
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(says("first"))
        async with holding(hubs.url, CONVERSATION_LOCKS + 1) as release:
            waiting = [asyncio.create_task(there.run(says(f"k{n}"))) for n in range(300)]
            await hubs.waiting()
            closing = asyncio.create_task(there.close())
            await asyncio.sleep(0)
            with pytest.raises(StorageBusy, match="closing"):
                await there.run(says("too late"))
            release()
            await asyncio.wait_for(closing, PATIENCE)
        assert all(task.done() for task in waiting)
        assert sum(task.result().stored for task in waiting) == 300


async def test_a_writer_that_dies_says_so_and_answers_everybody() -> None:
    class Death(BaseException): ...

    died: list[BaseException] = []
    async with several(1, on_death=died.append) as hubs:
        (there,) = hubs.writers

        async def broken(*args: Any) -> Any:
            raise RuntimeError("a mistake of ours")

        there._rollback = broken  # type: ignore[method-assign]
        outcomes = await asyncio.gather(*(there.run(work) for work in (Put("a"), Twin(), Twin())), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StorageBusy}
        assert [type(error) for error in died] == [RuntimeError]
        with pytest.raises(StorageBusy):
            await there.run(Put("after"))


async def test_no_password_is_ever_logged(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(1) as hubs:
        (there,) = hubs.writers
        await there.run(Put("a"))
        monkeypatch.setattr(there, "_url", hubs.url.replace("hub@", "hub:sesame@").replace("/hub_", "/gone_"))
        await there._disconnect()
        with structlog.testing.capture_logs() as logged, pytest.raises(StorageBusy) as raised:
            await there.run(Put("b"))
        assert "sesame" not in f"{raised.value!r}"
        assert "batch not stored" in {said["event"] for said in logged}
        printed = capsys.readouterr()
        assert "sesame" not in f"{logged!r}{printed.out}{printed.err}"
