"""Signals, broken pipes and unforeseen errors, with real processes around a coroutine that stands for a command's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, logging, sys, time
import click
from snapferry.cli import main, running
from snapferry.cli.invocation import Invocation
running.GRACE_SECONDS = 0.5

async def work():
    logging.getLogger("snapferry.test").warning("mind the gap")
    print("ready", file=sys.stderr, flush=True)
    try:
        {body}
    finally:
        print("put in order", file=sys.stderr, flush=True)

@click.command("work")
@click.pass_obj
def command(invocation):
    running.run_async(invocation, work())

main.cli.add_command(command)
main.LazyGroup.get_command = lambda self, ctx, name: command
sys.exit(main.run(sys.argv[1:]))
"""


def start(body: str, *options: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(body=body)
    process = subprocess.Popen([sys.executable, "-c", program, *options, "work"], stdout=-1, stderr=-1, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line == "ready\n":
            break
    return process


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_cancels_and_is_said(number: int, code: int, word: str) -> None:
    process = start("await asyncio.sleep(60)")
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert said.splitlines() == ["put in order", f"snapferry: {word}"]
    assert process.returncode == code


def test_a_signal_is_the_last_json_line() -> None:
    process = start("await asyncio.sleep(60)", "--json")
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert json.loads(out.splitlines()[-1]) == {"type": "error", "schema_version": 1, "code": 143, "message": "terminated"}
    assert process.returncode == 143


def test_what_does_not_end_is_ended() -> None:
    process = start("await asyncio.shield(asyncio.to_thread(time.sleep, 60))")
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - began < 20


def test_a_second_signal_ends_at_once() -> None:
    body = "await asyncio.sleep(60)\n    except asyncio.CancelledError:\n        print('again', flush=True); time.sleep(0.01); await asyncio.sleep(60)"
    process = start(body)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "again\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_an_unforeseen_error_is_1_and_has_a_traceback_on_demand() -> None:
    program = PROGRAM.format(body="raise ZeroDivisionError('oh')")
    done = subprocess.run([sys.executable, "-c", program, "work"], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-2:] == ["put in order", "snapferry: unexpected ZeroDivisionError: oh (run again with -v for details)"]
    assert (done.stdout, done.returncode) == ("", 1)
    said = subprocess.run([sys.executable, "-c", program, "-v", "work"], capture_output=True, text=True, check=False).stderr
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("snapferry: unexpected")


def test_warnings_are_said_also_where_it_is_quiet() -> None:
    program = PROGRAM.format(body="pass")
    said = subprocess.run([sys.executable, "-c", program, "work"], capture_output=True, text=True, check=True).stderr
    assert said.splitlines()[0] == "snapferry: warning: mind the gap"
    said = subprocess.run([sys.executable, "-c", program, "-q", "work"], capture_output=True, text=True, check=True).stderr
    assert said.splitlines()[0] == "snapferry: warning: mind the gap"
    said = subprocess.run([sys.executable, "-c", program, "--json", "work"], capture_output=True, text=True, check=True).stderr
    assert json.loads(said.splitlines()[0]) == {"type": "warning", "schema_version": 1, "message": "mind the gap"}


def test_a_closed_pipe_is_quiet() -> None:
    process = subprocess.Popen([sys.executable, "-m", "snapferry.cli.main", "--help"], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert said == ""
    assert process.wait(20) != 0
    process.stderr.close()


def test_a_closed_pipe_under_a_command_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"SNAPFERRY_CONFIG": "/nonexistent"}
    program = "import sys; from snapferry.cli.main import run; from snapferry.cli import main\n"
    program += "from snapferry.cli.invocation import Invocation\nimport click\n"
    program += "@click.command('work')\n@click.pass_obj\ndef work(invocation): invocation.write('x' * 100)\n"
    program += "main.LazyGroup.get_command = lambda self, ctx, name: work\nsys.exit(run(['work']))"
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=-1, text=True, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def say(redirections: str, *options: str) -> subprocess.CompletedProcess[str]:
    """``config show`` of a real configuration, under a shell that redirects its streams."""
    command = f'exec "$@" {redirections}'
    arguments = [sys.executable, "-m", "snapferry.cli.main", "config", "show", *options]
    return subprocess.run(["/bin/sh", "-c", command, "sh", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "snapferry.toml").write_text('[[destination]]\nname = "near"\nurl = "/srv"\n')
    monkeypatch.setenv("SNAPFERRY_CONFIG", str(tmp_path / "snapferry.toml"))


@pytest.mark.usefixtures("_configured")
@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("redirections", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_an_error(redirections: str, options: list[str]) -> None:
    done = say(redirections, *options)
    assert done.returncode == 1
    assert done.stderr.startswith("snapferry: standard output cannot be written: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("_configured")
def test_other_closed_streams_do_no_harm() -> None:
    done = say("<&- 2>&-")
    assert (done.returncode, "destination.near.url" in done.stdout, done.stderr) == (0, True, "")
    assert say("2>&-", "--nonsense").returncode == 2
