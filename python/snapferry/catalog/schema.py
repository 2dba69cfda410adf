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

# Summaries of snapshots, in sealed runs: nothing of them is told but to who has the key.
summaries = Table(
    "summaries",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("run", String(32), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

# The greatest generation ever seen of a volume, also of snapshots that are gone: none is given twice.
generations = Table(
    "generations",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("volume", String, primary_key=True),
    Column("generation", BigInteger, nullable=False),
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
    Column("tail", Float, nullable=False),
    Column("errors", Float, nullable=False),
    Column("measured", String, nullable=False),
)

MIGRATIONS: Mapping[int, Sequence[str]] = MappingProxyType(
    {
        # Version 1 kept the payload of every commit, unsealed, and nobody read it. The commits are read once more.
        1: (
            """CREATE TABLE summaries (
                repository VARCHAR(32) NOT NULL, run VARCHAR(32) NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (repository, run)
            )""",
            """CREATE TABLE generations (
                repository VARCHAR(32) NOT NULL, volume VARCHAR NOT NULL, generation BIGINT NOT NULL, PRIMARY KEY (repository, volume)
            )""",
            "INSERT INTO generations SELECT repository, volume, max(generation) FROM snapshots GROUP BY repository, volume",
            "DROP TABLE snapshots",
        ),
        # What was measured in version 2 has no time: it counts as long ago, and is measured again.
        2: (
            "ALTER TABLE replica_speed RENAME TO replica_speed_2",
            """CREATE TABLE replica_speed (
                repository VARCHAR(32) NOT NULL, destination VARCHAR(32) NOT NULL, first_byte FLOAT NOT NULL, goodput FLOAT NOT NULL,
                tail FLOAT NOT NULL, errors FLOAT NOT NULL, measured VARCHAR NOT NULL, PRIMARY KEY (repository, destination)
            )""",
            """INSERT INTO replica_speed
                SELECT repository, destination, first_byte, goodput, 0, 0, '1970-01-01T00:00:00+00:00' FROM replica_speed_2""",
            "DROP TABLE replica_speed_2",
        ),
    }
)
"""The statements that bring the tables from the version that is the key to the next one."""


def statements(version: int) -> list[str]:
    """What brings an SQLite database from ``version`` (0: it is empty) to ``VERSION``."""
    if version:
        return [statement for step in range(version, VERSION) for statement in MIGRATIONS[step]]
    dialect = sqlite.dialect()
    tables = metadata.sorted_tables
    made = [CreateTable(table) for table in tables] + [CreateIndex(index) for table in tables for index in table.indexes]
    return [str(element.compile(dialect=dialect)) for element in made]
