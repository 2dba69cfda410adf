"""Bars on a terminal: one for what runs, or one for each of many and one for all of them; below them a line for each destination."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from snapferry.cli.events import json_lines
from snapferry.cli.standing import MOST, ended, lines, summed

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from snapferry.cli.invocation import Invocation
    from snapferry.types import ChannelProgress, Progress, ProgressCallback

_WIDE = 72
"""Columns of a terminal from which on there is room for a bar."""

_FIGURES, _FEW_FIGURES = 52, 18
"""Columns that are kept for them."""

Ended = Callable[[str], object]
"""Called with the name of each volume that is done with."""


class Shown(Protocol):
    """Bars that run, and the destinations below them."""

    @property
    def bars(self) -> Bars:
        """To add and update tasks."""

    def stand(self, operation: str, channels: Mapping[str, ChannelProgress]) -> None:
        """How the destinations stand from now on."""


@contextlib.contextmanager
def bars() -> Iterator[Shown]:
    """Bars on standard error that vanish at the end. A narrow terminal has no room for all that is told of each."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    from snapferry.types import MiB

    class Speed(ProgressColumn):
        """Bytes a second in IEC units, as the rest of the line."""

        def __init__(self) -> None:
            super().__init__(table_column=Column(no_wrap=True))

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed / MiB:.0f} MiB/s" if speed else "", style="progress.data.speed")

    class Below(Bars):
        """The bars, and what stands below them: as wide as the terminal is at the time."""

        operation = ""
        channels: Mapping[str, ChannelProgress] = MappingProxyType({})

        @property
        def bars(self) -> Bars:
            return self

        def stand(self, operation: str, channels: Mapping[str, ChannelProgress]) -> None:
            self.operation, self.channels = operation, channels

        def get_renderables(self) -> Iterable[RenderableType]:
            said = lines(self.operation, self.channels, console.width, min(MOST, console.height // 2))
            # What does not fit on the screen would be cut off at its end, where the destinations are.
            yield self.make_tasks_table(self.tasks[: max(1, console.height - len(said) - 1)])
            yield Text("\n".join(said), no_wrap=True)

    console = Console(stderr=True)
    wide = console.width >= _WIDE
    # Names are cut, figures are not.
    named = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, console.width - (_FIGURES if wide else _FEW_FIGURES)))
    columns: list[ProgressColumn] = [TextColumn("{task.description}", table_column=named)]
    if wide:
        columns += [BarColumn(), DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)), Speed(), TimeRemainingColumn()]
    else:
        columns += [TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)), Speed()]
    with Below(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as shown:
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

    def __init__(self, shown: Shown, count: int) -> None:
        self._shown = shown.bars
        self._stand = shown.stand
        self._channels: dict[str, Mapping[str, ChannelProgress]] = {}
        self._count = count
        self._ended = 0
        self._running: dict[str, TaskID] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self._all = self._shown.add_task(self._title(), total=None)

    def show(self, event: Progress) -> None:
        """One event of one of them."""
        name = event.subject
        if name not in self._running:
            self._running[name] = self._shown.add_task(f"{event.operation} {name}", total=event.total)
        self._shown.update(self._running[name], completed=event.done, total=event.total)
        self._bytes[name] = event.done, event.total or event.done
        self._channels[name] = event.channels
        self._stand(event.operation, summed(self._channels.values()))
        self._sum()

    def end(self, name: str) -> None:
        """This one is done with."""
        self._ended += 1
        self._channels[name] = ended(self._channels.get(name, {}))
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
