"""Buckets from the command line: the main job with one in the place of each directory, and what is said when it cannot be."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from snapferry.testing.http_faults import Answers, FaultProxy, ResetsInBody, s3_error
from tests.support.s3_servers import Server

BLOCK = 256 << 10


@dataclass
class Host:
    """A machine with a home of its own and some server's credentials."""

    root: Path
    server: Server
    more: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAPFERRY", "XDG_", "AWS_"))}
        environment = kept | self.server.environment | {"HOME": str(self.root), "AWS_REGION": "us-east-1"} | self.more
        self.root.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "snapferry.cli.main", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.root, check=False)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        for secret in (self.server.secret_key, self.server.access_key):
            assert len(secret) < 16 or secret not in done.stdout + done.stderr
        return done

    @property
    def config(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "snapferry.toml").read_text())


def volume(seed: int) -> bytes:
    choice = random.Random(seed)
    return choice.randbytes(5 * BLOCK) + bytes(2 * BLOCK) + b"text " * (BLOCK // 5) + choice.randbytes(3 * BLOCK + 100)


@pytest.fixture
def places() -> str:
    return f"commands/{os.urandom(4).hex()}"


@pytest.mark.parametrize("far", ["bucket", "directory"])
def test_the_main_job(s3_server: Server, places: str, tmp_path: Path, far: str) -> None:
    host = Host(tmp_path / "host", s3_server)
    near_url = f"{s3_server.url(places)}/near?endpoint={s3_server.endpoint}"
    far_url = f"{s3_server.url(places)}/far?endpoint={s3_server.endpoint}" if far == "bucket" else str(tmp_path / "far")
    made = host.run("init", "--to", f"near={near_url}", "--to", f"far={far_url}")
    has = s3_server.name == "moto"
    assert [entry.get("options") for entry in host.config["destination"]] == [
        {"conditional_put": has},
        {"conditional_put": has} if far == "bucket" else None,
    ]
    assert ("prune will ask for --exclusive" in made.stderr) is not has

    first, second = volume(1), volume(1)[:BLOCK] + random.Random(2).randbytes(BLOCK) + volume(1)[2 * BLOCK :]
    image = host.root / "disk.img"
    for data in (first, second):
        image.write_bytes(data)
        host.run("export", "disk.img", "--volume", "vm/root")
    for name, data in (("vm/root~1", first), ("vm/root", second)):
        host.run("restore", name, "restored.img", "--force")
        assert (host.root / "restored.img").read_bytes() == data
    assert "all well" in host.run("verify", "--read-data", "100").stdout

    if s3_server.root is not None:
        # A replica rots beneath the server: what it loses comes from the other, and verify names it.
        packs = sorted((s3_server.root / "backups" / places / "near/packs").rglob("*"), key=lambda path: -path.stat().st_size)
        rotten = bytearray(packs[0].read_bytes())
        for position in range(300, len(rotten), 5000):
            rotten[position] ^= 0xFF
        packs[0].write_bytes(rotten)
        host.run("restore", "vm/root", "healed.img", "--from", "near", "--from", "far")
        assert (host.root / "healed.img").read_bytes() == second
        assert packs[0].name in host.run("verify", "--read-data", "100", "--destination", "near", code=4).stdout

    # Another machine, from the bucket alone (or from the other place, where the first one rots).
    blank = Host(tmp_path / "blank", s3_server)
    alone = far_url if s3_server.root is not None else near_url
    blank.run("connect", "--from", f"only={alone}", "--key-file", host.root / "snapferry.key")
    blank.run("restore", "vm/root~1", "first.img")
    assert (blank.root / "first.img").read_bytes() == first
    (blank.root / "disk.img").write_bytes(first)
    blank.run("export", "disk.img", "--volume", "vm/root")
    if alone.startswith("s3:"):
        assert blank.config["destination"][0]["options"] == {"conditional_put": has}


@pytest.fixture(scope="module")
def proxied(moto_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, FaultProxy]]:
    """A repository in one bucket behind a proxy, with one snapshot. Faults are used up before a test ends."""
    with FaultProxy(moto_server.endpoint) as proxy:
        host = Host(tmp_path_factory.mktemp("proxied"), moto_server, {"AWS_ENDPOINT_URL_S3": proxy.endpoint})
        host.run("init", "--to", moto_server.url("proxied"))
        (host.root / "disk.img").write_bytes(volume(3))
        host.run("export", "disk.img")
        yield host, proxy


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (Answers(403, s3_error("InvalidAccessKeyId")), 12, "does not know this access key; check AWS_ACCESS_KEY_ID"),
        (
            Answers(403, s3_error("RequestTimeTooSkewed"), {"Date": "Wed, 25 Nov 2020 10:00:00 GMT"}),
            12,
            "clock is .* ahead of the server's",
        ),
        (Answers(404, s3_error("NoSuchBucket")), 13, "there is no such bucket; make it"),
        (Answers(301, s3_error("PermanentRedirect"), {"x-amz-bucket-region": "eu-west-1"}), 13, "the bucket is in the region eu-west-1"),
        (Answers(404, s3_error("NoSuchKey")), 10, "no repository at s3://backups/"),
        (Answers(503, s3_error("SlowDown"), {"Retry-After": "90"}), 13, "busy or in trouble, and asks to be left alone for 90 s"),
    ],
    ids=["403", "clock", "bucket", "region", "404", "503"],
)
def test_what_is_refused_ends_with_its_code(proxied: tuple[Host, FaultProxy], fault: Answers, code: int, says: str) -> None:
    host, proxy = proxied
    fault.left = 1000
    proxy.add(fault)
    said = host.run("list", code=code).stderr.splitlines()[-1]
    fault.left = 0
    assert re.search(f"^snapferry: .*cloud: .*{says}", said), said


