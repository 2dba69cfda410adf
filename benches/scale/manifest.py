"""What the manifest of a large, fully allocated volume costs: to build, to open, and to compare and commit with a successor.

    python benches/scale/manifest.py [--sizes 64GiB,1TiB,64TiB] [--changed 1000,10000] [--dir DIR]

Blocks of 256 KiB with synthetic ids go through the core's own writer, as new blocks of an export do; packs are written to DIR (9.6 GB for 64 TiB, given back).
*Open* is the root and the path to one block, nothing read before; the median and the most of nine blocks. The successor differs in blocks scattered over the whole
volume, each in a leaf of its own where there are enough, which is the most that so many changes can cost; it is made as with a map of changes, so that nothing else is read. Times
have the files in the page cache. Memory is anonymous and shared, at its peak.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benches.scale.core import run
from snapferry.config.units import parse_size

MiB = 1 << 20


def measure(directory: Path, sizes: Iterable[int], changed: Iterable[int]) -> Iterator[dict[str, Any]]:
    """For each size an object without ``changed``, then one for each count."""
    lists = [",".join(str(number) for number in numbers) for numbers in (sizes, changed)]
    yield from run("scale_manifest", [str(directory), *lists])


def row(built: dict[str, Any], found: dict[str, Any]) -> str:
    """A row of the table."""
    opened = f"{built['open_ms']:.2f} ({built['open_most_ms']:.2f}), {built['open_bytes'] / 1024:.0f} KiB"
    cells = (
        f"{built['size'] / (1 << 40):g} TiB",
        f"{built['build_s']:.1f} s, {built['build_bytes'] / MiB:,.0f} MiB, {built['anonymous'] / MiB:.0f} MiB",
        opened,
        f"{found['changed']:,}",
        f"{found['diff_s']:.2f} s, {found['diff_fetched'] / MiB:.0f} MiB",
        f"{found['commit_s']:.2f} s, {found['commit_fetched'] / MiB:.0f} MiB, {found['commit_written'] / MiB:.0f} MiB",
        f"{found['anonymous'] / MiB:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", default="64GiB,1TiB")
    arguments.add_argument("--changed", default="1000,10000")
    arguments.add_argument("--dir", type=Path, help="where the packs go for the time; a directory for temporary files by default")
    given = arguments.parse_args()
    sizes = [parse_size(size) for size in given.sizes.split(",")]
    changed = [int(count) for count in given.changed.split(",")]
    print(
        "| volume | built in, packs, memory | open ms (most), read | changed blocks | compared in, read | committed in, read, written | memory MiB |"
    )
    print(f"|{'---|' * 7}", flush=True)
    with tempfile.TemporaryDirectory(prefix="snapferry-manifest-", dir=given.dir) as directory:
        built: dict[str, Any] = {}
        for line in measure(Path(directory), sizes, changed):
            if "changed" in line:
                print(row(built, line), flush=True)
            else:
                built = line


if __name__ == "__main__":
    main()
