"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import Lab, MakeLab


@pytest.fixture
def make_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeLab:
    """Makes a repository in memory on places of the names given, ``near`` and ``far`` by default."""

    async def make(*names: str) -> Lab:
        lab = Lab(tmp_path, monkeypatch, names or ("near", "far"))
        await lab.create()
        return lab

    return make
