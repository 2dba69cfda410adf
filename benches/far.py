"""A repository at S3 servers behind links with a rate, and snapferry's real command line at their near end.

Each place is a process of ``lean_s3`` over a directory, in a network namespace of its own (``links``), where one that is told to have faults has a
proxy before it. The program under test is a process by itself, so that what it takes is its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from benches.command_line import CommandLine
from benches.links import Network, network
from benches.processes import Usage, run
from snapferry.testing.http_streams import StreamProxy

BUCKET = "backups"
_SERVER = Path(__file__).with_name("lean_s3.py")
_TRACED = Path(__file__).with_name("traced_restore.py")
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "anyone",
    "AWS_SECRET_ACCESS_KEY": "any secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class FarPlaces:
    """A context: the servers run, and ``line`` is the command line with a repository at all of them, once ``create`` was called.

    Arguments:
        home: a directory for all of it.
        rates: bytes a second of each place's link, by name; 0 where it is not shaped.
        faulty: names of the places with a proxy before them.

    Attributes:
        network: the links. proxies: of the faulty places.
    """

    def __init__(self, home: Path, rates: Mapping[str, float], faulty: tuple[str, ...] = ()) -> None:
        self._home = home
        self.rates = rates
        self._faulty = faulty
        self._stack = ExitStack()
        self._endpoints: dict[str, str] = {}
        self._ports: dict[str, tuple[int, int]] = {}
        self.proxies: dict[str, StreamProxy] = {}

    def __enter__(self) -> Self:
        with self._stack:
            self.network = self._stack.enter_context(network(self.rates))
            for name in self.rates:
                self._endpoints[name] = self._before(name, self._serve(name))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _serve(self, name: str) -> str:
        far, directory = self.network.far(name), self._home / "servers" / name
        (directory / BUCKET).mkdir(parents=True)
        command = [*far.prefix, sys.executable, str(_SERVER), self.network.address(name), str(directory)]
        process = self._stack.enter_context(
            subprocess.Popen(command, env=os.environ | _path(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._stack.callback(process.kill)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def _before(self, name: str, endpoint: str) -> str:
        if name not in self._faulty:
            return endpoint
        port = int(endpoint.rpartition(":")[2])
        return self._proxy(name, port, 0).endpoint

    def _proxy(self, name: str, server: int, port: int) -> StreamProxy:
        far, address = self.network.far(name), self.network.address(name)
        listener = far.within(lambda: socket.create_server((address, port), backlog=256))
        proxy = StreamProxy(listener, lambda: far.within(lambda: socket.create_connection((address, server))))
        self.proxies[name] = self._stack.enter_context(proxy)
        self._ports[name] = server, int(proxy.endpoint.rpartition(":")[2])
        return proxy

    def renew(self, name: str) -> StreamProxy:
        """A new proxy in the place of one that has died, or has faults."""
        self.proxies[name].die()
        return self._proxy(name, *self._ports[name])

    def repository(self, home: str, *names: str, slow: Mapping[str, str] | None = None, **settings: str) -> FarRepository:
        """Creates one at these places (all, unless given), with a machine's ``home`` of its own; ``settings`` are SNAPFERRY_ variables."""
        environment = _CREDENTIALS | settings
        roots = {name: f"s3://{BUCKET}/{home}?endpoint={self._endpoints[name]}" for name in names or self.rates}
        made = FarRepository(self._home / "near" / home, roots, self.network.near.prefix, environment)
        made.create()
        made.edit(slow or {})
        return made

    def directory(self, name: str, home: str) -> Path:
        """Where that place keeps the objects of that repository."""
        return self._home / "servers" / name / BUCKET / home


def _path() -> dict[str, str]:
    """What a script of ours needs to find what this one has found."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class FarRepository(CommandLine):
    """The command line of one repository there."""

    def __init__(self, home: Path, roots: Mapping[str, str], prefix: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(home)
        self._urls = dict(roots)
        self._before = list(prefix)
        self._config = home / "snapferry.toml"
        self.environment |= environment

    def command(self, *arguments: str) -> list[str]:
        """In the near namespace."""
        return [*self._before, *super().command(*arguments)]

    def init(self) -> list[str]:
        """The command that creates the repository."""
        return self.command("init", *(part for name, url in self._urls.items() for part in ("--to", f"{name}={url}")))

    def traced_restore(self, snapshot: str, target: Path) -> Usage:
        """``traced_restore``; see there."""
        command = [*self._before, sys.executable, str(_TRACED), str(self._config), snapshot, str(target)]
        return run(command, env=self.environment | _path(), timeout=600)

    def edit(self, slow: Mapping[str, str]) -> None:
        """Says what becomes of places that do not keep up."""
        text = self._config.read_text()
        for name, manner in slow.items():
            text, count = re.subn(rf'(name = "{name}"\n(?:.+\n)*?slow = )"\w+"', rf'\1"{manner}"', text)
            assert count == 1, text
        self._config.write_text(text)


@contextmanager
def at(network: Network, received: int, do: Callable[[], object]) -> Iterator[None]:
    """Calls ``do`` once so many more bytes came over the links, while the block runs."""
    ended = threading.Event()
    mark = network.received() + received

    def watch() -> None:
        while network.received() < mark:
            if ended.wait(0.003):
                return
        do()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Commits:
    """A context that notes when each of several directories has its first commit: seconds since ``begin``."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self._waiting = dict(directories)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        last = False
        while self._waiting and not last:
            last = self._ended.wait(0.02)
            for name, directory in list(self._waiting.items()):
                with contextlib.suppress(FileNotFoundError):
                    if any((directory / "snapshots").iterdir()):
                        self.seconds[name] = time.perf_counter() - self._begun
                        del self._waiting[name]
