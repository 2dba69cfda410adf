"""What stands between snapferry and a module: starts it behind its fences, and ends it and all that it started when either of them goes.

Run by its path in a bare interpreter. It gets one line of JSON on its input, and the end of that input is the wish that all should end; so
nothing outlives snapferry, however that dies. Output and errors of the module are its own. It exits with 125 where the module could not be
confined, 126 where it could not be run, else as the module did, and of the same signal where that was its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from typing import Any, NoReturn

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from module_confinement import Unconfined, Unreachable, confine  # type: ignore[import-not-found]

_PR_SET_CHILD_SUBREAPER = 36
_TICK = 0.25


def main() -> int:
    """Runs one module to its end."""
    spec = json.loads(_line())
    # What it leaves behind becomes ours, and is found when all is ended.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        _become(spec)
    status = _watch(child, spec["memory"], spec["end_seconds"])
    if status is None:
        shutil.rmtree(spec["socket_directory"], ignore_errors=True)
    elif status < 0:
        _die_of(-status)
    return status or 0


def _die_of(sign: int) -> None:
    """Ends this process by a signal, without a core: a number to exit with could be one that a module chose."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(sign, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [sign])
    os.kill(os.getpid(), sign)


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            raise SystemExit(125)
        line += piece
    return line


def _become(spec: dict[str, Any]) -> NoReturn:
    """The module, in this process. It has no input, and of descriptors only its output."""
    try:
        os.setsid()
        os.umask(0o077)
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.closerange(3, 4096)
        fences = spec["fences"]
        # The limit is one on all processes of a user; those of others that run under the same name do not count.
        user = os.getuid() if fences["user"] is None else fences["user"]
        fences["limits"]["RLIMIT_NPROC"] += _tasks_of(user)
        confine(fences)
        os.chdir(spec["directory"])
    except Unreachable as error:
        _say(str(error))
        os._exit(125)
    except (Unconfined, OSError) as error:
        _say(f"it cannot be confined: {error}")
        os._exit(125)
    try:
        os.execve(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606 - no shell is wanted
    except OSError as error:
        _say(f"{spec['command'][0]} cannot be run: {error.strerror}")
    os._exit(126)


def _watch(child: int, memory: int, end_seconds: float) -> int | None:
    """Waits for the module's end, and returns its status, or for the wish for it: None. Then nothing of it runs any more."""
    polling = select.poll()
    polling.register(0, select.POLLIN | select.POLLHUP)
    with contextlib.suppress(OSError):
        polling.register(os.pidfd_open(child), select.POLLIN)
    status: int | None = None
    wanted = True
    while status is None and wanted:
        for descriptor, _ in polling.poll(_TICK * 1000):
            if descriptor == 0 and not os.read(0, 1 << 12):
                wanted = False
        status = _reap(child)
        used = sum(_memory_of(process) for process in _descendants())
        if used > memory:
            _say(f"it uses {used >> 20} MiB of memory, and may use {memory >> 20} MiB: killed")
            _kill(signal.SIGKILL)
    if not wanted:
        _kill(signal.SIGTERM)
        until = time.monotonic() + end_seconds
        while _descendants() and time.monotonic() < until:
            time.sleep(0.02)
            _reap(child)
    while _descendants():
        _kill(signal.SIGKILL)
        time.sleep(0.005)
        _reap(child)
    return status if wanted else None


def _reap(child: int) -> int | None:
    """Takes note of who ended; the module's own status if it was among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                break
            if process == child:
                found = os.waitstatus_to_exitcode(status)
    return found


def _kill(sign: int) -> None:
    for process in _descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, sign)


def _descendants() -> list[int]:
    """All processes below this one, those that wait to be taken note of included."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(name)
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        below = parents.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _stat(process: str) -> list[bytes]:
    """The fields of /proc/PID/stat behind the name, which may have any bytes in it; none if it is gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _memory_of(process: int) -> int:
    """Bytes in memory that are not of a file."""
    used = 0
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{process}/status", "rb") as file:
        for line in file:
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                used += int(line.split()[1]) << 10
    return used


def _tasks_of(user: int) -> int:
    tasks = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                fields = _stat(name)
                tasks += int(fields[17]) if fields else 0
    return tasks


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
