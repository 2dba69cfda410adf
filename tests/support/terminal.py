"""A pseudo-terminal to run a program in, as a person would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Terminal:
    """Runs one program in a pseudo-terminal; ``seen`` is all that it has written so far.

    A context: whoever leaves it has ended the program.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, columns: int = 120) -> None:
        self.seen = ""
        self._leader, follower = pty.openpty()
        os.set_blocking(self._leader, False)
        self.process = subprocess.Popen(
            command,
            env={**env, "TERM": "xterm", "COLUMNS": str(columns)},
            cwd=cwd,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    def type(self, text: str) -> None:
        """What a person types."""
        os.write(self._leader, text.encode())

    def wait_for(self, found: Callable[[str], bool], seconds: float = 30.0) -> str:
        """Reads on until ``found`` says so of all that was seen; ``AssertionError`` with what was seen if it does not."""
        deadline = time.monotonic() + seconds
        while not found(self.seen):
            assert time.monotonic() < deadline, self.seen
            self._read(0.1)
        return self.seen

    def end(self, seconds: float = 30.0) -> int:
        """Reads until the program has ended; returns its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            self._read(0.1)
        self._read(0)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        while select.select([self._leader], [], [], seconds)[0]:
            try:
                data = os.read(self._leader, 1 << 16)
            except OSError:  # The program has closed its side.
                return
            if not data:
                return
            self.seen += data.decode(errors="replace")
            seconds = 0
