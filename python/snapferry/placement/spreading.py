"""Weighted rendezvous hashing: every pack ranks the sites by itself, so that one site more or less moves only what it must."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping


def ranked(pack: bytes, names: Iterable[str], weights: Mapping[str, float]) -> list[str]:
    """The sites, the one first that the pack belongs to first. A site comes first with a chance in proportion to its weight (1 unless told).

    Schindelhauer and Schomaker, "Weighted distributed hash tables" (SPAA 2005), the logarithmic method.
    """
    return sorted(names, key=lambda name: (_distance(pack, name) / weights.get(name, 1.0), name))


def _distance(pack: bytes, name: str) -> float:
    """Exponentially distributed, and the same whenever it is asked for."""
    digest = hashlib.blake2b(pack + name.encode(), digest_size=8, person=b"snapferry place").digest()
    # Never 0 nor 1: half a step is added to 53 bits of the hash.
    return -math.log((int.from_bytes(digest, "big") >> 11) * 2.0**-53 + 2.0**-54)
