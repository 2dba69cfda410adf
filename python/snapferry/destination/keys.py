"""Which names an object may have: one rule for every store, so that what one accepts no other refuses.

A key is parts of ``[A-Za-z0-9_-][A-Za-z0-9._-]*`` with ``/`` between them. So no part is empty, ``.`` or ``..``, no name is hidden
(network file systems leave ``.nfs…`` files behind), and nothing needs quoting in a URL. The first part ``tmp`` belongs to the stores.
"""

from __future__ import annotations

import re

MAX_KEY_LENGTH = 512
MAX_PART_LENGTH = 200
RESERVED = "tmp"

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)


def is_key(key: str) -> bool:
    """Whether ``key`` may name an object."""
    parts = key.split("/")
    return (
        len(key) <= MAX_KEY_LENGTH
        and parts[0] != RESERVED
        and all(len(part) <= MAX_PART_LENGTH and _PART.fullmatch(part) for part in parts)
    )


def is_key_below(above: str, part: str) -> bool:
    """Whether a prefix of keys and one more part may name an object: ``is_key`` for who has looked at what is above it."""
    return (
        len(part) <= MAX_PART_LENGTH
        and len(above) + len(part) <= MAX_KEY_LENGTH
        and _PART.fullmatch(part) is not None
        and (above != "" or part != RESERVED)
    )


def check_key(key: str) -> str:
    """Returns ``key``; ``ValueError`` if it may not name an object."""
    if not is_key(key):
        raise ValueError(f"not a key of an object: {key!r}")
    return key


def check_prefix(prefix: str) -> str:
    """Returns ``prefix``, which is empty or a key and a ``/``; ``ValueError`` for anything else."""
    if prefix and not (prefix.endswith("/") and is_key(prefix[:-1])):
        raise ValueError(f"not a prefix of keys (empty, or parts that end in '/'): {prefix!r}")
    return prefix
