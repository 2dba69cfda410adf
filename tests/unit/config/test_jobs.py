"""A jobs file is read whole and checked whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.config import JobConfig, load_jobs
from snapferry.errors import ConfigurationError, SnapferryError
from snapferry.types import KiB, MiB

WHOLE = """
parallel = 3

[defaults]
to = "near"
min_copies = 1
tags = { by = "nightly", why = "habit" }

[[job]]
source = "disks/a.img"

[[job]]
source = "/dev/vg0/root"
volume = "vm/root"
to = ["near", "far"]
min_copies = 2
block_size = "512KiB"
parent = "none"
tags = { why = "upgrade" }
skip_unreadable = true
limit_rate = "50 MiB/s"
"""


def write(directory: Path, text: str) -> Path:
    file = directory / "jobs.toml"
    file.write_text(text)
    return file


def test_defaults_and_paths(tmp_path: Path) -> None:
    found = load_jobs(write(tmp_path, WHOLE))
    assert found.parallel == 3
    first, second = found.jobs
    assert first == JobConfig(f"{tmp_path}/disks/a.img", None, ("near",), 1, tags={"by": "nightly", "why": "habit"})
    tags = {"by": "nightly", "why": "upgrade"}
    assert second == JobConfig("/dev/vg0/root", "vm/root", ("near", "far"), 2, 512 * KiB, "none", tags, True, 50 * MiB)


def test_standard_input_is_no_path(tmp_path: Path) -> None:
    assert load_jobs(write(tmp_path, '[[job]]\nsource = "-"\nvolume = "v"')).jobs[0].source == "-"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"at least one \[\[job\]\]"),
        ("job = 3", r"at least one \[\[job\]\]"),
        ("[[job]]\nvolume = 'v'", r"\[\[job\]\] 1 has no source"),
        ("[[job]]\nsource = 'a'\n[[job]]\nsurce = 'b'", r"unknown key 'surce' in \[\[job\]\] 2 \(did you mean 'source'\?\)"),
        ("[[jobs]]\nsource = 'a'", r"unknown key 'jobs' in the file \(did you mean 'job'\?\)"),
        ("[defaults]\nsource = 'a'\n[[job]]\nsource = 'a'", r"unknown key 'source' in \[defaults\]"),
        ("[defaults]\nvolume = 'a'\n[[job]]\nsource = 'a'", r"unknown key 'volume' in \[defaults\]"),
        ("defaults = 3\n[[job]]\nsource = 'a'", r"\[defaults\] must be a table"),
        ("parallel = 0\n[[job]]\nsource = 'a'", "parallel: 0 must be a whole number of 1 or more"),
        ("parallel = true\n[[job]]\nsource = 'a'", "parallel: True must be"),
        ("[[job]]\nsource = 3", r"\[\[job\]\] 1: source: 3 must be text"),
        ("[[job]]\nsource = ''", r"source: '' must be text"),
        ('[[job]]\nsource = "a\\u0000"', r"source: .* must be text"),
        ("[[job]]\nsource = 'a'\nto = []", "to: an empty list"),
        ("[[job]]\nsource = 'a'\nto = [3]", "to: 3 must be text"),
        ("[[job]]\nsource = 'a'\nmin_copies = '2'", "min_copies: '2' must be a whole number"),
        ("[[job]]\nsource = 'a'\nblock_size = '1KB'", "block_size: .*'1KB' is not a size"),
        ("[[job]]\nsource = 'a'\nblock_size = 1.5", "block_size: 1.5 is not a size"),
        ("[[job]]\nsource = 'a'\ntags = ['x']", "tags: .* must be a table of texts"),
        ("[[job]]\nsource = 'a'\ntags = { x = 1 }", "tags: .* must be a table of texts"),
        ("[[job]]\nsource = 'a'\nskip_unreadable = 1", "skip_unreadable: 1 must be true or false"),
        ("[[job]]\nsource = 'a'\nlimit_rate = 'fast'", "limit_rate: .*'fast' is not a rate"),
        ("[[job]\n", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_jobs(write(tmp_path, text))
    assert str(tmp_path / "jobs.toml") in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_no_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SnapferryError, match="No such file") as caught:
        load_jobs(tmp_path / "jobs.toml")
    assert caught.value.exit_code == 1
    (tmp_path / "jobs.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not TOML"):
        load_jobs(tmp_path / "jobs.toml")
