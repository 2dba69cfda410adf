"""Loop devices: real block devices over files."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def loop_device(backing: Path, *options: str) -> Iterator[str]:
    """The path of a loop device over ``backing`` while the block runs."""
    if os.geteuid() != 0:
        pytest.fail("devices are real ones here: a loop device needs root")
    device = _attach(backing, options)
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def _attach(backing: Path, options: tuple[str, ...]) -> str:
    done = None
    for _ in range(20):  # Between finding a free one and taking it, another process may have it.
        done = subprocess.run(["losetup", "--find", "--show", *options, str(backing)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    assert done is not None
    pytest.fail(f"no loop device: {done.stderr}")


def set_capacity(device: str) -> None:
    """The device takes its backing file's present size."""
    subprocess.run(["losetup", "--set-capacity", device], check=True)
