"""What the command line accepts and refuses before anything is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from snapferry.cli.failing import Interrupted, exit_code, message_of, root_of
from snapferry.cli.invocation import Invocation
from snapferry.cli.main import COMMANDS, cli, run
from snapferry.cli.options import BlockSize, Percentage, Range, Size
from snapferry.errors import AccessDenied, DestinationFull, DestinationUnreachable, SnapferryError, SourceError

CONFIG = '[[destination]]\nname = "near"\nurl = "memory://parsing"\n'


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SNAPFERRY_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from snapferry.cli.main import run; run(['--help']);"
        "print([m for m in ('sqlalchemy', 'rich', 'aiohttp', 'asyncio', 'uvloop', 'msgspec', 'snapferry._core', 'snapferry.engine') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name} " in said.stdout for name in COMMANDS)
    assert said.stderr == ""


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--config", "--json", "--quiet", "--verbose"):
        assert option in said
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(200).split()[0] == COMMANDS[name][1].split()[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["list", "--nonsense"],
        ["-q", "-v", "list"],
        ["-q", "list", "-v"],
        ["init"],
        ["init", "--to", "x=ftp://h"],
        ["init", "--to", "a=/x", "--to", "a=/y"],
        ["init", "--to", "a=/x", "--to", "b=/x/."],
        ["init", "--to", "a=/x", "--min-copies", "2"],
        ["connect", "--from", "/x"],
        ["export"],
        ["export", "-"],
        ["export", "a", "--block-size", "100KiB"],
        ["export", "a", "--block-size", "8MiB"],
        ["export", "a", "--block-size", "many"],
        ["export", "a", "--min-copies", "0"],
        ["export", "a", "--placement", "spread"],
        ["export", "a", "--to", "nowhere"],
        ["restore", "a"],
        ["restore", "a", "b", "--from", "nowhere"],
        ["restore", "a", "b", "--range", "5"],
        ["restore", "a", "b", "--range", "2MiB-1MiB"],
        ["cat"],
        ["diff", "a"],
        ["show"],
        ["verify", "--read-data", "101"],
        ["verify", "--read-data", "half"],
        ["verify", "--destination", "nowhere"],
        ["demo", "--size", "none"],
        ["config"],
        ["config", "nonsense"],
    ],
)
def test_a_usage_error_is_2_and_says_so_in_json_too(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "snapferry.toml").write_text(CONFIG)
    if arguments[:1] == ["init"]:
        (tmp_path / "snapferry.toml").unlink()
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
    if arguments not in ([], ["config"]):
        assert said.err.splitlines()[-1].startswith("snapferry: ")
    assert run([*arguments, "--json"]) == 2
    said = capsys.readouterr()
    line = json.loads((said.err if arguments[:1] == ["cat"] else said.out).splitlines()[-1])
    assert (line["type"], line["schema_version"], line["code"]) == ("error", 1, 2)
    assert line["message"]


@pytest.mark.parametrize("arguments", [["list"], ["export", "x"], ["restore", "a", "b"], ["cat", "a"], ["config", "show"], ["rebuild"]])
def test_no_configuration_is_10(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 10
    said = capsys.readouterr()
    assert said.err.startswith("snapferry: no configuration file")
    assert len(said.err.splitlines()) == 1


def test_common_options_go_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.toml").write_text(CONFIG)
    outputs = []
    for arguments in (
        ["--config", "other.toml", "--json", "config", "show"],
        ["config", "--config", "other.toml", "show", "--json"],
        ["config", "show", "--json", "--config", "other.toml"],
    ):
        assert run(arguments) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0]["path"] == str(tmp_path / "other.toml")


def test_config_show_tells_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "snapferry.toml").write_text(CONFIG + 'options = { password = "hush" }\n')
    monkeypatch.setenv("SNAPFERRY_ENGINE_CODEC", "lz4")
    assert run(["config", "show", "--origin"]) == 0
    lines = {line.split(" = ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["engine.codec"].split() == ["engine.codec", "=", '"lz4"', "#", "environment", "SNAPFERRY_ENGINE_CODEC"]
    assert lines["engine.memory"].endswith("# default")
    assert lines["destination.near.url"].endswith(f"# file:{tmp_path / 'snapferry.toml'}")
    assert "hush" not in "".join(lines.values())
    assert run(["config", "show", "--origin", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"key": "engine.codec", "value": "lz4", "origin": "environment SNAPFERRY_ENGINE_CODEC"} in document["settings"]


def test_init_never_overwrites_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "snapferry.toml").write_text("precious")
    assert run(["init", "--to", "/x"]) == 1
    assert run(["connect", "--from", "/x", "--key-file", "k"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "snapferry.toml").read_text() == "precious"


def test_a_dry_init_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--to", "far=backup", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["destinations"] == ["far"]
    assert document["dry_run"] is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0-1MiB", (0, 1 << 20)), ("4096-", (4096, None)), ("-8KiB", (0, 8192)), ("5-5", (5, 5)), ("1KiB-2KiB", (1024, 2048))],
)
def test_ranges(text: str, wanted: tuple[int, int | None]) -> None:
    assert Range().convert(text, None, None) == wanted


def test_other_types() -> None:
    assert Size().convert("64KiB", None, None) == 65536
    assert BlockSize().convert("4MiB", None, None) == 4 << 20
    assert Percentage().convert("12.5%", None, None) == 12.5


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SourceError("disk.img: no such file"), 1, "disk.img: no such file"),
        (OSError(28, "No space left on device", "/var/x"), 14, "/var/x: No space left on device"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (Interrupted(2), 130, "interrupted"),
        (Interrupted(15), 143, "terminated"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("two\n lines"), 1, "unexpected ValueError: two lines (run again with -v for details)"),
        (BaseExceptionGroup("", [ValueError("x"), ExceptionGroup("", [SnapferryError("known")])]), 1, "known"),
        (ExceptionGroup("", [DestinationUnreachable("gone"), DestinationFull("full", "far"), SnapferryError("other")]), 14, "far: full"),
        (ExceptionGroup("", [DestinationUnreachable("gone"), AccessDenied("no key")]), 12, "no key"),
    ],
)
def test_what_an_error_becomes(error: BaseException, code: int, message: str) -> None:
    assert (exit_code(root_of(error)), message_of(root_of(error))) == (code, message)


def test_names_that_are_no_text_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    Invocation().write("volume \udcff")
    Invocation(json_lines=True).emit("list", {"volume": "\udcff"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "volume \\udcff"
    assert json.loads(lines[1])["volume"] == "\udcff"
