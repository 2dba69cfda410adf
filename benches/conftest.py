"""Figures that are no times of a function: each beside its goal, in a table at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Tell = Callable[[str, str, str], None]
"""Takes what was measured, the figure, and the goal."""

_ROWS = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Puts a row into the table."""
    rows = request.config.stash.setdefault(_ROWS, [])
    return lambda what, figure, goal: rows.append((request.node.name, what, figure, goal))


@pytest.fixture(scope="session")
def short(pytestconfig: pytest.Config) -> bool:
    """Whether each bench is to run once and small: the options of pytest-benchmark say so."""
    return bool(pytestconfig.getoption("benchmark_disable"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table, in markdown."""
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("figures")
        for row in [("bench", "figure", "measured", "goal"), ("---",) * 4, *rows]:
            terminalreporter.write_line(f"| {' | '.join(row)} |")
