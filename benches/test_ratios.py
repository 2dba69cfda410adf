"""What is promised as a ratio or a size, small enough for every run of CI, by the real command line: no time is asserted here.

`claims.py` shows the same on images of the sizes that the promises name.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.command_line import CommandLine
from benches.images import MiB, identical, write_mixed
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
