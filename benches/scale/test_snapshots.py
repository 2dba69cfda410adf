"""A few hundred snapshots: that the measurement runs, and that what a command reads does not grow with their number."""

from __future__ import annotations

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benches.command_line import result
from benches.scale.snapshots import ManySnapshots


def test_listing_many_snapshots(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    place = ManySnapshots(tmp_path, 400, 10)
    assert len(result(place.blank().run("list"))["snapshots"]) == 400
    place.line.run("list")
    usage = benchmark.pedantic(place.line.run, args=("list",), rounds=2)
    assert len(result(usage)["snapshots"]) == 400
    assert len(place.by_id().output) == len(place.by_volume().output) == 4096
    assert result(place.export())["blocks_new"] == 1
