"""Servers at the far ends of links with a rate, on one machine: what is measured over them is measured as over real lines.

Each server lives in a network namespace of its own, tied to the one of the program under test by a pair of virtual Ethernet devices that the
kernel shapes with a token bucket in both directions; that costs next to no processor time, and nothing of it can be seen from the machine's
own network. A namespace lives as long as the process that holds it, and that one as long as our end of its pipe: so all is gone when the
``Network`` ends, in whatever way, a SIGKILL included. Needs root. There is no delay: a token bucket has none.

    python benches/links.py 200 100 20          # MiB/s: builds it, and prints what goes through

Knows nothing of snapferry.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

MiB = 1 << 20
UNSHAPED = 0
"""As a rate: whatever the machine does."""

_BURST = 256 << 10
_QUEUE = 4 << 20
_PIECE = 1 << 20
_NEAR = 0.9
_CLONE_NEWNET = 0x40000000
_NEEDED = "links with a rate need root (CAP_SYS_ADMIN and CAP_NET_ADMIN, for network namespaces) and `ip`, `tc`, `nsenter` and `unshare`"


class NoNamespaces(Exception):
    """This machine, or this user, cannot have shaped links; the message says what they need."""


class Namespace:
    """A network namespace; see ``within`` and ``prefix``."""

    def __init__(self) -> None:
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo there && exec cat"]
        try:
            self._holder = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise NoNamespaces(f"{_NEEDED}: {error}") from error
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"there\n":
            _, said = self._holder.communicate()
            raise NoNamespaces(f"{_NEEDED}: {said.decode(errors='replace').strip()}")

    @property
    def id(self) -> int:
        """Of the process that holds it, by which `ip` knows it."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """Before a command that is to run in it, and to die with the thread that starts it."""
        return ["nsenter", "--target", str(self.id), "--net", "setpriv", "--pdeathsig", "KILL"]

    def run(self, script: str) -> None:
        """Runs each line of ``script`` in it; ``NoNamespaces`` if one fails."""
        for line in script.strip().splitlines():
            done = subprocess.run([*self.prefix, *shlex.split(line)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise NoNamespaces(f"{_NEEDED}: {line.strip()}: {done.stderr.strip()}")

    def within(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in it. A socket stays in the namespace it was made in."""
        made: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/proc/{self.id}/ns/net", "rb") as file:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(file.fileno(), _CLONE_NEWNET):
                        raise NoNamespaces(f"{_NEEDED}: {os.strerror(ctypes.get_errno())}")
                made.append(make())
            except BaseException as error:  # noqa: BLE001  It is raised again by the caller.
                errors.append(error)

        # The namespace is the thread's, and goes with it.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return made[0]

    def close(self) -> None:
        """Lets go of it: it is gone once the processes and sockets in it are."""
        self._holder.kill()
        self._holder.communicate()


class Network:
    """A context: ``near``, where the program under test runs, and one namespace behind a link for each name of ``rates`` (bytes a second)."""

    def __init__(self, rates: Mapping[str, float]) -> None:
        self.rates = dict(rates)
        self._numbers = {name: number for number, name in enumerate(rates, 1)}
        self._stack = ExitStack()
        self._far: dict[str, Namespace] = {}

    def __enter__(self) -> Self:
        with self._stack:
            self.near = self._namespace()
            for name, number in self._numbers.items():
                far = self._far[name] = self._namespace()
                self.near.run(f"ip link add far{number} type veth peer name near netns {far.id}")
                for end, device, last in ((self.near, f"far{number}", 1), (far, "near", 2)):
                    end.run(f"ip address add 10.77.{number}.{last}/24 dev {device}\nip link set {device} mtu 9000 up")
                self.shape(name, self.rates[name])
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _namespace(self) -> Namespace:
        made = Namespace()
        self._stack.callback(made.close)
        return made

    def far(self, name: str) -> Namespace:
        """Where that server is to run."""
        return self._far[name]

    def address(self, name: str) -> str:
        """Of that server's end of its link."""
        return f"10.77.{self._numbers[name]}.2"

    def shape(self, name: str, rate: float) -> None:
        """From now on its link has ``rate`` in each direction."""
        self.rates[name] = rate
        for end, device in ((self.near, f"far{self._numbers[name]}"), (self._far[name], "near")):
            # A queue with no token bucket is the device's own: none.
            bucket = f"tbf rate {int(rate * 8)}bit burst {_BURST} limit {_QUEUE}" if rate else "noqueue"
            end.run(f"tc qdisc replace dev {device} root {bucket}")

    def received(self) -> int:
        """Bytes that came over all links so far, those of headers too."""
        lines = Path(f"/proc/{self.near.id}/net/dev").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.lstrip().startswith("far"))

    def measured(self, name: str, seconds: float = 0.2) -> tuple[float, float]:
        """Bytes a second that a plain transfer of that length gets, to the server and from it."""
        near, far = self.near, self._far[name]
        with far.within(lambda: socket.create_server((self.address(name), 0))) as listener:
            out = near.within(lambda: socket.create_connection(listener.getsockname()))
            there, _ = listener.accept()
        with out, there:
            return _transferred(out, there, seconds), _transferred(there, out, seconds)

    def check(self) -> str:
        """Measures every link, best of three where the machine is busy; a line that says what they do. ``AssertionError`` if one is not held back."""
        said = []
        for name, rate in self.rates.items():
            to = back = 0.0
            for _ in range(3):
                to, back = map(max, (to, back), self.measured(name))
                if min(to, back) >= _NEAR * rate:
                    break
            said.append(f"{name} {to / MiB:.0f} there, {back / MiB:.0f} back" + (f", of {rate / MiB:.0f}" if rate else ""))
            assert not rate or max(to, back) <= rate / _NEAR, f"the link does not hold back: {said[-1]} MiB/s"
        return f"links, MiB/s: {'; '.join(said)}"


def _transferred(sender: socket.socket, receiver: socket.socket, seconds: float) -> float:
    """Bytes a second that arrive, from the first on; nothing more can be sent that way afterwards."""
    until = time.perf_counter() + seconds

    def send() -> None:
        piece = bytes(_PIECE)
        while time.perf_counter() < until:
            sender.sendall(piece)
        sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    buffer = bytearray(_PIECE)
    total, begun = receiver.recv_into(buffer), time.perf_counter()
    while came := receiver.recv_into(buffer):
        total += came
    ended = time.perf_counter()
    thread.join()
    return total / (ended - begun)


@contextmanager
def network(rates: Mapping[str, float]) -> Iterator[Network]:
    """A ``Network`` whose links were measured, and said to do what they should."""
    with Network(rates) as made:
        print(made.check(), file=sys.stderr)
        yield made


def main() -> None:
    """See the module."""
    rates = [float(text) for text in sys.argv[1:]] or [200.0, 100.0, 20.0]
    try:
        with Network({f"link{number}": rate * MiB for number, rate in enumerate(rates, 1)}) as made:
            begun, spent = time.perf_counter(), time.process_time()
            print(made.check())
            print(f"in {time.perf_counter() - begun:.1f} s, {time.process_time() - spent:.2f} s of processor time for both ends")
    except NoNamespaces as error:
        sys.exit(f"{Path(__file__).name}: {error}")


if __name__ == "__main__":
    main()
