"""``[placement]`` as it is written, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.config import Config, VolumePlacement, load_config
from snapferry.errors import ConfigurationError
from snapferry.placement import Alternate, Cheapest, Mirror, Policy, Route, Rule, Site, Spread
from snapferry.types import GiB, MiB

PLACES = """
[[destination]]
name = "near"
url = "file:///srv/near"
weight = 3
operator = "us"
region = "eu"
price = { store_gb_month = 0.02, egress_gb = 0.01, request_1k = 0.005 }

[[destination]]
name = "far"
url = "file:///srv/far"

[[destination]]
name = "cold"
url = "file:///srv/cold"
operator = "them"
"""
NAMES = ("near", "far", "cold")
WHOLE = (
    PLACES
    + """
[placement]
policy = "route"
copies = 3
min_copies = 1
months = 6

[[placement.rule]]
to = "near"
first = true

[[placement.rule]]
to = ["near", "far"]
copies = 1
volume = "db-*"
tags = { why = "nightly" }
every = 7
kind = "incremental"
range = "1GiB-"

[[placement.rule]]
to = ["cold"]
range = "-64MiB"

[[placement.rule]]
to = ["far"]

[[placement.volume]]
match = "scratch/*"
policy = "alternate"

[[placement.volume]]
match = "db-*"
policy = "spread:copies=2"
min_copies = 2
"""
)


def load(directory: Path, text: str, *, environment: dict[str, str] | None = None, flags: dict[str, str | int] | None = None) -> Config:
    file = directory / "snapferry.toml"
    file.write_text(text)
    return load_config(file, environment=environment or {}, flags=flags or {})


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    placement = config.placement
    assert placement.rules == (
        Rule(("near",), first=True),
        Rule(("near", "far"), 1, "db-*", {"why": "nightly"}, 7, False, "incremental", (GiB, None)),
        Rule(("cold",), range=(0, 64 * MiB)),
        Rule(("far",)),
    )
    assert placement.volumes == (VolumePlacement("scratch/*", "alternate"), VolumePlacement("db-*", "spread:copies=2", 2))
    assert config.sites(("near", "far")) == (Site("near", 3.0, "us", "eu", 0.02, 0.01, 0.005), Site("far"))
    assert config.placing(NAMES, "vm", None, None) == (Route(placement.rules), 1)
    assert config.placing(NAMES, "db-1", None, None) == (Spread(2), 2)
    assert config.placing(NAMES, "scratch/x", None, None) == (Alternate(), 1)
    assert config.placing(NAMES, "db-1", "mirror", 3) == (Mirror(), 3)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("mirror", Mirror()),
        ("spread", Spread(3)),
        ("spread:copies=1", Spread(1)),
        ("cheapest", Cheapest(3, 1, 1, 6.0, 0.05)),
        ("cheapest:copies=2,operators=2,restores_per_month=0", Cheapest(2, 2, 1, 6.0, 0.0)),
    ],
)
def test_parameters_that_are_not_named_are_as_the_section_says(tmp_path: Path, text: str, policy: Policy) -> None:
    assert load(tmp_path, WHOLE).placement.parse(text) == policy


def test_without_a_word_of_copies(tmp_path: Path) -> None:
    placement = load(tmp_path, PLACES).placement
    assert (placement.parse("spread"), placement.parse("cheapest")) == (Spread(2), Cheapest(1, 1, 1, 12.0, 0.05))


def test_a_flag_and_the_environment_are_for_every_volume(tmp_path: Path) -> None:
    for how in ({"flags": {"placement.policy": "cheapest:copies=2"}}, {"environment": {"SNAPFERRY_PLACEMENT_POLICY": "cheapest:copies=2"}}):
        config = load(tmp_path, WHOLE, **how)  # type: ignore[arg-type]
        assert config.placing(NAMES, "db-1", None, None)[0] == Cheapest(2, months=6.0)
    config = load(tmp_path, WHOLE, environment={"SNAPFERRY_PLACEMENT_COPIES": "1"})
    assert config.placement.parse("spread") == Spread(1)


def test_it_is_shown_with_its_origins(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    shown = {setting.key: (setting.value, setting.origin) for setting in config.settings()}
    assert shown["placement.copies"] == (3, f"file:{config.path}")
    assert shown["placement.operators"] == (1, "default")
    assert shown["placement.rule.2"][0] == {
        "to": ["near", "far"], "copies": 1, "volume": "db-*", "tags": {"why": "nightly"}, "every": 7, "kind": "incremental",
        "range": [GiB, None],
    }  # fmt: skip
    assert shown["placement.volume.2"] == ({"match": "db-*", "policy": "spread:copies=2", "min_copies": 2}, f"file:{config.path}")
    assert shown["destination.near.weight"] == (3.0, f"file:{config.path}")
    assert shown["destination.cold.operator"][0] == "them"
    assert "destination.far.weight" not in shown
    assert "placement.copies" not in {setting.key for setting in load(tmp_path, PLACES).settings()}


PLACED = PLACES + "[placement]\n"
RULE = PLACED + "[[placement.rule]]\n"
VOLUME = PLACED + '[[placement.volume]]\nmatch = "x"\n'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (PLACED + 'policy = "spred"', r"placement\.policy \(file:.*'spred' is unknown \(did you mean 'spread'\?\)"),
        (PLACED + 'policy = "spread:copis=2"', r"placement spread has no parameter 'copis' \(did you mean 'copies'\?\)"),
        (PLACED + 'policy = "spread:copies=two"', "placement spread: copies must be a whole number from 1"),
        (PLACED + 'policy = "alternate:copies=2"', "placement alternate has no parameter 'copies'; it takes none"),
        (PLACED + "copies = 0", "copies must be a whole number from 1"),
        (PLACED + "copies = 1.5", "copies must be a whole number from 1"),
        (PLACED + "months = true", "months must be a number"),
        (PLACED + "months = 0", r"months must be a number from 0\.01"),
        (PLACED + "restores_per_month = -1", "restores_per_month must be a number from 0"),
        (PLACED + "[[placement.rules]]", r"unknown key 'rules' in \[placement\] \(did you mean 'rule'\?\)"),
        (PLACED + "rule = 3", r"\[\[placement\.rule\]\] tables"),
        (RULE, r"\[\[placement\.rule\]\] 1: to must be a list"),
        (RULE + "to = []", "to must be a list"),
        (RULE + 'to = ["near", "near"]', "different destinations"),
        (RULE + 'to = ["neer"]', r"no destination is named 'neer' \(did you mean 'near'\?\)"),
        (RULE + 'to = ["near"]\ncopies = 2', "2 copies are asked for, and `to` names 1"),
        (RULE + 'to = ["near"]\nvolum = "x"', r"unknown key 'volum' in \[\[placement\.rule\]\] 1 \(did you mean 'volume'\?\)"),
        (RULE + 'to = ["near"]\nvolume = 3', "volume must be text"),
        (RULE + 'to = ["near"]\ntags = { a = 1 }', "tags must be a table of texts"),
        (RULE + 'to = ["near"]\nkind = "incremantal"', "did you mean 'incremental'"),
        (RULE + 'to = ["near"]\nfirst = 1', "first must be true or false"),
        (RULE + 'to = ["near"]\nevery = 0', "every must be a whole number"),
        (RULE + 'to = ["near"]\nrange = "1GiB"', r"range '1GiB': write A-B"),
        (RULE + 'to = ["near"]\nrange = "2-1"', "ends before it begins"),
        (RULE + 'to = ["near"]\nrange = "0-lots"', "'lots'"),
        (VOLUME, "policy must be text"),
        (VOLUME + 'policy = "sprad"', r"\[\[placement\.volume\]\] 1: policy: .*did you mean 'spread'"),
        (VOLUME + 'policy = "mirror"\nmin_copies = 0', "min_copies must be a whole number"),
        (PLACES.replace("weight = 3", "weight = 0"), "destination 'near': weight is a number above 0"),
        (PLACES.replace("weight = 3", 'weight = "3"'), "weight is a number"),
        (PLACES.replace('operator = "us"', "operator = 3"), "operator must be text"),
        (PLACES.replace("operator", "oprator", 1), r"unknown key 'oprator' .*did you mean 'operator'"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        load(tmp_path, text)


@pytest.mark.parametrize("key", ["POLCY", "RULE", "VOLUME"])
def test_what_the_environment_cannot_say(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown variable SNAPFERRY_PLACEMENT_{key}"):
        load(tmp_path, PLACES, environment={f"SNAPFERRY_PLACEMENT_{key}": "x"})


@pytest.mark.parametrize(
    ("volume", "asked", "copies", "match"),
    [
        ("db-1", None, 3, "min_copies is 3, and placement spread makes 2 copies of each pack"),
        ("vm", None, 2, "min_copies is 2, and rule 1 of placement route makes 1"),
        ("vm", "mirror", 4, "min_copies is 4, and there are 3 destinations"),
        ("vm", "cheapest:copies=1", 2, "min_copies is 2, and placement cheapest chooses 1"),
        ("vm", "cheapest:regions=2,copies=1", None, "2 different regions are asked for"),
        ("vm", "spread:copies=4", None, "4 copies are asked for"),
        ("vm", "mirror", 0, "at least one copy"),
    ],
)
def test_what_cannot_be_kept_to(tmp_path: Path, volume: str, asked: str | None, copies: int | None, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        load(tmp_path, WHOLE).placing(NAMES, volume, asked, copies)
