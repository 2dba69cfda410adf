"""Exports to unlike places: three S3 servers behind links of 200, 100 and 20 MiB/s, and 64 volumes at once. Needs root (see ``links``).

Figures are ratios within one run, medians, in the table at the end; with ``--benchmark-disable`` all is small and once, and what cannot flake is asserted.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.command_line import documents, result
from benches.conftest import Tell
from benches.far import Commits, FarPlaces
from benches.images import MiB, identical, write_mixed, write_random
from benches.processes import Usage

RATES = {"fast": 200.0 * MiB, "middle": 100.0 * MiB, "slow": 20.0 * MiB}
BUDGET = 256 * MiB
MEMORY = BUDGET + 150 * MiB


class Exports:
    """Exports of one volume, each into a repository of its own."""

    def __init__(self, far: FarPlaces, image: Path, mixed: Path) -> None:
        self.far = far
        self.image = image
        self.mixed = mixed
        self._count = 0

    def __call__(
        self, *names: str, slow: Mapping[str, str] | None = None, watch_memory: bool = False, image: Path | None = None
    ) -> tuple[dict[str, float], Usage]:
        """Seconds until each place had its commit, and what it took; ``line`` is the repository's. Of ``image``, by default the random one."""
        self._count += 1
        home = f"r{self._count}"
        self.line = self.far.repository(home, *names, slow=slow, SNAPFERRY_ENGINE_MEMORY=str(BUDGET))
        with Commits({name: self.far.directory(name, home) for name in names}) as commits:
            usage = self.line.run("export", str(image or self.image), watch_memory=watch_memory, codes=(0, 3))
        return commits.seconds, usage


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, short: bool) -> Iterator[Exports]:
    """Of a volume of random bytes, where the links are the limit, or of one with holes and what can be compressed; to servers that all tests here share."""
    home = tmp_path_factory.mktemp("fanout")
    image, mixed = home / "volume.img", home / "mixed.img"
    write_random(image, (16 if short else 1024) * MiB)
    write_mixed(mixed, (16 if short else 2048) * MiB)
    with FarPlaces(home, RATES) as far:
        yield Exports(far, image, mixed)


@pytest.mark.parametrize("slow", ["block", "spool", "detach"])
def test_three_unlike_destinations(
    benchmark: BenchmarkFixture, tmp_path: Path, export: Exports, short: bool, tell: Tell, slow: str
) -> None:
    """When the fast one has its commit, as if it were alone."""
    manners = {"middle": slow, "slow": slow}
    ratios, cpu = [], []
    for _ in range(0 if short else 3):
        before, alone = export("fast")
        after, together = export(*RATES, slow=manners)
        ratios.append(after["fast"] / before["fast"])
        cpu.append(together.cpu / alone.cpu)
    if not short:
        (_, alone), (_, together) = export("fast", image=export.mixed), export(*RATES, slow=manners, image=export.mixed)
        tell(f"processor time of three over one, mixed volume: {slow}", f"{together.cpu / alone.cpu:.2f}", "1.3")
    seconds, watched = benchmark.pedantic(export, args=tuple(RATES), kwargs={"slow": manners, "watch_memory": True}, rounds=1)
    line = result(watched)
    assert sorted([*line["acknowledged"], *line["behind"]]) == sorted(RATES)
    assert "fast" in line["acknowledged"]
    assert sorted(seconds) == sorted(line["acknowledged"])
    for name in line["acknowledged"] if short else ():
        target = tmp_path / f"{name}.img"
        export.line.run("restore", export.image.name, str(target), "--from", name)
        assert identical(export.image, target)
    if not short:
        tell(
            f"fast one acknowledged, over alone: {slow}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", "1.1"
        )
        tell(f"processor time of three over one, random bytes: {slow}", f"{statistics.median(cpu):.2f}", "")
    tell(f"peak memory: {slow}", f"{watched.memory // MiB} MiB", f"{MEMORY // MiB} MiB")
    assert 0 < watched.memory <= MEMORY


def test_many_side_by_side(benchmark: BenchmarkFixture, tmp_path: Path, export: Exports, short: bool, tell: Tell) -> None:
    """64 volumes at once in one process to three places: how even they get on, and that no place is left out."""
    volumes = [tmp_path / f"volume{number}.img" for number in range(64)]
    for number, volume in enumerate(volumes):
        write_random(volume, (1 if short else 16) * MiB, seed=number)
    for name in RATES:
        export.far.network.shape(name, 100.0 * MiB)
    line = export.far.repository("many", SNAPFERRY_ENGINE_MEMORY=str(BUDGET))
    arguments = ("export", *map(str, volumes), "-j", "64", "-v")
    used = benchmark.pedantic(line.run, args=arguments, kwargs={"watch_memory": True}, rounds=1)
    for name, rate in RATES.items():
        export.far.network.shape(name, rate)
    lines = documents(used)
    exported = [event for event in lines if event["type"] == "snapshot"]
    assert len(exported) == len(volumes)
    assert all(sorted(snapshot["acknowledged"]) == sorted(RATES) for snapshot in exported)
    at_half = _at_half([event for event in lines if event["type"] == "progress"], len(volumes))
    seconds = [snapshot["seconds"] for snapshot in exported]
    tell(
        "64 at once: fastest and slowest over the median",
        f"{min(seconds) / statistics.median(seconds):.2f}, {max(seconds) / statistics.median(seconds):.2f}",
        "",
    )
    tell("64 at once: done at half, least and most", f"{min(at_half):.2f}, {max(at_half):.2f}", "")
    tell("64 at once: peak memory", f"{used.memory // MiB} MiB", f"{MEMORY // MiB} MiB")
    assert 0 < used.memory <= MEMORY


def _at_half(events: Sequence[Mapping[str, Any]], count: int) -> list[float]:
    """The part that each of ``count`` had done when half of all was; in the order of ``events``."""
    done: dict[str, float] = {}
    for event in events:
        done[event["subject"]] = event["done"] / event["total"]
        if sum(done.values()) >= count / 2:
            break
    return [*done.values(), *[0.0] * (count - len(done))]
