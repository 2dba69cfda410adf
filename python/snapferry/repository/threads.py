"""Calls of milliseconds, kept off the event loop: the core's, the source's and the target's.

A thread cannot be cancelled, and it uses its caller's buffers and descriptors. So a cancelled call waits for its thread first:
when ``run`` returns or raises, nothing runs any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A few threads for synchronous calls.

    Args:
        count: how many calls may run at once.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="snapferry")

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``function`` in a thread and returns or raises what it does; cancelled, waits for it to end before it raises."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.cancel()  # Has an effect only on what no thread has begun.
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # Looked at, so that nobody complains that it was not.
            raise

    def close(self) -> None:
        """Ends the threads; calls that have begun are waited for."""
        self._executor.shutdown(wait=True, cancel_futures=True)
