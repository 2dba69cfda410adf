"""What a module can reach from behind its fences, as it finds out itself: with a user of its own where we are root, and as our own user."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snapferry.config import PluginConfig
from snapferry.destination import module_process, open_destination, prepare_destination
from snapferry.errors import ConfigurationError, DestinationDenied, DestinationUnreachable
from tests.support.modules import PYTHON, ROOT, Workshop

REFUSED = ("Permission denied", "Operation not permitted", "No such file or directory")


@pytest.fixture
def listening() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        yield one, two


def arguments(workshop: Workshop, listening: tuple[socket.socket, socket.socket]) -> str:
    key = workshop.path / "snapferry.key"
    key.write_text("secret")
    key.chmod(0o644)  # the fences must do without its mode
    return json.dumps(
        {
            "key": str(key),
            "outside": str(workshop.path / "outside"),
            "beside": str(workshop.path),
            "port": listening[0].getsockname()[1],
            "granted": listening[1].getsockname()[1],
            "socket": str(workshop.path / "socket"),
            "process": os.getpid(),
        }
    )


def check(found: dict[str, Any], *, granted: bool) -> None:
    allowed = {name for name, outcome in found.items() if outcome == "done"}
    assert allowed == {"inside", "program"} | ({"granted"} if granted else set()), found
    assert all(isinstance(found[name], str) for name in ("shadow", "key", "environ"))
    assert all(
        found[name] in REFUSED for name in ("shadow", "key", "environ", "processes", "outside", "beside", "tcp", "udp", "unix", "root")
    ), found
    assert found["big"] == "File too large"
    assert found["files"] == "Too many open files"
    assert found["variables"] == [
        "HOME", "LANG", "PATH", "REGION", "SNAPFERRY_DIRECTORY", "SNAPFERRY_MAX_OBJECT", "SNAPFERRY_SOCKET", "TMPDIR",
    ]  # fmt: skip
    assert found["input"] == ""
    assert set(found["descriptors"]) <= {0, 1, 2}
    assert found["groups"] == [] or found["user"] == os.geteuid()


@pytest.mark.parametrize("granted", [False, True])
async def test_it_gets_what_it_is_granted_and_nothing_else(
    workshop: Workshop, listening: tuple[socket.socket, socket.socket], granted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
    ports = (listening[1].getsockname()[1],) if granted else ()
    with closing(socket.socket(socket.AF_UNIX)) as beside:
        beside.bind(str(workshop.path / "socket"))
        beside.listen()
        (workshop.path / "socket").chmod(0o600)
        plugin = workshop.probing(arguments(workshop, listening), ports=ports, environment=(("REGION", "eu"),))
        await prepare_destination("far", "plugin:tape", plugin=plugin)
        destination = await open_destination("far", "plugin:tape", plugin=plugin)
        await destination.close()
    found = json.loads((workshop.data / "probes.json").read_text())
    assert found["user"] != 0
    check(found, granted=granted)


SCRIPT = """
import asyncio, os, pwd, sys
sys.executable = {python!r}
from snapferry.config import PluginConfig
from snapferry.destination import module, open_destination, prepare_destination
from snapferry.testing.conformance import CASES, run_case
import idna, encodings.idna

async def main():
    plugin = PluginConfig("tape", command={command!r}, directories=({data!r},), environment=(("REGION", "eu"),))
    await prepare_destination("far", "plugin:tape", plugin=plugin)
    async def make(place):
        return await open_destination("far", "plugin:tape", {{"store": place}}, plugin=plugin)
    for case in CASES:
        if case.name in {cases!r}:
            await run_case(case, make)
    if not {cases!r}:
        await (await make("x")).close()

