"""What every pipeline works with: the keys, the threads, the byte budget, and what is known of the replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from snapferry import _core
from snapferry.pipeline.admission import Admission
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
        admission: shares of the budget for exports; each takes its own whole before it begins.
        board: measured speeds, for the choice of replicas.
        renew_keys: looks for key epochs that others have begun since the repository was opened.
    """

    keyring: _core.Keyring
    workers: _core.Workers
    threads: Threads
    budget: ByteBudget
    admission: Admission
    board: ReplicaBoard
    renew_keys: Callable[[], Awaitable[None]] = _nothing


def make_tools(
    keyring: _core.Keyring, processors: int, memory: int, board: ReplicaBoard, renew_keys: Callable[[], Awaitable[None]] = _nothing
) -> Tools:
    """Tools that use so many processors and at most ``memory`` bytes in flight. ``threads`` is the caller's to close."""
    threads = make_threads(processors)
    budget = ByteBudget(memory)
    return Tools(keyring, _core.Workers(processors), threads, budget, Admission(budget, processors), board, renew_keys)


def make_threads(processors: int) -> Threads:
    """Threads enough for one pipeline on a machine of so many processors; the caller's to close.

    A source that hangs keeps the threads that read it: pipelines that are to go on whatever becomes of others have threads of their own.
    """
    return Threads(processors + 1 + _THREADS_BESIDE_READERS)
