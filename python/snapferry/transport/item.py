"""One object on its way to several destinations, and how each of them is treated."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from typing_extensions import Buffer

from snapferry.destination.contract import Destination
from snapferry.errors import ObjectDamaged

Slow = Literal["block", "spool", "detach"]

_COMPARED = 1 << 20
"""So many bytes are read at once of an object that is there already."""


class Holder(Protocol):
    """Who still needs an item's buffer; ``slow`` says what is done if that lasts."""

    slow: Slow


@dataclass(frozen=True, slots=True)
class Manner:
    """How a destination is treated.

    Attributes:
        slow: what is done where it holds others up: ``block`` (they wait), ``spool`` (to the local disk), ``detach`` (it is left behind).
        patience: seconds that it may go on failing with what may pass by itself.
    """

    slow: Slow = "block"
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One object acknowledged by one destination. ``created`` is False if the key was taken. ``size`` in bytes."""

    destination: str
    key: str
    size: int
    created: bool
    seconds: float


@dataclass(slots=True, eq=False)
class Item:
    """One object on its way. Its buffer is let go of when no channel of ``holders`` needs it any more.

    Attributes:
        number: of the object in the stream; all below ``after`` must be acknowledged before it is begun.
        taken: how many destinations have acknowledged it.
    """

    key: str
    data: Buffer | None
    size: int
    number: int
    after: int
    on_done: Callable[[], object]
    holders: set[Holder]
    taken: int = 0


async def check_taken(destination: Destination, key: str, data: Buffer) -> None:
    """``ObjectDamaged`` unless what is there is this object: an attempt that failed may have left half of it at a store that should not."""
    with memoryview(data).cast("B") as view:
        _, size = await destination.read_tail(key, 0)
        good = size == view.nbytes
        scratch = bytearray(min(_COMPARED, view.nbytes))
        at = 0
        while good and at < size:
            length = min(len(scratch), size - at)
            await destination.read_into(key, at, memoryview(scratch)[:length])
            good = scratch[:length] == view[at : at + length]
            at += length
    if not good:
        raise ObjectDamaged(f"{key} is taken there by other bytes than its name says", destination.name)


def let_go_of_locals(error: BaseException) -> None:
    """The error is kept; the frames it passed through must not keep a pack's buffer with it."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
