"""Tokens and roles, and what the configuration of the service may say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from snapferry.config.service import AccessConfig, load_service_config
from snapferry.errors import AccessDenied, ConfigurationError
from snapferry.service.access import grant_of, grants_of, new_token
from snapferry.service.running import serve

TOKEN = "a-token-that-tests-know-" + "x" * 24
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
GOOD = f"""
[service]
listen = "127.0.0.1:0"
[[store]]
name = "main"
path = "store"
[[access]]
token_sha256 = "{DIGEST}"
role = "append"
stores = ["main"]
"""


def test_a_token_and_its_hash() -> None:
    token, digest = new_token()
    assert hashlib.sha256(token.encode()).hexdigest() == digest
    assert new_token()[0] != token
    assert len(token) >= 43


def test_who_is_known(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-in-a-file-of-its-own\n")
    grants = grants_of([AccessConfig(DIGEST, None, "append", ("main",)), AccessConfig(None, file, "read", ("main", "b"))])
    append, read = grant_of(f"Bearer {TOKEN}", grants), grant_of("bearer a-token-in-a-file-of-its-own", grants)
    assert append is grants[0]
    assert read is grants[1]
    for header in (None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer " + "x" * 10_000, "Bearer \udcff"):
        assert grant_of(header, grants) is None
    assert [append.allows(role, "main") for role in ("read", "append", "full")] == [True, True, False]
    assert [read.allows(role, "b") for role in ("read", "append", "full")] == [True, False, False]
    assert not append.allows("read", "b")
    assert DIGEST not in repr(grants)
    file.write_text("short")
    with pytest.raises(AccessDenied, match="holds no token"):
        grants_of([AccessConfig(None, file, "read", ("main",))])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('listen = "127.0.0.1:0"', 'listen = "127.0.0.1"', "HOST:PORT"),
        ('listen = "127.0.0.1:0"', 'tls_cert = "x"', "go together"),
        ('listen = "127.0.0.1:0"', 'memory = "1MiB"', "at least"),
        ('listen = "127.0.0.1:0"', 'lisen = "x"', "did you mean 'listen'"),
        (f'token_sha256 = "{DIGEST}"', f'token_sha256 = "{TOKEN}"', "64 hex digits"),
        (f'token_sha256 = "{DIGEST}"', "", "give one"),
        ('role = "append"', 'role = "apend"', "did you mean 'append'"),
        ('stores = ["main"]', 'stores = ["mian"]', "did you mean 'main'"),
        ('name = "main"', 'name = "a/b"', "letters"),
        ('path = "store"', "", "no path"),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, old: str, new: str, words: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(GOOD)
    assert load_service_config(file).stores[0].path == tmp_path / "store"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_service_config(file)
    assert TOKEN not in str(caught.value)


async def test_a_public_address_needs_tls(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(GOOD.replace("127.0.0.1:0", "0.0.0.0:0"))
    (tmp_path / "store").mkdir()
    with pytest.raises(ConfigurationError, match="allow-plain-http"):
        await serve(load_service_config(file), allow_plain_http=False, ready=lambda url: None)
