"""What an export has made: the line for programs, and the lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snapferry.cli.sources import content_document, say_map

if TYPE_CHECKING:
    from snapferry.cli.invocation import Invocation
    from snapferry.types import ExportResult


def snapshot_line(result: ExportResult) -> dict[str, Any]:
    """The contract's ``snapshot`` line; keys it does not name come last and only where there is something to say."""
    snapshot = result.snapshot
    line: dict[str, Any] = {
        "snapshot": snapshot.id,
        "volume": snapshot.volume,
        "size": snapshot.size,
        "block_size": snapshot.block_size,
        "bytes_read": result.bytes_read,
        "bytes_new": result.bytes_new,
        "bytes_sent": result.bytes_sent,
        "blocks_total": result.blocks_total,
        "blocks_new": result.blocks_new,
        "blocks_zero": result.blocks_zero,
        "acknowledged": list(result.acknowledged),
        "behind": list(result.behind),
        "seconds": round(result.seconds, 3),
        "parent": snapshot.parent,
    }
    line["placement"] = snapshot.placement
    if result.cost_gb is not None:
        line["cost_gb"] = result.cost_gb
    if result.failures:
        line["failures"] = {name: " ".join(str(error).split()) for name, error in result.failures.items()}
    if snapshot.unreadable:
        line["unreadable"] = [list(extent) for extent in snapshot.unreadable]
    if result.dry_run:
        line["dry_run"] = True
    return line | content_document(result)


def say_snapshot(invocation: Invocation, result: ExportResult) -> None:
    """The same for people."""
    from snapferry.config import format_size

    snapshot = result.snapshot
    speed = f" ({format_size(result.bytes_read / result.seconds)}/s)" if result.bytes_read and result.seconds else ""
    counts = f"{format_size(snapshot.size)}, read {format_size(result.bytes_read)} in {result.seconds:.1f} s{speed}, new {format_size(result.bytes_new)}"
    if result.dry_run:
        invocation.result(f"dry run of {snapshot.volume}: {counts}; nothing was written")
        return
    invocation.result(f"snapshot {snapshot.id} of {snapshot.volume}: {counts}")
    say_map(invocation, result)
    if snapshot.placement != "mirror":
        cost = f", at about {result.cost_gb:.4g} for each GB and as long as it is likely to be kept" if result.cost_gb is not None else ""
        invocation.say(f"  placed: {snapshot.placement}{cost}")
    for name in result.acknowledged:
        invocation.say(f"  {name}: acknowledged, sent {format_size(result.bytes_sent.get(name, 0))}")
    for name in result.behind:
        reason = str(result.failures.get(name, "it lacks this snapshot"))
        reason = reason.removeprefix(f"{name}: ")
        mend = f"`snapferry destination sync {name}` or the next export of this volume brings it up to date"
        invocation.warn(f"  {name}: behind: {reason}" + ("" if mend.split(" or ", maxsplit=1)[0] in reason else f"; {mend}"))
    for offset, length in snapshot.unreadable:
        invocation.warn(f"  unreadable: {length} bytes at {offset}, recorded as such")
