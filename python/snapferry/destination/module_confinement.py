"""The fences around a module, put up by a process around itself before it becomes the module: user, limits, Landlock, seccomp, name spaces.

Linux system calls through ctypes, and the standard library alone: it runs in a bare interpreter (``module_launcher``) and knows nothing of
snapferry. What the kernel lacks is an error that says so, unless what is asked for is best effort.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Sequence
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_CLONE_NEWIPC, _CLONE_NEWNET = 0x08000000, 0x40000000

# landlock(7). The numbers of its system calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH, _RULE_PORT = 1, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_ALL_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_CONNECT_TCP, _BIND_TCP = 1 << 1, 1 << 0
_SCOPES = 0b11
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE

SYSTEM_PATHS = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/ca-certificates", "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip
"""What programs and interpreters need to run. None of it holds a secret; what is missing is passed over."""

# seccomp(2): by architecture its name in filters, and the numbers of the calls that are refused or looked at.
_FORBIDDEN = (
    "io_uring_setup", "bpf", "add_key", "request_key", "keyctl", "perf_event_open", "userfaultfd", "ptrace", "process_vm_readv",
    "process_vm_writev", "unshare", "setns", "mount", "memfd_create", "memfd_secret", "shmget", "pidfd_getfd",
)  # fmt: skip
_MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41, "connect": 42, "io_uring_setup": 425, "bpf": 321, "add_key": 248, "request_key": 249, "keyctl": 250, "perf_event_open": 298, "userfaultfd": 323,
            "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "unshare": 272, "setns": 308, "mount": 165, "memfd_create": 319, "memfd_secret": 447,
            "shmget": 29, "pidfd_getfd": 438,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198, "connect": 203, "io_uring_setup": 425, "bpf": 280, "add_key": 217, "request_key": 218, "keyctl": 219, "perf_event_open": 241,
            "userfaultfd": 282, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "unshare": 97, "setns": 268, "mount": 40, "memfd_create": 279,
            "memfd_secret": 447, "shmget": 194, "pidfd_getfd": 438,
        },
    ),
}  # fmt: skip


class Unconfined(Exception):
    """A fence that was asked for cannot be put up."""


class Unreachable(Exception):
    """A path that the module needs is not there, or is closed to its user; the message says what to do."""


def confine(spec: dict[str, Any]) -> None:
    """Puts up all fences around this process, for good.

    Arguments:
        spec: ``user`` and ``group`` (numbers, or None to stay), ``writable`` (directories), ``readable`` (files and directories), ``ports``
            (of TCP, outgoing), ``datagrams`` (whether such sockets may be made), ``limits`` (name of ``resource`` to number), ``strict``.

    Raises:
        Unconfined: the kernel lacks one of them, and ``strict`` is set. Unreachable: a path that is not there for it. OSError: anything else.
    """
    strict = bool(spec["strict"])
    alien = spec["user"] is not None
    if alien:
        flags = _CLONE_NEWIPC if spec["ports"] or spec["datagrams"] else _CLONE_NEWIPC | _CLONE_NEWNET
        # Where root may not do this (in a container, say) seccomp refuses the sockets all the same.
        _LIBC.unshare(flags)
    for name, limit in spec["limits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    if alien:
        os.setgroups([])
        os.setresgid(spec["group"], spec["group"], spec["group"])
        os.setresuid(spec["user"], spec["user"], spec["user"])
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    # After the change of user, which clears it.
    _checked(_LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "PR_SET_PDEATHSIG")
    try:
        _landlock(spec["writable"], spec["readable"], spec["ports"], alien=alien, strict=strict)
        _seccomp(online=bool(spec["ports"]), datagrams=bool(spec["datagrams"]))
    except Unconfined:
        if strict:
            raise


def _landlock(writable: Sequence[str], readable: Sequence[str], ports: Sequence[int], *, alien: bool, strict: bool) -> None:
    abi = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        raise Unconfined("this kernel has no Landlock (Linux 5.13 with lsm=landlock)")
    if strict and ports and abi < 4:
        raise Unconfined(f"this kernel's Landlock (ABI {abi}) cannot keep connections to ports; Linux 6.7 can")
    if strict and not alien and abi < 6:
        raise Unconfined(
            f"this kernel's Landlock (ABI {abi}) does not keep a module of the same user from sending signals to others; Linux 6.12 does, "
            "or run snapferry as root, so that the module gets a user of its own"
        )
    rights = _ALL_OF_ABI[min(abi, 5)]
    network = (_CONNECT_TCP | _BIND_TCP) if abi >= 4 else 0
    # Larger structures of a newer kernel than the running one are refused, unless what is beyond is zero.
    attributes = struct.pack("=QQQ", rights, network, _SCOPES if abi >= 6 else 0)
    ruleset = _checked(_LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(24), ctypes.c_uint32(0)), "landlock_create_ruleset")
    for path in writable:
        _grant(ruleset, path, rights & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEVICE), needed=True)
    for path in readable:
        _grant(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR, needed=True)
    for path in SYSTEM_PATHS:
        _grant(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR, needed=False)
    for path in ("/dev/null", "/dev/full"):
        _grant(ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights, needed=False)
    if network:
        for port in ports:
            rule = struct.pack("=QQ", _CONNECT_TCP, port)
            _checked(_LIBC.syscall(_ADD_RULE, ruleset, ctypes.c_int(_RULE_PORT), rule, ctypes.c_uint32(0)), f"landlock: port {port}")
    _checked(_LIBC.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")
    os.close(ruleset)


def _grant(ruleset: int, path: str, rights: int, *, needed: bool) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if needed:
            raise Unreachable(_why_not(path, error)) from error
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(_LIBC.syscall(_ADD_RULE, ruleset, ctypes.c_int(_RULE_PATH), rule, ctypes.c_uint32(0)), f"landlock: {path}")
    finally:
        os.close(descriptor)


def _why_not(path: str, error: OSError) -> str:
    if error.errno != errno.EACCES:
        return f"{path}: {error.strerror}"
    above = os.path.dirname(os.path.realpath(path))
    # What cannot be looked at lies below the one that is closed.
    while not os.path.exists(above):
        above = os.path.dirname(above)
    return f"{path} is out of reach of the user that it runs as, to whom {above} is closed: put it elsewhere, or let others pass (chmod o+x {above})"


def _seccomp(*, online: bool, datagrams: bool) -> None:
    """Refuses calls that get around the other fences, and, without a network, every socket and connection but the own listening one."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise Unconfined(f"seccomp: the system calls of {platform.machine()} are not known")
    program = filter_program(*machine, online=online, datagrams=datagrams)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    if _LIBC.prctl(_PR_SET_SECCOMP, 2, header, 0, 0) != 0:
        raise Unconfined(f"seccomp filters cannot be set: {os.strerror(ctypes.get_errno())}")


