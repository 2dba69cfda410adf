"""Every released format is read for good: connected to on a blank machine, restored, verified, and exported to again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import snapferry
from snapferry import _core
from snapferry.config import Config, new_config, parse_destination
from snapferry.errors import AccessDenied
from snapferry.testing.sources import MemorySource
from tests.golden import volumes

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("v*/store"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a golden repository and of its keys."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    golden = tmp_path / "golden"
    shutil.copytree(request.param, golden)
    for path in golden.iterdir():
        if path.is_file():
            os.chmod(path, 0o600)
    return golden


async def _connect(golden: Path, key: str = "snapferry.key") -> Config:
    """A blank machine that has one of the keys."""
    store = parse_destination(f"store={golden / 'store'}")
    file = golden / key
    opener = (None, file) if key == "passphrase" else (file, None)
    return await snapferry.connect(new_config(golden / "snapferry.toml", [store], key_file=opener[0], passphrase_file=opener[1]))


@pytest.fixture
async def machine(golden: Path) -> Config:
    return await _connect(golden)


def test_there_is_one_of_the_present_format() -> None:
    assert [path.name for path in VERSIONS] == [f"v{_core.FORMAT_VERSION}"]


def test_every_kind_of_object_is_in_it(golden: Path) -> None:
    found = {path.relative_to(golden / "store").as_posix() for path in (golden / "store").rglob("*") if path.is_file()}
    first = {key.split("/")[0] for key in found}
    assert first == {"destination", "config", "keys", "packs", "index", "sessions", "snapshots", "forgotten", "collect"}
    assert {key.rsplit("/")[-1] for key in found if key.startswith("collect/")} == {"condemned", "delete", "done"}


@pytest.mark.parametrize("key", ["snapferry.key", "passphrase", "host.key"])
async def test_the_snapshots_come_back_with_each_key(golden: Path, tmp_path: Path, key: str) -> None:
    machine = await _connect(golden, key)
    async with snapferry.open_repository(machine) as repository:
        assert sorted(item.snapshot.volume for item in await repository.list()) == [volumes.HOLES] + [volumes.VOLUME] * 2
        for name, data in ((f"{volumes.VOLUME}~1", volumes.first()), (volumes.VOLUME, volumes.second())):
            result = await repository.restore(name, tmp_path / name.replace("/", "-"))
            assert result.exit_code == 0
            assert (tmp_path / name.replace("/", "-")).read_bytes() == data
        holes = await repository.restore(volumes.HOLES, tmp_path / "holes")
        assert (holes.exit_code, (await repository.show(volumes.HOLES)).snapshot.unreadable) == (3, volumes.UNREADABLE)
        at, length = volumes.UNREADABLE[0]
        assert (tmp_path / "holes").read_bytes()[:at] == volumes.holes()[:at]
        assert (tmp_path / "holes").read_bytes()[at + length :] == volumes.holes()[at + length :]
        assert (await repository.verify(read_data=100)).damage == ()


async def test_a_host_that_may_only_write_goes_on_with_it(golden: Path, tmp_path: Path) -> None:
    async with snapferry.open_repository(await _connect(golden, "writes.key")) as repository:
        made = await repository.export(MemorySource(volumes.second() + b"more"), volume=volumes.VOLUME)
        assert made.blocks_new == 1
        with pytest.raises(AccessDenied):
            await repository.restore(made.id, tmp_path / "out")


async def test_a_prune_goes_on_with_it(machine: Config) -> None:
    async with snapferry.open_repository(machine) as repository:
        await repository.forget([f"{volumes.VOLUME}~1"])
        pruned = await repository.prune(max_unused=0.0, lease=0.0)
        assert pruned.exit_code == 0
        assert pruned.destinations[0].packs_deleted
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
