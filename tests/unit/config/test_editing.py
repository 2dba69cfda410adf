"""Changes to a configuration file that people write: what they wrote stays, and a change that fails changes nothing."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from snapferry.config import DestinationConfig, Price, load_config
from snapferry.config.editing import add_destination, check_added, check_removed, remove_destination
from snapferry.errors import ConfigurationError, SnapferryError
from tests.support.tmpfs import tmpfs

TEXT = """\
# the backup of the lab
[repository]
id = "00000000000000000000000000000000"  # do not touch

# the disk
[[destination]]
name = "near"   # fast
url = "/srv/near"

# the nas
[[destination]]
name = "far"
url = "/srv/far"
# far's end

# how many copies
[placement]
min_copies = 1
"""
CLOUD = DestinationConfig(
    "cloud", "s3://bucket/x", price=Price(0.5), options={"endpoint": "http://x:1", "path_style": True}, limit_rate=50 << 20
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "snapferry.toml"
    path.write_text(TEXT)
    return path


def test_what_is_added_stands_after_the_others_and_every_line_stays(file: Path) -> None:
    config = add_destination(load_config(file), CLOUD)
    assert [destination.name for destination in config.destinations] == ["near", "far", "cloud"]
    assert config == load_config(file)
    added = config.destination("cloud")
    assert (added.url, added.price, dict(added.options), added.limit_rate) == (
        CLOUD.url,
        CLOUD.price,
        dict(CLOUD.options),
        CLOUD.limit_rate,
    )
    lines = file.read_text().splitlines()
    assert set(TEXT.splitlines()) <= set(lines)
    # Comments stay with what they are about.
    assert lines.index("# how many copies") + 1 == lines.index("[placement]")
    assert lines.index("# far's end") == lines.index('url = "/srv/far"') + 1
    assert lines.index('name = "cloud"') < lines.index("# how many copies")
    assert remove_destination(config, "cloud") == load_config(file)
    assert [line for line in file.read_text().splitlines() if line] == [line for line in TEXT.splitlines() if line]


def test_what_is_removed_takes_nothing_of_its_neighbours(file: Path) -> None:
    config = remove_destination(load_config(file), "near")
    assert [destination.name for destination in config.destinations] == ["far"]
    lines = file.read_text().splitlines()
    assert lines.index("# the nas") + 1 == lines.index("[[destination]]")
    assert {"# the backup of the lab", "# far's end", "# how many copies"} <= set(lines)
    with pytest.raises(ConfigurationError, match="destination"):
        remove_destination(config, "far")


@pytest.mark.parametrize(
    "text",
    [
        'destination = [{ name = "near", url = "/a" }, { name = "far", url = "/b" }]  # in one line\n[engine]\nmemory = "128MiB"\n',
        '[[destination]]\nname="near"\nurl="/a"\n[engine]\nmemory="128MiB" # small\n[[destination]]\nname="far"\nurl="/b"\n',
        'engine.memory="128MiB"\r\n[[destination]]\r\nname="near"\r\nurl="/a"\r\n[[destination]]\r\nname="far"\r\nurl="/b"',
        '[[destination]]\nname="near"\nurl="/a"\n[[destination]]\nname="far"\nurl="/b"\n[destination.price]\negress_gb = 1\n[engine]\nmemory="128MiB"\n',
    ],
)
def test_however_it_is_laid_out(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    before = load_config(file)
    config = add_destination(before, CLOUD)
    assert config.destinations[:2] == before.destinations
    assert (config.engine, config.destinations[2].url) == (before.engine, CLOUD.url)
    assert remove_destination(config, "cloud").destinations == before.destinations
    assert [destination.name for destination in remove_destination(config, "near").destinations] == ["far"]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (DestinationConfig("near", "/elsewhere"), "two destinations are named"),
        (DestinationConfig("other", "/srv/../srv/far"), "the same place"),
        (DestinationConfig("other", "gopher://x"), "gopher"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(file: Path, added: DestinationConfig, said: str) -> None:
    for change in (check_added, add_destination):
        with pytest.raises(ConfigurationError, match=said):
            change(load_config(file), added)
    assert file.read_text() == TEXT


def test_more_copies_than_are_left_are_refused(file: Path) -> None:
    file.write_text(TEXT.replace("min_copies = 1", "min_copies = 2"))
    for change in (check_removed, remove_destination):
        with pytest.raises(ConfigurationError, match="2 copies"):
            change(load_config(file), "far")
    assert "min_copies = 2" in file.read_text()


def test_somebody_elses_change_is_kept(file: Path) -> None:
    config = load_config(file)
    file.write_text(TEXT.replace("min_copies = 1", "min_copies = 2  # changed since"))
    assert add_destination(config, CLOUD).placement.min_copies == 2
    assert "changed since" in file.read_text()


def test_mode_and_link_stay(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    add_destination(load_config(link), CLOUD)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "cloud" in file.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.toml", "snapferry.toml"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=64k") as small:
        file = small / "snapferry.toml"
        file.write_text(TEXT)
        config = load_config(file)
        filler = os.open(small / "filler", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(filler, bytes(4096))
        os.close(filler)
        with pytest.raises(SnapferryError, match="as it was") as caught:
            add_destination(config, CLOUD)
        assert caught.value.exit_code == 14
        assert file.read_text() == TEXT
        assert sorted(path.name for path in small.iterdir()) == ["filler", "snapferry.toml"]


def test_two_at_once_lose_neither(file: Path) -> None:
    program = (
        "import sys; from snapferry.config import *; from snapferry.config.editing import *\n"
        "add_destination(load_config(sys.argv[1]), DestinationConfig(sys.argv[2], '/srv/' + sys.argv[2]))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(file), f"d{number}"]) for number in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert {destination.name for destination in load_config(file).destinations} == {"near", "far", "d0", "d1", "d2", "d3"}
