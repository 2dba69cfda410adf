from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.config import (
    Config,
    DestinationConfig,
    EngineConfig,
    Price,
    find_config,
    format_size,
    load_config,
    new_config,
    new_config_path,
    parse_destination,
    parse_size,
    write_config,
)
from snapferry.config.s3_place import S3Place, parse_s3
from snapferry.errors import AccessDenied, ConfigurationError, NotARepository, SnapferryError

MINIMAL = '[[destination]]\nname = "near"\nurl = "file:///srv/backup"\n'
S3 = '[[destination]]\nname = "a"\nurl = "s3://bucket/x"\n'
ENVIRONMENT = {"HOME": "/home/someone"}


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None, **flags: str | int) -> Config:
    file = tmp_path / "snapferry.toml"
    file.write_text(text)
    return load_config(file, environment=ENVIRONMENT | (environment or {}), flags={key.replace("__", "."): v for key, v in flags.items()})


def refused(tmp_path: Path, text: str, match: str, environment: dict[str, str] | None = None) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        load(tmp_path, text, environment)
    assert caught.value.exit_code == 2


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.repository.id is None
    assert config.repository.key_file == tmp_path / "snapferry.key"
    assert config.repository.cache_dir == Path("/home/someone/.cache/snapferry")
    assert config.repository.state_dir == Path("/home/someone/.local/state/snapferry")
    assert config.engine.memory == 256 << 20
    assert (config.engine.check_built, config.engine.codec, config.engine.level) == ("full", "zstd", 1)
    assert (config.placement.policy, config.placement.min_copies) == ("mirror", 1)
    assert config.destinations == (DestinationConfig("near", "file:///srv/backup"),)
    assert config.with_id("ab" * 16).catalog_url().endswith(f"catalog-{'ab' * 16}.sqlite")


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = (
        '[repository]\nkey_file = "keys/k"\ncache_dir = "c"\ncatalog = "sqlite:///cat.sqlite"\n[[destination]]\nname = "a"\nurl = "../b"\n'
    )
    config = load(tmp_path, text)
    assert config.repository.key_file == tmp_path / "keys/k"
    assert config.repository.cache_dir == tmp_path / "c"
    assert config.catalog_url() == f"sqlite:///{tmp_path}/cat.sqlite"
    assert config.destinations[0].url == str(tmp_path.parent / "b")


def test_a_flag_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    text = MINIMAL + '[engine]\nmemory = "128MiB"\nlevel = 2\ncodec = "lz4"\n'
    environment = {"SNAPFERRY_ENGINE_MEMORY": "1GiB", "SNAPFERRY_ENGINE_LEVEL": "3", "XDG_CACHE_HOME": "/var/c", "SNAPFERRY_CONFIG": "/x"}
    config = load(tmp_path, text, environment, engine__level=4)
    assert config.engine.memory == 1 << 30
    assert config.engine.level == 4
    assert config.engine.codec == "lz4"
    origins = {setting.key: setting.origin for setting in config.settings()}
    assert origins["engine.memory"] == "environment SNAPFERRY_ENGINE_MEMORY"
    assert origins["engine.level"] == "flag"
    assert origins["engine.codec"] == f"file:{tmp_path / 'snapferry.toml'}"
    assert origins["engine.check_built"] == "default"
    assert origins["destination.near.url"].startswith("file:")
    assert config.repository.cache_dir == Path("/var/c/snapferry")


def test_a_place_in_a_bucket(tmp_path: Path) -> None:
    text = S3.replace("bucket/x", "bucket/a%20b/c/?endpoint=HTTP://Host:9000/&path_style=no")
    config = load(tmp_path, text + 'options = { ca_bundle = "ca.pem", first_byte_timeout = 5, profile = "p", conditional_put = false }\n')
    found = config.destinations[0]
    assert found.options["ca_bundle"] == str(tmp_path / "ca.pem")
    place = parse_s3(found.url, found.options, "here")
    assert place == S3Place(
        "bucket", "a b/c", "http://host:9000", None, False, str(tmp_path / "ca.pem"), "p", False, True, "auto", 5.0, 30.0
    )
    assert place.url == "s3://bucket/a%20b/c?endpoint=http://host:9000"


