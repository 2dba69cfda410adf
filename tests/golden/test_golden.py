"""Every released format is read for good: connected to on a blank machine, restored, verified, and exported to again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import snapferry
from snapferry.config import Config, new_config, parse_destination
from tests.golden import volumes

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("v*/store"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
async def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A blank machine with a copy of a golden repository within reach."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    golden = tmp_path / "golden"
    shutil.copytree(request.param, golden)
    key = golden / "snapferry.key"
    os.chmod(key, 0o600)
    store = parse_destination(f"store={golden / 'store'}")
    return await snapferry.connect(new_config(tmp_path / "snapferry.toml", [store], key_file=key))


def test_there_is_one_of_the_present_format() -> None:
    assert [path.name for path in VERSIONS] == ["v0"]


async def test_both_snapshots_come_back(machine: Config, tmp_path: Path) -> None:
    async with snapferry.open_repository(machine) as repository:
        assert [item.snapshot.volume for item in await repository.list()] == [volumes.VOLUME] * 2
        for name, data in ((f"{volumes.VOLUME}~1", volumes.first()), (volumes.VOLUME, volumes.second())):
            result = await repository.restore(name, tmp_path / name.replace("/", "-"))
            assert result.exit_code == 0
            assert (tmp_path / name.replace("/", "-")).read_bytes() == data
        assert (await repository.verify(read_data=100)).damage == ()


async def test_an_export_builds_on_it(machine: Config, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(volumes.second() + b"more")
    async with snapferry.open_repository(machine) as repository:
        result = await repository.export(source, volume=volumes.VOLUME)
        assert result.blocks_new == 1
        assert result.snapshot.block_size == volumes.BLOCK
        await repository.restore(result.id, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == volumes.second() + b"more"
