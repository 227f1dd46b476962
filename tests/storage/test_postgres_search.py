"""Search finds the same on both engines; on PostgreSQL one of the hubs fills the index, and another one takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.storage.postgres import INDEXING
from hub.storage.postgres_search import BEHIND, REBUILD, match_query
from hub.storage.reader import Reader, postgres_reader
from hub.storage.search import FOUND_FROM, FOUND_TO
from tests.postgres import shared
from tests.storage import ENGINES, MAIL, SMS, Store, email, fresh_postgres, heard, message, open_store, phone
from tests.storage.several import PATIENCE, Several, following, holding, needs_postgres, several

ADA, BEN = phone("+12025550123"), email("ben@example.com")
SAID = (
    "Où est mon colis ?",  # 1
    "Der Gruß kam an",
    "Where is my parcel, ÅSA?",
    "parcel parking",
    "order #A-1234/5 shipped",  # 5
    "write to ada.lovelace@shop.example, please",
    "日本語のテスト",
    "Здравствуйте, где посылка?",
    "I don't know; see https://shop.example/returns?id=77",
    "naïve cafe\u0301",  # 10: the accent as a letter of its own
    "-42 and 3.14 x_y",
    "colis colis colis",
)
CASES = {
    "ou colis": [1],
    "OÙ": [1],
    "colis": [12, 1],
    "col": [12, 1],
    "col est": [],  # only the last word is a beginning
    "parcel": [4, 3],
    "par": [4, 3],
    "asa parcel": [3],
    "parcel asa": [3],
    "parcel nowhere": [],
    "gruß": [2],
    "GRUSS": [],  # ß is a letter of its own
    "gru": [2],
    "1234": [5],
    "A-1234": [5],
    "#a-1234/5": [5],
    "ada": [6],
    "lovelace": [6],
    "ada.lovelace@shop.example": [6],
    "lovelace@shop": [6],
    "shop lovelace": [6],  # a word at the end is a beginning
    "example.shop": [],  # parts of one word stand side by side
    "shop.example": [9, 6],
    "returns": [9],
    "id=77": [9],
    "don't": [9],
    "日本": [7],
    "посылка": [8],
    "ПОСЫЛ": [8],
    "naive café": [10],
    "cafe naive": [10],
    "42": [11],
    "-42": [11],
    "3.14": [11],
    "x_y": [11],
    "y": [11],
    "write OR nothing": [],
    "parcel & colis": [],
    "!parcel": [4, 3],
    "subject:parcel": [],
    "hello": [14, 13],  # the subject and the sender's name are found too
    "Bénédicte": [14],
    "nothing": [],
    "": [],
    "   ": [],
    "--- !?": [],
    "'": [],
}


async def known(reader: Reader) -> None:
    """Until the index knows everything that was stored."""
    async with asyncio.timeout(PATIENCE):
        while await reader.value(reader.search.lag):
            pass


async def found(reader: Reader, typed: str) -> list[int]:
    statement = reader.search.found(typed)
    return [] if statement is None else [row.id for row in await reader.all(statement)]


@asynccontextmanager
async def searched(directory: Path, engine: str) -> AsyncIterator[tuple[Store, Reader]]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(directory, engine=engine))
        if isinstance(store.path, str):
            await stack.enter_async_context(following(store.path))
        reader = store.reader()
        stack.push_async_callback(reader.close)
        yield store, reader


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_same_words_find_the_same_messages(engine: str, tmp_path: Path) -> None:
    async with searched(tmp_path, engine) as (store, reader):
        for said in SAID:
            await store.run(heard(SMS, message(ADA, text=said)))
        await store.run(heard(MAIL, message(BEN, text="x", subject="Hello there")))
        await store.run(heard(MAIL, message(BEN, text="hello", sender_name="Bénédicte")))
        await known(reader)
        assert {typed: await found(reader, typed) for typed in CASES} == CASES


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_was_found_is_marked_and_comes_with_its_message(engine: str, tmp_path: Path) -> None:
    async with searched(tmp_path, engine) as (store, reader):
        long = "before " * 40 + "the Parcel is here " + "after " * 40
        await store.run(heard(SMS, message(ADA, text=long, subject="About it")))
        await known(reader)
        statement = reader.search.found("parc")
        assert statement is not None
        (row,) = await reader.all(statement)
        assert (row.conversation_id, row.ticket_id, row.direction, row.channel_id, row.subject) == (1, 1, "in", SMS, "About it")
        assert (row.kind, row.address) == ("phone", "+12025550123")
        assert f"{FOUND_FROM}Parcel{FOUND_TO}" in row.snippet
        assert len(row.snippet) < 200


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_newest_fifty_are_shown(engine: str, tmp_path: Path) -> None:
    async with searched(tmp_path, engine) as (store, reader):
        await asyncio.gather(*(store.run(heard(SMS, message(ADA, text="parcel"))) for _ in range(70)))
        await known(reader)
        assert await found(reader, "parcel") == list(range(70, 20, -1))


SYNTAX = st.sampled_from(
    [*"'*^(){}:+-,;\x00\ud800!&|<>\\½…\"", "<->", ":*", "''", "NEAR", "AND", "OR", "NOT", "text", "ß", "\u0301", "\x02"]
)
TYPED = st.one_of(st.text(), st.text(st.characters(exclude_categories=())), st.lists(SYNTAX).map("".join), st.lists(SYNTAX).map(" ".join))


@needs_postgres
async def test_whatever_is_typed_is_never_a_syntax_error() -> None:
    connection = await asyncpg.connect(shared().url("postgres"))
    loop = asyncio.get_running_loop()

    def ask() -> None:
        @settings(max_examples=250, deadline=None, derandomize=True)
        @given(TYPED)
        @example("'")
        @example("a\\")
        @example("½")
        @example("a & | b")
        @example("\u0301")
        def whatever(typed: str) -> None:
            match = match_query(typed)
            if match:
                query = connection.fetchval("SELECT to_tsquery('simple', $1)::text", match)
                asyncio.run_coroutine_threadsafe(query, loop).result(PATIENCE)

        whatever()

    try:
        await asyncio.to_thread(ask)
    finally:
        await connection.close()


# --- who fills the index ---


async def say(hubs: Several, hub: int, many: int, text: str = "parcel") -> None:
    await asyncio.gather(*(hubs.writers[hub].run(heard(SMS, message(ADA, text=text))) for _ in range(many)))


@needs_postgres
async def test_one_hub_fills_the_index_and_another_one_takes_over_when_it_is_gone() -> None:
    async with several(2) as hubs, following(hubs.url) as (first, one), following(hubs.url) as (_, two):
        reader = postgres_reader(hubs.url)
        await say(hubs, 0, 10)
        await known(reader)
        assert len(await found(reader, "parcel")) == 10
        await one.close()
        await say(hubs, 1, 10)
        await known(reader)
        assert len(await found(reader, "parcel")) == 20
        assert first.events
        assert two is not one
        await reader.close()


@needs_postgres
async def test_while_one_hub_is_at_it_the_others_do_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.storage.postgres_search.BEHIND", 1)  # it tries at once
    async with several(1) as hubs, following(hubs.url) as (told, _):
        reader = postgres_reader(hubs.url)
        async with holding(hubs.url, INDEXING):
            async with asyncio.timeout(8):  # less than after which a hanging statement is given up
                for _ in range(5):
                    await say(hubs, 0, 1)
                    await told.upto(await hubs.value("SELECT seq FROM event_head"))  # its own work goes on
            assert await reader.value(reader.search.lag) > 0, "and a search can say that the index lags"
            assert await found(reader, "parcel") == []
        await known(reader)
        assert len(await found(reader, "parcel")) == 5
        await reader.close()


@needs_postgres
async def test_an_index_far_behind_catches_up() -> None:
    async with several(1) as hubs:
        reader = postgres_reader(hubs.url)
        await say(hubs, 0, 1)
        await hubs.rows(
            "INSERT INTO message (id, conversation_id, direction, status, text, created_at, proof, subject, sender_name, automatic, doubt, "
            "error, in_reply_to) SELECT n, 1, 'in', 'received', 'word' || n, 1, '', '', '', '', '', '', '' "
            "FROM generate_series(2, 5001) AS n"
        )
        await hubs.rows(
            "WITH h AS (UPDATE event_head SET seq = seq + 5000 RETURNING seq - 5000 AS before) "
            "INSERT INTO event (seq, type, at, message_id, data) "
            "SELECT before + n, 'message.received', 1, n + 1, '{}' FROM h, generate_series(1, 5000) AS n"
        )
        assert await reader.value(reader.search.lag) > 5_000 > BEHIND
        async with following(hubs.url):
            await known(reader)
        assert await hubs.value("SELECT count(*) FROM message_search") == 5_001
        assert await found(reader, "word5000") == [5_000]
        await reader.close()


@needs_postgres
async def test_a_message_that_is_committed_out_of_the_order_of_ids_is_found_too() -> None:
    """Another hub drew a lower id and committed later: a watermark over ids would pass it by."""
    async with several(1) as hubs, following(hubs.url):
        reader = postgres_reader(hubs.url)
        late = await asyncpg.connect(hubs.url)
        await say(hubs, 0, 1)
        low = await late.fetchval("SELECT nextval('message_id_seq')")
        await late.execute("BEGIN")
        await late.execute(
            "INSERT INTO message (id, conversation_id, direction, status, text, created_at, proof, subject, sender_name, automatic, doubt, "
            "error, in_reply_to) VALUES ($1, 1, 'in', 'received', 'latecomer', 1, '', '', '', '', '', '', '')",
            low,
        )
        await say(hubs, 0, 3)
        await known(reader)
        assert len(await found(reader, "parcel")) == 4
        await late.execute(
            "WITH h AS (UPDATE event_head SET seq = seq + 1 RETURNING seq) INSERT INTO event (seq, type, at, message_id, data) "
            "SELECT seq, 'message.received', 1, $1, '{}' FROM h",
            low,
        )
        await late.execute("COMMIT")
        await known(reader)
        assert await found(reader, "latecomer") == [low]
        late.terminate()
        await reader.close()


@needs_postgres
async def test_a_text_of_any_length_is_found_by_its_beginning() -> None:
    async with several(1) as hubs, following(hubs.url):
        reader = postgres_reader(hubs.url)
        text = "beginning " + " ".join(f"w{n:x}" for n in range(200_000))
        await say(hubs, 0, 1, text)
        await say(hubs, 0, 1, "x" * 1_000_000)  # one word longer than an index takes
        await say(hubs, 0, 1, "afterwards")
        await known(reader)
        assert await found(reader, "beginning") == [1]
        assert await found(reader, "afterwards") == [3], "and it does not stand in the way of others"
        await reader.close()


@needs_postgres
async def test_an_index_built_anew_finds_the_same() -> None:
    async with several(1) as hubs, following(hubs.url):
        reader = postgres_reader(hubs.url)
        for said in SAID:
            await say(hubs, 0, 1, said)
        await known(reader)
        typed = [typed for typed, ids in CASES.items() if ids and max(ids) <= len(SAID)]
        before = {one: await found(reader, one) for one in typed}
        for statement in REBUILD:
            await hubs.other.execute(statement)
        assert {one: await found(reader, one) for one in typed} == before
        assert all(before.values())
        await reader.close()


@needs_postgres
async def test_the_newest_of_many_are_found_through_the_index() -> None:
    connection = await asyncpg.connect(fresh_postgres())
    await connection.execute("SET enable_seqscan = off")
    plan = await connection.fetch("EXPLAIN SELECT message_id FROM message_search WHERE words @@ to_tsquery('simple', 'parcel')")
    assert "ix_message_search_words" in str(plan)
    await connection.close()
