"""Makes the images of the comparison: `python benches/peers/images.py DIR [--mib 4096] [--sparse-gib 64]`; what is there is left alone.

fs.img is an ext4 file system, 62 % full of real files of /usr; random.img cannot be compressed; sparse.img has a quarter of --mib of
fs.img's data in extents scattered over --sparse-gib. They are the same each time as far as /usr is, but for
the times in the file system. Needs mkfs.ext4.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.images import GiB, MiB, write_random, write_sparse

_FULL = 0.62
_PAGE = 4096
_FIXED = "00000000-0000-4000-8000-00000000000"


def make_images(directory: Path, size: int = 4 * GiB, sparse: int = 64 * GiB) -> None:
    """Makes what is missing of fs.img and random.img of ``size`` bytes, and sparse.img of ``sparse``."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "fs.img").exists():
        _make(directory / "fs.img", lambda path: write_file_system(path, size))
    if not (directory / "random.img").exists():
        _make(directory / "random.img", lambda path: write_random(path, size))
    if not (directory / "sparse.img").exists():
        _make(directory / "sparse.img", lambda path: write_sparse(path, sparse, size // 4, directory / "fs.img"))


def write_file_system(path: Path, size: int, origin: Path = Path("/usr")) -> None:
    """An ext4 image with a sample of the files below ``origin``, never written to once it is made."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="staged-") as staged:
        _stage(origin, Path(staged), int(size * _FULL))
        with open(path, "wb") as file:
            file.truncate(size)
        options = f"hash_seed={_FIXED}2,lazy_itable_init=0"
        command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-U", f"{_FIXED}1", "-E", options, "-d", staged, str(path)]
        subprocess.run(command, check=True, env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"})


def _stage(origin: Path, staged: Path, limit: int) -> None:
    """Links or copies files until they fill ``limit`` bytes; ordered by a hash of their names, so that all kinds are among them."""
    found = [os.path.join(at, name) for at, _, names in os.walk(origin) for name in names]
    found.sort(key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    for path in found:
        status = os.lstat(path)
        taken = -(-status.st_size // _PAGE) * _PAGE
        if not stat.S_ISREG(status.st_mode) or not 0 < taken <= limit:
            continue
        target = staged / os.path.relpath(path, origin)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # another file system, or not ours to link
            try:
                shutil.copyfile(path, target)
            except PermissionError:
                continue
        limit -= taken


def _make(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside ``path`` and renames, so that half an image is never taken for a whole one."""
    part = path.with_suffix(".part")
    write(part)
    part.rename(path)
    status = path.stat()
    print(f"{path}: {status.st_size // MiB} MiB, {status.st_blocks * 512 // MiB} MiB allocated", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mib", type=int, default=4096)
    parser.add_argument("--sparse-gib", type=int, default=64)
    arguments = parser.parse_args()
    make_images(arguments.directory, arguments.mib * MiB, arguments.sparse_gib * GiB)


if __name__ == "__main__":
    main()
