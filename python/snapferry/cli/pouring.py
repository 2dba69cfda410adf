"""A volume's bytes on standard output, so that all else goes to standard error: what ``cat`` and ``restore … -`` share."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation, to_stdout

if TYPE_CHECKING:
    from snapferry.engine import Repository
    from snapferry.types import Preference, ProgressCallback, RestoreResult

logger = logging.getLogger(__name__)


class VolumeCommand(click.Command):
    """A command whose standard output is a volume: its JSON, usage errors too, goes to standard error."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Notes it before anything is parsed."""
        invocation = parent.find_object(Invocation) if parent is not None else None
        if invocation is not None:
            invocation.volume_on_stdout = self.pours(args)
        return super().make_context(info_name, args, parent, **extra)

    def pours(self, args: list[str]) -> bool:  # noqa: ARG002
        """Whether with these arguments a volume goes to standard output."""
        return True


class VolumeOnDash(VolumeCommand):
    """As ``VolumeCommand``, where ``-`` is among the arguments."""

    def pours(self, args: list[str]) -> bool:
        """Whether ``-`` is there."""
        return "-" in args


def refuse_terminal() -> None:
    """A usage error where standard output is a terminal."""
    if sys.stdout.isatty():
        raise click.UsageError("a volume's bytes are not for a terminal; send them to a file or a pipe")


async def pour(
    repository: Repository,
    snapshot: str,
    extent: tuple[int, int | None] | None,
    *,
    sources: Sequence[str] | None = None,
    prefer: Preference = "fast",
    best_effort: bool = False,
    dry_run: bool = False,
    on_progress: ProgressCallback | None = None,
) -> RestoreResult:
    """Writes the snapshot's bytes, or those of ``extent``, to standard output; zeros for what its source could not supply.

    Arguments:
        best_effort: zeros also for what no replica can supply, listed in the result; else that raises ``DamageError``.
    """
    from snapferry.types import Progress, RestoreResult

    output, began, written = sys.stdout.fileno(), time.monotonic(), 0
    opened = repository.open_snapshot(snapshot, sources=sources, prefer=prefer, allow_unreadable=True, allow_lost=best_effort)
    async with opened as reader:
        start, end = extent or (0, None)
        last = reader.size if end is None else end
        if not dry_run:
            async for data in reader.stream(start, end):
                await asyncio.to_thread(_write_all, output, data)
                written += len(data)
                if on_progress is not None:
                    on_progress(Progress("restore", "standard output", written, last - start, reader.bytes_fetched, reader.channels()))
        unreadable = tuple(extent for extent in reader.unreadable if extent[0] < last and sum(extent) > start)
        return RestoreResult(
            snapshot=reader.snapshot.id,
            size=last - start,
            bytes_written=written,
            bytes_fetched=reader.bytes_fetched,
            hedged=reader.hedges.count,
            hedged_bytes=reader.hedges.hedged,
            failovers=reader.failovers,
            seconds=time.monotonic() - began,
            damage=reader.damage,
            lost=reader.lost,
            unreadable=unreadable,
        )


def warn_of_zeros(result: RestoreResult) -> None:
    """Where zeros stand for something else: a warning, since the bytes themselves do not tell."""
    if result.unreadable:
        logger.warning(
            "the source could not supply %d extents when the snapshot was made; zeros stand for them: %s",
            len(result.unreadable),
            [list(extent) for extent in result.unreadable],
        )
    if result.lost:
        logger.warning(
            "LOST: no replica can supply %d extents; zeros stand for them: %s", len(result.lost), [list(it) for it in result.lost]
        )


def _write_all(output: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    with to_stdout():
        while view:
            view = view[os.write(output, view) :]
