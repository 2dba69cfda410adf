"""What every pipeline works with: the keys, the threads, the byte budget, and what is known of the replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from snapferry import _core
from snapferry.pipeline.sizing import admission
from snapferry.repository.threads import Threads
from snapferry.transport import ByteBudget, ReplicaBoard

_THREADS_BESIDE_READERS = 3


async def _nothing() -> None:
    """Keys that nobody else changes."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Shared by all pipelines of one engine.

    Attributes:
        workers: the core's own pool.
        threads: for calls into the core, the source and the target.
        budget: of bytes in flight.
        admission: of bytes that exports may hold without draining; each reserves its share whole before it begins.
        board: measured speeds, for the choice of replicas.
        renew_keys: looks for key epochs that others have begun since the repository was opened.
    """

    keyring: _core.Keyring
    workers: _core.Workers
    threads: Threads
    budget: ByteBudget
    admission: ByteBudget
    board: ReplicaBoard
    renew_keys: Callable[[], Awaitable[None]] = _nothing


def make_tools(
    keyring: _core.Keyring, processors: int, memory: int, board: ReplicaBoard, renew_keys: Callable[[], Awaitable[None]] = _nothing
) -> Tools:
    """Tools that use so many processors and at most ``memory`` bytes in flight. ``threads`` is the caller's to close."""
    threads = Threads(processors + 1 + _THREADS_BESIDE_READERS)
    return Tools(keyring, _core.Workers(processors), threads, ByteBudget(memory), ByteBudget(admission(memory)), board, renew_keys)
