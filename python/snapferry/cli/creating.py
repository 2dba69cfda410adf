"""``init`` and ``connect``: what makes a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options
from snapferry.cli.running import run_async

if TYPE_CHECKING:
    from snapferry.config import Config, DestinationConfig


@click.command("init")
@click.option("--to", "destinations", metavar="[NAME=]URL", multiple=True, required=True, help="A destination; give it once for each.")
@click.option("--key-file", metavar="FILE", help="Use this key; without it a new one is made beside the configuration (mode 0600).")
@click.option("--passphrase-file", metavar="FILE", help="The passphrase in this file opens the repository, and no key file is made.")
@click.option(
    "--plugins", "plugin_file", metavar="FILE", help="The [[plugin]] tables that URLs of plugin:NAME mean; they go into the configuration."
)
@click.option("--min-copies", type=click.IntRange(min=1), metavar="N", help="How many destinations must acknowledge an export.")
@click.option("--dry-run", is_flag=True, help="Check the arguments and say what would be made.")
@common_options
@click.pass_obj
def init_command(
    invocation: Invocation,
    *,
    destinations: tuple[str, ...],
    key_file: str | None,
    passphrase_file: str | None,
    plugin_file: str | None,
    min_copies: int | None,
    dry_run: bool,
) -> int:
    """Create a repository on every destination, and write the configuration and, unless one is given, a new key.

    Nothing that exists is overwritten. The configuration goes to --config, else $SNAPFERRY_CONFIG, else ./snapferry.toml.
    Keep a copy of the key file, or of the passphrase, elsewhere: without it no backup can be read.
    """
    import os

    from snapferry.config import load_plugins, new_config, new_config_path
    from snapferry.engine import check_passphrase_file
    from snapferry.errors import AccessDenied, SnapferryError

    config = new_config(
        new_config_path(invocation.config_path),
        _destinations(destinations),
        key_file=key_file,
        passphrase_file=passphrase_file,
        min_copies=min_copies or 1,
        plugins=load_plugins(plugin_file) if plugin_file is not None else (),
    )
    if os.path.lexists(config.path):
        raise SnapferryError(f"{config.path} exists already; nothing was overwritten")
    if key_file is not None and not os.path.isfile(key_file):
        raise AccessDenied(f"there is no key file {key_file}; leave --key-file out to have a new key made")
    if passphrase_file is not None:
        check_passphrase_file(passphrase_file)
    made_key = config.repository.key_file is not None and not os.path.lexists(config.repository.key_file)
    if not dry_run:
        from snapferry.engine import create_repository

        config = run_async(invocation, create_repository(config))
    if invocation.json_lines:
        document = {
            "repository": config.repository.id,
            "config": str(config.path),
            **_opener(config),
            "destinations": [destination.name for destination in config.destinations],
        }
        invocation.emit("init", document | ({"dry_run": True} if dry_run else {}))
        return 0
    names = ", ".join(f"{destination.name} ({destination.url})" for destination in config.destinations)
    if dry_run:
        invocation.result(f"would create a repository on {names}, and write {config.path}")
        return 0
    invocation.result(f"repository {config.repository.id} created on {names}")
    invocation.say(f"configuration: {config.path}")
    for kind, path in _opener(config).items():
        there = "" if made_key else "it was there already; "
        invocation.say(f"{kind.replace('_', ' ') + ':':15}{path}  ({there}keep a copy elsewhere: without it no backup can be read)")
    return 0


@click.command("connect")
@click.option("--from", "destinations", metavar="[NAME=]URL", multiple=True, required=True, help="A destination; give it once for each.")
@click.option("--key-file", metavar="FILE", help="The repository's key; or this.")
@click.option("--passphrase-file", metavar="FILE", help="Holds the repository's passphrase.")
@click.option(
    "--plugins", "plugin_file", metavar="FILE", help="The [[plugin]] tables that URLs of plugin:NAME mean; they go into the configuration."
)
@click.option("--id", "repository_id", metavar="ID", help="Only the repository of this id; needed to be sure where a public key was added.")
@common_options
@click.pass_obj
def connect_command(
    invocation: Invocation,
    *,
    destinations: tuple[str, ...],
    key_file: str | None,
    passphrase_file: str | None,
    plugin_file: str | None,
    repository_id: str | None,
) -> int:
    """Attach an existing repository on a blank machine: write the configuration and rebuild what is local.

    The configuration goes to --config, else $SNAPFERRY_CONFIG, else ./snapferry.toml.
    """
    import os

    from snapferry.config import load_plugins, new_config, new_config_path
    from snapferry.engine import connect, open_repository
    from snapferry.errors import SnapferryError

    if key_file is None and passphrase_file is None:
        raise click.UsageError("--key-file or --passphrase-file must say what opens the repository")
    wanted = new_config(
        new_config_path(invocation.config_path),
        _destinations(destinations),
        key_file=key_file,
        passphrase_file=passphrase_file,
        repository_id=repository_id,
        plugins=load_plugins(plugin_file) if plugin_file is not None else (),
    )
    if os.path.lexists(wanted.path):
        raise SnapferryError(f"{wanted.path} exists already; nothing was overwritten")

    async def work() -> tuple[Config, int]:
        config = await connect(wanted)
        async with open_repository(config) as repository:
            return config, len(await repository.list())

    config, snapshots = run_async(invocation, work())
    names = [destination.name for destination in config.destinations]
    if invocation.json_lines:
        invocation.emit(
            "connect",
            {"repository": config.repository.id, "config": str(config.path), "destinations": names, "snapshots": snapshots},
        )
    else:
        invocation.result(f"repository {config.repository.id} on {', '.join(names)}: {snapshots} snapshots")
        invocation.say(f"configuration: {config.path}")
    return 0


def _opener(config: Config) -> dict[str, str]:
    """What opens the repository, by the configuration's name for it."""
    files = {"key_file": config.repository.key_file, "passphrase_file": config.repository.passphrase_file}
    return {key: str(path) for key, path in files.items() if path is not None}


def _destinations(texts: tuple[str, ...]) -> list[DestinationConfig]:
    from snapferry.config import parse_destination

    found: list[DestinationConfig] = []
    for text in texts:
        found.append(parse_destination(text, [destination.name for destination in found]))
    return found
