"""The links themselves: they hold back what they should, cost little, and leave nothing behind, however they end. Needs root."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.conftest import Tell
from benches.images import MiB
from benches.links import Network

_HOLDS = """
import sys
sys.path.insert(0, {root!r})
from benches.links import Network
with Network({{"far": 1 << 20}}) as network:
    print(network.near.id, network.far("far").id, flush=True)
    sys.stdin.read()
"""


def test_what_goes_through(benchmark: BenchmarkFixture, tell: Tell) -> None:
    """Processor time of both ends together, for what 200 MiB/s let through."""
    with Network({"fast": 200.0 * MiB, "slow": 20.0 * MiB}) as network:
        network.check()
        spent = time.process_time()
        benchmark.pedantic(network.measured, args=("fast", 0.5), rounds=1)
        moved = 2 * 0.5 * 200 * MiB
        tell("processor seconds for a GiB over a link", f"{(time.process_time() - spent) / moved * 1024 * MiB:.2f}", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(benchmark: BenchmarkFixture, number: signal.Signals) -> None:
    script = _HOLDS.format(root=str(Path(__file__).resolve().parents[1]))

    def work() -> list[int]:
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            holders = [int(word) for word in process.stdout.readline().split()]
            process.send_signal(number)
        return holders

    holders = benchmark.pedantic(work, rounds=1)
    assert len(holders) == 2
    deadline = time.monotonic() + 30
    while any(_runs(holder) for holder in holders):
        assert time.monotonic() < deadline, f"{holders} are still there"
        time.sleep(0.01)


def _runs(process: int) -> bool:
    """Whether it runs; one that waits to be reaped by init does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
