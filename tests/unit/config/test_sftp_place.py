from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snapferry.config import load_config
from snapferry.config.sftp_place import SftpPlace, parse_sftp
from snapferry.destination import open_destination
from snapferry.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sftp://me@host/srv/backup", SftpPlace("host", "/srv/backup", "me")),
        ("sftp://host:2222/srv/backup/", SftpPlace("host", "/srv/backup", port=2222)),
        ("sftp://host/~/backup/x", SftpPlace("host", "backup/x")),
        ("sftp://me@[::1]:22/a%20b", SftpPlace("::1", "/a b", "me", 22)),
    ],
)
def test_what_a_url_names(url: str, place: SftpPlace) -> None:
    assert parse_sftp(url, {}, "here") == place
    assert parse_sftp(place.url, {}, "here").url == place.url


@pytest.mark.parametrize(
    ("url", "options", "match"),
    [
        ("sftp://me:secret@host/x", {}, "a password does not belong in a URL"),
        ("sftp://me:secret/y@host/x", {}, "should read"),
        ("sftp://me:secret#y@host/x", {}, "should read"),
        ("sftp://me:secret?y@host/x", {}, "should read"),
        ("sftp://[::1/x", {}, "should read"),
        ("sftp://-oProxyCommand=x/a", {}, "should read"),
        ("sftp://$(reboot)/a", {}, "should read"),
        ("sftp://-l@host/a", {}, "should read"),
        ("sftp://a%60b%60@host/a", {}, "should read"),
        ("sftp:///x", {}, "should read sftp://USER@HOST/PATH"),
        ("sftp://host", {}, "should read"),
        ("sftp://host/", {}, "should read"),
        ("sftp://host/~/", {}, "should read"),
        ("sftp://host/a/../b", {}, "should read"),
        ("sftp://host:99999/a", {}, "should read"),
        ("sftp://host/a?x=1", {}, "should read"),
        ("sftp://host/a", {"password": "x"}, "password does not belong in the configuration"),
        ("sftp://host/a", {"identity_fil": "x"}, "did you mean 'identity_file'"),
        ("sftp://host/a", {"identity_file": 1}, "must be text"),
        ("sftp://host/a", {"stall_timeout": 0}, "must be seconds"),
        ("sftp://host/a", {"port": 0}, "must be a number from 1 to 65535"),
        ("sftp://host/a", {"port": True}, "must be a number"),
        ("sftp://host:1/a", {"port": 2}, "give one"),
        ("sftp://host/a", {"naming": "lnk"}, "did you mean 'link'"),
        ("sftp://host/a", {"conditional_put": "yes"}, "must be true or false"),
        ("sftp://host/a", {"host_key": 1}, "must be text"),
    ],
)
def test_what_is_refused(url: str, options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        parse_sftp(url, options, "here")
    assert "secret" not in str(caught.value)


def test_options_say_what_the_url_may_leave_out() -> None:
    options = {"port": 2222, "host_key": "ssh-ed25519 AAAA", "naming": "rename", "conditional_put": False}
    place = parse_sftp("sftp://host/a", options, "here")
    assert (place.port, place.host_key, place.naming, place.conditional_put) == (2222, "ssh-ed25519 AAAA", "rename", False)
    assert place.url == parse_sftp("sftp://HOST:2222/a/", {}, "here").url


async def test_a_host_key_that_is_none_is_said_to_be_none() -> None:
    with pytest.raises(ConfigurationError, match="host_key: this is no public key"):
        await open_destination("far", "sftp://host/a", {"host_key": "SHA256:abc"})


def test_asyncssh_is_loaded_for_an_sftp_place_alone() -> None:
    code = (
        "import sys, asyncio, snapferry.cli.main, snapferry.engine\n"
        "from snapferry.destination import open_destination\n"
        "asyncio.run(open_destination('near', 'memory://x'))\n"
        "assert 'asyncssh' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paths_are_seen_from_the_configuration_and_one_place_is_one_place(tmp_path: Path) -> None:
    text = '[[destination]]\nname = "a"\nurl = "sftp://host/srv/backup"\noptions = { identity_file = "id", known_hosts = "/etc/hosts.known" }\n'
    file = tmp_path / "snapferry.toml"
    file.write_text(text)
    assert load_config(file, environment={}).destination("a").options == {
        "identity_file": str(tmp_path / "id"),
        "known_hosts": "/etc/hosts.known",
    }
    file.write_text(text + '[[destination]]\nname = "b"\nurl = "sftp://host:22/srv/backup/"\n')
    with pytest.raises(ConfigurationError, match="are the same place"):
        load_config(file, environment={})
