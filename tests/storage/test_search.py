"""The full-text index: filled after the commit, by a watermark; whatever a person types is a question, never a syntax error."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.storage import search
from hub.storage.columns import INSERT_VALUES
from hub.storage.facts import Facts, Needs
from hub.storage.records import Message
from hub.storage.search import STEP, SearchIndex, match_expression
from hub.storage.sqlite_statements import INSERT
from hub.storage.sqlite_writer import SEARCH_BEHIND, connect
from tests.storage import fresh_database, open_store


@dataclass(frozen=True)
class Say:
    texts: tuple[str, ...]

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        for text in self.texts:
            facts.add_message(Message(facts.new_id("message"), 1, None, "in", "received", text, facts.now))


def found(path: Path, typed: str) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute(
            "SELECT rowid FROM message_search WHERE message_search MATCH ? ORDER BY rowid", (match_expression(typed),)
        )
        return [row[0] for row in rows]
    finally:
        connection.close()


def fill(path: Path, many: int) -> sqlite3.Connection:
    connection = connect(path)
    rows = [Message(n, 1, None, "in", "received", f"word{n}", 1) for n in range(1, many + 1)]
    connection.executemany(INSERT["message"], map(INSERT_VALUES["message"], rows))
    return connection


def test_the_index_catches_up_step_by_step_to_the_newest_message(tmp_path: Path) -> None:
    path = fresh_database(tmp_path)
    connection = fill(path, 2 * STEP + 7)
    index = SearchIndex(connection)
    for left in (2 * STEP + 7, STEP + 7, 7):
        assert index.behind == left
        assert index.step()
    assert index.behind == 0
    assert not index.step()
    assert found(path, "word1") == [1, *range(10, 20), *range(100, 200)], "the last word is a beginning"
    assert found(path, f"word{2 * STEP + 7} ") == [2 * STEP + 7]
    connection.close()


def test_after_a_restart_it_goes_on_where_it_stopped_and_indexes_nothing_twice(tmp_path: Path) -> None:
    path = fresh_database(tmp_path)
    connection = fill(path, STEP + 5)
    SearchIndex(connection).step()
    connection.close()
    connection = connect(path)
    index = SearchIndex(connection)
    assert index.behind == 5
    while index.step():
        pass
    assert found(path, "word7") == [7, *range(70, 80)]
    connection.execute("INSERT INTO message_search(message_search, rank) VALUES ('integrity-check', 1)")
    connection.close()


def test_a_step_that_fails_leaves_the_watermark_where_it_was(tmp_path: Path) -> None:
    path = fresh_database(tmp_path)
    connection = fill(path, 3)
    index = SearchIndex(connection)
    connection.execute("CREATE TRIGGER full BEFORE INSERT ON setting BEGIN SELECT raise(ABORT, 'disk full'); END")
    with pytest.raises(sqlite3.IntegrityError, match="disk full"):
        index.step()
    connection.execute("ROLLBACK")
    assert index.behind == 3
    assert found(path, "word1") == []
    connection.execute("DROP TRIGGER full")
    assert index.step()
    assert found(path, "word1") == [1]
    connection.close()


@pytest.fixture
async def steps(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[bool]:
    """Every step the writer's thread takes, told to the test's loop."""
    taken: asyncio.Queue[bool] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    step = SearchIndex.step

    def told(index: SearchIndex) -> bool:
        done = step(index)
        loop.call_soon_threadsafe(taken.put_nowait, done)
        return done

    monkeypatch.setattr(SearchIndex, "step", told)
    return taken


async def test_the_writer_indexes_when_it_is_idle(tmp_path: Path, steps: asyncio.Queue[bool]) -> None:
    async with open_store(tmp_path) as store:
        await store.run(Say(("Où est mon colis ?", "Der Gruß kam an", "日本語のテスト")))
        assert await asyncio.wait_for(steps.get(), 30)
        assert found(store.path, "ou colis") == [1], "accents need not be typed"
        assert found(store.path, "GRUSS") == [], "ß is a letter of its own"
        assert found(store.path, "gru") == [2]
        assert found(store.path, "日本") == [3]


async def test_the_writer_does_not_wait_for_quiet_when_it_is_far_behind(
    tmp_path: Path, steps: asyncio.Queue[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.storage.sqlite_writer.QUIET", 3_600.0)
    async with open_store(tmp_path) as store:
        await store.run(Say(tuple(f"text{n}" for n in range(SEARCH_BEHIND - 1))))
        assert steps.empty()
        await store.run(Say(("one more",)))
        assert await asyncio.wait_for(steps.get(), 30)
        assert found(store.path, f"text{STEP - 1}") == [STEP]
        assert found(store.path, f"text{STEP}") == []


def test_what_was_typed_becomes_whole_words_and_a_beginning() -> None:
    for typed, expression in {
        "": "",
        "   ": "",
        "parcel": '"parcel"*',
        "where is": '"where" "is"*',
        'say "hi"': '"say" """hi"""*',
        "a AND b": '"a" "AND" "b"*',
        "text:x": '"text:x"*',
        "x\x00y": '"x" "y"*',
        " ".join("abcdefghijklmnop"): " ".join(f'"{letter}"' for letter in "abcdefghijk") + ' "l"*',
    }.items():
        assert match_expression(typed) == expression, typed


@pytest.fixture(scope="module")
def empty() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE message(id INTEGER PRIMARY KEY, text, subject, sender_name)")
    connection.execute(search.CREATE)
    connection.execute("INSERT INTO message VALUES (1, 'hello NEAR world', '', '')")
    connection.execute("INSERT INTO message_search(rowid, text, subject, sender_name) SELECT * FROM message")
    yield connection
    connection.close()


SYNTAX = st.sampled_from([*'"*^(){}:+-,;\x00\ud800', "'", '""', "NEAR", "NEAR(", "AND", "OR", "NOT", "text"])


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.text(st.characters(exclude_categories=())), st.lists(SYNTAX).map("".join), st.lists(SYNTAX).map(" ".join)))
@example('"')
@example("NEAR(a b, 5)")
@example("a\x00b")
@example("\ud83d")
@example('" OR 1 --')
def test_whatever_is_typed_is_never_a_syntax_error(empty: sqlite3.Connection, typed: str) -> None:
    expression = match_expression(typed)
    if expression:
        empty.execute("SELECT rowid FROM message_search WHERE message_search MATCH ?", (expression,)).fetchall()
    else:
        assert not typed.replace("\x00", " ").encode("utf-8", "ignore").decode().split()


def test_typed_syntax_is_searched_for_and_not_obeyed(empty: sqlite3.Connection) -> None:
    for typed, hits in {"hello near": 1, "NEAR": 1, "hello NOT world": 0, "hello OR nothing": 0, "text:hello": 0, "hel*": 1}.items():
        rows = empty.execute("SELECT rowid FROM message_search WHERE message_search MATCH ?", (match_expression(typed),)).fetchall()
        assert len(rows) == hits, typed
