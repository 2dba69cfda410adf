"""What a command costs when the repository has very many snapshots: whole commands, as a markdown table.

    .venv/bin/python benches/scale/snapshots.py [--count 1000 10000 100000] [--volumes 100] [--rounds 5] [--work DIR]

The repository is a real one on a ``file`` destination, of a real export. Its commit is sealed again and again, under new ids, in as many volumes
as asked for: each is a snapshot that opens, restores and is built on as any other. Those commits are written where they belong, not by exports,
and not synced; their sessions are not there, as after a collection.

``list, cold`` is the first command of a machine that knows nothing; all others are of one that has listed before.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.command_line import CommandLine, result
from benches.images import MiB, write_mixed
from benches.processes import Usage
from snapferry import _core
from snapferry.destination.file import FileDestination
from snapferry.repository import names, objects
from snapferry.repository.keyfile import read_key_file
from snapferry.repository.opening import open_members
from snapferry.types import Snapshot

SIZE = 16 * MiB
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of command, and what it took (wall seconds, processor seconds) at each count of snapshots."""

    command: str
    took: tuple[tuple[float, float], ...]


class ManySnapshots:
    """A repository with ``count`` snapshots in ``volumes`` volumes, in a directory of its own."""

    def __init__(self, home: Path, count: int, volumes: int) -> None:
        self.line = CommandLine(home / "first")
        self._home = home
        self._image = home / "volume.img"
        self._machines = 0
        self._changes = 0
        write_mixed(self._image, SIZE)
        self.line.create()
        self._exported = result(self.line.run("export", str(self._image), "--volume", volume(0)))["snapshot"]
        self._multiply(count, volumes)

    def blank(self) -> CommandLine:
        """Another machine, which has the key and nothing else."""
        self._machines += 1
        home = self._home / f"machine-{self._machines}"
        shutil.copytree(self._home / "first", home, ignore=shutil.ignore_patterns("near", "cache", "state", "data"))
        configuration = home / "snapferry.toml"
        configuration.write_text(
            configuration.read_text().replace(str(self._home / "first" / "snapferry.key"), str(home / "snapferry.key"))
        )
        return CommandLine(home, *self.line.roots)

    def by_id(self) -> Usage:
        """The first page of a snapshot that is named by its id."""
        return self.line.run("cat", self._exported, "--range", "0-4096")

    def by_volume(self) -> Usage:
        """The first page of a volume's latest snapshot."""
        return self.line.run("cat", volume(0), "--range", "0-4096")

    def export(self) -> Usage:
        """One block changed, and exported."""
        self._changes += 1
        with self._image.open("r+b") as file:
            file.seek(MiB)
            file.write(self._changes.to_bytes(8, "little"))
        return self.line.run("export", str(self._image), "--volume", volume(0))

    def _multiply(self, count: int, volumes: int) -> None:
        near = self.line.roots[0]
        keyring = asyncio.run(_keyring(near, self._home / "first" / "snapferry.key"))
        key = names.snapshot(self._exported)
        commit = objects.parse_commit(keyring.open("commit", key, (near / key).read_bytes()), self._exported)
        for number in range(1, count):
            copy = _copy(commit, number, volumes)
            key = names.snapshot(copy.id)
            (near / key).write_bytes(keyring.seal("commit", key, objects.commit_payload(copy)))


def volume(number: int) -> str:
    """The name of one of the volumes."""
    return f"vm-{number:04}/root"


async def _keyring(near: Path, key_file: Path) -> _core.Keyring:
    place = await FileDestination.open("near", str(near), writable=False)
    try:
        return (await open_members({"near": place}, read_key_file(key_file), expected_id=None)).keyring
    finally:
        await place.close()


def _copy(commit: Snapshot, number: int, volumes: int) -> Snapshot:
    return replace(
        commit,
        id=names.new_id(),
        volume=volume(number % volumes),
        generation=1 + number // volumes,
        created=commit.created + _DAY * (number // volumes),
        parent=commit.id,
    )


def measure(home: Path, counts: Sequence[int], volumes: int, rounds: int) -> Iterator[Row]:
    """The rows of the table."""
    places = [ManySnapshots(home / str(count), count, volumes) for count in counts]
    yield Row("list, cold", tuple(_took([place.blank().run("list")]) for place in places))
    for place in places:
        place.line.run("list")
    for label, arguments in (("list --json, warm", ["list"]), (f"list --json {volume(1)}, warm", ["list", volume(1)])):
        yield Row(label, tuple(_took([place.line.run(*arguments) for _ in range(rounds)]) for place in places))
    yield Row("list for people, warm", tuple(_took([place.line.run_plain("list") for _ in range(rounds)]) for place in places))
    yield Row("cat by id", tuple(_took([place.by_id() for _ in range(rounds)]) for place in places))
    yield Row("cat by volume", tuple(_took([place.by_volume() for _ in range(rounds)]) for place in places))
    yield Row("export of one changed block", tuple(_took([place.export() for _ in range(rounds)]) for place in places))


def _took(usages: Sequence[Usage]) -> tuple[float, float]:
    return statistics.median(usage.wall for usage in usages), statistics.median(usage.cpu for usage in usages)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--volumes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="snapshots-", dir=options.work) as home:
        print("| wall s (CPU s) with so many snapshots | " + " | ".join(f"{count:,}" for count in options.count) + " |")
        print("|---" * (1 + len(options.count)) + "|")
        for row in measure(Path(home), options.count, options.volumes, options.rounds):
            print(f"| {row.command} | " + " | ".join(f"{wall:.2f} ({cpu:.2f})" for wall, cpu in row.took) + " |", flush=True)


if __name__ == "__main__":
    main()
