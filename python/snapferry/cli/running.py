"""Runs a command's coroutine on uvloop where it is present, and ends it cleanly on SIGINT and SIGTERM.

A signal cancels the main task, which lets every task below it put things in order; a second one, or ``GRACE_SECONDS``
without an end, ends the process at once: the repository stands that at any point.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from snapferry.cli.failing import Interrupted

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation

GRACE_SECONDS = 8.0
T = TypeVar("T")


def run_async(invocation: Invocation, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; ``Interrupted`` if a signal ended it."""
    _show_warnings(invocation)
    received: list[int] = []

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if received:
                os._exit(128 + number)
            received.append(number)
            loop.call_later(GRACE_SECONDS, os._exit, 128 + number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, int(number))
        try:
            return await work
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(guarded())
    except BaseException as error:
        if received:
            raise Interrupted(received[0]) from error
        raise


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Lines(logging.Handler):
    """Shows log records, and Python's warnings, as lines of ours; looks standard error up each time, since a progress bar may have put itself before it."""

    def __init__(self, invocation: Invocation) -> None:
        super().__init__()
        self._invocation = invocation

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        import json

        text = " ".join(record.getMessage().split())
        kind = "warning" if record.levelno >= logging.WARNING else "debug"
        if self._invocation.json_lines:
            text = json.dumps({"type": kind, "schema_version": 1, "message": text})
        else:
            text = f"snapferry: {kind}: {text}"
        print(text, file=sys.stderr, flush=True)


def _show_warnings(invocation: Invocation) -> None:
    logger = logging.getLogger("snapferry")
    lines = _Lines(invocation)
    logger.handlers[:] = [lines]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if invocation.verbose else logging.WARNING)

    warnings.showwarning = lambda message, *_: logger.warning("%s", message)
