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
    future = asyncio.get_running_loop().run_in_executor(None, work, view)
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
    return future.result()
