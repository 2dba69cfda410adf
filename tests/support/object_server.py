"""A real ``snapferry serve``, a process of its own, with a store ``main`` and a token for each role."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from snapferry.service.access import new_token
from tests.support.s3_servers import make_certificate

ROLES = ("read", "append", "full")


@dataclass
class ObjectServer:
    """One that runs. ``tokens``: by role; ``said``: its standard error, complete once it has ended."""

    root: Path
    process: subprocess.Popen[str]
    endpoint: str
    tokens: dict[str, str] = field(repr=False)
    ca: Path | None = None
    said: str = ""

    def url(self, store: str = "main") -> str:
        return f"{self.endpoint}/objects/{store}"

    def options(self, role: str = "full") -> dict[str, object]:
        trusted: dict[str, object] = {"ca_bundle": str(self.ca)} if self.ca else {}
        return {"token_file": str(self.root / f"{role}.token"), **trusted}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def object_server(root: Path, *, stores: tuple[str, ...] = ("main",), tls: bool = False, service: str = "") -> Iterator[ObjectServer]:
    """Runs one whose configuration, stores (``root/STORE``) and tokens are below ``root``."""
    tokens: dict[str, str] = {}
    lines = ["[service]", 'listen = "127.0.0.1:0"', service]
    ca = None
    if tls:
        ca, key = make_certificate(root)
        lines += [f'tls_cert = "{ca.name}"', f'tls_key = "{key.name}"']
    for store in stores:
        (root / store).mkdir(exist_ok=True)
        lines += ["[[store]]", f'name = "{store}"', f'path = "{store}"']
    for role in ROLES:
        tokens[role], digest = new_token()
        (root / f"{role}.token").write_text(tokens[role] + "\n")
        lines += ["[[access]]", f'token_sha256 = "{digest}"', f'role = "{role}"', f"stores = {json.dumps(list(stores))}"]
    (root / "serve.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "snapferry.cli.main", "--config", str(root / "serve.toml"), "--json", "-v", "serve"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAPFERRY")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    listening = threading.Thread(target=said.extend, args=(process.stderr,))
    listening.start()
    try:
        line = process.stdout.readline()
        if not line:
            process.wait(20)
            listening.join(20)
            raise AssertionError("".join(said))
        server = ObjectServer(root, process, json.loads(line)["url"], tokens, ca)
        yield server
        if process.poll() is None:
            assert server.stop() == 143
        listening.join(20)
        server.said = "".join(said)
        assert not any(token in server.said for token in tokens.values())
        assert "Traceback" not in server.said, server.said
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        listening.join(20)
        process.stdout.close()
        process.stderr.close()
