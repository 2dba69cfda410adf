"""Runs a command's coroutine on uvloop where it is present, and ends it cleanly on SIGINT and SIGTERM.

A signal cancels the main task, which lets every task below it put things in order; a second one, or ``GRACE_SECONDS``
without an end, ends the process at once: the repository stands that at any point. What is said at the end is said in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from snapferry.cli.failing import Interrupted, report

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation

GRACE_SECONDS = 5.0
_SAYING_SECONDS = 1.0
"""For the last words where standard output may take none: a full pipe that nobody reads."""

T = TypeVar("T")


def run_async(invocation: Invocation, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; ``Interrupted`` if a signal ended it."""
    _show_warnings(invocation)
    signals = _Signals(invocation)

    async def guarded() -> T:
        signals.cancels(asyncio.get_running_loop(), asyncio.current_task())
        return await work

    with signals.handled():
        try:
            if signals.received:  # Raised once already, where something that was being imported took it for its own.
                work.close()
                raise Interrupted(signals.received)
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                return runner.run(guarded())
        except BaseException as error:
            if signals.received or invocation.ended_by:
                raise Interrupted(signals.received or invocation.ended_by) from error
            raise


class _Signals:
    """What the first signal does, and the second.

    Handled by Python's own handlers, not the loop's: they also run while the main thread waits for something outside of the loop.
    """

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._cancel: Callable[[], object] | None = None
        self.received = invocation.ended_by

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handles them while the block runs."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def cancels(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        """From now on a signal cancels ``task``; one that has come already does at once."""
        assert task is not None
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        if self.received:
            task.cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received:
            self._end()
        self.received = number
        grace = threading.Timer(GRACE_SECONDS, self._end)
        grace.daemon = True
        grace.start()
        if self._cancel is not None:
            with contextlib.suppress(RuntimeError):  # The loop is closed already, and the command ends by itself.
                self._cancel()

    def _end(self) -> None:
        """Ends the process at once, with the last words if they can be said."""
        words = threading.Thread(target=self._say, daemon=True)
        words.start()
        words.join(_SAYING_SECONDS)
        os._exit(128 + self.received)

    def _say(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            # Past the bars that may stand before them, and below these; they have hidden the cursor.
            if sys.stderr is not sys.__stderr__:
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
                os.write(2, b"\n\x1b[?25h")
            report(self._invocation, Interrupted(self.received))
        os._exit(128 + self.received)


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