if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([]); os.setresgid(*[nobody.pw_gid] * 3); os.setresuid(*[nobody.pw_uid] * 3)
os.environ.pop("XDG_RUNTIME_DIR", None)
asyncio.run(main())
"""


def without_root(workshop: Workshop, command: tuple[str, ...], *cases: str) -> None:
    workshop.path.chmod(0o777)
    script = SCRIPT.format(python=PYTHON, command=command, data=str(workshop.data), cases=cases)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_root_it_is_confined_too(workshop: Workshop, listening: tuple[socket.socket, socket.socket]) -> None:
    without_root(workshop, workshop.probing(arguments(workshop, listening)).command)
    found = json.loads((workshop.data / "probes.json").read_text())
    assert found["signal"] in REFUSED
    check(found, granted=False)


@pytest.mark.parametrize("language", ["py", "rs"])
def test_without_root_the_examples_conform(workshop: Workshop, language: str) -> None:
    cases = ("creates_and_reads_back", "lets_one_of_many_win", "lists_by_prefix", "deletes")
    without_root(workshop, workshop.example(language).command, *cases)


@pytest.mark.root
async def test_a_directory_that_is_not_its_own_is_named(workshop: Workshop) -> None:
    workshop.data.mkdir(mode=0o700)
    with pytest.raises(DestinationDenied, match=f"chown -R nobody {workshop.data}"):
        await open_destination("far", "plugin:tape", plugin=workshop.faulty("Fault"))


async def test_a_directory_that_is_not_there_is_named(workshop: Workshop) -> None:
    with pytest.raises(DestinationUnreachable, match="its directory .*data: No such file"):
        await open_destination("far", "plugin:tape", plugin=workshop.faulty("Fault"))


async def test_directories_are_made_and_each_name_is_synced(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(module_process, "sync_directory", synced.append)
    path = workshop.path / "a" / "b" / "own"
    await prepare_destination("far", "plugin:tape", plugin=PluginConfig("tape", command=("/bin/true",), directories=(str(path),)))
    assert synced == [str(above) for above in (workshop.path, workshop.path / "a", workshop.path / "a" / "b")]
    assert path.stat().st_mode & 0o777 == 0o700


async def test_a_program_that_is_not_there_is_named(workshop: Workshop) -> None:
    plugin = workshop.plugin("/usr/bin/no-such-module")
    await prepare_destination("far", "plugin:tape", plugin=plugin)
    with pytest.raises(DestinationUnreachable, match="far: plugin tape: the module was not run: .*no-such-module") as caught:
        await open_destination("far", "plugin:tape", plugin=plugin)
    assert not caught.value.retryable


@pytest.mark.root
@pytest.mark.parametrize("missing", ["program", "data"])
async def test_what_its_user_cannot_reach_is_named_and_the_directory_that_is_closed(workshop: Workshop, missing: str) -> None:
    closed = workshop.path / "closed"
    (closed / "below").mkdir(parents=True, mode=0o755)
    closed.chmod(0o700)
    path = closed / "below" / missing
    if missing == "program":
        shutil.copy("/bin/true", path)
        plugin = workshop.plugin(str(path))
    else:
        plugin = PluginConfig("tape", command=("/bin/true",), directories=(str(path),))
    await prepare_destination("far", "plugin:tape", plugin=plugin)
    with pytest.raises(DestinationUnreachable, match=f"{path} is out of reach .* to whom {closed} is closed: put it elsewhere"):
        await open_destination("far", "plugin:tape", plugin=plugin)


@pytest.mark.parametrize("user", ["root", "no-such-user"])
async def test_nobody_else_may_be_named(workshop: Workshop, user: str) -> None:
    with pytest.raises(ConfigurationError, match="user"):
        await open_destination("far", "plugin:tape", plugin=workshop.faulty("Fault", user=user))


async def test_what_the_kernel_lacks_is_said(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = workshop.path / "launcher"
    launcher.mkdir()
    source = Path(module_process.__file__).parent
    for name in ("module_launcher.py", "module_confinement.py"):
        text = (source / name).read_text()
        # As a kernel without Landlock answers.
        (launcher / name).write_text(
            text.replace("_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444,", "_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 9999,")
        )
    monkeypatch.setattr(module_process, "_LAUNCHER", launcher / "module_launcher.py")
    plugin = workshop.faulty("Fault")
    await prepare_destination("far", "plugin:tape", plugin=plugin)
    with pytest.raises(DestinationUnreachable, match="it cannot be confined: this kernel has no Landlock"):
        await open_destination("far", "plugin:tape", plugin=plugin)
    await (await open_destination("far", "plugin:tape", plugin=workshop.faulty("Fault", strict=False))).close()
