"""Runs a measurement of the core (``rust/examples``): built in release mode, each of its lines is a JSON object."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def build(example: str) -> Path:
    """Builds it if it is not; returns the program."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", "rust/Cargo.toml", "--example", example]
    built = subprocess.run([*command, "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    messages = (json.loads(line) for line in built.stdout.splitlines())
    (program,) = (Path(message["executable"]) for message in messages if message.get("executable"))
    return program


def run(example: str, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What it prints, as it does; ``CalledProcessError`` if it fails."""
    command = [str(build(example)), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
