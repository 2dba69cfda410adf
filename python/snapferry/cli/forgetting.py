"""``forget`` and ``prune``: what is let go, and what that gives back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import Percentage, common_options
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.lifecycle.retention import RetentionPolicy
    from snapferry.types import ForgetResult, PruneResult

_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def _keep_options(function: Any) -> Any:
    for name in reversed(_RULES):
        what = "the latest N" if name == "last" else f"the newest of each of the last N {_PERIODS[name]} that have one"
        function = click.option(f"--keep-{name}", metavar="N", help=f"Keep {what}; 'unlimited' for all.")(function)
    return function


_PERIODS = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


@click.command("forget")
@click.argument("names", metavar="[VOLUME|SNAPSHOT]...", nargs=-1)
@_keep_options
@click.option("--keep-within", metavar="DURATION", help="Keep all that are at most so much older than the newest: 1y5m7d2h.")
@click.option("--keep-tag", "keep_tags", metavar="KEY[=VALUE]", multiple=True, help="Keep all with this tag.")
@click.option("--destination", "destinations", metavar="NAME", multiple=True, help="Only at these destinations; by default at all.")
@click.option("--prune", "and_prune", is_flag=True, help="Then delete what nothing needs any more, as `snapferry prune` does.")
@click.option("--dry-run", is_flag=True, help="Tell what would go and what that frees, but remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; where there is no terminal nothing is asked.")
@common_options
@click.pass_obj
def forget_command(
    invocation: Invocation,
    /,
    *,
    names: tuple[str, ...],
    keep_within: str | None,
    keep_tags: tuple[str, ...],
    destinations: tuple[str, ...],
    and_prune: bool,
    dry_run: bool,
    yes: bool,
    **counts: str | None,
) -> int:
    """Let snapshots go: those of VOLUME (by default of every volume) that no --keep rule keeps, or just the SNAPSHOTs named.

    Rules count per volume and per destination, periods are UTC's, and the latest snapshot of a volume always stays. The data goes with
    the next `snapferry prune`.
    """
    policy = _policy(counts, keep_within, keep_tags)
    config = invocation.load_config()
    for name in destinations:
        config.destination(name)
    from snapferry.engine import open_repository

    async def work() -> tuple[ForgetResult, PruneResult | None]:
        async with open_repository(config) as repository:
            wanted = names
            if not (dry_run or yes or invocation.json_lines) and sys.stdin.isatty():
                preview = await repository.forget(names, policy=policy, destinations=destinations or None, dry_run=True)
                _say(invocation, preview)
                if preview.forgotten and not click.confirm(f"Forget these {len(preview.forgotten)} snapshots?", err=True):
                    raise click.ClickException("nothing was forgotten")
                if policy is None and preview.forgotten:  # By number or time they may be others by now.
                    wanted = tuple(item.id for item in preview.forgotten)
            result = await repository.forget(wanted, policy=policy, destinations=destinations or None, dry_run=dry_run)
            if not and_prune or dry_run:
                return result, None
            return result, await repository.prune(destinations=destinations or None)

    result, pruned = run_async(invocation, work())
    if invocation.json_lines:
        invocation.emit("forget", _document(result))
    else:
        _say(invocation, result)
    if pruned is not None:
        _tell(invocation, pruned)
    return max(result.exit_code, pruned.exit_code if pruned is not None else 0)


@click.command("prune")
@click.option("--destination", "destinations", metavar="NAME", multiple=True, help="Only at these destinations; by default at all.")
@click.option(
    "--max-unused", type=Percentage(), default=5.0, show_default=True, metavar="PERCENT",
    help="Copy packs that are mostly dead until no more than this share of what stays is needed by nobody.",
)  # fmt: skip
@click.option("--lease", metavar="DURATION", help="An export that has given no sign of life for so long counts as dead; by default 15min.")
@click.option("--exclusive", is_flag=True, help="Nothing else uses the repository: for stores that cannot keep writers apart.")
@click.option("--dry-run", is_flag=True, help="Tell what would be deleted, but delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; where there is no terminal nothing is asked.")
@common_options
@click.pass_obj
def prune_command(
    invocation: Invocation,
    *,
    destinations: tuple[str, ...],
    max_unused: float,
    lease: str | None,
    exclusive: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Delete what no snapshot needs: after `snapferry forget`, and what interrupted exports left.

    Exports and restores may run meanwhile: an export that began before is waited for. An interrupted prune is finished by the next one.
    """
    config = invocation.load_config()
    for name in destinations:
        config.destination(name)
    seconds = _seconds(lease)
    from snapferry.engine import open_repository

    async def work() -> PruneResult:
        async with open_repository(config) as repository:
            if not (dry_run or yes or invocation.json_lines) and sys.stdin.isatty():
                _tell(invocation, await repository.prune(destinations=destinations or None, max_unused=max_unused / 100, dry_run=True))
                if not click.confirm("Delete this for good?", err=True):
                    raise click.ClickException("nothing was deleted")
            return await repository.prune(
                destinations=destinations or None, max_unused=max_unused / 100, exclusive=exclusive, dry_run=dry_run, **seconds
            )

    result = run_async(invocation, work())
    _tell(invocation, result)
    return result.exit_code


