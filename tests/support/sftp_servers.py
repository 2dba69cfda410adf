"""Real SFTP servers for tests, each a process of its own: OpenSSH's, and asyncssh's."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

PROCESS = Path(__file__).with_name("sftp_process.py")


@dataclass(frozen=True)
class Server:
    """One that runs. ``root`` is where what it stores lies on this machine; ``path`` is the same as the server calls it."""

    name: str
    port: int
    root: Path
    path: str
    directory: Path
    process: subprocess.Popen[str]

    def url(self, place: str) -> str:
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{self.path}/{place}"

    @property
    def options(self) -> dict[str, object]:
        return {"identity_file": str(self.directory / "client"), "known_hosts": str(self.directory / "known_hosts")}


def make_keys(directory: Path) -> None:
    """A host key, a client key, and the files that name them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(directory / name))
        key.write_public_key(str(directory / f"{name}.pub"))
        (directory / name).chmod(0o600)
    shutil.copy(directory / "client.pub", directory / "authorized_keys")


def _know(directory: Path, port: int) -> None:
    public = " ".join((directory / "host.pub").read_text().split()[:2])
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")


@contextmanager
def asyncssh_server(directory: Path, fault: str = "") -> Iterator[Server]:
    """Whose root is ``directory/root``; with one of the faults of ``sftp_process``."""
    make_keys(directory)
    root = directory / "root"
    root.mkdir()
    command = [sys.executable, str(PROCESS), str(root), str(directory / "host"), str(directory / "authorized_keys"), fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[1])
            _know(directory, port)
            yield Server("asyncssh", port, root, "", directory, process)
        finally:
            process.kill()


@contextmanager
def openssh_server(directory: Path, subsystem: str = "internal-sftp") -> Iterator[Server]:
    """OpenSSH's ``sshd``, as whoever runs the tests, for that user alone."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert program is not None, "sshd is missing: the package openssh-server brings it"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    make_keys(directory)
    root = directory / "root"
    root.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = directory / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/authorized_keys\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"Subsystem sftp {subsystem}\nMaxStartups 100\n"
    )
    with subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL, text=True) as process:
        try:
            _know(directory, port)
            _wait_for(port, process)
            yield Server("openssh", port, root, str(root), directory, process)
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 20
    while True:
        assert process.poll() is None, "sshd has ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.02)
        else:
            return