def test_what_passes_is_got_over(proxied: tuple[Host, FaultProxy]) -> None:
    host, proxy = proxied
    proxy.add(Answers(503, s3_error("SlowDown"), {"Retry-After": "1"}, method="GET"))
    proxy.add(ResetsInBody(20_000, method="GET", touches="packs/", times=2))
    proxy.add(Answers(500, method="PUT", touches="packs/"))
    host.run("restore", "disk.img", "restored.img")
    assert (host.root / "restored.img").read_bytes() == volume(3)
    (host.root / "disk.img").write_bytes(volume(4))
    host.run("export", "disk.img")
    assert "all well" in host.run("verify", "--read-data", "100").stdout


def test_no_credentials(moto_server: Server, places: str, tmp_path: Path) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL_S3": moto_server.endpoint}
    host = Host(tmp_path / "host", moto_server, nobody)
    said = host.run("init", "--to", moto_server.url(places), code=12).stderr
    assert "no AWS credentials were found; set AWS_ACCESS_KEY_ID" in said
    assert not (host.root / "snapferry.toml").exists()


def test_wrong_credentials(rclone_server: Server, places: str, tmp_path: Path) -> None:
    wrong = {"AWS_SECRET_ACCESS_KEY": "x" * 40, "AWS_ENDPOINT_URL_S3": rclone_server.endpoint}
    host = Host(tmp_path / "host", rclone_server, wrong)
    said = host.run("init", "--to", rclone_server.url(places), code=12).stderr
    assert "check AWS_SECRET_ACCESS_KEY" in said


def test_usage(moto_server: Server, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", moto_server)
    assert "did you mean 'endpoint'?" in host.run("init", "--to", "s3://bucket/x?endpont=http://h", code=2).stderr
    assert "credentials do not belong in a URL" in host.run("init", "--to", "s3://key:hush@bucket/x", code=2).stderr
    assert "hush" not in host.run("init", "--to", "s3://key:hush@bucket/x", code=2).stderr


def test_a_bucket_is_never_made(moto_server: Server, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", moto_server, {"AWS_ENDPOINT_URL_S3": moto_server.endpoint})
    said = host.run("init", "--to", "s3://not-there/x", code=13).stderr
    assert "there is no such bucket; make it (`aws" in said
