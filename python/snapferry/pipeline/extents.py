"""Arithmetic on extents: (offset, length) pairs, in bytes or in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def merged(extents: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, and neighbours and overlaps made one."""
    out: list[tuple[int, int]] = []
    for offset, length in sorted(extents):
        if out and offset <= out[-1][0] + out[-1][1]:
            start, known = out[-1]
            out[-1] = (start, max(known, offset + length - start))
        elif length:
            out.append((offset, length))
    return tuple(out)


def clipped(extents: Iterable[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """What of them lies within ``start`` to ``end``."""
    pieces = ((max(offset, start), min(offset + length, end)) for offset, length in extents)
    return [(low, high - low) for low, high in pieces if low < high]


def total(extents: Iterable[tuple[int, int]]) -> int:
    """The sum of their lengths."""
    return sum(length for _, length in extents)


def block_count(size: int, block_size: int) -> int:
    """How many blocks a volume of ``size`` bytes has; the last may be cut."""
    return -(-size // block_size)


def block_runs(extents: Iterable[tuple[int, int]], block_size: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, count) runs of blocks that the byte ``extents`` (ascending) touch, each block once, at most ``most`` a run."""
    first = end = 0
    for offset, length in extents:
        if not length:
            continue
        low = max(offset // block_size, end)
        high = block_count(offset + length, block_size)
        if low >= high:
            continue
        if low > end:
            if first < end:
                yield first, end - first
            first = low
        end = high
        while end - first >= most:
            yield first, most
            first += most
    if first < end:
        yield first, end - first


def describe(extents: Iterable[tuple[int, int]], most: int = 8) -> str:
    """For messages: ``offset+length`` of the first few, and how many more."""
    listed = list(extents)
    text = ", ".join(f"{offset}+{length}" for offset, length in listed[:most])
    return text + (f" and {len(listed) - most} more" if len(listed) > most else "")
