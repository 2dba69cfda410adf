"""The catalog's tables. A change here raises ``VERSION`` and adds a step to ``MIGRATIONS``.

They are said once, in SQLAlchemy's terms, for every database there will be; a database gets them as statements in its own
dialect. Importing SQLAlchemy takes longer than most commands, so this is imported only where tables are to be made or changed.

Repositories and destinations are named by their own ids (hex), never by the names of one configuration; times are RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sqlalchemy import BigInteger, Column, Float, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from snapferry.catalog.values import VERSION

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", BigInteger, primary_key=True, autoincrement=False))

snapshots = Table(
    "snapshots",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("volume", String, nullable=False, index=True),
    Column("generation", BigInteger, nullable=False),
    Column("created", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("block_size", BigInteger, nullable=False),
    Column("bytes_new", BigInteger, nullable=False),
    Column("parent", String(32)),
    Column("payload", LargeBinary, nullable=False),
)

# Which snapshot was ever seen at which destination. The one table that the destinations cannot give back: it is how a
# destination that was rolled back is noticed, so `Catalog.clear` keeps it.
replicas = Table(
    "replicas",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("snapshot", String(32), primary_key=True),
    Column("first_seen", String, nullable=False),
)

damage = Table(
    "damage",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("object", String, primary_key=True),
    Column("reason", String, nullable=False),
    Column("found", String, nullable=False),
)

replica_speed = Table(
    "replica_speed",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("first_byte", Float, nullable=False),
    Column("goodput", Float, nullable=False),
)

MIGRATIONS: Mapping[int, Sequence[str]] = MappingProxyType({})
"""The statements that bring the tables from the version that is the key to the next one."""


def statements(version: int) -> list[str]:
    """What brings an SQLite database from ``version`` (0: it is empty) to ``VERSION``."""
    if version:
        return [statement for step in range(version, VERSION) for statement in MIGRATIONS[step]]
    dialect = sqlite.dialect()
    tables = metadata.sorted_tables
    made = [CreateTable(table) for table in tables] + [CreateIndex(index) for table in tables for index in table.indexes]
    return [str(element.compile(dialect=dialect)) for element in made]
