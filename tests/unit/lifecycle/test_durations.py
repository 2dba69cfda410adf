"""Spans of calendar time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from snapferry.errors import ConfigurationError
from snapferry.lifecycle.durations import Duration, parse_duration


@pytest.mark.parametrize(
    ("text", "span", "back"),
    [
        ("1y5m7d2h", Duration(1, 5, 7, 2), "1y5m7d2h"),
        ("36h", Duration(hours=36), "36h"),
        ("2h1d", Duration(days=1, hours=2), "1d2h"),
        ("0d", Duration(), "0h"),
        ("007d", Duration(days=7), "7d"),
    ],
)
def test_what_is_written_and_how_it_is_written_back(text: str, span: Duration, back: str) -> None:
    assert parse_duration(text) == span
    assert str(span) == back
    assert bool(span) == (text != "0d")


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1d2d", "1w", "1.5d", "1 d", "1d ", "1Y", "٣d", "9999999d", "1d2"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"keep-within: .*1y5m7d2h") as caught:
        parse_duration(text, "keep-within")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("span", "time", "moment"),
    [
        ("1m", (2026, 3, 31, 12), (2026, 3, 3, 12)),  # there is no February 31: three days into March, as Go counts
        ("1m", (2024, 3, 31), (2024, 3, 2)),
        ("1y", (2024, 2, 29), (2023, 3, 1)),
        ("1m", (2026, 1, 15), (2025, 12, 15)),
        ("13m", (2026, 1, 15), (2024, 12, 15)),
        ("1y2m3d4h", (2026, 11, 22, 3), (2025, 9, 18, 23)),
        ("24h", (2026, 3, 1), (2026, 2, 28)),
    ],
)
def test_the_moment_before(span: str, time: tuple[int, ...], moment: tuple[int, ...]) -> None:
    assert parse_duration(span).before(datetime(*time, tzinfo=UTC)) == datetime(*moment, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize("span", ["2025y", "2026y", "999999y", "999999d", "999999m", "2025y12m"])
def test_the_calendar_ends_somewhere(span: str) -> None:
    assert parse_duration(span).before(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(1, 1, 1, tzinfo=UTC)


def test_days_and_months_are_those_of_utc() -> None:
    east = timezone(timedelta(hours=5))
    assert Duration(months=1).before(datetime(2026, 3, 1, 2, tzinfo=east)) == datetime(2026, 1, 28, 21, tzinfo=UTC)
