"""Work on a caller's bytes in a thread, which nobody is told has ended before it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_INLINE = 256 << 10
"""Less than this is not worth a thread."""

_Result = TypeVar("_Result")


async def off_loop(work: Callable[[memoryview], _Result], view: memoryview) -> _Result:
    """``work(view)``, off the event loop if it is long. A cancelled caller gets its cancellation when nobody reads the bytes any more."""
    if view.nbytes <= _INLINE:
        return work(view)
    return await outlasted(asyncio.get_running_loop().run_in_executor(None, work, view))


async def outlasted(future: asyncio.Future[_Result], abandon: Callable[[], object] = lambda: None) -> _Result:
    """What a thread's work comes to. A cancelled caller calls ``abandon``, and gets its cancellation when the thread has ended."""
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            # asyncio.wait, unlike awaiting, leaves the future alone when this task is cancelled.
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancellation = cancellation or error
            abandon()
    if cancellation is not None:
        future.exception()  # Looked at, so that nobody complains that it was not.
        raise cancellation
    return future.result()
