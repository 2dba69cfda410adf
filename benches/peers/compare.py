"""Runs snapferry beside restic, borg and benji on one image and prints what each took, and how many times as long as snapferry.

    .venv/bin/python benches/peers/compare.py --image DIR/fs.img --work DIR/work [--rounds 3] [--sparse] [--json FILE]

Each round gives every program in turn a new repository: first backup, unchanged, 1 % changed in place, restore to a fresh file (compared
byte for byte). The image is in the page cache, memory is kept warm, and the time of a `sync` that follows is added to each wall time,
since not every program syncs what it writes. Ratios are medians over the rounds of ratios within a round. The image is changed in place
for the third and fourth job and changed back; if the run was killed meanwhile, the next one changes it back before it begins.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.command_line import stored
from benches.images import MiB, changed, data_extents, identical, revert
from benches.peers.programs import PROGRAMS, Program
from benches.processes import Failed, Usage, run
from benches.warmth import Warmth, read_through

JOBS = ("first", "unchanged", "changed", "restore")
_CHANGED = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """One job of one program in one round; ``size`` of its repository afterwards, in bytes."""

    program: str
    job: str
    round: int
    usage: Usage
    size: int


class Comparison:
    """Runs the jobs of one program after another."""

    def __init__(self, image: Path, work: Path, *, sparse: bool) -> None:
        self._image, self._work, self._sparse = image, work, sparse
        self._undo = work / "undo"
        self._warmth = Warmth(work / "filler")
        work.mkdir(parents=True, exist_ok=True)
        if self._undo.exists():
            revert(image, self._undo)
        with open(image, "rb") as file:
            data = sum(end - start for start, end in data_extents(file.fileno()))
        self._changed = int(_CHANGED * (data if sparse else image.stat().st_size))

    def close(self) -> None:
        """Removes what was made in the work directory."""
        self._warmth.cool()
        self._clear()

    def jobs(self, kind: type[Program], number: int) -> list[Result]:
        """All jobs of a program on a new repository."""
        self._clear()
        program = kind(self._image, self._work / "round", sparse=self._sparse)
        run(program.create(), env=program.environment, cwd=program.home)
        results: list[Result] = []

        def job(name: str, command: Callable[[], list[str]]) -> None:
            read_through(self._image, holes=not self._sparse)
            self._warmth.keep()
            usage = run(command(), env=program.environment, cwd=program.out)
            results.append(Result(kind.name, name, number, usage, stored(program.repository)))
            print(f"# {number} {kind.name}, {name}: {usage.wall:.2f} s + sync {usage.sync:.2f} s", file=sys.stderr, flush=True)

        job("first", program.backup)
        job("unchanged", program.backup)
        with changed(self._image, self._changed, self._undo):
            job("changed", program.backup)
            job("restore", program.restore)
            if not identical(self._image, program.restored):
                raise Failed(f"{kind.name} restored other bytes than it was given")
        return results

    def _clear(self) -> None:
        shutil.rmtree(self._work / "round", ignore_errors=True)


def tables(results: list[Result], image: Path, rounds: int) -> str:
    """Markdown: what each program took, and the ratios."""
    names = list(dict.fromkeys(result.program for result in results))
    lines = [
        f"{image.name}, {image.stat().st_size // MiB} MiB; medians of {rounds}; seconds with a sync (least to most)",
        "",
        "| program | " + " | ".join(JOBS) + " | CPU s | peak RSS MiB | repository MiB |",
        "|---" * (len(JOBS) + 4) + "|",
    ]
    for name in names:
        own = [result for result in results if result.program == name]
        cells = [_spread([result.usage.durable for result in own if result.job == job]) for job in JOBS]
        processor = " / ".join(f"{statistics.median(r.usage.cpu for r in own if r.job == job):.1f}" for job in JOBS)
        resident = max(result.usage.resident for result in own) // MiB
        size = int(statistics.median(result.size for result in own if result.job == "first")) // MiB
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {processor} | {resident} | {size} |")
    if len(names) > 1 and names[0] == PROGRAMS["snapferry"].name:
        lines += [
            "",
            "| times snapferry's time | " + " | ".join(JOBS) + " | repository, snapferry's to it |",
            "|---" * (len(JOBS) + 2) + "|",
        ]
        lines += [_ratios(results, names[0], other) for other in names[1:]]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _ratios(results: list[Result], ours: str, other: str) -> str:
    """One row; each figure the median over the rounds of the ratio within a round."""
    at = {(result.program, result.job, result.round): result for result in results}
    rounds = sorted({result.round for result in results if result.program == other})

    def median(job: str, ratio: Callable[[Result, Result], float]) -> float:
        return statistics.median(ratio(at[ours, job, number], at[other, job, number]) for number in rounds)

    times = [f"{median(job, lambda a, b: b.usage.durable / a.usage.durable):.2f}" for job in JOBS]
    return f"| {other} | " + " | ".join(times) + f" | {median('first', lambda a, b: a.size / b.size):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, required=True, help="a directory on the disk to be measured; about three times the image's data"
    )
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sparse", action="store_true", help="the image is mostly holes; 1 %% of its data is changed")
    parser.add_argument("--json", type=Path, help="keep every single figure here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    comparison = Comparison(arguments.image.absolute(), arguments.work.absolute(), sparse=arguments.sparse)
    results: list[Result] = []
    try:
        for number in range(arguments.rounds):
            for name in arguments.programs:
                results += comparison.jobs(PROGRAMS[name], number)
    finally:
        comparison.close()
    print(tables(results, arguments.image, arguments.rounds))
    if arguments.json:
        rows = [dataclasses.asdict(result) for result in results]
        for row in rows:
            del row["usage"]["output"]
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
