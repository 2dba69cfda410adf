"""What the demo works on: an image of the machine's own files, changes to it, and damage to a replica."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from typing import TYPE_CHECKING

from snapferry.config import format_size
from snapferry.errors import SnapferryError, TargetFull
from snapferry.types import KiB, MiB

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "/usr"
SMALLEST_FILE = 16 * KiB  # making many small files is what takes long
LARGEST_FILE = 48 * MiB
SEED = 2026


async def make_image(image: Path, staged: Path, size: int) -> int:
    """Makes an ext4 image of about ``size`` bytes of files below ``/usr``; returns how many files are in it.

    Raises:
        SnapferryError: mkfs.ext4 is missing or fails.
        TargetFull: there is too little space.
    """
    tool = shutil.which("mkfs.ext4", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if tool is None:
        raise SnapferryError("the demo needs mkfs.ext4, which is missing here; install the package e2fsprogs")
    free = shutil.disk_usage(staged.parent).free
    if free < 6 * size:
        raise TargetFull(
            f"the demo needs about {format_size(6 * size)} below {staged.parent}, and {format_size(free)} are free; set TMPDIR"
        )
    files, copied = await asyncio.to_thread(_stage, staged, size)
    length = -(-(copied * 5 // 4 + 4 * KiB * files + 48 * MiB) // MiB) * MiB
    process = await asyncio.create_subprocess_exec(
        *(tool, "-q", "-F", "-d", str(staged), "-L", "snapferry-demo", str(image), f"{length // KiB}k"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise SnapferryError(f"mkfs.ext4 failed: {said.decode(errors='replace').strip()}")
    await asyncio.to_thread(shutil.rmtree, staged)
    return files


def _stage(staged: Path, size: int) -> tuple[int, int]:
    """Copies a sample of directories' files, the same one each time on the same machine; returns how many files and bytes."""
    choice = random.Random(SEED)  # noqa: S311 - a sample, no secret
    found = sorted((directory, sorted(files)) for directory, _, files in os.walk(ORIGIN) if files)
    choice.shuffle(found)
    count = copied = 0
    for directory, names in found:
        target = staged / os.path.relpath(directory, ORIGIN)
        for name in names:
            path = os.path.join(directory, name)
            if (
                os.path.islink(path)
                or not os.path.isfile(path)
                or not SMALLEST_FILE <= os.path.getsize(path) <= min(LARGEST_FILE, size - copied)
            ):
                continue
            target.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, target / name)
            except OSError:  # not readable to this user, or gone meanwhile
                continue
            count += 1
            copied += (target / name).stat().st_size
        if copied >= size:
            break
    if not count:
        raise SnapferryError(f"found no readable files below {ORIGIN}")
    return count, copied


def copy_image(image: Path, copy: Path) -> None:
    """Keeps the image as it is now."""
    shutil.copyfile(image, copy)


def change_image(image: Path) -> int:
    """Overwrites some extents in place, as a running machine would; returns the bytes written."""
    choice = random.Random(SEED)  # noqa: S311 - a sample, no secret
    length, changed = image.stat().st_size, 0
    with image.open("r+b") as file:
        for number in range(24):
            extent = 4 * KiB * choice.randint(1, 64)
            file.seek(choice.randrange((length - extent) // (4 * KiB)) * 4 * KiB)
            file.write(bytes(extent) if number % 8 == 0 else choice.randbytes(extent))
            changed += extent
    return changed


def damage_packs(root: Path) -> tuple[int, int]:
    """Flips bytes in half of the packs of a replica and deletes one of the others; returns how many were flipped and deleted."""
    packs = sorted((path for path in (root / "packs").rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
    flipped = packs[: max(1, len(packs) // 2)]
    for path in flipped:
        path.chmod(0o600)
        with path.open("r+b") as file:
            for part in range(1, 8):
                position = path.stat().st_size * part // 8
                file.seek(position)
                byte = file.read(1)
                file.seek(position)
                file.write(bytes([byte[0] ^ 0xFF]))
    deleted = packs[len(flipped) : len(flipped) + 1]
    for path in deleted:
        path.unlink()
    return len(flipped), len(deleted)


def compare(a: Path, b: Path) -> bool:
    """Whether two files have the same bytes; nothing is taken from a cache of earlier comparisons."""
    if a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb", buffering=0) as left, b.open("rb", buffering=0) as right:
        while data := left.read(4 * MiB):
            if data != right.read(len(data)):
                return False
    return True
