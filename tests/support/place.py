"""A directory from which the commands are run as outside programs run them: real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINE_KEYS = {
    "snapshot": "type schema_version snapshot volume size block_size bytes_read bytes_new bytes_sent blocks_total blocks_new blocks_zero "
    "acknowledged behind seconds",
    "restore": "type schema_version snapshot size bytes_written bytes_fetched hedged failovers seconds",
    "list": "type schema_version snapshots",
    "diff": "type schema_version block_size extents",
    "error": "type schema_version code message",
}


@dataclass
class Place:
    """A directory with its own home, configuration and destinations."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPFERRY", "XDG_"))}
        return kept | {"HOME": str(self.root / "home"), "SNAPFERRY_CONFIG": str(self.root / "snapferry.toml")}

    def copy(self, root: Path) -> Place:
        """A copy at ``root``; its configuration names the copy's own destinations."""
        shutil.copytree(self.root, root)
        config = root / "snapferry.toml"
        config.write_text(config.read_text().replace(str(self.root), str(root)))
        return Place(root)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "snapferry.cli.main", *map(str, arguments)]

    def run(self, *arguments: object, code: int = 0, last_line_is_ours: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, env=self.environment, cwd=self.root, check=False)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        if code and code != 4 and "--json" not in arguments and last_line_is_ours:
            assert done.stderr.splitlines()[-1].startswith("snapferry: "), done.stderr
        return done

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        lines = self.run(*arguments, "--json", code=code).stdout.splitlines()
        document: dict[str, Any] = json.loads(lines[-1])
        assert document["schema_version"] == 1
        if document["type"] in LINE_KEYS:
            assert set(LINE_KEYS[document["type"]].split()) <= set(document)
        if document["type"] == "error":
            assert document["code"] == code
        return document

    def packs(self, name: str) -> list[Path]:
        return sorted((path for path in (self.root / name / "packs").rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
