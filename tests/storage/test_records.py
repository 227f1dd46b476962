"""Records, tables and the first migration describe the same columns; the write path's SQL is built from them."""

from __future__ import annotations

import sqlite3
import types
import typing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text

from hub.storage import columns, records
from hub.storage.records import RECORDS
from hub.storage.tables import metadata
from tests.storage import fresh_database

BY_NAME = {record.table: record for record in RECORDS}  # type: ignore[attr-defined]
PYTHON = ((Boolean, bool), (Integer, int), (BigInteger, int), (LargeBinary, bytes), (Text, str))


def python_type(column: Any) -> type:
    return next(python for kind, python in PYTHON if isinstance(column.type, kind))


def test_every_table_has_a_record_and_every_record_a_table() -> None:
    assert set(BY_NAME) == set(metadata.tables)
    assert len(BY_NAME) == len(RECORDS) >= 21


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_equals_its_table_column_for_column(record: Any) -> None:
    hints = typing.get_type_hints(record)
    described = []
    for one in fields(record):
        hint = hints[one.name]
        nullable = isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
        kind = next(a for a in typing.get_args(hint) if a is not type(None)) if nullable else hint
        described.append((one.name, kind, nullable))
    table = metadata.tables[record.table]
    assert described == [(column.name, python_type(column), bool(column.nullable)) for column in table.columns]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_the_migrated_database_has_the_columns_in_the_order_rows_are_read(record: Any, tmp_path: Path) -> None:
    connection = sqlite3.connect(fresh_database(tmp_path))
    on_disk = [row[1] for row in connection.execute(f'PRAGMA table_info("{record.table}")')]
    connection.close()
    assert on_disk == [one.name for one in fields(record)] == list(columns.COLUMNS[record.table])


def test_the_keys_the_write_path_updates_by_are_the_primary_keys() -> None:
    for name, table in metadata.tables.items():
        assert columns.KEYS.get(name, ("id",)) == tuple(column.name for column in table.primary_key.columns), name


def test_what_an_update_leaves_out_is_no_key_and_exists() -> None:
    for name, left_out in columns.UNCHANGING.items():
        assert left_out <= set(columns.COLUMNS[name]), name
        assert not left_out & set(columns.MUTABLE[name]), name


def test_every_row_id_is_counted_one_way() -> None:
    """AUTOINCREMENT where an id is a sequence (never used again); `max(id) + 1` elsewhere; text keys are made by their makers."""
    sequences = {name for name, table in metadata.tables.items() if table.dialect_options["sqlite"].get("autoincrement")}
    assert sequences == set(columns.SEQUENCES)
    made = {"attachment", "one_time_code"}
    whole = {name for name, table in metadata.tables.items() if list(table.primary_key.columns.keys()) == ["id"] and name not in made}
    assert whole - sequences == set(columns.COUNTED)


def test_records_are_plain_slotted_and_their_defaults_come_last() -> None:
    for record in RECORDS:
        assert not hasattr(record, "__dict__") or "__slots__" in vars(record), record
        defaults = [one.default is not MISSING for one in fields(record)]
        assert defaults == sorted(defaults), record


def test_a_column_added_to_one_side_alone_is_noticed() -> None:
    """The negative twin: the comparison above sees a difference of one column."""
    table = [column.name for column in metadata.tables["customer"].columns]
    assert [one.name for one in fields(records.Customer)] == table
    assert [one.name for one in fields(records.Customer)] + ["added"] != table
