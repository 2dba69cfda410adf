"""Restores from unlike, moody and dying replicas: S3 servers behind links of 200, 100 and 20 MiB/s. Needs root (see ``links``).

Figures are ratios within one run, medians, in the table at the end; with ``--benchmark-disable`` all is small and once, and what cannot flake is asserted:
the bytes, and that all replicas are asked.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.command_line import result
from benches.conftest import Tell
from benches.far import FarPlaces, FarRepository, at
from benches.images import MiB, identical, write_random
from benches.links import UNSHAPED
from snapferry.testing.http_streams import FlipsBitInEveryNth, LacksOneIn, StallsEveryNth, StreamFault, StreamProxy

RATES = (200.0, 100.0, 20.0)
"""MiB/s."""


class Restores:
    """Restores of one volume from its replicas, each compared byte for byte."""

    def __init__(self, far: FarPlaces, line: FarRepository, image: Path) -> None:
        self.far = far
        self.size = image.stat().st_size
        self._line = line
        self._image = image
        self._target = image.with_name("restored.img")

    def __call__(self, *names: str) -> dict[str, Any]:
        """By the command line from these (all, unless given); its last line."""
        sources = [part for name in names for part in ("--from", name)]
        used = self._line.run("restore", self._image.name, str(self._target), *sources)
        self._compare()
        return result(used)

    def traced(self) -> dict[str, Any]:
        """By the API; what ``traced_restore`` says."""
        used = self._line.traced_restore(self._image.name, self._target)
        self._compare()
        told: dict[str, Any] = json.loads(used.output)
        return told

    def shape(self, *rates: float) -> None:
        """Gives the links these rates, in MiB/s, in the order of the places."""
        for name, rate in zip(self.far.rates, rates, strict=True):
            self.far.network.shape(name, rate * MiB)

    def _compare(self) -> None:
        assert identical(self._image, self._target)
        self._target.unlink()


@contextmanager
def _restores(home: Path, short: bool, faulty: tuple[str, ...]) -> Iterator[Restores]:
    image = home / "volume.img"
    write_random(image, (16 if short else 1024) * MiB)
    rates = dict(zip((*faulty, "near", "far", "further"), RATES, strict=False))
    with FarPlaces(home, {name: rate * MiB for name, rate in rates.items()}, faulty) as far:
        line = far.repository("replicas")
        restore = Restores(far, line, image)
        restore.shape(UNSHAPED, UNSHAPED, UNSHAPED)
        line.run("export", str(image))
        yield restore


@pytest.fixture(scope="module")
def restore(tmp_path_factory: pytest.TempPathFactory, short: bool) -> Iterator[Restores]:
    """Of a volume of random bytes that three places hold."""
    with _restores(tmp_path_factory.mktemp("restore"), short, ()) as made:
        yield made


@pytest.fixture(scope="module")
def moody_restore(tmp_path_factory: pytest.TempPathFactory, short: bool) -> Iterator[Restores]:
    """The same where the first place, ``moody``, has a proxy before it."""
    with _restores(tmp_path_factory.mktemp("moody"), short, ("moody",)) as made:
        yield made


@pytest.fixture
def moody(moody_restore: Restores) -> StreamProxy:
    """That proxy, without faults."""
    return moody_restore.far.renew("moody")


def test_rates_add_up(benchmark: BenchmarkFixture, restore: Restores, short: bool, tell: Tell) -> None:
    of_sum, of_fastest, limits = [], [], []
    for _ in range(0 if short else 3):
        restore.shape(UNSHAPED, UNSHAPED, UNSHAPED)
        limits.append(min(sum(RATES) * MiB, restore.size / restore()["seconds"]))
        restore.shape(*RATES)
        alone, together = restore("near"), restore()
        of_sum.append(restore.size / together["seconds"] / limits[-1])
        of_fastest.append(alone["seconds"] / together["seconds"])
    restore.shape(*RATES)
    told = benchmark.pedantic(restore, rounds=1)
    assert sum(told["bytes_fetched"].values()) >= restore.size
    if not short:
        tell(
            "restore from three, of the sum of the rates",
            f"{statistics.median(of_sum):.2f} ({min(of_sum):.2f} to {max(of_sum):.2f})",
            ">= 0.9",
        )
        tell("that sum, or what the machine does", f"{statistics.median(limits) / MiB:.0f} MiB/s", "")
        tell("restore from three, over the fastest alone", f"{statistics.median(of_fastest):.2f}", ">= 0.95")


def test_one_that_stalls(benchmark: BenchmarkFixture, moody_restore: Restores, moody: StreamProxy, short: bool, tell: Tell) -> None:
    """Every second request there is answered 5 s late (in the short form half a second)."""
    ratios, tails, smooth_tails, hedged = [], [], [], []
    moody_restore.shape(100, 200, 100)
    for _ in range(0 if short else 3):
        moody.fault = StreamFault()
        without, smooth = moody_restore("near", "far"), moody_restore.traced()
        moody.fault = StallsEveryNth(2, 5.0)
        told = moody_restore.traced()
        ratios.append(told["seconds"] / without["seconds"])
        tails.append(_tail(told["reads"]))
        smooth_tails.append(_tail(smooth["reads"]))
        hedged.append(told["hedged"] / moody_restore.size)
    moody.fault = StallsEveryNth(2, 0.5 if short else 5.0)
    benchmark.pedantic(moody_restore, rounds=1)
    if not short:
        tell("one that stalls: time over without it", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", "1.15")
        tell(
            "one that stalls: p99 of an extent over the median",
            f"{statistics.median(tails):.2f} (without stalls {statistics.median(smooth_tails):.2f})",
            "2",
        )
        tell("one that stalls: hedged bytes", f"{100 * statistics.median(hedged):.1f} %", "5 %")


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_one_is_killed(benchmark: BenchmarkFixture, moody_restore: Restores, moody: StreamProxy, tell: Tell, percent: int) -> None:
    """The fastest dies for good, in the middle of bodies, when so much of everything has come."""
    moody_restore.shape(*RATES)
    with at(moody_restore.far.network, moody_restore.size * percent // 100, moody.die):
        told = benchmark.pedantic(moody_restore.traced, rounds=1)
    tell(f"killed at {percent} %: extents asked for again", _again(told), "one a connection")


@pytest.mark.parametrize("fault", [FlipsBitInEveryNth(10), LacksOneIn(3)], ids=["flips", "lacks"])
def test_one_lies(
    benchmark: BenchmarkFixture, moody_restore: Restores, moody: StreamProxy, short: bool, tell: Tell, fault: StreamFault
) -> None:
    """The fastest flips a bit in every tenth body, or answers 404 to a third of the packs."""
    moody_restore.shape(*RATES)
    plain = moody_restore.traced()
    moody.fault = fault
    told = benchmark.pedantic(moody_restore.traced, rounds=1)
    name = "flips bits" if fault.flips else "lacks packs"
    tell(f"one that {name}: extents asked for again", f"{_again(told)}, {fault.met} faults met, {told['damage']} reported", "one a fault")
    if not short:
        tell(f"one that {name}: time over without", f"{told['seconds'] / plain['seconds']:.2f}", "")


def _extents(reads: Sequence[Sequence[Any]]) -> dict[tuple[str, int, int], list[Sequence[Any]]]:
    """By key, offset and length: what was asked of whom."""
    extents: dict[tuple[str, int, int], list[Sequence[Any]]] = defaultdict(list)
    for read in reads:
        extents[read[1], read[2], read[3]].append(read)
    return extents


def _tail(reads: Sequence[Sequence[Any]]) -> float:
    """The 99th percentile over the median of the time from an extent's first asking until it is there."""
    times: list[float] = sorted(
        min(read[5] for read in asked if read[6]) - min(read[4] for read in asked)
        for (key, _, _), asked in _extents(reads).items()
        if "packs/" in key and any(read[6] for read in asked)
    )
    return times[min(len(times) - 1, round(0.99 * len(times)))] / statistics.median(times)


def _again(told: Mapping[str, Any]) -> str:
    extents = _extents(told["reads"])
    again = sum(len(asked) - 1 for asked in extents.values())
    failed = sum(not read[6] for read in told["reads"])
    return f"{again} of {len(extents)} ({failed} reads failed or were given up, {told['hedged'] / MiB:.1f} MiB hedged)"
