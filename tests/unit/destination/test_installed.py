"""Python plug-ins: real distributions, installed into a directory that is put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from snapferry.config import DestinationConfig, new_config
from snapferry.destination import open_destination, prepare_destination
from snapferry.errors import ConfigurationError, DestinationDenied, DestinationError

GOOD = """
from snapferry.destination.memory import MemoryDestination

async def make(name, url, options, *, writable):
    return MemoryDestination(name, {}, url=url + str(sorted(options)) + str(writable))

def not_async(name, url, options, *, writable):
    return MemoryDestination(name, {}, url=url)

async def no_destination(name, url, options, *, writable):
    return {"name": name}

async def fails(name, url, options, *, writable):
    raise KeyError("drive")

async def refuses(name, url, options, *, writable):
    from snapferry.errors import DestinationDenied
    raise DestinationDenied("no badge", name)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "vault_plugin.py").write_text(GOOD)
    (tmp_path / "broken_plugin.py").write_text("import no_such_library\n")

    def install(entry: str, package: str = "vault") -> None:
        information = tmp_path / f"{package}-1.2.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (information / "entry_points.txt").write_text(f"[snapferry.destinations]\nvault = {entry}\n")

    yield install
    sys.modules.pop("vault_plugin", None)


async def test_a_scheme_of_an_installed_package(install, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError, match="unknown scheme 'vault'"):
        await open_destination("far", "vault://x/y")
    install("vault_plugin:make")
    await prepare_destination("far", "vault://x/y")
    assert "vault_plugin" not in sys.modules
    config = new_config(tmp_path / "c.toml", [DestinationConfig("far", "vault://x/y", options={"z": 1})], environment={})
    assert "vault_plugin" not in sys.modules
    place = config.destinations[0]
    destination = await open_destination("far", place.url, place.options, writable=False)
    assert destination.url == "vault://x/y['z']False"
    assert await destination.create("config", b"x") is True
    with pytest.raises(
        ConfigurationError, match=r"unknown scheme 'vaults'.*known are file, memory, plugin, s3, sftp.*, vault, or a path"
    ) as caught:
        await open_destination("far", "vaults://x")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("broken_plugin:make", r"the Python plug-in for vault:// \(vault 1.2: broken_plugin:make\) cannot be loaded: ModuleNotFoundError"),
        ("vault_plugin:nothing", "cannot be loaded: AttributeError"),
        ("vault_plugin:not_async", "should be an async function, and gave a MemoryDestination"),
        ("vault_plugin:no_destination", "gave a dict, which is no destination: it has no capabilities, close, create"),
    ],
)
async def test_a_broken_one_is_named(install, entry: str, said: str) -> None:  # type: ignore[no-untyped-def]
    install(entry)
    with pytest.raises(ConfigurationError, match=said):
        await open_destination("far", "vault://x")


async def test_what_it_raises(install) -> None:  # type: ignore[no-untyped-def]
    install("vault_plugin:fails")
    with pytest.raises(DestinationError, match="far: the Python plug-in for vault:// .* failed: KeyError: 'drive'"):
        await open_destination("far", "vault://x")
    install("vault_plugin:refuses")
    with pytest.raises(DestinationDenied, match="far: no badge"):
        await open_destination("far", "vault://x")


async def test_two_that_offer_the_same(install) -> None:  # type: ignore[no-untyped-def]
    install("vault_plugin:make")
    install("vault_plugin:fails", "other")
    with pytest.raises(ConfigurationError, match="more than one package offers it: vault_plugin:fails, vault_plugin:make"):
        await open_destination("far", "vault://x")
