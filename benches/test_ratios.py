"""What is promised as a ratio or a size, small enough for every run of CI, by the real command line: no time is asserted here.

`claims.py` shows the same on images of the sizes that the promises name.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.command_line import CommandLine, documents
from benches.images import MiB, identical, write_mixed, write_random
from benches.processes import Usage

SIZE = 256 * MiB
MEMORY = 400 * MiB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "volume.img"
    write_mixed(path, SIZE)
    return path


def test_three_destinations_instead_of_one(benchmark: BenchmarkFixture, tmp_path: Path, image: Path) -> None:
    """The processor's work is done once for all: see ``cpu_ratio``, 1.3 at most on a quiet machine."""
    spent: list[float] = []
    for count in (1, 3):
        home = tmp_path / str(count)
        line = CommandLine(home, *(home / f"near{number}" for number in range(count)))
        line.create()
        export = line.run if count == 1 else lambda *arguments, line=line: benchmark.pedantic(line.run, args=arguments, rounds=1)
        spent.append(export("export", str(image)).cpu)
    benchmark.extra_info["cpu_ratio"] = round(spent[1] / spent[0], 3)


def test_peak_memory(benchmark: BenchmarkFixture, tmp_path: Path, image: Path) -> None:
    line, target = CommandLine(tmp_path), tmp_path / "restored.img"
    line.create()

    def work() -> list[Usage]:
        return [
            line.run("export", str(image), watch_memory=True),
            line.run("export", str(image), watch_memory=True),
            line.run("restore", image.name, str(target), watch_memory=True),
        ]

    used = benchmark.pedantic(work, rounds=1)
    peaks = [usage.memory for usage in used]
    benchmark.extra_info["peak_mib"] = dict(zip(("first", "unchanged", "restore"), (peak // MiB for peak in peaks), strict=True))
    assert identical(image, target)
    assert 0 < min(peaks) <= max(peaks) <= MEMORY


def test_many_side_by_side(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """64 volumes in one process, eight at once: they share one budget, and none is forgotten. See ``uneven``: the slowest over the median."""
    line = CommandLine(tmp_path)
    line.create()
    volumes = [tmp_path / f"volume{number}.img" for number in range(64)]
    for number, volume in enumerate(volumes):
        write_random(volume, 2 * MiB, seed=number)
    used = benchmark.pedantic(line.run, args=("export", *map(str, volumes), "-j", "8"), kwargs={"watch_memory": True}, rounds=1)
    *each, summary = documents(used)
    assert (summary["exported"], summary["code"]) == (64, 0)
    seconds = [snapshot["seconds"] for snapshot in each]
    benchmark.extra_info["uneven"] = round(max(seconds) / statistics.median(seconds), 2)
    benchmark.extra_info["peak_mib"] = used.memory // MiB
    assert 0 < used.memory <= MEMORY
