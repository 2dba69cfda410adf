"""Two processes of one module on the same directory, as two commands at once have them: neither harms what the other has under way."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from snapferry.testing.module_cases import Wire, put_headers
from tests.support.modules import Workshop, running

DATA = os.urandom(1 << 20)
DAY = 86_400


@contextmanager
def put_under_way(path: str, key: str) -> Iterator[socket.socket]:
    """A put of which the module has half; the socket takes the rest."""
    head = "".join(f"{name}: {value}\r\n" for name, value in put_headers(DATA, len(DATA)).items())
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(path)
        raw.sendall(f"PUT /vms/{key} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + DATA[: 1 << 19])
        yield raw


def finished(raw: socket.socket) -> int:
    """Sends the rest; the status of the answer."""
    raw.sendall(DATA[1 << 19 :])
    answer = http.client.HTTPResponse(raw)
    answer.begin()
    return answer.status


def wait_for_temporaries(workshop: Workshop, number: int) -> None:
    until = time.monotonic() + 20
    while len(list((workshop.data / "tmp").iterdir())) < number:
        assert time.monotonic() < until, "no put has begun"
        time.sleep(0.01)


@pytest.mark.parametrize("language", ["py", "rs"])
def test_a_second_process_leaves_the_puts_of_the_first_alone(workshop: Workshop, language: str) -> None:
    command = workshop.example(language).command
    with running(workshop, *command, name="one") as one, put_under_way(one, "packs/ab/one") as first:
        wait_for_temporaries(workshop, 1)
        with running(workshop, *command, name="two") as two, put_under_way(two, "packs/ab/two") as second:
            wait_for_temporaries(workshop, 2)
            assert finished(first) == 201
            assert finished(second) == 201
            for path in (one, two):
                wire = Wire(path, "/vms/")
                assert [wire.ask("GET", f"packs/ab/{key}").body == DATA for key in ("one", "two")] == [True, True]
                wire.close()
    assert not list((workshop.data / "tmp").iterdir())


@pytest.mark.parametrize("language", ["py", "rs"])
def test_what_a_kill_left_is_cleared_away_when_it_is_old(workshop: Workshop, language: str) -> None:
    temporaries = workshop.data / "tmp"
    temporaries.mkdir(parents=True)
    for name, age in (("young", DAY - 600), ("old", DAY + 600)):
        (temporaries / name).write_bytes(b"half")
        os.utime(temporaries / name, times=(time.time() - age,) * 2)
    with running(workshop, *workshop.example(language).command):
        assert [path.name for path in temporaries.iterdir()] == ["young"]
