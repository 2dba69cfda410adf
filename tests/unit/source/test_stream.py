"""Standard input, pipes and FIFOs as sources."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.errors import SourceChanged, SourceError, SourceReadError
from snapferry.source import SequentialSource, Source, StreamSource, open_source


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


def read_to_end(source: StreamSource, size: int = 4096) -> bytes:
    out = bytearray()
    buffer = memoryview(bytearray(size))
    while not source.ended:
        out += buffer[: source.read_next(buffer)]
    return bytes(out)


def test_a_pipe_ends_where_its_writer_ends(pipe: tuple[int, int]) -> None:
    source = StreamSource(pipe[0], "pipe", owned=True)
    assert isinstance(source, SequentialSource)
    assert not isinstance(source, Source)
    data = os.urandom(3_000_000)

    def write() -> None:
        with open(pipe[1], "wb", closefd=True) as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_to_end(source, 1 << 20) == data
    writer.join()
    source.close()
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe[0])


def test_whoever_waits_for_nothing_is_back_in_a_moment(pipe: tuple[int, int]) -> None:
    source = StreamSource(pipe[0], "pipe")
    buffer = memoryview(bytearray(100))
    begun = time.monotonic()
    assert source.read_next(buffer) == 0
    assert time.monotonic() - begun < 5
    assert not source.ended
    os.write(pipe[1], b"abc")
    assert (source.read_next(buffer), bytes(buffer[:3])) == (3, b"abc")
    os.close(pipe[1])
    assert source.read_next(buffer) == 0
    assert source.ended


def test_a_fifo_waits_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    source = open_source(tmp_path / "fifo")
    assert isinstance(source, StreamSource)
    assert source.name == "fifo"
    assert source.read_next(memoryview(bytearray(10))) == 0
    assert not source.ended
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    assert source.read_next(memoryview(bytearray(10))) == 0  # One that has not written yet.
    os.write(writer, b"hello")
    os.close(writer)
    assert read_to_end(source) == b"hello"
    source.close()


def test_a_file_as_standard_input_is_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    os.lseek(fd, 4, os.SEEK_SET)
    source = StreamSource(fd, "standard input", owned=True)
    assert read_to_end(source) == b"456789"
    source.close()


def test_one_that_others_made_nonblocking(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], False)
    os.write(pipe[1], b"abc")
    os.close(pipe[1])
    assert read_to_end(StreamSource(pipe[0], "pipe")) == b"abc"


def test_an_error_is_no_end() -> None:
    """A connection that is reset in the middle."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        peer.sendall(b"some bytes")
        source = StreamSource(client.fileno(), "standard input")
        buffer = memoryview(bytearray(10))
        assert source.read_next(buffer) == 10
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(SourceReadError, match="standard input: cannot read on after byte 10: Connection reset") as caught:
            while True:
                source.read_next(buffer)
        assert caught.value.offset == 10
        assert not source.ended


@pytest.mark.parametrize(
    ("announced", "words"), [(4, "ended after 3 bytes, and 4 were"), (2, "goes on after 2 bytes, and 2 were"), (3, None)]
)
def test_an_announced_size_is_held_to(pipe: tuple[int, int], announced: int, words: str | None) -> None:
    os.write(pipe[1], b"abc")
    os.close(pipe[1])
    source = StreamSource(pipe[0], "pipe")
    source.expect(announced)
    if words is None:
        assert read_to_end(source) == b"abc"
    else:
        with pytest.raises(SourceChanged, match=words):
            read_to_end(source)


def test_what_no_volume_comes_from(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    null = os.open("/dev/null", os.O_RDONLY)
    leader, terminal = os.openpty()
    for fd, words in ((directory, "a directory"), (null, "a character device"), (terminal, "a terminal")):
        with pytest.raises(SourceError, match=f"standard input is {words}"):
            StreamSource(fd, "standard input")
    for fd in (directory, null, leader, terminal):
        os.close(fd)
    with pytest.raises(SourceError, match="Bad file descriptor"):
        StreamSource(null, "standard input")
    with pytest.raises(SourceError, match="nowhere"):
        StreamSource.fifo(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="directory"):
        StreamSource.fifo(tmp_path)
