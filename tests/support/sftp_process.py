"""An SFTP server of asyncssh's own, in a process by itself: ``python sftp_process.py ROOT HOST_KEY AUTHORIZED_KEYS`` prints its port."""

from __future__ import annotations

import asyncio
import sys

import asyncssh


async def serve(root: str, host_key: str, authorized: str) -> None:
    def at_root(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=root.encode())

    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=authorized, sftp_factory=at_root, allow_scp=False
    )
    print(f"port {server.get_port()}", flush=True)
    await asyncio.Event().wait()


asyncio.run(serve(*sys.argv[1:4]))
