"""The command that tries a module: a good one passes, and each bad one is told what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.testing import module
from tests.support.modules import Workshop, running


@pytest.mark.parametrize("language", ["py", "rs"])
def test_a_good_module_passes(workshop: Workshop, capsys: pytest.CaptureFixture[str], language: str) -> None:
    with running(workshop, *workshop.example(language).command) as socket:
        assert module.main([socket]) == 0
    out = capsys.readouterr().out
    assert "ok    wire   never_replaces" in out
    assert "ok    client works_side_by_side" in out
    assert "35 passed, 0 failed" in out


def test_a_module_that_does_not_listen_is_asked_for_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main([f"{tmp_path}/none"]) == 1
    assert capsys.readouterr().out == (
        f"nothing listens at {tmp_path}/none (No such file or directory): start the module first, "
        f"with SNAPFERRY_SOCKET={tmp_path}/none in its environment\n"
    )


def test_a_word_that_no_case_has_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(["socket", "--only", "rages"])
    assert ended.value.code == 2
    assert "no case has 'rages' in its name; there are: says_what_it_is, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "only", "said"),
    [
        ("Fault", "digest", "PUT with bytes that are not what Content-Digest says should be answered with 400, not 201"),
        ("KeepsNothing", "gives_ranges", "should be answered with 206, not 404"),
        ("KeepsHalf", "keeps_what_it_is_given", "GET config gives other bytes than were put: 5 of them, where there were 10"),
        ("FlipsABit", "keeps_what_it_is_given", "GET packs/ab/abcd gives other bytes than were put"),
        ("SaysThatAllIsThere", "takes_a_full_pack", "PUT of a new key, packs/00/full should be answered with 201, not 412"),
        ("DiesInAPut", "deletes", "no answer that is HTTP"),
        ("NeverEndsAListing", "lists_by_pages", "a page of 1000 objects where limit=1 was asked for"),
    ],
)
def test_a_bad_one_is_told_what_is_wrong(workshop: Workshop, capsys: pytest.CaptureFixture[str], fault: str, only: str, said: str) -> None:
    with running(workshop, *workshop.faulty(fault).command) as socket:
        workshop.arm()
        assert module.main([socket, "--only", only]) == 1
    assert said in capsys.readouterr().out
