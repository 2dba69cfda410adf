"""What a look-up in the index, an insertion and an opening cost as it grows.

    python benches/scale/index.py [--entries 1e6,1e7,1e8,1e9] [--dir DIR]

Synthetic blocks go in as an export puts them: segments of eight packs are built, sealed, added, and folded into files now and then.
10⁹ entries take 37 GB of disk in DIR, 45 GB for moments, which are given back, and a quarter of an hour.

Each size is opened anew before it is asked. *Miss*: a block that is not there, which is what an export of new data asks. *Hit*: blocks that are,
in the order in which a volume was stored; *scattered*: any of all. Medians, in ns: *between* with 1 MiB through the processor's caches before
each look-up, which is less than an export moves for a block, and *in a row* with nothing in between; of scattered ones also the mean, which has the disk
in it where files do not fit into memory. *Insert* has all in it: building, sealing, and what merging comes to for each entry. *Mark* tells the index
which packs count. Memory is anonymous and shared, at its peak, this program's own (32 bytes a segment) included; tables are what should stay in the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benches.scale.core import run

MiB = 1 << 20
_COLUMNS = (
    ("entries", "entries", 1, ",.0f"),
    ("miss between", "miss", 1, ".0f"),
    ("hit between", "hit", 1, ".0f"),
    ("scattered between", "scattered", 1, ".0f"),
    ("miss in a row", "miss_row", 1, ".0f"),
    ("hit in a row", "hit_row", 1, ".0f"),
    ("scattered in a row (mean)", "scattered_mean", 1, ",.0f"),
    ("insert", "insert", 1, ".0f"),
    ("insert, CPU", "insert_cpu", 1, ".0f"),
    ("open ms", "open_ms", 1, ".1f"),
    ("mark ms", "mark_ms", 1, ".0f"),
    ("anonymous MiB", "anonymous", MiB, ".0f"),
    ("tables MiB (count)", "tables", MiB, ".0f"),
    ("disk MiB", "disk", MiB, ",.0f"),
)


def measure(directory: Path, sizes: Iterable[int]) -> Iterator[dict[str, Any]]:
    """One object for each size, from small to large."""
    yield from run("scale_index", [str(directory), *(str(size) for size in sorted(sizes))])


def row(found: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [format(found[key] / unit, form) for _, key, unit, form in _COLUMNS]
    cells[-2] += f" ({found['table_count']})"
    return f"| {' | '.join(cells)} |"


def ratios(first: dict[str, Any], last: dict[str, Any]) -> str:
    """How many times as much the last costs as the first."""
    of = {
        name: last[key] / first[key]
        for name, key in (("miss", "miss"), ("hit", "hit"), ("insert", "insert"), ("insert, CPU", "insert_cpu"))
    }
    return f"{last['entries']:,} over {first['entries']:,} entries: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in of.items())


def main() -> None:
    """Measures and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--entries", default="1e6,1e7,1e8")
    arguments.add_argument("--dir", type=Path, help="where the files go for the time; a directory for temporary files by default")
    given = arguments.parse_args()
    sizes = [int(float(size)) for size in given.entries.split(",")]
    print(f"| {' | '.join(name for name, *_ in _COLUMNS)} |\n|{'---|' * len(_COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="snapferry-index-", dir=given.dir) as directory:
        found = []
        for line in measure(Path(directory), sizes):
            found.append(line)
            print(row(line), flush=True)
    print(f"\n{ratios(found[0], found[-1])}")


if __name__ == "__main__":
    main()
