"""``config show``."""

from __future__ import annotations

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options


@click.group("config")
@common_options
def config_command() -> None:
    """Show the configuration."""


@config_command.command("show")
@click.option("--origin", is_flag=True, help="Also where each value came from.")
@common_options
@click.pass_obj
def show_command(invocation: Invocation, origin: bool) -> int:
    """Print every value of the configuration, secrets hidden."""
    config = invocation.load_config()
    settings = config.settings()
    if invocation.json_lines:
        values = [{"key": item.key, "value": item.value} | ({"origin": item.origin} if origin else {}) for item in settings]
        invocation.emit("config", {"path": str(config.path), "settings": values})
        return 0
    lines = [f"{item.key} = {_plain(item.value)}" for item in settings]
    width = max(map(len, lines))
    for line, item in zip(lines, settings, strict=True):
        invocation.write(f"{line.ljust(width)}  # {item.origin}" if origin else line)
    return 0


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_plain(item)}" for key, item in value.items()) + " }" if value else "{}"
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
