"""What every source must do, as cases that any author can run on theirs.

```python
@pytest.mark.parametrize("case", CASES, ids=str)
def test_my_source(case: Case) -> None:
    run_case(case, make)
```

``make(data)`` gives a new source that holds exactly ``data``, whose length is a multiple of 4096; where it can, with holes for the long runs of
zeros in it. ``STREAM_CASES`` and ``run_stream_case`` are for sources that are read in order. A case fails with ``AssertionError``.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from snapferry.errors import SourceChanged
from snapferry.testing.sources import VolumeSource

_UNIT = 4096
_HOLE = 1 << 20


class _Stream(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def ended(self) -> bool: ...
    def read_next(self, buffer: memoryview) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that must hold of a source that holds ``data``."""

    name: str
    data: bytes
    run: Callable[[VolumeSource, bytes], None]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class StreamCase:
    """One thing that must hold of a stream of ``data``."""

    name: str
    data: bytes
    run: Callable[[_Stream, bytes], None]

    def __str__(self) -> str:
        return self.name


def run_case(case: Case, make: Callable[[bytes], VolumeSource]) -> None:
    """Runs one case. ``AssertionError`` if it does not hold."""
    source = make(case.data)
    try:
        case.run(source, case.data)
    finally:
        source.close()


def run_stream_case(case: StreamCase, make: Callable[[bytes], _Stream]) -> None:
    """As ``run_case``, for streams."""
    stream = make(case.data)
    try:
        case.run(stream, case.data)
    finally:
        stream.close()


def _noise(units: int, seed: int = 1) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(units * _UNIT)


def _read(source: VolumeSource, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xaa" * length)
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def _tells_its_size(source: VolumeSource, data: bytes) -> None:
    assert source.size == len(data)
    assert source.name
    source.check_unchanged()


def _reads_any_part(source: VolumeSource, data: bytes) -> None:
    size = len(data)
    for offset, length in (
        (0, size),
        (1, 1),
        (_UNIT - 1, 2),
        (511, 1026),
        (size - 1, 1),
        (size - 700, 700),
        (_UNIT, _UNIT),
        (size, 0),
        (0, 0),
    ):
        assert _read(source, offset, length) == data[offset : offset + length], f"{length} bytes at {offset}"


def _extents_hold_all_data(source: VolumeSource, data: bytes) -> None:
    size = len(data)
    for start, end in ((0, size), (_UNIT + 5, size), (0, size - 5), (size // 2, size // 2 + 1), (size, size), (0, 2 * size)):
        at = start
        for offset, length in source.extents(start, end):
            assert length > 0, "an extent of nothing"
            assert at <= offset <= offset + length <= min(end, size), "extents are ascending, apart, and within what was asked for"
            assert not any(data[at:offset]), f"data between {at} and {offset} is in no extent"
            at = offset + length
        assert not any(data[at : min(end, size)]), f"data from {at} on is in no extent"


def _reads_holes_as_zeros(source: VolumeSource, data: bytes) -> None:
    assert _read(source, 0, len(data)) == data


def _reads_side_by_side(source: VolumeSource, data: bytes) -> None:
    offsets = [number * 7919 % len(data) for number in range(200)]

    def one(offset: int) -> bool:
        length = min(10_000, len(data) - offset)
        return _read(source, offset, length) == data[offset : offset + length]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, offsets))


def _past_its_end_it_has_changed(source: VolumeSource, data: bytes) -> None:
    for offset, length in ((len(data) - 5, 10), (len(data), 1), (len(data) + _UNIT, _UNIT)):
        try:
            _read(source, offset, length)
        except SourceChanged:
            continue
        raise AssertionError(f"{length} bytes were read at {offset}, of {len(data)}")


def _reads_into_a_part_of_a_buffer_only(source: VolumeSource, data: bytes) -> None:
    buffer = bytearray(b"\xaa" * 30_000)
    source.read_into(100, memoryview(buffer)[1000:9000])
    assert buffer == b"\xaa" * 1000 + data[100:8100] + b"\xaa" * 21_000


def _comes_in_order(stream: _Stream, data: bytes) -> None:
    out, sizes = bytearray(), itertools.cycle([1, 100, 70_000, 4096, 1])
    while not stream.ended:
        buffer = bytearray(next(sizes))
        count = stream.read_next(memoryview(buffer))
        assert 0 <= count <= len(buffer)
        out += buffer[:count]
    assert out == data
    assert stream.name


def _ends_once(stream: _Stream, data: bytes) -> None:
    buffer = memoryview(bytearray(len(data) + 1))
    filled = 0
    while not stream.ended:
        filled += stream.read_next(buffer[filled:])
    assert buffer[:filled] == data
    assert stream.read_next(buffer) == 0
    assert stream.ended


_DATA = _noise(40)
CASES: tuple[Case, ...] = (
    Case("tells its size", _DATA, _tells_its_size),
    Case("reads any part", _DATA, _reads_any_part),
    Case("extents hold all data", _DATA, _extents_hold_all_data),
    Case("extents hold all data of a sparse one", bytes(_HOLE) + _DATA + bytes(2 * _HOLE) + _DATA + bytes(_HOLE), _extents_hold_all_data),
    Case("reads holes as zeros", bytes(_HOLE) + _DATA + bytes(_HOLE), _reads_holes_as_zeros),
    Case("reads side by side", _noise(300, 3), _reads_side_by_side),
    Case("past its end it has changed", _DATA, _past_its_end_it_has_changed),
    Case("reads into a part of a buffer only", _DATA, _reads_into_a_part_of_a_buffer_only),
)
"""What a ``Source`` must do."""

STREAM_CASES: tuple[StreamCase, ...] = (
    StreamCase("comes in order", _noise(100), _comes_in_order),
    StreamCase("ends once", _noise(100), _ends_once),
    StreamCase("ends at once where there is nothing", b"", _ends_once),
)
"""What a ``SequentialSource`` must do."""