Line = tuple[int, int, int, int]


def filter_program(architecture: int, numbers: dict[str, int], *, online: bool, datagrams: bool) -> list[Line]:
    """The filter as (code, jump if true, jump if false, value), as linux/filter.h says. ``EPERM`` for what is refused."""
    load, equal, at_least, mask, give = 0x20, 0x15, 0x35, 0x54, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | 1, 0x80000000
    program: list[Line] = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    if architecture == _MACHINES["x86_64"][0]:
        program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]  # the same calls by other numbers
    refused = [numbers[name] for name in _FORBIDDEN] + ([] if online or datagrams else [numbers["connect"]])
    for number in refused:
        program += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    families = [1] if not (online or datagrams) else [1, 2, 10]
    kinds = [1] if not datagrams else [1, 2]
    program += [(equal, 1, 0, numbers["socket"]), (give, 0, 0, allow), (load, 0, 0, 16)]
    for place, family in enumerate(families):
        program.append((equal, len(families) - place, 0, family))
    program += [(give, 0, 0, refuse), (load, 0, 0, 24), (mask, 0, 0, 0xF)]
    for place, kind in enumerate(kinds):
        program.append((equal, len(kinds) - place, 0, kind))
    program += [(give, 0, 0, refuse), (give, 0, 0, allow)]
    return program


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
