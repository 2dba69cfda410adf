"""Shows in one run what snapferry promises beside its speed, each as a figure next to its goal, and prints a markdown table.

    .venv/bin/python benches/claims.py --images DIR [--only NAME ...] [--quick]

``memory``        peak memory of export and restore: a 4 GiB file system, 64 GiB and 4 TiB sparse volumes with 1 GiB of data each, and how many
                  times as long the 4 TiB one takes
``destinations``  processor time of an export to three destinations over that to one
``many``          64 volumes exported side by side in one process: peak memory, how evenly they get on, and the time over one after another
``killed``        an export of random data killed (SIGKILL) at half: what the next one sends again

DIR is for images: fs.img, random.img and sparse.img as `peers/images.py` makes them; what is missing is made, a 4 TiB image too. ``--quick``
uses images of a sixteenth of the size, in DIR/quick. Repositories are made in a temporary directory below DIR (or --work) and removed.
The speed beside other programs is shown by `peers/compare.py`.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches.command_line import CommandLine, documents, result
from benches.images import GiB, MiB, identical, write_random, write_sparse
from benches.peers.images import make_images
from benches.processes import Usage, kill, start
from benches.warmth import Warmth, read_through

MEMORY = 400 * MiB
TIME_RATIO = 1.5
CPU_RATIO = 1.3
SENT_AGAIN = 512 * MiB
VOLUMES, AT_ONCE = 64, 8
UNEVEN = 3.0
TOGETHER_RATIO = 1.1
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    claim: str
    goal: str
    measured: str
    holds: bool


class Claims:
    """The images, and a directory where each measurement has a new repository."""

    def __init__(self, images: Path, work: Path, quick: bool) -> None:
        scale = self._scale = 16 if quick else 1
        self._images = images / "quick" if quick else images
        make_images(self._images, 4 * GiB // scale, 64 * GiB // scale)
        self._huge = self._images / "sparse-huge.img"
        if not self._huge.exists():
            write_sparse(self._huge, 4096 * GiB // scale, GiB // scale, self._images / "fs.img")
        self._work = work
        self._warmth = Warmth(work / "filler")

    def memory(self) -> Iterator[Line]:
        """Peak memory whatever the volume's size, and the time that holes cost."""
        first: dict[Path, float] = {}
        for image in (self._images / "fs.img", self._images / "sparse.img", self._huge):
            with self._new() as line:
                target = line.roots[0].parent / "restored.img"
                export, restore = ["export", str(image), "--volume", "volume"], ["restore", "volume", str(target)]
                jobs = {"first": export, "unchanged": export, "restore": restore}
                used = {job: self._measured(line, image, *arguments, watch_memory=True) for job, arguments in jobs.items()}
                same = identical(image, target)
            first[image] = used["first"].durable
            peaks = ", ".join(f"{job} {usage.memory / MiB:.0f} MiB in {usage.durable:.1f} s" for job, usage in used.items())
            holds = same and max(usage.memory for usage in used.values()) <= MEMORY
            yield Line(f"peak memory, {_described(image)}", f"{MEMORY // MiB} MiB", peaks if same else "RESTORED OTHER BYTES", holds)
        ratio = first[self._huge] / first[self._images / "sparse.img"]
        sizes = [_described(image) for image in (self._huge, self._images / "sparse.img")]
        yield Line(f"time of the first export, {sizes[0]}, over {sizes[1]}", f"{TIME_RATIO}", f"{ratio:.2f}", ratio <= TIME_RATIO)

    def destinations(self) -> Iterator[Line]:
        """One destination and three in turn; the median of the ratios."""
        image = self._images / "fs.img"
        processor: list[float] = []
        clock: list[float] = []
        for _ in range(_ROUNDS):
            used: list[Usage] = []
            for count in (1, 3):
                with self._new(count) as line:
                    used.append(self._measured(line, image, "export", str(image)))
            processor.append(used[1].cpu / used[0].cpu)
            clock.append(used[1].durable / used[0].durable)
        ratio = statistics.median(processor)
        measured = f"{ratio:.2f} (time {statistics.median(clock):.2f})"
        yield Line(f"CPU time to three destinations over one, {_described(image)}", f"{CPU_RATIO}", measured, ratio <= CPU_RATIO)

    def many(self) -> Iterator[Line]:
        """All volumes are alike, so those that run at once should take about as long as each other."""
        size = 64 * MiB // self._scale
        volumes = [self._work / f"volume{number}.img" for number in range(VOLUMES)]
        for number, volume in enumerate(volumes):
            write_random(volume, size, seed=number)
        used: dict[int, Usage] = {}
        same = True
        for at_once in (1, AT_ONCE):
            with self._new() as line:
                used[at_once] = line.run("export", *map(str, volumes), "-j", str(at_once), watch_memory=True)
                for volume in volumes[:: VOLUMES // 4]:
                    target = line.roots[0].parent / "restored.img"
                    line.run("restore", volume.name, str(target), "--force")
                    same = same and identical(volume, target)
        for volume in volumes:
            volume.unlink()
        what = f"{VOLUMES} volumes of {size // MiB} MiB, {AT_ONCE} at once"
        together = used[AT_ONCE]
        peak = f"{together.memory / MiB:.0f} MiB" if same else "RESTORED OTHER BYTES"
        yield Line(f"peak memory, {what}", f"{MEMORY // MiB} MiB", peak, same and together.memory <= MEMORY)
        seconds = [line["seconds"] for line in documents(together) if line["type"] == "snapshot"]
        uneven = max(seconds) / statistics.median(seconds)
        yield Line(f"the slowest over the median, {what}", f"{UNEVEN}", f"{uneven:.2f}", uneven <= UNEVEN)
        ratio = together.durable / used[1].durable
        measured = f"{ratio:.2f} ({together.durable:.1f} s over {used[1].durable:.1f} s)"
        yield Line(f"time over one after another, {what}", f"{TOGETHER_RATIO}", measured, ratio <= TOGETHER_RATIO)

    def killed(self) -> Iterator[Line]:
        """What lay finished at the destination when the export was killed need not be sent again; random data is sent at its size."""
        image = self._images / "random.img"
        size = image.stat().st_size
        self._warm(image)
        with self._new() as line:
            with open(os.devnull, "wb") as nowhere:
                process = start(
                    line.command("export", str(image)), env=line.environment, cwd=None, stdout=nowhere.fileno(), stderr=nowhere.fileno()
                )
            while line.stored() < size // 2 and process.poll() is None:
                time.sleep(0.02)
            finished = process.poll() is not None
            if not finished:
                kill(process)
                process.wait()
            kept = line.stored()
            sent = sum(result(line.run("export", str(image)))["bytes_sent"].values())
            target = line.roots[0].parent / "restored.img"
            line.run("restore", image.name, str(target))
            same = identical(image, target)
        again = sent - (size - kept)
        measured = f"{again / MiB:.0f} MiB ({kept / MiB:.0f} MiB were there)"
        if finished:
            measured = "it ended before it could be killed"
        elif not same:
            measured = "RESTORED OTHER BYTES"
        holds = same and not finished and again <= SENT_AGAIN
        yield Line(f"sent again after a kill at half, {_described(image)}", f"{SENT_AGAIN // MiB} MiB", measured, holds)

    def close(self) -> None:
        """Gives the memory back."""
        self._warmth.cool()

    @contextmanager
    def _new(self, destinations: int = 1) -> Iterator[CommandLine]:
        """A new repository; it and all that lies beside it is removed at the end."""
        with tempfile.TemporaryDirectory(dir=self._work) as directory:
            home = Path(directory)
            line = CommandLine(home, *(home / f"near{number}" for number in range(destinations)))
            line.create()
            yield line

    def _measured(self, line: CommandLine, image: Path, *arguments: str, watch_memory: bool = False) -> Usage:
        self._warm(image)
        return line.run(*arguments, watch_memory=watch_memory)

    def _warm(self, image: Path) -> None:
        read_through(image)
        self._warmth.keep()


CLAIMS: dict[str, Callable[[Claims], Iterator[Line]]] = {
    "memory": Claims.memory,
    "destinations": Claims.destinations,
    "many": Claims.many,
    "killed": Claims.killed,
}


def _described(image: Path) -> str:
    status = image.stat()
    return f"{image.name} ({status.st_size / GiB:g} GiB, {status.st_blocks * 512 // MiB} MiB of data)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="where repositories are made and removed; below --images if not given")
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments.images.mkdir(parents=True, exist_ok=True)
    holds = True
    with tempfile.TemporaryDirectory(prefix="claims-", dir=(arguments.work or arguments.images).absolute()) as work:
        claims = Claims(arguments.images.absolute(), Path(work), arguments.quick)
        print("| claim | at most | measured | holds |\n|---|---|---|---|", flush=True)
        for name in arguments.only:
            for line in CLAIMS[name](claims):
                print(f"| {line.claim} | {line.goal} | {line.measured} | {'yes' if line.holds else 'NO'} |", flush=True)
                holds = holds and line.holds
        claims.close()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
