"""What the file destination and the fan-out cost on top of the disk: MiB/s are 32 over the shown seconds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snapferry.destination.file import FileDestination
from snapferry.destination.memory import MemoryDestination
from snapferry.transport import FanOut

PACK = 32 << 20


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


@pytest.fixture(scope="module")
def pack() -> bytes:
    return os.urandom(PACK)


def test_create_a_pack(benchmark: BenchmarkFixture, runner: asyncio.Runner, tmp_path: Path, pack: bytes) -> None:
    destination = FileDestination("near", str(tmp_path))
    numbers = iter(range(1 << 30))

    def create() -> None:
        assert runner.run(destination.create(f"packs/ab/{next(numbers)}", pack))

    benchmark.pedantic(create, rounds=10, warmup_rounds=1)
    runner.run(destination.close())


def test_plain_write_and_sync(benchmark: BenchmarkFixture, tmp_path: Path, pack: bytes) -> None:
    """What the disk itself takes: the measure for the one above."""
    numbers = iter(range(1 << 30))

    def write() -> None:
        with open(tmp_path / str(next(numbers)), "wb", buffering=0) as file:
            file.write(pack)
            os.fsync(file.fileno())

    benchmark.pedantic(write, rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("length", [1 << 20, 8 << 20], ids=["1MiB", "8MiB"])
def test_read_ranges_of_a_pack(benchmark: BenchmarkFixture, runner: asyncio.Runner, tmp_path: Path, pack: bytes, length: int) -> None:
    """The whole pack, range by range, three at a time."""
    destination = FileDestination("near", str(tmp_path))
    runner.run(destination.create("packs/ab/x", pack))
    buffers = [memoryview(bytearray(length)) for _ in range(3)]

    async def read() -> None:
        offsets = iter(range(0, PACK, length))

        async def reader(buffer: memoryview) -> None:
            for offset in offsets:
                await destination.read_into("packs/ab/x", offset, buffer)

        await asyncio.gather(*map(reader, buffers))

    benchmark(lambda: runner.run(read()))
    runner.run(destination.close())


def test_fan_out_small_objects(benchmark: BenchmarkFixture, runner: asyncio.Runner) -> None:
    """A thousand objects to three destinations: the bookkeeping alone."""

    async def send() -> None:
        async with FanOut([MemoryDestination(name) for name in "abc"]) as fanout:
            for number in range(1000):
                await fanout.send(f"packs/ab/{number}", b"", 0, lambda: None)

    benchmark(lambda: runner.run(send()))
