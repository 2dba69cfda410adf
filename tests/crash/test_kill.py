"""kill -9 of a real process, at every object it creates and in the middle; then the same command again."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import snapferry
from snapferry.config import Config, DestinationConfig, new_config
from snapferry.types import MiB
from tests.support.lab import changed, volume

EVERY = int(os.environ.get("SNAPFERRY_KILL_EVERY", "4"))
"""The prune is killed at every so many changes, from another one on each time it is run; 1 is the long form (`make crash-long`)."""


def _local(config: Config, home: Path) -> Config:
    repository = dataclasses.replace(
        config.repository, cache_dir=home / "cache", state_dir=home / "state", catalog=f"sqlite:///{home}/catalog.sqlite"
    )
    return dataclasses.replace(config, repository=repository)


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    entries = [DestinationConfig(name, str(tmp_path / name)) for name in ("near", "far")]
    return await snapferry.create_repository(_local(new_config(tmp_path / "snapferry.toml", entries, environment={}), tmp_path / "home"))


def _export(config: Config, source: Path, when: str = "never", nth: int = 0) -> subprocess.CompletedProcess[str]:
    return _run("exporter", config, source, when, nth)


def _run(program: str, config: Config, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.crash.{program}", config.path, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


async def _assert_restores_alone(config: Config, tmp_path: Path, contents: set[bytes], *, least: int = 0) -> None:
    """On machines that know nothing but one place and the key, every snapshot there is one of ``contents``, bit-exact."""
    for destination in config.destinations:
        home = tmp_path / f"blank-{time.monotonic_ns()}"
        blank = _local(new_config(home / "snapferry.toml", [destination], key_file=config.repository.key_file, environment={}), home)
        async with snapferry.open_repository(blank) as repository:
            listed = await repository.list()
            assert len(listed) >= least
            for item in listed:
                async with repository.open_snapshot(item.snapshot.id) as reader:
                    assert b"".join([bytes(piece) async for piece in reader.stream()]) in contents
            assert (await repository.verify(read_data=100)).damage == ()
        shutil.rmtree(home)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_at_every_object(config: Config, tmp_path: Path) -> None:
    source = tmp_path / "volume.img"
    first = volume(1, blocks=10)
    source.write_bytes(first)
    assert _export(config, source).returncode == 0
    second = changed(first, 2, [3, 7])
    source.write_bytes(second)
    for place in ("near", "far", "home"):
        shutil.copytree(tmp_path / place, tmp_path / "start" / place)
    for when in ("before", "after"):
        for nth in range(1, 100):
            for place in ("near", "far", "home"):
                shutil.rmtree(tmp_path / place)
                shutil.copytree(tmp_path / "start" / place, tmp_path / place)
            died = _export(config, source, when, nth)
            if died.returncode != -signal.SIGKILL:
                assert died.returncode == 0, died.stderr
                break
            async with snapferry.open_repository(config) as repository:
                await repository.list()
            again = _export(config, source)
            assert (again.returncode, again.stdout.split()[2]) == (0, "0"), (when, nth, again.stderr)
            await _assert_restores_alone(config, tmp_path, {first, second}, least=2)
        else:
            pytest.fail("the export never ended")
        assert nth > 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_prune_killed_at_its_changes_is_finished_by_the_next(config: Config, tmp_path: Path) -> None:
    source = tmp_path / "volume.img"
    latest = data = volume(1, blocks=40)
    for number in range(3):
        source.write_bytes(data)
        assert _export(config, source).returncode == 0
        latest, data = data, changed(data, number, range(number, 40, 3))
    for place in ("near", "far", "home"):
        shutil.copytree(tmp_path / place, tmp_path / "start" / place)
    before = _stored(tmp_path / "near")
    for when in ("before", "after"):
        for nth in itertools.count(random.randrange(EVERY) + 1, EVERY):
            for place in ("near", "far", "home"):
                shutil.rmtree(tmp_path / place)
                shutil.copytree(tmp_path / "start" / place, tmp_path / place)
            died = _run("pruner", config, when, nth)
            if died.returncode != -signal.SIGKILL:
                assert (died.returncode, died.stdout.split()[1]) == (0, "0"), died.stderr
                break
            # Whoever opens it next, an export say, has all that is listed, and builds on nothing that goes.
            source.write_bytes(latest)
            exported = _export(config, source)
            assert (exported.returncode, exported.stdout.split()[2]) == (0, "0"), (when, nth, exported.stderr)
            again = _run("pruner", config)
            assert (again.returncode, again.stdout.split()[1]) == (0, "0"), (when, nth, again.stderr)
            await _assert_restores_alone(config, tmp_path, {latest}, least=1)
            assert _stored(tmp_path / "near") < before
        assert nth > 20


def _stored(place: Path) -> int:
    return sum(path.stat().st_size for path in (place / "packs").rglob("*") if path.is_file())


@pytest.mark.slow
async def test_an_interrupted_export_sends_only_what_is_missing(config: Config, tmp_path: Path) -> None:
    source = tmp_path / "volume.img"
    data = random.Random(1).randbytes(160 * MiB)
    source.write_bytes(data)
    # One create for the session at each place, then the five packs at both: it is killed when seven of those ten are there.
    assert _export(config, source, "after", 2 + 7).returncode == -signal.SIGKILL
    near, far = ({path.name: path.stat().st_size for path in (tmp_path / place / "packs").rglob("?" * 64)} for place in ("near", "far"))
    there = sum(near[name] for name in near.keys() & far.keys())
    assert there >= 2 * 31 * MiB
    again = _export(config, source)
    assert again.returncode == 0, again.stderr
    sent = int(again.stdout.split()[1]) // 2
    assert sent <= len(data) - there + MiB
    await _assert_restores_alone(config, tmp_path, {data}, least=1)


@pytest.mark.slow
async def test_a_killed_restore_goes_on(config: Config, tmp_path: Path) -> None:
    source, target = tmp_path / "volume.img", tmp_path / "out.img"
    data = random.Random(2).randbytes(64 * MiB)
    source.write_bytes(data)
    assert _export(config, source).returncode == 0
    script = f"""
import asyncio, snapferry
async def main():
    async with snapferry.open_repository({str(config.path)!r}) as repository:
        await repository.restore("v", {str(target)!r})
asyncio.run(main())
"""
    for blocks in (1, 20_000, 60_000):
        process = subprocess.Popen([sys.executable, "-c", script])
        while process.poll() is None and not (target.exists() and target.stat().st_blocks >= blocks):
            time.sleep(0.0005)
        process.kill()
        process.wait()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == data
