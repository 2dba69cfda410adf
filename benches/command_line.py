"""snapferry's real command line as a subprocess, with a configuration, cache and catalog of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benches.processes import Usage, run


def xdg(home: Path) -> dict[str, str]:
    """The environment that keeps everything that is local below ``home``."""
    return {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")}


class CommandLine:
    """One repository with destinations below ``home``, or at ``roots``."""

    def __init__(self, home: Path, *roots: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.roots = roots or (home / "near",)
        self.environment = {**os.environ, **xdg(home)}
        self._prefix = [_program(), "--config", str(home / "snapferry.toml"), "--json"]

    def command(self, *arguments: str) -> list[str]:
        """The whole command, as a list."""
        return [*self._prefix, *arguments]

    def init(self) -> list[str]:
        """The command that creates the repository."""
        return self.command("init", *(part for n, root in enumerate(self.roots, 1) for part in ("--to", f"d{n}={root}")))

    def run(self, *arguments: str, watch_memory: bool = False, codes: Collection[int] = (0,)) -> Usage:
        """Runs one command to its end."""
        return run(self.command(*arguments), env=self.environment, watch_memory=watch_memory, codes=codes)

    def run_plain(self, *arguments: str) -> Usage:
        """As ``run``, for people to read."""
        return run([part for part in self.command(*arguments) if part != "--json"], env=self.environment)

    def create(self) -> None:
        """Creates the repository."""
        run(self.init(), env=self.environment)

    def stored(self) -> int:
        """Bytes of finished objects at the first destination; what is still being written does not count."""
        return stored(self.roots[0], but=self.roots[0] / "tmp")


def result(usage: Usage) -> dict[str, Any]:
    """The document that ends a command's output."""
    document: dict[str, Any] = json.loads(usage.output.splitlines()[-1])
    return document


def documents(usage: Usage) -> list[dict[str, Any]]:
    """All documents of a command's output."""
    return [json.loads(line) for line in usage.output.splitlines()]


def stored(root: Path, but: Path | None = None) -> int:
    """Bytes of the files below ``root``, those below ``but`` excepted."""
    total = 0
    for directory, names, files in os.walk(root):
        if but is not None and Path(directory) == but.parent:
            names[:] = [name for name in names if name != but.name]
        for name in files:
            try:
                total += os.stat(os.path.join(directory, name)).st_size
            except FileNotFoundError:  # renamed while we look
                continue
    return total


def _program() -> str:
    beside = Path(sys.executable).with_name("snapferry")
    found = os.environ.get("SNAPFERRY") or (str(beside) if beside.exists() else shutil.which("snapferry"))
    if not found:
        raise SystemExit("snapferry is not installed beside this Python nor in PATH; `make setup`, then use .venv/bin/python")
    return found
