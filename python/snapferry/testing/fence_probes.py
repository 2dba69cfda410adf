"""What a storage module must not be able to do behind its fences, and the little that it may: each tried.

It runs in a bare interpreter, below ``faulty_module``'s ``Probes``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any


def probe(directory: str, given: dict[str, Any]) -> dict[str, object]:
    """What became of each attempt: ``done``, or the system's reason why not; and what the process was given.

    Arguments:
        directory: the module's own.
        given: ``key``, ``outside``, ``beside`` and ``socket``, paths that are not for it; ``port`` and ``granted``, of TCP on loopback;
            ``process``, the id of one of another user.
    """
    tries: dict[str, Callable[[], object]] = {
        "shadow": lambda: open("/etc/shadow").read(),
        "key": lambda: open(given["key"]).read(),
        "environ": lambda: open(f"/proc/{os.getppid()}/environ").read(),
        "processes": lambda: os.listdir("/proc"),
        "outside": lambda: open(given["outside"], "w").close(),
        "beside": lambda: os.listdir(given["beside"]),
        "inside": lambda: open(os.path.join(directory, "written"), "w").close(),
        "program": lambda: subprocess.run(["/bin/true"], check=True),
        "tcp": lambda: socket.create_connection(("127.0.0.1", given["port"]), 2).close(),
        "granted": lambda: socket.create_connection(("127.0.0.1", given["granted"]), 2).close(),
        "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", given["port"])),
        "listens": lambda: socket.create_server(("127.0.0.1", 0)).close(),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "unix": lambda: socket.socket(socket.AF_UNIX).connect(given["socket"]),
        "signal": lambda: os.kill(given["process"], 0),
        "launcher": lambda: os.kill(os.getppid(), 0),
        "root": lambda: os.setuid(0),
        "big": lambda: open(os.path.join(directory, "big"), "wb").truncate(300 << 20),
        "files": _open_many,
        "ptrace": lambda: _call(101, 16, os.getppid(), 0, 0),
        "memfd": lambda: os.memfd_create("x"),
        "namespace": lambda: _call(272, 0x10000000),
    }
    found: dict[str, object] = {"variables": sorted(os.environ), "user": os.getuid(), "groups": os.getgroups()}
    found["descriptors"] = [n for n in range(64) if _is_open(n)]
    found["input"] = os.read(0, 1).decode()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as error:
            found[name] = error.strerror
    return found


def _open_many() -> None:
    opened: list[int] = []
    try:
        while len(opened) < 1000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _call(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
