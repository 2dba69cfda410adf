"""A restore's target: a regular file or a block device, what may be done to it, and how it is made durable.

A target that holds something is changed only with ``force``, or where the journal says that this very restore made it what it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from snapferry import _core
from snapferry.errors import TargetError, TargetFull
from snapferry.pipeline.journal import Entry, Journal
from snapferry.repository.keyfile import sync_directory
from snapferry.source.device import device_size
from snapferry.types import MiB

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLKGETDISKSEQ = 0x80081280
_FS_IOC_GETVERSION = 0x80087601


def target_error(path: str, error: OSError) -> TargetError:
    """What an ``OSError`` of the target means."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return TargetFull(f"target {path} is full: {reason}; make room and run the same restore again, which goes on from here")
    return TargetError(f"target {path} cannot be written: {reason}")


class Identity(NamedTuple):
    """Which file or device it is.

    A freed inode's number is soon used again; its generation, where the file system tells it, is another then. A device keeps its node when
    another disk is attached to it: the disk's sequence number, where the kernel tells it, stands for the generation there.
    """

    device: int
    inode: int
    generation: int | None


def _identity(fd: int) -> Identity:
    status = os.fstat(fd)
    try:
        if stat.S_ISBLK(status.st_mode):
            (generation,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETDISKSEQ, bytes(8)))
        else:
            (generation,) = struct.unpack("=I", fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))[:4])
    except OSError:
        generation = None
    return Identity(status.st_dev, status.st_ino, generation)


def _identity_of(path: str, status: os.stat_result) -> Identity:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Identity(status.st_dev, status.st_ino, None)
    try:
        return _identity(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Look:
    """What is there before anything is done. ``size`` in bytes, None if nothing is there; ``empty`` as the contract says."""

    path: str
    size: int | None
    device: bool
    empty: bool
    identity: Identity | None


def look(path: str | os.PathLike[str]) -> Look:
    """Looks at a target; ``TargetError`` if it can be none."""
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except FileNotFoundError:
        if not Path(real).parent.is_dir():
            raise TargetError(f"target {real}: its directory does not exist") from None
        if os.stat(Path(real).parent).st_dev == os.stat("/dev").st_dev:
            raise TargetError(f"target {real} does not exist, and a file there would lie in memory: make the device first") from None
        return Look(real, None, device=False, empty=True, identity=None)
    except OSError as error:
        raise TargetError(f"target {real}: {error.strerror}") from error
    if stat.S_ISREG(status.st_mode):
        return Look(real, status.st_size, device=False, empty=status.st_size == 0, identity=_identity_of(real, status))
    if stat.S_ISBLK(status.st_mode):
        return _look_at_device(real)
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "neither a regular file nor a block device"
    raise TargetError(f"target {real} is {kind}")


def check(found: Look, size: int, snapshot: str, journal: Journal, *, force: bool, whole: bool = True) -> None:
    """``TargetError`` if ``size`` bytes of ``snapshot`` may not be restored there."""
    if found.device and found.size is not None and found.size < size:
        raise TargetError(f"target {found.path} is too small: it holds {found.size} bytes and the snapshot has {size}")
    if found.empty or force:
        return
    entry = journal.read()
    if whole and entry and entry.snapshot == snapshot and (entry.device, entry.inode, entry.generation) == found.identity:
        return
    holds = f"holds {found.size} bytes" if not found.device else "is not empty"
    raise TargetError(f"target {found.path} {holds}; use --force to overwrite it")


class Target:
    """An open target.

    Attributes:
        fresh: it was made by this restore or was empty: what is not written to it is zeros.
    """

    def __init__(self, found: Look, size: int, snapshot: str, journal: Journal, *, whole: bool = True) -> None:
        """Opens it, noting in ``journal`` before it is changed; makes it ``size`` bytes long if it is a file and all of it is restored."""
        self.path = found.path
        self.device = found.device
        self.fresh = not found.device and not found.size
        self._created = found.size is None
        if whole and self._created:
            journal.write(Entry(snapshot, found.path, size))
        try:
            self.fd = self._open()
            try:
                self._claim(found)
                if self.device:
                    self._forget_cached()
                if whole:
                    # Not before it is claimed: a note of a restore that was turned away would let it overwrite the other's work later.
                    journal.write(Entry(snapshot, found.path, size, *(found.identity or _identity(self.fd))))
                    if not found.device:
                        os.ftruncate(self.fd, size)
                elif not found.device and (found.size or 0) < size:
                    os.ftruncate(self.fd, size)
            except BaseException:
                os.close(self.fd)
                raise
        except OSError as error:
            raise target_error(found.path, error) from error

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        if self._created:
            return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        # O_EXCL on a block device: not while it is mounted or otherwise held (open(2)).
        return os.open(self.path, flags | (os.O_EXCL if self.device else 0))

    def _claim(self, found: Look) -> None:
        """One restore at a time: two that write side by side would both end well, and neither be right."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetError(f"target {self.path} is being written by another restore") from error
        status = os.fstat(self.fd)
        replaced = found.identity is not None and (status.st_dev, status.st_ino) != found.identity[:2]
        if replaced or (self.device and (_identity(self.fd) != found.identity or device_size(self.fd) != found.size)):
            raise TargetError(f"target {self.path} was replaced while it was being opened")
        if not self.device and status.st_size != (found.size or 0):
            # Another restore may have been here in between; what this one takes for a file of zeros would hold that one's bytes.
            raise TargetError(f"target {self.path} was changed while it was being opened; run the same restore again")

    def _forget_cached(self) -> None:
        """What is compared must be what is on the device, and not what its page cache held before it was changed from elsewhere."""
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def zero(self, offset: int, length: int) -> int:
        """Makes the range zeros where it is not; returns the bytes changed. Nothing to do in a fresh file."""
        if self.fresh or not length:
            return 0
        try:
            return _core.zero_range(self.fd, offset, length, self.device)
        except OSError as error:
            raise target_error(self.path, error) from error

    def sync(self) -> None:
        """Makes all of it durable, its name too."""
        try:
            os.fsync(self.fd)
            if not self.device:  # Whoever made the file may have been killed before its name was durable.
                sync_directory(Path(self.path).parent)
        except OSError as error:
            # What could not be written stays in the page cache and counts as clean (fsync(2)): the next restore would compare with
            # that, find it right, and sync nothing. So it has to be read from the disk again.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
            raise target_error(self.path, error) from error

    def close(self) -> None:
        """Closes it; nothing is synced here."""
        os.close(self.fd)


def _look_at_device(path: str) -> Look:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = device_size(fd)
            ends = (os.pread(fd, MiB, 0), os.pread(fd, MiB, max(0, size - MiB)))
            return Look(path, size, device=True, empty=not any(any(piece) for piece in ends), identity=_identity(fd))
        finally:
            os.close(fd)
    except OSError as error:
        raise TargetError(f"target {path}: {error.strerror}") from error
