"""Progress for people (a bar with speed and time left, on a terminal only) and for programs (JSON lines, with ``-v``)."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation
    from snapferry.types import Progress, ProgressCallback

JSON_SECONDS = 0.5


@contextlib.contextmanager
def progress(invocation: Invocation) -> Iterator[ProgressCallback | None]:
    """A callback for the engine while the block runs, or None where nobody is to see it."""
    if invocation.json_lines:
        yield _json_lines(invocation) if invocation.verbose else None
    elif invocation.quiet or not sys.stderr.isatty():
        yield None
    else:
        with _bar() as callback:
            yield callback


def _json_lines(invocation: Invocation) -> ProgressCallback:
    last = -JSON_SECONDS

    def callback(event: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= JSON_SECONDS:
            last = now
            document = {
                "operation": event.operation,
                "subject": event.subject,
                "done": event.done,
                "total": event.total,
                "sent": event.sent,
            }
            invocation.emit("progress", document)

    return callback


@contextlib.contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    from snapferry.types import MiB

    class Speed(ProgressColumn):
        """Bytes a second in IEC units, as the rest of the line."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed / MiB:.0f} MiB/s" if speed else "", style="progress.data.speed")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        Speed(),
        TimeRemainingColumn(),
    )
    tasks: dict[tuple[str, str], TaskID] = {}
    with Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bars:

        def callback(event: Progress) -> None:
            key = (event.operation, event.subject)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{event.operation} {event.subject}", total=event.total)
            bars.update(tasks[key], completed=event.done, total=event.total)

        yield callback
