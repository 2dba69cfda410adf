from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from snapferry.config import DestinationConfig, PluginConfig, load_config, load_plugins, new_config, parse_destination, write_config
from snapferry.errors import AccessDenied, ConfigurationError

COMMAND = 'command = ["/opt/tape", "--drive", "0"]\ndirectory = "data"\n'


def load(directory: Path, plugin: str, destination: str = "") -> Any:
    file = directory / "snapferry.toml"
    file.write_text(f'[[plugin]]\nname = "tape"\n{plugin}\n[[destination]]\nname = "vault"\nurl = "plugin:tape"\n{destination}')
    file.chmod(0o600)
    return load_config(file, environment={})


def test_a_command_and_its_limits(tmp_path: Path) -> None:
    more = (
        'read_only = ["/srv/a"]\nmemory = "64MiB"\nprocesses = 9\nopen_files = 99\nstart_seconds = 2.5\nnetwork = ["tcp:443", "udp"]\nuser = "tape"\n'
        'max_object = "40MiB"\nmax_objects = 5000\nenvironment = { TOKEN = "hush" }\nconfine = "best-effort"\n'
    )
    config = load(tmp_path, COMMAND + more, 'options = { store = "a/b" }')
    expected = PluginConfig(
        "tape", None, ("/opt/tape", "--drive", "0"), (str(tmp_path / "data"),), ("/srv/a",), 64 << 20, 9, 99, 2.5, (443,), True, "tape",
        40 << 20, 5000, (("TOKEN", "hush"),), False,
    )  # fmt: skip
    assert config.plugins == (expected,)
    assert config.destinations[0].plugin == expected
    assert "hush" not in repr(config)
    assert "hush" not in str(config.settings())
    assert next(s.value for s in config.settings() if s.key == "plugin.tape.environment") == {"TOKEN": "(hidden)"}
    # And written as it was read.
    again = tmp_path / "again" / "snapferry.toml"
    write_config(new_config(again, config.destinations, plugins=config.plugins, environment={}))
    assert load_config(again, environment={}).plugins == (expected,)


def test_a_socket(tmp_path: Path) -> None:
    assert load(tmp_path, 'socket = "tape.sock"').plugins[0].socket == str(tmp_path / "tape.sock")


@pytest.mark.parametrize(
    ("plugin", "destination", "said"),
    [
        ("", "", "needs a socket.* or a command"),
        (COMMAND + 'socket = "/x"', "", "needs a socket.* or a command"),
        ('socket = "/x"\nmemory = "1GiB"', "", "memory is for a module that snapferry runs"),
        ('command = "/opt/tape --drive"\ndirectory = "d"', "", "no shell reads it"),
        ('command = ["tape"]\ndirectory = "d"', "", r"\$PATH is not searched"),
        ('command = ["/opt/tape"]', "", "needs a directory"),
        (COMMAND + 'memmory = "1GiB"', "", "did you mean 'memory'"),
        (COMMAND + 'memory = "1MiB"', "", "memory: .* too small"),
        (COMMAND + "processes = 0", "", "processes: .* from 1"),
        (COMMAND + "network = true", "", "network: "),
        (COMMAND + 'network = ["tcp:0"]', "", "network: "),
        (COMMAND + 'network = ["udp:53"]', "", "network: "),
        (COMMAND + 'user = "root"', "", "not root"),
        (COMMAND + 'confine = "no"', "", "confine: "),
        (COMMAND + "environment = { A = 1 }", "", "environment: "),
        (COMMAND, "options = { stor = 'a' }", "did you mean 'store'"),
        (COMMAND, "options = { store = '../a' }", "store: "),
        (COMMAND, "options = { store = 'tmp' }", "store: .* the module's own"),
        (COMMAND, "options = { store = 'tmp/a' }", "store: .* the module's own"),
        (COMMAND, "[[destination]]\nname = 'two'\nurl = 'plugin:tape'", "the same place"),
        (COMMAND, "[[destination]]\nname = 'two'\nurl = 'plugin:tap'", "did you mean 'tape'"),
        (COMMAND, "[[destination]]\nname = 'two'\nurl = 'plugin://tape'", "plugin:NAME"),
        (COMMAND + f"[[plugin]]\nname = 'tape'\n{COMMAND}", "", "two plug-ins are named 'tape'"),
    ],
)
def test_what_is_refused(tmp_path: Path, plugin: str, destination: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path, plugin, destination)


def test_a_file_that_names_a_command_is_read_only_if_nobody_else_can_write_it(tmp_path: Path) -> None:
    load(tmp_path, COMMAND)
    file = tmp_path / "snapferry.toml"
    file.chmod(0o620)
    with pytest.raises(AccessDenied, match="names a command to run"):
        load_config(file, environment={})
    plugins = tmp_path / "plugins.toml"
    plugins.write_text(f'[[plugin]]\nname = "tape"\n{COMMAND}')
    plugins.chmod(0o600)
    assert load_plugins(plugins)[0].name == "tape"
    plugins.chmod(0o602)
    with pytest.raises(AccessDenied, match="names a command to run"):
        load_plugins(plugins)
    file.write_text(f'[[plugin]]\nname = "tape"\nsocket = "/x"\n[[destination]]\nname = "a"\nurl = "{tmp_path}"\n')
    assert os.stat(file).st_mode & 0o020
    load_config(file, environment={})


def test_a_flag_names_a_store() -> None:
    assert parse_destination("plugin:tape/vms/a") == DestinationConfig("tape", "plugin:tape", options={"store": "vms/a"})
    assert parse_destination("plugin:tape/tmp-a") == DestinationConfig("tape", "plugin:tape", options={"store": "tmp-a"})
    assert parse_destination("vault=plugin:tape") == DestinationConfig("vault", "plugin:tape")