def test_one_prefix_of_one_bucket_at_two_servers_is_two_places(tmp_path: Path) -> None:
    one, other = (S3.replace('"a"', f'"{name}"') + f'options = {{ endpoint = "http://{name}" }}\n' for name in ("a", "b"))
    assert len(load(tmp_path, one + other).destinations) == 2


def test_secrets_are_hidden(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL + 'options = { path_style = true, secret_key = "hush" }\n')
    assert "hush" not in repr([setting.value for setting in config.settings()])
    assert "path_style" in repr([setting.value for setting in config.settings()])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (MINIMAL + "[engine]\nmemroy = 1\n", r"unknown key 'memroy' in \[engine\] \(did you mean 'memory'\?\)"),
        (MINIMAL + "[enigne]\n", r"unknown key 'enigne' .*'engine'"),
        (MINIMAL + 'slwo = "block"\n', r"unknown key 'slwo' .*'slow'"),
        (MINIMAL + "price = { store_gb = 1 }\n", r"unknown key 'store_gb' .*'store_gb_month'"),
        (MINIMAL + 'price = { egress_gb = "much" }\n', "numbers of 0 or more"),
        (MINIMAL + 'slow = "drop"\n', r"slow: 'drop'"),
        (MINIMAL + 'patience = "long"\n', r"patience is a number of seconds"),
        (MINIMAL + 'slow = "sometimes"\n', r"'sometimes' is unknown"),
        (MINIMAL + '[placement]\npolicy = "miror"\n', r"'miror' is unknown \(did you mean 'mirror'\?\)"),
        (MINIMAL + "[placement]\nmin_copies = 0\n", "from 1 to"),
        (MINIMAL + "[placement]\nmin_copies = true\n", "from 1 to"),
        (MINIMAL + "[placement]\nmin_copies = 2\n", "only 1 destination"),
        (MINIMAL + '[engine]\nmemory = "lots"\n', "is not a size"),
        (MINIMAL + '[engine]\nmemory = "1MiB"\n', "too small"),
        (MINIMAL + "[engine]\nmemory = [1]\n", "is not a size"),
        (MINIMAL + '[engine]\ncheck_built = "never"\n', "'never' is unknown"),
        (MINIMAL + "[engine]\ncheck_built = 1\n", "must be text"),
        (MINIMAL + '[repository]\nid = "short"\n', "not a repository's id"),
        (MINIMAL + '[repository]\npassphrase_file = "x"\nkey_file = "y"\n', "key_file is given too"),
        (MINIMAL + '[repository]\npassphrase_file = "x"\npassphrase_command = "y"\n', "passphrase_file is given too"),
        (MINIMAL + "[repository]\npassphrase_command = 1\n", "must be text"),
        (MINIMAL + '[repository]\ncatalog = "postgresql://h/d"\n', "'postgresql' is not offered by this version yet"),
        (MINIMAL + '[repository]\ncatalog = "mysql:///d"\n', "'mysql' is unknown"),
        ("engine = 3\n" + MINIMAL, "must be a table"),
        ("[engine\n", "not TOML"),
        ("", r"at least one \[\[destination\]\]"),
        ("destination = 3\n", r"at least one \[\[destination\]\]"),
        ('[[destination]]\nname = "a/b"\nurl = "/x"\n', "name must be"),
        ('[[destination]]\nurl = "/x"\n', "name must be"),
        ('[[destination]]\nname = "a"\n', "has no url"),
        ('[[destination]]\nname = "a"\nurl = "ftp://h/x"\n', r"scheme 'ftp' is unknown"),
        ('[[destination]]\nname = "a"\nurl = "gs://bucket/x"\n', r"scheme 'gs' is not offered by this version yet"),
        (S3 + 'options = { endpont = "http://h" }\n', r"s3 has no option 'endpont' \(did you mean 'endpoint'\?\)"),
        (S3 + 'options = { path_style = "maybe" }\n', "path_style: 'maybe' must be true or false"),
        (S3 + "options = { region = 3 }\n", "region: 3 must be text"),
        (S3 + "options = { stall_timeout = 0 }\n", "stall_timeout: 0 must be seconds"),
        (S3 + 'options = { checksum = "crc33" }\n', r"'crc33' is unknown \(did you mean 'crc32'\?\)"),
        (S3 + 'options = { endpoint = "h:9000" }\n', "should read https://HOST"),
        (S3 + 'options = { endpoint = "http://u:hush@h" }\n', "credentials do not belong in a URL"),
        (S3 + 'options = { secret_access_key = "hush" }\n', "secret_access_key does not belong in the configuration"),
        (S3.replace("bucket/x", "bucket/x?regoin=y"), r"s3 has no option 'regoin' \(did you mean 'region'\?\)"),
        (S3.replace("bucket/x", "bucket/x?region=y") + 'options = { region = "z" }\n', "region is given twice"),
        (S3.replace("bucket/x", "u:hush@bucket/x"), "credentials do not belong in a URL"),
        (S3.replace("bucket/x", ""), "should read s3://BUCKET"),
        (S3.replace("bucket/x", "bucket/x/../y"), "a prefix that no key may have"),
        (S3 + S3.replace('"a"', '"b"').replace("x", "x/"), "'a' and 'b' are the same place: s3://bucket/x/"),
        ('[[destination]]\nname = "a"\nurl = "sftp://u:hush@h/x"\n', r"sftp://u:\(hidden\)@h"),
        ('[[destination]]\nname = "a"\nurl = "file://host/x"\n', "three slashes"),
        (MINIMAL + MINIMAL, "two destinations are named 'near'"),
        (MINIMAL + '[[destination]]\nname = "b"\nurl = "/srv/x/../backup/"\n', "'near' and 'b' are the same place"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, text: str, match: str) -> None:
    refused(tmp_path, text, match)


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, MINIMAL, "SNAPFERRY_ENGINE_MEMROY .*SNAPFERRY_ENGINE_MEMORY", {"SNAPFERRY_ENGINE_MEMROY": "1GiB"})
    refused(tmp_path, MINIMAL, "environment SNAPFERRY_PLACEMENT_MIN_COPIES", {"SNAPFERRY_PLACEMENT_MIN_COPIES": "many"})


