"""Standard input, a pipe or a FIFO as a source: bytes in order, and the end is the size.

A pipe that its writer closes ends well, whatever became of the writer: nobody is told. Whoever knows how much is to come says so,
and a stream that ends elsewhere is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
from pathlib import Path

from snapferry.errors import SourceChanged, SourceError, SourceReadError

_MOMENT_MS = 200
_PIPE_SIZE = 1 << 20


class StreamSource:
    """Reads a descriptor from where it stands to its end.

    Args:
        fd: open for reading; closed with the source only if it is ``owned``.
        name: for messages, and the volume's name by default.

    Raises:
        SourceError: the descriptor is closed, or nothing that a volume comes from: a terminal, a directory.
    """

    def __init__(self, fd: int, name: str, *, owned: bool = False) -> None:
        self._fd = fd
        self._name = name
        self._owned = owned
        self._expected: int | None = None
        self._position = 0
        self._ended = False
        try:
            mode = os.fstat(fd).st_mode
        except OSError as error:
            raise SourceError(f"source {name} cannot be read: {error.strerror}") from error
        if stat.S_ISCHR(mode) or stat.S_ISDIR(mode):
            kind = "a terminal" if os.isatty(fd) else "a character device" if stat.S_ISCHR(mode) else "a directory"
            raise SourceError(f"source {name} is {kind}; a volume comes from a pipe, a file or a block device")
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        with contextlib.suppress(OSError):  # No pipe, or the user's share of pipe memory is used up.
            if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < _PIPE_SIZE:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    @classmethod
    def standard_input(cls) -> StreamSource:
        """This process's standard input."""
        return cls(0, "standard input")

    @classmethod
    def fifo(cls, path: str | os.PathLike[str]) -> StreamSource:
        """A named pipe. A writer is waited for with the first read. Raises ``SourceError`` if it cannot be opened."""
        path = os.fspath(path)
        try:
            # Without O_NONBLOCK the opening itself would wait for a writer.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot open source {path}: {error.strerror}") from error
        try:
            return cls(fd, Path(path).name, owned=True)
        except BaseException:
            os.close(fd)
            raise

    def expect(self, size: int) -> None:
        """So many bytes are to come in all; a stream that is shorter or longer fails."""
        self._expected = size

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def ended(self) -> bool:
        """Whether the end was met."""
        return self._ended

    def read_next(self, buffer: memoryview) -> int:
        """Reads until ``buffer`` is full, the stream ends, or nothing came for 0.2 s."""
        done = 0
        while done < len(buffer) and not self._ended:
            try:
                # A FIFO that nobody has opened for writing yet reads as ended; it does not poll as ended.
                if not self._poll.poll(_MOMENT_MS):
                    break
                count = os.readv(self._fd, [buffer[done:]])
            except BlockingIOError:
                break
            except OSError as error:
                raise SourceReadError(
                    f"source {self._name}: cannot read on after byte {self._position}: {error.strerror or error}", self._position
                ) from error
            done += count
            self._position += count
            self._ended = count == 0
            self._check()
        return done

    def _check(self) -> None:
        if self._expected is None:
            return
        if self._position > self._expected or (self._ended and self._position < self._expected):
            how = "ended after" if self._ended else "goes on after"
            count = self._position if self._ended else self._expected
            raise SourceChanged(f"source {self._name} {how} {count} bytes, and {self._expected} were announced")

    def close(self) -> None:
        """Closes the descriptor if it is the source's own; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if self._owned and fd >= 0:
            os.close(fd)
