"""The local catalog: what this machine has seen of its repositories. A cache; losing it loses no backup.

Importing it imports SQLAlchemy, which takes a while: importers that must start quickly import it where they need it.
"""

from snapferry.catalog.store import Catalog
from snapferry.catalog.values import KnownCommit, RecordedDamage, ReplicaSpeed

__all__ = ["Catalog", "KnownCommit", "RecordedDamage", "ReplicaSpeed"]