def test_an_unknown_destination_names_the_nearest(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.destination("near").url == "file:///srv/backup"
    with pytest.raises(ConfigurationError, match="did you mean 'near'"):
        config.destination("neer")


def test_the_usual_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    with pytest.raises(NotARepository, match="snapferry init") as caught:
        find_config(environment=environment)
    assert caught.value.exit_code == 10
    (tmp_path / "xdg/snapferry").mkdir(parents=True)
    (tmp_path / "xdg/snapferry/snapferry.toml").touch()
    assert find_config(environment=environment) == tmp_path / "xdg/snapferry/snapferry.toml"
    (tmp_path / "snapferry.toml").touch()
    assert find_config(environment=environment) == tmp_path / "snapferry.toml"
    (tmp_path / "other.toml").touch()
    assert find_config(environment=environment | {"SNAPFERRY_CONFIG": "other.toml"}) == tmp_path / "other.toml"
    assert find_config("snapferry.toml", environment | {"SNAPFERRY_CONFIG": "other.toml"}) == tmp_path / "snapferry.toml"
    with pytest.raises(NotARepository, match=r"missing\.toml"):
        find_config("missing.toml", environment)
    assert new_config_path(None, {"SNAPFERRY_CONFIG": "/x/y"}) == Path("/x/y")
    assert new_config_path(None, {}) == tmp_path / "snapferry.toml"


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    destinations = [
        DestinationConfig("near", "file:///srv/a b", price=Price(egress_gb=0.5)),
        DestinationConfig("odd", '/srv/quote"and\\slash\tü', options={"x": 1, "y": [True, "z"]}),
    ]
    config = new_config(tmp_path / "deep/snapferry.toml", destinations, repository_id="cd" * 16, min_copies=2)
    config = dataclasses.replace(
        config,
        repository=dataclasses.replace(config.repository, cache_dir=tmp_path / "c", catalog=f"sqlite:///{tmp_path}/x.sqlite"),
        engine=dataclasses.replace(config.engine, codec="lz4", memory=(100 << 20) + 1),
    )
    write_config(config)
    assert config.path.stat().st_mode & 0o777 == 0o600
    again = load_config(config.path)
    assert again.repository == config.repository
    assert again.placement == config.placement
    assert again.engine == config.engine
    assert again.destinations[1] == config.destinations[1]
    before = config.path.read_bytes()
    with pytest.raises(SnapferryError, match="exists already") as caught:
        write_config(config)
    assert caught.value.exit_code == 1
    assert config.path.read_bytes() == before


def test_flags_name_destinations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_destination("far=file:///srv/x=y") == DestinationConfig("far", "file:///srv/x=y")
    assert parse_destination("file:///a=b") == DestinationConfig("near", "file:///a=b")
    assert parse_destination("backup") == DestinationConfig("near", str(tmp_path / "backup"))
    assert parse_destination("backup", ["near", "near-2"]).name == "near-3"
    assert parse_destination("s3://bucket/x", ["near"]) == DestinationConfig("cloud", "s3://bucket/x")
    assert parse_destination("s3://bucket/y", ["cloud"]).name == "cloud-2"
    assert parse_destination("http://host/x") == DestinationConfig("far", "http://host/x")
    assert parse_destination("off=HTTPS://Host:443/x/?token_file=t").options == {"token_file": str(tmp_path / "t")}
    with pytest.raises(ConfigurationError, match="scheme 'gs' is not offered"):
        parse_destination("gs://bucket/x")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("65536", 65536), (512, 512), ("64KiB", 65536), ("64 kib", 65536), ("1.5GiB", 3 << 29), ("2TiB", 2 << 40), ("8B", 8)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1KB", "1e3", "KiB", "1 2", "0x10", "9999999TiB", True, "1..5KiB", "1" * 5000])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_size(text)


@given(st.integers(0, (1 << 62) - 1))
def test_a_size_in_bytes_is_itself_and_its_text_is_near(size: int) -> None:
    assert parse_size(str(size)) == size
    assert abs(parse_size(format_size(size)) - size) <= size * 0.06


def test_threads_are_as_many_as_processors(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).engine.threads >= EngineConfig().threads


def test_one_thing_opens_the_repository_and_a_higher_layer_decides_which(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL + '[repository]\npassphrase_file = "secret"\n')
    assert (config.repository.key_file, config.repository.passphrase_file) == (None, tmp_path / "secret")
    config = load(tmp_path, MINIMAL + '[repository]\nkey_file = "k"\n', {"SNAPFERRY_REPOSITORY_PASSPHRASE_FILE": "/run/secret"})
    assert (config.repository.key_file, config.repository.passphrase_file) == (None, Path("/run/secret"))
    assert not any(setting.key == "repository.key_file" for setting in config.settings())
    assert "repository.key_file" not in config.origins
    config = load(tmp_path, MINIMAL + '[repository]\npassphrase_command = "pass show x"\n')
    assert (config.repository.key_file, config.repository.passphrase_command) == (None, "pass show x")


@pytest.mark.parametrize(
    "opener", ['passphrase_file = "secret"', "passphrase_command = \"pass show 'a b'\"", 'key_file = "/elsewhere/key"']
)
def test_what_opens_the_repository_comes_back_as_written(tmp_path: Path, opener: str) -> None:
    config = load(tmp_path, MINIMAL + f"[repository]\n{opener}\n")
    again = dataclasses.replace(config, path=tmp_path / "again.toml")
    write_config(again)
    assert load_config(again.path, environment=ENVIRONMENT).repository == config.repository


def test_a_passphrase_file_and_a_key_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give one"):
        new_config(tmp_path / "c.toml", [DestinationConfig("near", "/srv/x")], key_file="k", passphrase_file="p", environment={})


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_a_file_that_names_a_command_and_that_others_can_write_is_not_read(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "snapferry.toml"
    file.write_text(MINIMAL + '[repository]\npassphrase_command = "pass show x"\n')
    file.chmod(mode)
    with pytest.raises(AccessDenied, match="names a command") as caught:
        load_config(file, environment=ENVIRONMENT)
    assert caught.value.exit_code == 12
    file.chmod(0o644)
    assert load_config(file, environment=ENVIRONMENT).repository.passphrase_command == "pass show x"
    # Without a command nothing is asked of it.
    file.write_text(MINIMAL)
    file.chmod(mode)
    load_config(file, environment=ENVIRONMENT)


@pytest.mark.root
def test_a_file_that_names_a_command_and_belongs_to_somebody_else_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "snapferry.toml"
    file.write_text(MINIMAL + '[repository]\npassphrase_command = "pass show x"\n')
    file.chmod(0o644)
    os.chown(file, 12345, -1)
    with pytest.raises(AccessDenied, match="belong to you or to root"):
        load_config(file, environment=ENVIRONMENT)
