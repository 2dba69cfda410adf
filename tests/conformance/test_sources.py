"""The public conformance suite on every source of ours, and on the doubles, which must be sources themselves."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.source import DeviceSource, FileSource, StreamSource
from snapferry.testing.source_conformance import CASES, STREAM_CASES, Case, StreamCase, run_case, run_stream_case
from snapferry.testing.sources import CallsAt, MemorySource, MemoryStream
from tests.support.loop import loop_device


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory(case: Case) -> None:
    run_case(case, lambda data: CallsAt(MemorySource(data), len(data), int))


def _sparse(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for offset in range(0, len(data), 4096):
            if any(data[offset : offset + 4096]):
                file.seek(offset)
                file.write(data[offset : offset + 4096])
        file.truncate(len(data))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_file(case: Case, tmp_path: Path) -> None:
    def make(data: bytes) -> FileSource:
        _sparse(tmp_path / "file", data)
        return FileSource(tmp_path / "file")

    run_case(case, make)


@pytest.mark.root
@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:

        def make(data: bytes) -> DeviceSource:
            _sparse(tmp_path / "file", data)
            return DeviceSource(stack.enter_context(loop_device(tmp_path / "file")))

        run_case(case, make)


@pytest.mark.parametrize("case", STREAM_CASES, ids=str)
def test_memory_stream(case: StreamCase) -> None:
    run_stream_case(case, lambda data: MemoryStream(data, piece=5000))


@pytest.fixture
def writers() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join()


@pytest.mark.parametrize("case", STREAM_CASES, ids=str)
def test_pipe(case: StreamCase, writers: list[threading.Thread]) -> None:
    def make(data: bytes) -> StreamSource:
        reading, writing = os.pipe()

        def write() -> None:
            with open(writing, "wb") as file:
                file.write(data)

        writers.append(threading.Thread(target=write))
        writers[-1].start()
        return StreamSource(reading, "pipe", owned=True)

    run_stream_case(case, make)
