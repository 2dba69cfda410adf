from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapferry.destination import open_destination, prepare_destination
from snapferry.errors import ConfigurationError, DestinationError, DestinationUnreachable


@pytest.mark.parametrize("shape", ["{}", "file://{}", "file://localhost{}", "FILE://{}"])
async def test_a_directory_is_opened_by_path_and_by_url(shape: str, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    url = shape.format(tmp_path / "a b") if shape == "{}" else shape.format(str(tmp_path) + "/a%20b")
    destination = await open_destination("near", url)
    await destination.create("config", b"x")
    assert (tmp_path / "a b" / "config").read_bytes() == b"x"
    assert destination.url == f"file://{tmp_path}/a%20b"
    assert destination.name == "near"
    await destination.close()


async def test_one_name_of_memory_is_one_place() -> None:
    first = await open_destination("a", "memory://opening-test")
    await first.create("config", b"x")
    await first.close()
    assert await (await open_destination("b", "memory://opening-test")).read("config", 1) == b"x"
    with pytest.raises(DestinationError):
        await (await open_destination("b", "memory://opening-other")).read("config", 1)


@pytest.mark.parametrize("url", ["gopher://x/y", "s4://bucket", "GOPHER://x"])
async def test_an_unknown_scheme_names_the_known(url: str) -> None:
    with pytest.raises(ConfigurationError, match="near: unknown scheme .* known are file, memory"):
        await open_destination("near", url)
    with pytest.raises(ConfigurationError):
        await prepare_destination("near", url)


@pytest.mark.parametrize(
    "url", ["", "file://", "file://host/path", "file:///a?b=c", "file:///a#b", "memory://", "memory://a/b", "a\0b", "file:///a%00b"]
)
async def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        await open_destination("near", url)


async def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="endpoint"):
        await open_destination("near", str(tmp_path), {"endpoint": "x"})


async def test_only_preparing_makes_a_root(tmp_path: Path) -> None:
    root = tmp_path / "x" / "y"
    with pytest.raises(DestinationUnreachable, match="missing"):
        await open_destination("near", str(root))
    assert not root.exists()
    await prepare_destination("near", str(root))
    await prepare_destination("near", str(root))
    assert os.stat(root).st_mode & 0o777 == 0o700
    await (await open_destination("near", str(root))).close()


async def test_a_file_where_the_root_should_be(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(DestinationUnreachable):
        await open_destination("near", str(tmp_path / "root"))
    with pytest.raises(DestinationError):
        await prepare_destination("near", str(tmp_path / "root"))
