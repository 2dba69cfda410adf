"""Makes the golden repository of the present format: ``python -m tests.golden.make DIRECTORY``. Released ones are never made again."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import snapferry
from snapferry.config import new_config, parse_destination
from tests.golden import volumes


async def make(directory: Path) -> None:
    """Leaves ``store/`` and ``snapferry.key`` in ``directory``, which must not exist."""
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        destinations = [parse_destination(f"store={directory / 'store'}")]
        config = await snapferry.create_repository(new_config(work / "snapferry.toml", destinations))
        source = work / "volume"
        async with snapferry.open_repository(config) as repository:
            for data in (volumes.first(), volumes.second()):
                source.write_bytes(data)
                await repository.export(source, volume=volumes.VOLUME, block_size=volumes.BLOCK)
        assert config.repository.key_file is not None
        shutil.copyfile(config.repository.key_file, directory / "snapferry.key")
    shutil.rmtree(directory / "store" / "tmp")


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1]).absolute()))
