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
        """Calls ``function`` in a thread and returns or raises what it does; cancelled, waits for it to end before it raises.

        What a cancelled call returned is dropped: one that opens something must keep it where its caller finds it.
        """
        call = self._executor.submit(partial(function, *args, **kwargs))
        future = asyncio.wrap_future(call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Only the executor knows whether a thread has begun; the loop's own future would call itself cancelled at once.
            if not call.cancel():
                while not future.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait({future})
                future.exception()  # Looked at, so that nobody complains that it was not.
            raise

    def close(self) -> None:
        """Ends the threads; calls that have begun are waited for."""
        self._executor.shutdown(wait=True, cancel_futures=True)
