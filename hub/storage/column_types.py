"""The columns that tables are made of, and how their constraints are named: the same on both engines."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Text, text
from sqlmodel import SQLModel

SQLModel.metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A row id that is also a sequence must never be used again, even after its row is gone.
SEQUENCE = {"sqlite_autoincrement": True}


def number() -> Column[int]:
    # SQLite gives a rowid alias only to the exact type INTEGER; PostgreSQL needs eight bytes.
    return Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True)


def big(nullable: bool = False) -> Column[int]:
    return Column(BigInteger(), nullable=nullable)


def words(nullable: bool = False) -> Column[str]:
    return Column(Text(), nullable=nullable)


def defaulted(value: str) -> Column[str]:
    # Added to a table that had rows: they have this.
    return Column(Text(), nullable=False, server_default=text(value))


def octets() -> Column[bytes]:
    return Column(LargeBinary(), nullable=True)
