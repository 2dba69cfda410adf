"""Every command has a manual page that man and mandoc read without complaint, and the pages that are shipped are those."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from snapferry.cli.main import COMMANDS, cli
from snapferry.cli.manual import pages
from snapferry.cli.manual_texts import EXAMPLES
from tests.support.place import Place

SHIPPED = Path(__file__).parents[3] / "packaging/data/share"
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("manual"))
    place.run("man", "--directory", "pages/man1")
    return place.root / "pages/man1"


def test_there_is_one_for_each_command(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted(["snapferry.1", *(f"snapferry-{name}.1" for name in COMMANDS)])
    for path in written.iterdir():
        sections = [line.removeprefix(".SH ") for line in path.read_text().splitlines() if line.startswith(".SH ")]
        assert [section for section in sections if section in SECTIONS] == SECTIONS, path.name


def test_man_and_mandoc_do_not_complain(written: Path) -> None:
    files = sorted(map(str, written.iterdir()))
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *files], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    for file in files:
        said = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", file], capture_output=True, text=True, check=True)
        assert said.stderr == ""
        assert said.stdout.startswith("SNAPFERRY")


def test_all_options_are_in_it() -> None:
    import click

    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        below = list(command.commands.values()) if isinstance(command, click.Group) else []
        (text,) = pages([name]).values()
        for parameter in [parameter for one in (command, *below) for parameter in one.params]:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1].replace("-", "\\-") in text, (name, parameter.opts)
    assert set(EXAMPLES) >= {"", "export", "restore"}


def test_one_page(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.run("man", "export").stdout == pages(["export"])["snapferry-export.1"]
    assert place.run("man").stdout == pages([None])["snapferry.1"]
    place.run("man", "exprt", code=2)
    place.run("man", "export", "--directory", "x", code=2)


def test_what_is_shipped_is_what_the_commands_say(tmp_path: Path) -> None:
    """If this fails: `make man`, and commit what it made."""
    shipped = {path.name: path.read_text() for path in (SHIPPED / "man/man1").iterdir()}
    assert shipped == pages()
    place = Place(tmp_path)
    for shell, path in {
        "bash": "bash-completion/completions/snapferry",
        "zsh": "zsh/site-functions/_snapferry",
        "fish": "fish/vendor_completions.d/snapferry.fish",
    }.items():
        assert (SHIPPED / path).read_text() == place.run("completion", shell).stdout
