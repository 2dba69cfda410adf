"""The measurements of the core at scale, small: that they run, and that what they find is right (they compare each answer)."""

from __future__ import annotations

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benches.scale import index, manifest
from benches.scale.core import build

TiB = 1 << 40


def test_an_index_that_grows(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    build("scale_index")
    first, last = benchmark.pedantic(lambda: list(index.measure(tmp_path, [100_000, 1_000_000])), rounds=1)
    assert last["entries"] >= 1_000_000
    assert last["anonymous"] < 1 << 30
    assert index.row(last).count("|") == index.row(first).count("|") == 15
    assert "1.0" in index.ratios(first, first)


def test_a_manifest_and_its_successor(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    build("scale_manifest")
    small, few, large, many = benchmark.pedantic(lambda: list(manifest.measure(tmp_path, [TiB // 256, TiB // 4], [100])), rounds=1)
    assert large["open_bytes"] < 1 << 20
    # A volume 64 times as large: what a change reads and writes grows with the height of the tree at most.
    assert many["commit_written"] < 5 * few["commit_written"]
    assert manifest.row(small, few).count("|") == manifest.row(large, many).count("|") == 8
