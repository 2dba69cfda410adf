"""``key``: the keys that open the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from snapferry.engine import Keys
    from snapferry.types import KeyChange, KeySlot


@click.group("key")
@common_options
def key_command() -> None:
    """List, add, remove and rotate the keys that open the repository.

    A change is made at every destination; one that does not answer gets it with the next export (exit code 3).
    """


@key_command.command("list")
@common_options
@click.pass_obj
def list_command(invocation: Invocation) -> int:
    """List the keys; the one in use is marked."""
    keys: tuple[KeySlot, ...] = _with_keys(invocation, lambda keys: keys.list())
    if invocation.json_lines:
        invocation.emit("keys", {"slots": [_document(key) for key in keys]})
        return 0
    from snapferry.cli.listing import table, timestamp

    rows = [("", "SLOT", "KIND", "ROLE", "LABEL", "ADDED", "EPOCH", "DESTINATIONS")]
    for key in keys:
        epoch = str(key.epoch) if key.up_to_date else f"{key.epoch} (behind)"
        mark = "*" if key.in_use else ""
        rows.append((mark, key.id, key.kind, key.role, key.label, timestamp(key.created), epoch, ",".join(key.destinations)))
    for line in table(rows):
        invocation.write(line)
    return 0


@key_command.command("add")
@click.option("--key-file", metavar="FILE", help="Add this key file; one that is not there is made (mode 0600).")
@click.option("--passphrase-file", metavar="FILE", help="Add the passphrase in this file.")
@click.option("--public-key", metavar="KEY", help="Add the key file whose public key this is, or this file holds (see `key public`).")
@click.option("--write-only", is_flag=True, help="The key makes snapshots and reads none.")
@click.option("--label", default="", metavar="TEXT", help="What you call it; whoever lists the destinations can read it.")
@click.option("--dry-run", is_flag=True, help="Check, but write nothing.")
@common_options
@click.pass_obj
def add_command(
    invocation: Invocation,
    *,
    key_file: str | None,
    passphrase_file: str | None,
    public_key: str | None,
    write_only: bool,
    label: str,
    dry_run: bool,
) -> int:
    """Add a key: a key file, a passphrase, or the public key of a key file on another host.

    With --write-only it is for a host that backs up and must not be able to read: it makes snapshots, and restores none.
    """

    async def work(keys: Keys) -> tuple[KeyChange, str]:
        change = await keys.add(
            key_file=key_file,
            passphrase_file=passphrase_file,
            public_key=public_key,
            write_only=write_only,
            label=label,
            dry_run=dry_run,
        )
        return change, keys.repository

    change, repository = _with_keys(invocation, work)
    code = _tell(invocation, "add", "a key would be added" if dry_run else "added key {slot}", change, repository=repository)
    if public_key is not None and not dry_run:
        invocation.say(f"on its host: snapferry connect --from URL --key-file FILE --id {repository}")
    return code


@key_command.command("remove")
@click.argument("slot")
@click.option("--yes", is_flag=True, help="It cannot be undone; say that you mean it.")
@click.option("--dry-run", is_flag=True, help="Check, but remove nothing.")
@common_options
@click.pass_obj
def remove_command(invocation: Invocation, *, slot: str, yes: bool, dry_run: bool) -> int:
    """Remove the key SLOT: its id, 8 or more digits of it, or its label.

    Who had it may have kept what it opens: rotate afterwards, so that new data is closed to them, and take away their access to the
    destinations. The last full key cannot be removed.
    """
    if not yes and not dry_run:
        raise click.UsageError("removing a key cannot be undone: add --yes")
    change = _with_keys(invocation, lambda keys: keys.remove(slot, dry_run=dry_run))
    said = "key {slot} would be removed" if dry_run else "removed key {slot}; `snapferry key rotate` closes new data to whoever had it"
    return _tell(invocation, "remove", said, change)


@key_command.command("rotate")
@click.option("--dry-run", is_flag=True, help="Check, but write nothing.")
@common_options
@click.pass_obj
def rotate_command(invocation: Invocation, *, dry_run: bool) -> int:
    """Begin a new key epoch: data written from now on is closed to keys that were removed before.

    All keys that are there go on working, without being at hand. What was written before stays readable to whoever could read it.
    """
    change = _with_keys(invocation, lambda keys: keys.rotate(dry_run=dry_run))
    said = "a new epoch would begin after epoch {epoch}, for {slots} keys" if dry_run else "epoch {epoch} has begun, for {slots} keys"
    return _tell(invocation, "rotate", said, change)


@key_command.command("public")
@click.option("--key-file", metavar="FILE", required=True, help="A key file of this host; one that is not there is made (mode 0600).")
@common_options
@click.pass_obj
def public_command(invocation: Invocation, *, key_file: str) -> int:
    """Print a key file's public key, for `key add --public-key` on a machine that has a full key. Opens no repository."""
    from snapferry.engine import public_key

    text = public_key(key_file)
    if invocation.json_lines:
        invocation.emit("public_key", {"public_key": text, "key_file": key_file})
    else:
        invocation.write(text)
    return 0


def _with_keys(invocation: Invocation, action: Callable[[Keys], Awaitable[Any]]) -> Any:
    config = invocation.load_config()
    from snapferry.engine import open_repository

    async def work() -> Any:
        async with open_repository(config) as repository:
            return await action(repository.keys)

    return run_async(invocation, work())


def _tell(invocation: Invocation, action: str, said: str, change: KeyChange, **more: str) -> int:
    if invocation.json_lines:
        document = {
            "action": action,
            "slot": change.slot,
            "epoch": change.epoch,
            "slots": change.slots,
            "changed": list(change.changed),
            "failures": {name: str(error) for name, error in change.failures.items()},
            **more,
        }
        invocation.emit("key", document | ({"dry_run": True} if change.dry_run else {}))
        return change.exit_code
    text = said.format(slot=change.slot, epoch=change.epoch, slots=change.slots)
    invocation.result(f"{text}, at {', '.join(change.changed)}" if change.changed and not change.dry_run else text)
    for name, error in change.failures.items():
        invocation.warn(f"  {name}: not done, or not in full: {str(error).removeprefix(f'{name}: ')}")
    return change.exit_code


def _document(key: KeySlot) -> dict[str, Any]:
    from snapferry.cli.listing import timestamp

    return {
        "slot": key.id,
        "kind": key.kind,
        "role": key.role,
        "label": key.label,
        "created": timestamp(key.created),
        "epoch": key.epoch,
        "up_to_date": key.up_to_date,
        "in_use": key.in_use,
        "destinations": list(key.destinations),
    }
