"""One cache directory under several processes, and on a disk that damages it or is full: only what can be read again is ever in it."""

from __future__ import annotations

import asyncio
import random
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from snapferry import _core
from snapferry.config import Config
from snapferry.engine import open_repository
from snapferry.repository import names
from snapferry.testing.sources import MemorySource
from tests.support.gates import Gates, until
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume
from tests.support.tmpfs import tmpfs

OTHERS = volume(3)


async def _export_to_near_alone(lab: Lab, gates: Gates) -> None:
    """By another process on the same machine, while the first has read no more of near's new segment than its name."""
    await until(lambda: gates.reached)
    del lab.wrappers["near"]
    async with lab.repository() as second:
        await second.export(MemorySource(volume(4)), volume="d", block_size=BLOCK, to=["near"])
    gates.release()


async def test_a_prune_beside_an_export_to_one_place_misses_no_segment(make_lab: MakeLab) -> None:
    """The export folds what near lists; what only far lists stays in the prune's index."""
    lab = await make_lab("near", "far")
    async with lab.repository() as first:
        await first.export(MemorySource(volume(1)), volume="a", block_size=BLOCK, to=["near"])
        await first.export(MemorySource(volume(2)), volume="b", block_size=BLOCK, to=["far"])
        await first.prune()
    async with lab.repository("near") as other:
        await other.export(MemorySource(OTHERS), volume="c", block_size=BLOCK)
    gates = lab.wrappers["near"] = Gates("read", names.INDEX, 1)
    async with lab.repository() as pruning, asyncio.TaskGroup() as group:
        prune = group.create_task(pruning.prune())
        await _export_to_near_alone(lab, gates)
    assert prune.result().exit_code == 0, prune.result().failures


async def test_a_restore_beside_an_export_to_one_place_finds_what_was_repacked(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far")
    one = volume(2, blocks=40, zeros=())
    two = changed(one, 7, range(36))
    async with lab.repository() as first:
        old = await first.export(MemorySource(one), volume="b", block_size=BLOCK, to=["far"])
        kept = await first.export(MemorySource(two), volume="b", to=["far"])
        await first.export(MemorySource(volume(1)), volume="a", block_size=BLOCK, to=["near"])
        await first.forget([old.id])
        async with lab.repository("far") as alone:
            assert (await alone.prune(max_unused=0.0)).destinations[0].packs_repacked
    async with lab.repository() as first:
        assert await lab.contents(first, kept.id) == two
    async with lab.repository("near") as other:
        await other.export(MemorySource(OTHERS), volume="c", block_size=BLOCK)
    gates = lab.wrappers["near"] = Gates("read", names.INDEX, 1)
    async with lab.repository() as restoring, asyncio.TaskGroup() as group:
        group.create_task(restoring.restore(kept.id, lab.directory / "out.raw"))
        await _export_to_near_alone(lab, gates)
    assert (lab.directory / "out.raw").read_bytes() == two


@pytest.mark.parametrize("what", ["prune", "verify"])
async def test_a_damaged_page_of_packs_misleads_nobody(make_lab: MakeLab, what: str) -> None:
    lab = await make_lab("near")
    async with lab.repository() as repository:
        for seed in range(140):
            await repository.export(MemorySource(random.Random(seed).randbytes(BLOCK)), volume=f"v{seed}", block_size=BLOCK)
    async with lab.repository() as repository:
        assert (await repository.prune()).exit_code == 0
    path = max(lab.config.repository.cache_dir.rglob("bundle-*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    segments, packs, _ = struct.unpack_from("<III", data, 8)
    first, last = 32 + segments * 40, 32 + segments * 40 + packs * 40 - 1
    assert last // 4096 > first // 4096 + 1
    data[last - last % 4096 - 2000] ^= 1  # In the last page but one of the packs.
    path.unlink()  # Processes may have it mapped.
    path.write_bytes(data)
    async with lab.repository() as repository:
        if what == "prune":
            pruned = await repository.prune()
            assert pruned.exit_code == 0, pruned.failures
        else:
            assert (await repository.verify()).damage == ()


async def test_a_cache_that_is_removed_under_a_fold_takes_nothing_from_an_export(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = await make_lab("near")
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
    async with lab.repository("near") as other:
        await other.export(MemorySource(OTHERS), volume="c", block_size=BLOCK)
    folds: list[int] = []

    class RemovedAfterOneStep:
        def __init__(self, *how: Any) -> None:
            self._fold = real(*how)
            folds.append(0)

        def step(self) -> bool:
            more = self._fold.step()
            if not folds[-1]:
                for path in lab.config.repository.cache_dir.glob("*/index/*"):
                    path.unlink()
            folds[-1] += 1
            return more

    real = _core.Fold
    monkeypatch.setattr(_core, "Fold", RemovedAfterOneStep)
    async with lab.repository() as repository:
        made = await repository.export(MemorySource(volume(4)), volume="v")
    assert any(folds)
    async with lab.repository() as repository:
        assert await lab.contents(repository, made.id) == volume(4)


async def test_a_rebuild_waits_for_who_folds(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And leaves the lock where it is: who took a new one would not see who holds the old."""
    lab = await make_lab("near")
    await lab.begin_with(volume(1))
    (lock,) = lab.config.repository.cache_dir.glob("*/index/lock")
    inode = lock.stat().st_ino
    holding = subprocess.Popen(["flock", lock, "sh", "-c", "echo; read -r _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holding.stdout is not None
    holding.stdout.readline()
    async with lab.repository() as repository, asyncio.TaskGroup() as group:
        rebuilding = group.create_task(repository.rebuild())
        await until(lambda: "waiting for another process" in caplog.text or rebuilding.done())
        assert not rebuilding.done()
        assert list(lock.parent.glob("bundle-*"))
        holding.communicate(b"\n")
    assert lock.stat().st_ino == inode


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Any]:
    """Makes the cache of a machine lie on a file system without room."""
    with ExitStack() as mounted:

        def make(config: Config) -> Config:
            cache = mounted.enter_context(tmpfs(config.repository.cache_dir, "size=64k"))
            (cache / "full").write_bytes(bytes(60 << 10))
            return config

        yield make


async def test_a_full_cache_disk_takes_nothing_from_exports_and_restores(
    make_lab: MakeLab, full: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even from a restore of blocks that a prune has moved, which only the index finds."""
    lab = await make_lab("near")
    one = volume(2, blocks=40, zeros=())
    two = changed(one, 7, range(36))
    async with lab.repository() as repository:
        old = await repository.export(MemorySource(one), volume="b", block_size=BLOCK)
        kept = await repository.export(MemorySource(two), volume="b")
        await repository.forget([old.id])
        assert (await repository.prune(max_unused=0.0)).destinations[0].packs_repacked
    async with open_repository(full(lab.machine("near"))) as repository:
        assert await lab.contents(repository, kept.id) == two
        made = await repository.export(MemorySource(changed(two, 8, [1])), volume="b")
    assert made.blocks_new == 1
    assert "cannot write to the cache directory" in caplog.text
    await lab.assert_restores_alone({kept.id: two, made.id: changed(two, 8, [1])})
