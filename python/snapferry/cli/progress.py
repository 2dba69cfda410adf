"""Progress for people (a bar with speed and time left, on a terminal only) and for programs (JSON lines, with ``-v``)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from snapferry.cli.events import json_lines

if TYPE_CHECKING:
    from rich.progress import TaskID

    from snapferry.cli.invocation import Invocation
    from snapferry.types import Progress, ProgressCallback


@contextlib.contextmanager
def progress(invocation: Invocation) -> Iterator[ProgressCallback | None]:
    """A callback for the engine while the block runs, or None where nobody is to see it."""
    if invocation.json_lines:
        yield json_lines(invocation) if invocation.verbose else None
    elif invocation.quiet or not sys.stderr.isatty():
        yield None
    else:
        with _bar() as callback:
            yield callback


@contextlib.contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from snapferry.cli.bars import bars

    with bars() as shown:
        tasks: dict[tuple[str, str], TaskID] = {}

        def callback(event: Progress) -> None:
            key = (event.operation, event.subject)
            if key not in tasks:
                tasks[key] = shown.bars.add_task(f"{event.operation} {event.subject}", total=event.total)
            shown.bars.update(tasks[key], completed=event.done, total=event.total)
            shown.stand(event.operation, event.channels)

        yield callback
