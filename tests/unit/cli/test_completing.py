"""Completion in real shells, with the real program in PATH; and what it knows without asking a destination."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.place import Place
from tests.support.terminal import Terminal


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository whose destinations are gone, so that whatever is known is known here; and the program in PATH."""
    place = Place(tmp_path_factory.mktemp("completing"))
    place.run("init", "--to", "near=near", "--to", "far=far")
    for name in ("disk-one.img", "disk-two.img"):
        (place.root / name).write_bytes(name.encode() * 100)
        place.run("export", name, "--volume", f"vm/{name.removesuffix('.img')}")
    for name in ("near", "far"):
        shutil.rmtree(place.root / name)
    program = place.root / "bin/snapferry"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m snapferry.cli.main "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for shell in ("bash", "zsh", "fish"):
        (place.root / f"completion.{shell}").write_text(place.run("completion", shell).stdout)
    return place


def environment(place: Place) -> dict[str, str]:
    return place.environment | {"PATH": f"{place.root}/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "HISTFILE": "/dev/null"}


BASH = """
source completion.bash
COMP_WORDS=({words}); COMP_CWORD={last}; COMPREPLY=()
compopt() {{ echo "compopt $*"; }}
_snapferry_completion snapferry
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def in_bash(place: Place, *words: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in ("snapferry", *words))
    program = BASH.format(words=quoted, last=len(words))
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, env=environment(place), cwd=place.root, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def in_fish(place: Place, *words: str) -> list[str]:
    line = " ".join(("snapferry", *words))
    program = f"source completion.fish; complete --do-complete '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program], capture_output=True, text=True, env=environment(place), cwd=place.root, check=True
    )
    assert done.stderr == ""
    return [found.split("\t")[0] for found in done.stdout.splitlines()]


SHELLS = pytest.mark.parametrize("shell", [in_bash, in_fish])


@SHELLS
def test_words_that_are_known(place: Place, shell: object) -> None:
    assert callable(shell)
    assert shell(place, "expo") == ["export"]
    assert sorted(shell(place, "re")) == ["rebuild", "repair", "restore"]
    assert sorted(shell(place, "destination", "sync", "")) == ["far", "near"]
    assert shell(place, "config", "s") == ["show"]
    assert shell(place, "export", "--jo") == ["--jobs"]
    assert sorted(shell(place, "export", "--to", "")) == ["far", "near"]
    assert shell(place, "restore", "x", "--from", "n") == ["near"]
    assert sorted(shell(place, "restore", "vm")) == ["vm/disk-one", "vm/disk-two"]
    assert sorted(shell(place, "list", "")) == ["vm/disk-one", "vm/disk-two"]
    assert shell(place, "--json", "show", "vm/disk-t") == ["vm/disk-two"]
    assert shell(place, "completion", "z") == ["zsh"]
    assert sorted(shell(place, "export", "--parent", "")) == ["auto", "none"]


def test_ids_once_they_are_begun(place: Place) -> None:
    listed = {path.name for path in (place.root / "home").rglob("catalog-*.sqlite")}
    assert len(listed) == 1
    import sqlite3

    (catalog,) = (place.root / "home").rglob("catalog-*.sqlite")
    with sqlite3.connect(catalog) as connection:
        ids = [row[0] for row in connection.execute("SELECT DISTINCT snapshot FROM replicas")]
    connection.close()
    assert in_bash(place, "show", ids[0][:10]) == [ids[0]]
    assert in_bash(place, "show", "g") == []


def test_files(place: Place) -> None:
    assert in_bash(place, "export", "disk") == ["compopt", "-o", "default"]
    assert in_bash(place, "demo", "--keep", "") == ["compopt", "-o", "dirnames"]
    assert sorted(in_fish(place, "export", "disk")) == ["disk-one.img", "disk-two.img"]


@SHELLS
def test_nothing_is_known_where_nothing_is(place: Place, shell: object, tmp_path: Path) -> None:
    assert callable(shell)
    assert "export" in shell(place, "nonsense", "")  # Whoever types on will be told.
    assert shell(place, "--config", "nowhere.toml", "restore", "") == []
    broken = tmp_path / "broken.toml"
    broken.write_text("[[[")
    assert shell(place, "--config", str(broken), "export", "--to", "") == []
    assert not list(tmp_path.glob("*.sqlite"))


def typed(place: Place, shell: list[str], set_up: str, line: str, found: str) -> None:
    """A person at a terminal: the line, a tab, and what is there then."""
    with Terminal(shell, env=environment(place), cwd=place.root) as terminal:
        terminal.type(f"PS1=; {set_up}; echo re''ady\n")
        terminal.wait_for(lambda seen: "ready\r\n" in seen)
        terminal.type(f"{line}\t")
        terminal.wait_for(lambda seen: found in seen.replace("\r", ""))


def test_a_tab_in_bash(place: Place) -> None:
    bash = ["bash", "--norc", "--noprofile", "-i"]
    typed(
        place,
        bash,
        "bind 'set enable-bracketed-paste off'; source completion.bash",
        "snapferry restore vm/disk-o",
        "snapferry restore vm/disk-one",
    )
    typed(
        place,
        bash,
        "bind 'set enable-bracketed-paste off'; source completion.bash",
        "snapferry export disk-t",
        "snapferry export disk-two.img",
    )


def test_a_tab_in_zsh(place: Place) -> None:
    zsh = ["zsh", "-f", "-i"]
    set_up = "unsetopt zle_bracketed_paste 2>/dev/null; autoload -U compinit; compinit -u -D; source completion.zsh"
    typed(place, zsh, set_up, "snapferry restore vm/disk-o", "one")
    with Terminal(zsh, env=environment(place), cwd=place.root) as terminal:
        terminal.type(f"PS1=; {set_up}; echo re''ady\n")
        terminal.wait_for(lambda seen: "ready\r\n" in seen)
        terminal.type("snapferry export --to \t\t")
        terminal.wait_for(lambda seen: "near" in seen and "far" in seen)
