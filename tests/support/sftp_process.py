"""An SFTP server of asyncssh's own, in a process by itself: ``python sftp_process.py ROOT HOST_KEY AUTHORIZED_KEYS [FAULT]`` prints its port.

``FAULT`` names one of the doubles below.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys

import asyncssh


class RenameReplaces(asyncssh.SFTPServer):
    """Makes no links, and its rename takes names from others."""

    def link(self, oldpath: bytes, newpath: bytes) -> None:
        raise asyncssh.SFTPOpUnsupported("no links here")

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        os.replace(self.map_path(oldpath), self.map_path(newpath))


class RefusesLinks(asyncssh.SFTPServer):
    """On a file system without links, where rename looks first."""

    def link(self, oldpath: bytes, newpath: bytes) -> None:
        raise OSError(errno.EPERM, "no links on this file system")


class KnowsNoLinks(asyncssh.SFTPServer):
    """Knows no links; its rename refuses what is taken."""

    def link(self, oldpath: bytes, newpath: bytes) -> None:
        raise asyncssh.SFTPOpUnsupported("no links here")


class CannotSync(asyncssh.SFTPServer):
    """Syncs nothing on demand."""

    def fsync(self, file_obj: object) -> None:
        raise asyncssh.SFTPOpUnsupported("no fsync here")


class HangsInWrite(asyncssh.SFTPServer):
    """Answers everything but the second write to a file, and what comes after it: as a server whose disk hangs."""

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        if offset:
            await asyncio.Event().wait()
        written = super().write(file_obj, offset, data)
        assert isinstance(written, int)
        return written

    async def close(self, file_obj: object) -> None:
        if os.fstat(file_obj.fileno()).st_size > 100_000:  # type: ignore[attr-defined]
            await asyncio.Event().wait()
        super().close(file_obj)


class ReadsLittle(asyncssh.SFTPServer):
    """Gives at most 1000 bytes for each read, as the protocol allows."""

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        data = super().read(file_obj, offset, min(size, 1000))
        assert isinstance(data, bytes)
        return data


class EndsTheSession(asyncssh.SFTPServer):
    """Its SFTP ends when the key ``end`` is looked for; the SSH connection stays."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], chroot: bytes) -> None:
        super().__init__(channel, chroot=chroot)
        self._ends = channel

    def lstat(self, path: bytes) -> os.stat_result:
        if path.endswith(b"/end"):
            self._ends.close()
        return os.lstat(self.map_path(path))


FAULTS: tuple[type[asyncssh.SFTPServer], ...] = (
    RenameReplaces, RefusesLinks, KnowsNoLinks, CannotSync, HangsInWrite, ReadsLittle, EndsTheSession,
)  # fmt: skip


async def serve(root: str, host_key: str, authorized: str, fault: str = "") -> None:
    kind = {double.__name__: double for double in FAULTS}.get(fault, asyncssh.SFTPServer)

    def at_root(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return kind(channel, chroot=root.encode())

    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=authorized, sftp_factory=at_root, allow_scp=False
    )
    print(f"port {server.get_port()}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:5]))
