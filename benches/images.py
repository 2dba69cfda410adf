"""Volume images made by code, the same bytes each time: text-like, binary-like and random data with holes, and changes to them.

Everything is derived from seeds, so that two machines measure the same bytes. Knows nothing of snapferry.
"""

from __future__ import annotations

import functools
import os
import pickle
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30

_PIECE = KiB
_POOL = 4 * MiB
_PATTERN = [
    "text",
    "hole",
    "binary",
    "text",
    "random",
    "hole",
    "binary",
    "hole",
    "text",
    "hole",
    "binary",
    "text",
    "random",
    "hole",
    "binary",
    "hole",
]


@functools.cache
def _text_pieces() -> list[bytes]:
    """Words as frequent as in a language, in lines."""
    choice = random.Random(1)
    words = [bytes(choice.choices(b"etaoinshrdlucmfw", k=choice.randint(2, 11))) for _ in range(3000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    picked = choice.choices(words, weights, k=_POOL // 5)
    text = b"\n".join(b" ".join(picked[at : at + 12]) for at in range(0, len(picked), 12))
    return [text[at : at + _PIECE] for at in range(0, min(len(text), _POOL), _PIECE)]


@functools.cache
def _binary_pieces() -> list[bytes]:
    """Records as programs and databases have them: counters, small numbers, zeros, and some bytes without order."""
    choice = random.Random(2)
    record = struct.Struct("<QIHH8s8x")
    records = (
        record.pack(number * 48, choice.randrange(1 << 12), choice.randrange(64), 7, choice.randbytes(8)) for number in range(_POOL // 32)
    )
    packed = b"".join(records)
    return [packed[at : at + _PIECE] for at in range(0, _POOL, _PIECE)]


def content(kind: str, length: int, seed: int) -> bytes:
    """``length`` bytes that occur nowhere else; ``kind`` is text, binary, random or zero."""
    choice = random.Random(f"{kind} {seed}")
    if kind == "zero":
        return bytes(length)
    if kind == "random":
        return choice.randbytes(length)
    pieces = _text_pieces() if kind == "text" else _binary_pieces()
    return b"".join(choice.choices(pieces, k=length // _PIECE + 1))[:length]


def mixed(length: int, seed: int = 0) -> bytes:
    """Like a file system: extents of 256 KiB of text-like, binary-like and random data, without the holes."""
    kinds = [kind for kind in _PATTERN if kind != "hole"]
    step = 256 * KiB
    parts = (content(kinds[at // step % len(kinds)], min(step, length - at), seed * 1000003 + at) for at in range(0, length, step))
    return b"".join(parts)


def write_mixed(path: Path, size: int) -> None:
    """An image of ``size`` bytes, three eighths of it holes, in extents of 1 MiB."""
    with open(path, "wb", buffering=0) as file:
        file.truncate(size)
        for number, at in enumerate(range(0, size, MiB)):
            kind = _PATTERN[number % len(_PATTERN)]
            if kind != "hole":
                os.pwrite(file.fileno(), content(kind, min(MiB, size - at), at), at)


def write_random(path: Path, size: int, seed: int = 3) -> None:
    """An image that cannot be compressed; another one for each seed."""
    choice = random.Random(seed)
    with open(path, "wb") as file:
        file.writelines(choice.randbytes(min(MiB, size - at)) for at in range(0, size, MiB))


def write_sparse(path: Path, size: int, data: int, taken_from: Path | None = None) -> None:
    """A sparse image: ``data`` bytes in extents of 64 KiB to 4 MiB, each in a 4 MiB slot of its own, anywhere in ``size`` bytes.

    The bytes are consecutive pieces of ``taken_from``, else made by code.
    """
    choice, slot = random.Random(4), 4 * MiB
    slots = choice.sample(range(size // slot), min(size // slot, data // (64 * KiB)))
    pieces = _pieces_of(taken_from) if taken_from else None
    with open(path, "wb", buffering=0) as file:
        file.truncate(size)
        done = 0
        for number in slots:
            length = min(64 * KiB << choice.randrange(7), data - done)
            if length <= 0:
                break
            piece = next(pieces)[:length] if pieces else mixed(length, number)
            os.pwrite(file.fileno(), piece, number * slot)
            done += len(piece)


def _pieces_of(path: Path) -> Iterator[bytes]:
    """The data of a file in pieces of at most 4 MiB, again and again."""
    with open(path, "rb", buffering=0) as file:
        while True:
            for start, end in data_extents(file.fileno()):
                for at in range(start, end, 4 * MiB):
                    yield os.pread(file.fileno(), min(4 * MiB, end - at), at)


def data_extents(fd: int) -> list[tuple[int, int]]:
    """(start, end) of what is not a hole."""
    extents: list[tuple[int, int]] = []
    size, end = os.fstat(fd).st_size, 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        extents.append((start, end))
    return extents


def identical(a: Path, b: Path) -> bool:
    """Whether two files have the same bytes; what is a hole in both is not read."""
    with open(a, "rb", buffering=0) as one, open(b, "rb", buffering=0) as other:
        if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
            return False
        for start, end in data_extents(one.fileno()) + data_extents(other.fileno()):
            for at in range(start, end, 4 * MiB):
                length = min(4 * MiB, end - at)
                if os.pread(one.fileno(), length, at) != os.pread(other.fileno(), length, at):
                    return False
    return True


def change(fd: int, amount: int, seed: int) -> list[tuple[int, bytes]]:
    """Plans to overwrite ``amount`` bytes of the file's data: (offset, new bytes) of 64 KiB to 1 MiB, aligned to 4 KiB, none twice.

    Half of them compress, half do not.
    """
    choice = random.Random(seed)
    extents = data_extents(fd)
    weights = [end - start for start, end in extents]
    planned: list[tuple[int, bytes]] = []
    taken: set[int] = set()
    while amount > 0:
        start, end = choice.choices(extents, weights)[0]
        length = min(choice.randint(16, 256) * 4 * KiB, max(amount, 64 * KiB))
        offset = max(start, start + choice.randrange(end - start) & -4096)
        length = min(length, end - offset)
        pages = range(offset >> 12, (offset + length) >> 12)
        if length < 64 * KiB or not taken.isdisjoint(pages):
            amount -= 4 * KiB  # an image too small for the plan must not keep us here for ever
            continue
        taken.update(pages)
        planned.append((offset, content(("random", "text")[len(planned) % 2], length, seed * 1000003 + offset)))
        amount -= length
    return planned


def write_changes(image: Path, fraction: float, seed: int) -> int:
    """Overwrites ``fraction`` of the image's data in place; returns the bytes written."""
    with open(image, "r+b", buffering=0) as file:
        data = sum(end - start for start, end in data_extents(file.fileno()))
        planned = change(file.fileno(), int(data * fraction), seed)
        for offset, new in planned:
            os.pwrite(file.fileno(), new, offset)
    return sum(len(new) for _, new in planned)


@contextmanager
def changed(image: Path, amount: int, undo: Path, seed: int = 7) -> Iterator[None]:
    """Overwrites ``amount`` bytes of the image, and puts the old ones back at the end. ``undo`` keeps them; see ``revert``."""
    with open(image, "r+b", buffering=0) as file:
        planned = change(file.fileno(), amount, seed)
        part = undo.with_suffix(".part")
        part.write_bytes(pickle.dumps([(offset, os.pread(file.fileno(), len(new), offset)) for offset, new in planned]))
        part.rename(undo)
        try:
            for offset, new in planned:
                os.pwrite(file.fileno(), new, offset)
            yield
        finally:
            revert(image, undo)


def revert(image: Path, undo: Path) -> None:
    """Takes back what ``changed`` wrote; also for a run that was killed."""
    with open(image, "r+b", buffering=0) as file:
        for offset, old in pickle.loads(undo.read_bytes()):
            os.pwrite(file.fileno(), old, offset)
        os.fsync(file.fileno())
    undo.unlink()
