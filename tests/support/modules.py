"""Storage modules to be run: the examples, as their page says they are built, and the faulty ones, where a user of their own can reach them."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapferry.config import PluginConfig
from snapferry.testing import faulty_module, fence_probes

PYTHON = "/usr/bin/python3"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Workshop:
    """A directory that everybody may enter; ``data`` is the modules' own."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    def plugin(self, *command: str, **how: Any) -> PluginConfig:
        return PluginConfig("tape", command=command, directories=(str(self.data),), **how)

    def faulty(self, fault: str, *arguments: str, **how: Any) -> PluginConfig:
        program = str(shutil.copy(faulty_module.__file__, self.path))
        return self.plugin(PYTHON, program, fault, *arguments, **how)

    def probing(self, arguments: str, **how: Any) -> PluginConfig:
        return self.faulty("Probes", str(shutil.copy(fence_probes.__file__, self.path)), arguments, **how)

    def example(self, language: str, **how: Any) -> PluginConfig:
        source = ROOT / f"docs/examples/directory_module.{language}"
        if language == "py":
            return self.plugin(PYTHON, str(shutil.copy(source, self.path)), **how)
        program = self.path / "directory_module"
        program.write_bytes(_built(source))
        program.chmod(0o755)
        return self.plugin(str(program), **how)

    def arm(self) -> None:
        """From now on the fault is wanted."""
        (self.data / "armed").touch()


@functools.cache
def _built(source: Path) -> bytes:
    """The program of an example in Rust, as its first lines say that it is built; once for all tests."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "program"
        subprocess.run(["rustc", "-O", "-D", "warnings", "-o", program, source], check=True, cwd=directory)
        return program.read_bytes()


@contextmanager
def workshop() -> Iterator[Workshop]:
    # Not below pytest's directory, which other users may not enter.
    path = Path(tempfile.mkdtemp(prefix="modules-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield Workshop(path)
    finally:
        shutil.rmtree(path)


@contextmanager
def running(workshop: Workshop, *command: str, name: str = "socket") -> Iterator[str]:
    """A module run by hand, without fences, as its author does; the path of its socket."""
    workshop.data.mkdir(exist_ok=True)
    path = f"{workshop.path}/{name}"
    process = subprocess.Popen(command, env={"SNAPFERRY_DIRECTORY": str(workshop.data), "SNAPFERRY_SOCKET": path})
    try:
        until = time.monotonic() + 20
        while not _accepts(path):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


def _accepts(path: str) -> bool:
    """Whether somebody listens there; the socket's file comes a little before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def processes_below(process: int) -> list[int]:
    """The processes that descend from one, as the system tells it."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        try:
            parents.setdefault(int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]), []).append(int(name))
        except (ValueError, OSError):
            continue
    found: list[int] = []
    pending = [process]
    while pending:
        below = parents.get(pending.pop(), [])
        found += below
        pending += below
    return found
