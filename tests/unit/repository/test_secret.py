"""Passphrases out of files and commands: what is taken, and what is refused with which words."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from snapferry.errors import AccessDenied, ConfigurationError
from snapferry.repository.keyfile import LooseKeyFile, create_key_file, host_public_key, read_public_key
from snapferry.repository.secret import Passphrase, read_passphrase_file, run_passphrase_command


def _file(directory: Path, data: bytes) -> Path:
    path = directory / "passphrase"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _python(script: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}"


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (b"words", b"words"),
        (b"words\n", b"words"),
        (b"words\r\n", b"words"),
        (b"words\n\n", b"words\n"),
        (b" two words \n", b" two words "),
        (b"words\r", b"words\r"),
        ("Füße\n".encode(), "Füße".encode()),
    ],
)
def test_one_line_end_is_not_part_of_it_and_all_else_is(tmp_path: Path, data: bytes, taken: bytes) -> None:
    assert read_passphrase_file(_file(tmp_path, data)) == Passphrase(taken)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\r\n", "is empty"), (b"caf\xe9\n", "not UTF-8 .byte 3"), (b"x" * 4097, "at most 4096")],
)
async def test_what_is_no_passphrase(tmp_path: Path, data: bytes, reason: str) -> None:
    path = _file(tmp_path, data)
    with pytest.raises(AccessDenied, match=reason) as caught:
        read_passphrase_file(path)
    assert caught.value.exit_code == 12
    with pytest.raises(AccessDenied, match=reason):
        await run_passphrase_command(f"cat {shlex.quote(str(path))}")


def test_a_file_that_is_missing_a_directory_or_loose(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(AccessDenied, match="cannot read passphrase file"):
            read_passphrase_file(path)
    path = _file(tmp_path, b"words")
    path.chmod(0o644)
    with pytest.warns(LooseKeyFile, match="passphrase file"):
        read_passphrase_file(path)


def test_a_passphrase_is_not_shown() -> None:
    assert "words" not in repr(Passphrase(b"words"))


async def test_a_command_is_run_without_a_shell_and_with_nothing_to_read() -> None:
    assert await run_passphrase_command("printf '%s\\n' 'two words; $HOME'") == Passphrase(b"two words; $HOME")
    assert await run_passphrase_command(_python("import sys; print(repr(sys.stdin.read()))")) == Passphrase(b"''")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nonexistent/program x", "cannot be run: No such file"),
        ("false", "failed with exit code 1"),
        ("sh -c 'echo words; exit 3'", "failed with exit code 3"),
        ("true", "is empty"),
        ("yes words", "at most 4096"),
        ("sh -c 'yes words & sleep 1000'", "at most 4096"),
        ("/", "cannot be run"),
    ],
)
async def test_a_command_that_gives_no_passphrase(command: str, reason: str) -> None:
    with pytest.raises(AccessDenied, match=reason) as caught:
        await run_passphrase_command(command)
    assert caught.value.exit_code == 12


@pytest.mark.parametrize("command", ["", "  ", "pass 'show"])
async def test_what_is_no_command(command: str) -> None:
    with pytest.raises(ConfigurationError, match="passphrase_command"):
        await run_passphrase_command(command)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, cancelled: bool) -> None:
    noted = tmp_path / "pids"
    script = f"import os, time; f = os.fork(); open({str(noted)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(1000)"
    task = asyncio.create_task(run_passphrase_command(_python(script), seconds=1000 if cancelled else 1.0))
    if cancelled:
        while not (noted.exists() and noted.read_text().count("\n") == 2):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with pytest.raises(AccessDenied, match="has not ended after 1 s"):
            await task
    pids = [int(line) for line in noted.read_text().split()]
    assert pids
    begun = time.monotonic()
    while any(map(_alive, pids)):
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.01)


def test_public_keys_are_text_or_the_name_of_a_file_that_holds_it(tmp_path: Path) -> None:
    key = create_key_file(tmp_path / "key")
    text = host_public_key(key)
    assert len(read_public_key(text)) == 32
    (tmp_path / "pub").write_text(text + "\n")
    assert read_public_key(os.fspath(tmp_path / "pub")) == read_public_key(text)
    with pytest.raises(ConfigurationError, match="must stay on its host"):
        read_public_key(os.fspath(tmp_path / "key"))
    with pytest.raises(AccessDenied, match="cannot read public key file"):
        read_public_key(os.fspath(tmp_path / "none"))
    (tmp_path / "bad").write_bytes(b"\xff\xfe nonsense")
    for bad in (os.fspath(tmp_path / "bad"), text[:-3], "snapferry-public-v1:", "snapferry-public-v1:\xff"):
        with pytest.raises(ConfigurationError, match="not a snapferry public key"):
            read_public_key(bad)
