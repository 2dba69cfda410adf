"""The places that store objects: one small protocol, one file per kind of store, and opening one by its URL."""

from __future__ import annotations

from snapferry.destination.contract import Capabilities, Destination, ObjectInfo, free_bytes, is_there, list_keys
from snapferry.destination.opening import learn_options, open_destination, prepare_destination

__all__ = [
    "Capabilities",
    "Destination",
    "ObjectInfo",
    "free_bytes",
    "is_there",
    "learn_options",
    "list_keys",
    "open_destination",
    "prepare_destination",
]
