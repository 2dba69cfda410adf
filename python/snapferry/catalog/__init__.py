"""The local catalog: what this machine has seen of its repositories. A cache; losing it loses no backup."""

from snapferry.catalog.store import Catalog
from snapferry.catalog.values import RecordedDamage, ReplicaSpeed

__all__ = ["Catalog", "RecordedDamage", "ReplicaSpeed"]
