"""Runs programs and says what they took: wall time, processor time and memory of the whole process tree. Linux only."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.02
_COUNTED = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program took.

    Attributes:
        wall, cpu: seconds; ``cpu`` is user and system time of the program and its children.
        sync: seconds of a ``sync`` of all file systems after it.
        memory: greatest sum of anonymous and shared pages of the tree, in bytes; 0 if it was not watched.
        resident: greatest resident set of any one process, pages of files included, in bytes.
        output: what it wrote to standard output.
    """

    wall: float
    cpu: float
    sync: float
    memory: int
    resident: int
    output: bytes

    @property
    def durable(self) -> float:
        """Seconds until what was written is on the disk: ``wall`` and ``sync``."""
        return self.wall + self.sync


class Failed(Exception):
    """A measured program did not do its work; the message says which and what it said."""


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    watch_memory: bool = False,
    timeout: float = 3600,
    codes: Collection[int] = (0,),
) -> Usage:
    """Runs ``command`` to its end, then syncs; ``Failed`` if its exit code is none of ``codes`` or it takes longer than ``timeout`` seconds."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = start(command, env=env, cwd=cwd, stdout=output.fileno(), stderr=errors.fileno())
        watch = _MemoryWatch(process.pid) if watch_memory else None
        limit = threading.Timer(timeout, kill, (process,))
        limit.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            limit.cancel()
            memory = watch.stop() if watch else 0
            if process.returncode is None:
                kill(process)
        if process.returncode not in codes:
            errors.seek(0)
            said = errors.read()[-2000:].decode(errors="replace").strip()
            raise Failed(f"{' '.join(command)}: exit code {process.returncode}: {said}")
        began = time.perf_counter()
        os.sync()
        sync = time.perf_counter() - began
        output.seek(0)
        return Usage(wall, used.ru_utime + used.ru_stime, sync, memory, used.ru_maxrss << 10, output.read())


def start(command: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    """Starts ``command`` as the leader of a session of its own, by which all its children are found."""
    return subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends what ``start`` started, children included, without warning."""
    os.killpg(process.pid, signal.SIGKILL)


class _MemoryWatch:
    """Samples a session's memory on a thread until it is stopped."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> int:
        """The peak in bytes."""
        self._stopped.set()
        self._thread.join()
        return self._peak

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(map(_memory, _members(self._session))))


def _members(session: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.getsid(int(name)) == session:
                yield int(name)
        except ProcessLookupError:
            continue


def _memory(process: int) -> int:
    """Bytes of a process's anonymous and shared pages, each page divided among those who share it, so that a tree's sum is right."""
    try:
        with open(f"/proc/{process}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith(_COUNTED))
    except (FileNotFoundError, ProcessLookupError):
        return 0
