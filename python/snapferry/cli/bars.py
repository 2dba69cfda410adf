"""Bars on a terminal: one for what runs, or one for each of many and one for all of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from snapferry.cli.events import json_lines

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from snapferry.cli.invocation import Invocation
    from snapferry.types import Progress, ProgressCallback

Ended = Callable[[str], object]
"""Called with the name of each volume that is done with."""


@contextlib.contextmanager
def bars() -> Iterator[Bars]:
    """Bars on standard error that vanish at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
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
    with Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as shown:
        yield shown


@contextlib.contextmanager
def progress_of_many(invocation: Invocation, count: int) -> Iterator[tuple[ProgressCallback | None, Ended]]:
    """What ``progress`` gives, for ``count`` exports side by side; and what is to be called when one of them ended, well or not."""
    if invocation.json_lines:
        yield json_lines(invocation) if invocation.verbose else None, _ignore
    elif invocation.quiet or not sys.stderr.isatty():
        yield None, _ignore
    else:
        with bars() as shown:
            many = _Many(shown, count)
            yield many.show, many.end


class _Many:
    """Bars of those that run, and one above them with the bytes of all: those that have not begun are not known yet."""

    def __init__(self, shown: Bars, count: int) -> None:
        self._shown = shown
        self._count = count
        self._ended = 0
        self._running: dict[str, TaskID] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self._all = shown.add_task(self._title(), total=None)

    def show(self, event: Progress) -> None:
        """One event of one of them."""
        name = event.subject
        if name not in self._running:
            self._running[name] = self._shown.add_task(f"{event.operation} {name}", total=event.total)
        self._shown.update(self._running[name], completed=event.done, total=event.total)
        self._bytes[name] = event.done, event.total or event.done
        self._sum()

    def end(self, name: str) -> None:
        """This one is done with."""
        self._ended += 1
        if name in self._running:
            self._shown.remove_task(self._running.pop(name))
        self._sum()

    def _sum(self) -> None:
        done, total = (sum(part) for part in zip(*self._bytes.values(), strict=True)) if self._bytes else (0, 0)
        begun = len(self._bytes) == self._count
        self._shown.update(self._all, description=self._title(), completed=done, total=total if begun else None)

    def _title(self) -> str:
        return f"export {self._ended} of {self._count} done"


def _ignore(name: str) -> None:
    del name
