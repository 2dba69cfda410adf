"""File systems of their own, in memory: small ones that get full, and ones that are mounted over others."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tmpfs(place: Path, options: str = "mode=0755") -> Iterator[Path]:
    """Mounts one at ``place``, which is made if it is missing, while the block runs; ``options`` as of mount(8)."""
    if os.geteuid() != 0:
        pytest.fail("full disks are real ones here: mounting a tmpfs needs root")
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
