from __future__ import annotations

import pytest

from snapferry.destination.keys import check_key, check_prefix, is_key, is_key_below
from snapferry.testing.conformance import BAD_KEYS, BAD_PREFIXES


@pytest.mark.parametrize(
    "key",
    [
        "destination",
        "config",
        "keys/00ff",
        "packs/ab/" + "ab" * 32,
        "index/" + "0" * 64,
        "sessions/0a/0",
        "sessions/0a/end",
        "damaged/x",
        "a.b/c_d-e",
    ],
)
def test_keys_of_the_format_are_keys(key: str) -> None:
    assert check_key(key) == key
    assert check_prefix(key + "/") == key + "/"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_tricks_are_no_keys(key: str) -> None:
    assert not is_key(key)
    with pytest.raises(ValueError, match="not a key"):
        check_key(key)


@pytest.mark.parametrize("prefix", BAD_PREFIXES)
def test_tricks_are_no_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError, match="not a prefix"):
        check_prefix(prefix)


def test_the_empty_prefix_is_everything() -> None:
    assert check_prefix("") == ""


@pytest.mark.parametrize("key", [*BAD_KEYS, "config", "tmp/x", "a/tmp", "packs/ab/cd", "a/" * 255 + "bcd", "a" * 201, "tmp"])
def test_a_part_below_a_prefix_is_judged_as_the_whole_key_would_be(key: str) -> None:
    above, slash, part = key.rpartition("/")
    if not slash or is_key(above):
        assert is_key_below(above + slash, part) == is_key(key)
