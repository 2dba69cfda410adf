"""Makes the golden repository of the present format: ``python -m tests.golden.make DIRECTORY``. Released ones are never made again.

Every kind of object is in it: keys of each kind and role, two epochs, both codecs and none, extents that could not be read, a snapshot that was
forgotten, and a collection that copied what was still needed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

import snapferry
from snapferry.config import Config, new_config, parse_destination
from snapferry.repository.keyfile import create_key_file, host_public_key
from snapferry.testing.sources import FailingReads, MemorySource
from tests.golden import volumes
from tests.golden.volumes import BLOCK


async def make(directory: Path) -> None:
    """Leaves ``store/``, ``snapferry.key``, ``passphrase``, ``host.key`` and ``writes.key`` in ``directory``, which must not exist."""
    directory.mkdir(parents=True)
    (directory / "passphrase").write_text("gold leaf\n")
    (directory / "passphrase").chmod(0o600)
    public = host_public_key(create_key_file(directory / "host.key"))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        destinations = [parse_destination(f"store={directory / 'store'}")]
        config = await snapferry.create_repository(new_config(work / "snapferry.toml", destinations))
        assert config.repository.key_file is not None
        shutil.copyfile(config.repository.key_file, directory / "snapferry.key")
        await _export(config, "zstd", volumes.GONE, volumes.gone())
        async with snapferry.open_repository(config) as repository:
            await repository.keys.add(passphrase_file=directory / "passphrase", label="passphrase")
            await repository.keys.add(public_key=public, label="host")
            await repository.keys.add(key_file=directory / "writes.key", write_only=True, label="writes")
        await _export(config, "zstd", volumes.VOLUME, volumes.first())
        async with snapferry.open_repository(config) as repository:
            await repository.keys.rotate()
        await _export(config, "lz4", volumes.VOLUME, volumes.second())
        await _export(config, "none", volumes.HOLES, volumes.holes(), bad=volumes.UNREADABLE)
        async with snapferry.open_repository(config) as repository:
            (gone,) = await repository.list(volumes.GONE)
            await repository.forget([gone.snapshot.id])
            pruned = await repository.prune(max_unused=0.0, lease=0.0)
            assert pruned.destinations[0].packs_repacked
    shutil.rmtree(directory / "store" / "tmp")


async def _export(config: Config, codec: str, volume: str, data: bytes, bad: tuple[tuple[int, int], ...] = ()) -> None:
    source = FailingReads(MemorySource(data), bad)
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, codec=codec))
    async with snapferry.open_repository(config) as repository:
        await repository.export(source, volume=volume, block_size=BLOCK, skip_unreadable=bool(bad), tags={"made": "by code"})


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1]).absolute()))
