"""Whole exports and restores through the public Python API, one uvloop for all: MiB/s are 256 over the shown seconds.

The repository is opened anew each time, as a command would, and everything is synced. `peers/compare.py` sets such figures
beside those of other programs; here they are to be compared with themselves, from one version to the next.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

import snapferry
from benches.command_line import xdg
from benches.images import MiB, identical, write_changes, write_mixed
from snapferry.config import DestinationConfig

SIZE = 256 * MiB
ROUNDS = 5

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as opened:
        yield opened


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and catalogs of a bench stay in its own directory."""
    for name, value in xdg(tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "volume.img"
    write_mixed(path, SIZE)
    return path


class Bench:
    """A repository of one destination and the coroutines that are timed, run on the one loop."""

    def __init__(self, runner: asyncio.Runner, home: Path) -> None:
        self._runner = runner
        self._home = home
        destination = DestinationConfig("near", str(home / "near"))
        self._config = runner.run(snapferry.create_repository(snapferry.new_config(home / "snapferry.toml", [destination])))

    def export(self, image: Path) -> snapferry.ExportResult:
        async def work() -> snapferry.ExportResult:
            async with snapferry.open_repository(self._config) as repository:
                return await repository.export(str(image), volume="bench")

        return self._runner.run(work())

    def restore(self, snapshot: str, target: Path, *, force: bool = False) -> snapferry.RestoreResult:
        async def work() -> snapferry.RestoreResult:
            async with snapferry.open_repository(self._config) as repository:
                return await repository.restore(snapshot, str(target), force=force)

        return self._runner.run(work())

    def discard(self) -> None:
        shutil.rmtree(self._home)


@pytest.fixture
def bench(runner: asyncio.Runner, tmp_path: Path) -> Bench:
    return Bench(runner, tmp_path / "home")


def test_first_export(benchmark: BenchmarkFixture, runner: asyncio.Runner, tmp_path: Path, image: Path) -> None:
    numbers = itertools.count()
    made: list[Bench] = []

    def fresh() -> tuple[tuple[Bench], dict[str, object]]:
        while made:
            made.pop().discard()
        made.append(Bench(runner, tmp_path / f"home{next(numbers)}"))
        return (made[0],), {}

    exported = benchmark.pedantic(lambda at: at.export(image), setup=fresh, rounds=ROUNDS, warmup_rounds=1)
    assert exported.acknowledged == ("near",)


def test_export_unchanged(benchmark: BenchmarkFixture, bench: Bench, image: Path) -> None:
    bench.export(image)
    again = benchmark.pedantic(bench.export, args=(image,), rounds=ROUNDS, warmup_rounds=1)
    assert again.blocks_new == 0


def test_export_one_percent_changed(benchmark: BenchmarkFixture, bench: Bench, image: Path) -> None:
    bench.export(image)
    seeds = itertools.count()

    def changed() -> tuple[tuple[Path], dict[str, object]]:
        assert write_changes(image, 0.01, next(seeds))
        return (image,), {}

    again = benchmark.pedantic(bench.export, setup=changed, rounds=ROUNDS, warmup_rounds=1)
    assert 0 < again.blocks_new < again.blocks_total // 20


def test_restore_to_a_fresh_file(benchmark: BenchmarkFixture, bench: Bench, image: Path, tmp_path: Path) -> None:
    snapshot, target = bench.export(image).id, tmp_path / "restored.img"

    def absent() -> tuple[tuple[str, Path], dict[str, object]]:
        target.unlink(missing_ok=True)
        return (snapshot, target), {}

    benchmark.pedantic(bench.restore, setup=absent, rounds=ROUNDS, warmup_rounds=1)
    assert identical(image, target)


def test_restore_onto_the_previous_image(benchmark: BenchmarkFixture, bench: Bench, image: Path, tmp_path: Path) -> None:
    """1 % differs, and only that is written."""
    before, target = bench.export(image).id, tmp_path / "restored.img"
    write_changes(image, 0.01, seed=1)
    after = bench.export(image).id

    def previous() -> tuple[tuple[str, Path], dict[str, object]]:
        bench.restore(before, target, force=True)
        return (after, target), {"force": True}

    done = benchmark.pedantic(bench.restore, setup=previous, rounds=ROUNDS, warmup_rounds=1)
    assert identical(image, target)
    assert 0 < done.bytes_written < SIZE // 20