def _policy(counts: dict[str, str | None], keep_within: str | None, keep_tags: tuple[str, ...]) -> RetentionPolicy | None:
    """The rules that were given; None where there was none."""
    from snapferry.lifecycle.durations import Duration, parse_duration
    from snapferry.lifecycle.retention import RetentionPolicy, parse_count

    given = {key: parse_count(value, f"--{key.replace('_', '-')}") for key, value in counts.items() if value is not None}
    if not given and keep_within is None and not keep_tags:
        return None
    within = Duration() if keep_within is None else parse_duration(keep_within, "--keep-within")
    return RetentionPolicy(**given, keep_within=within, keep_tags=keep_tags)


def _seconds(text: str | None) -> dict[str, float]:
    """``{"lease": seconds}`` of ``90``, ``90s``, ``15min`` or ``2h``; nothing where nothing was given."""
    import re

    if text is None:
        return {}
    match = re.fullmatch(r"(\d{1,9})(s|min|h)?", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration; write 90s, 15min or 2h", param_hint="--lease")
    return {"lease": float(match[1]) * {"s": 1, "min": 60, "h": 3600, None: 1}[match[2]]}


def _document(result: ForgetResult) -> dict[str, Any]:
    from snapferry.cli.listing import timestamp

    def line(error: BaseException) -> str:
        return " ".join(str(error).split())

    document: dict[str, Any] = {
        "forgotten": [
            {
                "snapshot": item.id,
                "volume": item.volume,
                "created": None if item.created is None else timestamp(item.created),
                "destinations": list(item.destinations),
            }
            | ({"failures": {name: line(error) for name, error in item.failures.items()}} if item.failures else {})
            for item in result.forgotten
        ],
        "kept": [
            {"snapshot": snapshot, "reasons": {name: list(reasons) for name, reasons in where.items()}}
            for snapshot, where in result.kept.items()
        ],
    }
    if result.failures:
        document["failures"] = {name: line(error) for name, error in result.failures.items()}
    if result.dry_run:
        document |= {"bytes_freed": result.bytes_freed, "dry_run": True}
    return document


def _say(invocation: Invocation, result: ForgetResult) -> None:
    from snapferry.cli.listing import table, timestamp
    from snapferry.config import format_size

    verb = "would forget" if result.dry_run else "forgot"
    rows = [
        (
            verb,
            item.id,
            item.volume or "?",
            f"{timestamp(item.created)[:19]}Z" if item.created else "?",
            "at " + ",".join(item.destinations),
        )
        for item in result.forgotten
    ]
    for text in table(rows) if rows else []:
        invocation.result(text)
    for item in result.forgotten:
        for name, error in item.failures.items():
            invocation.warn(f"  {name}: {item.id} is still there: {str(error).removeprefix(f'{name}: ')}")
    for name, error in result.failures.items():
        again = "" if result.dry_run else "; forget there too when it is back"
        invocation.warn(f"  {name}: not looked at: {str(error).removeprefix(f'{name}: ')}{again}")
    kept = f"; {len(result.kept)} stay" if result.kept else ""
    invocation.result(f"{len(result.forgotten)} snapshots {'would be' if result.dry_run else ''} forgotten{kept}".replace("  ", " "))
    for name, size in result.bytes_freed.items():
        invocation.result(f"  {name}: a prune would then free {format_size(size)}")


def _tell(invocation: Invocation, result: PruneResult) -> None:
    from dataclasses import asdict

    from snapferry.config import format_size

    if invocation.json_lines:
        document: dict[str, Any] = {"destinations": [asdict(item) for item in result.destinations], "seconds": round(result.seconds, 3)}
        if result.failures:
            document["failures"] = {name: " ".join(str(error).split()) for name, error in result.failures.items()}
        invocation.emit("prune", document | ({"dry_run": True} if result.dry_run else {}))
        return
    for item in result.destinations:
        copied = f", {format_size(item.bytes_repacked)} of {item.packs_repacked} packs copied first" if item.packs_repacked else ""
        verb = "would delete" if result.dry_run else "deleted"
        invocation.result(
            f"{item.destination}: {verb} {item.packs_deleted} packs{copied}, {format_size(item.bytes_freed)} freed; "
            f"{format_size(item.bytes_kept)} stay, {format_size(item.bytes_unused)} of it unused"
        )
    for name, error in result.failures.items():
        invocation.warn(f"  {name}: not pruned: {str(error).removeprefix(f'{name}: ')}")
