"""An SFTP destination on loopback, OpenSSH's server at the other end: MiB/s are 128 over the shown seconds. The same to a directory is the measure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snapferry.destination import Destination, open_destination, prepare_destination
from tests.support import sftp_servers

PACK = 32 << 20
PACKS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sftp_servers.Server]:
    with sftp_servers.openssh_server(tmp_path_factory.mktemp("openssh")) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["file", "sftp"])
@pytest.mark.parametrize("direction", ["create", "read"])
def test_four_packs_at_once(benchmark: BenchmarkFixture, server: sftp_servers.Server, kind: str, direction: str) -> None:
    pack = os.urandom(PACK)
    url, options = (server.url(f"bench-{direction}"), server.options) if kind == "sftp" else (str(server.root / f"local-{direction}"), {})
    numbers = iter(range(1 << 30))

    async def open_it() -> Destination:
        await prepare_destination("far", url, options)
        return await open_destination("far", url, options)

    with asyncio.Runner() as runner:
        destination = runner.run(open_it())

        async def create() -> None:
            await asyncio.gather(*(destination.create(f"packs/ab/{next(numbers)}", pack) for _ in range(PACKS)))

        buffers = [memoryview(bytearray(PACK)) for _ in range(PACKS)]

        async def read() -> None:
            await asyncio.gather(*(destination.read_into(f"packs/ab/{number}", 0, buffer) for number, buffer in enumerate(buffers)))

        runner.run(create())
        benchmark.pedantic(lambda: runner.run(create() if direction == "create" else read()), rounds=5, warmup_rounds=1)
        runner.run(destination.close())
