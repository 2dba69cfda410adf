from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapferry.destination.module_lines import LONGEST, Lines


@given(st.lists(st.binary(max_size=3000), max_size=20))
def test_whatever_comes_is_short_and_printable(pieces: list[bytes]) -> None:
    said: list[str] = []
    lines = Lines(said.append, lambda: 0.0)
    for piece in pieces:
        lines.feed(piece)
    lines.feed(b"\n")
    assert len(said) <= 50
    assert all(line.isprintable() and 0 < len(line) <= LONGEST + 1 for line in said)


def test_lines_are_put_together_and_the_rest_is_counted() -> None:
    said: list[str] = []
    now = 0.0
    lines = Lines(said.append, lambda: now)
    lines.feed(b"one\r\ntw")
    lines.feed(b"o\x1b[2J\n\n")
    assert said == ["one", "two?[2J"]
    for number in range(200):
        lines.feed(b"%d\n" % number)
    assert len(said) == 50
    assert lines.last == "199"
    now = 1.0
    lines.feed(b"again\n")
    assert said[50:] == ["(152 lines left out)", "again"]
