"""Tables for a terminal fit into it."""

import pytest

from distil_nlp.reporting.markdown import aligned_table, terminal_table
from distil_nlp.reporting.summary import summary_table
from tests.helpers.showcase import example

ROWS = [
    ["", "one", "two", "three", "four"],
    ["teacher", "1" * 20, "2" * 20, "3" * 20, "4" * 20],
    ["student", "5" * 20, "", "", "6" * 20],
    ["floor", "7" * 20, "", "", ""],
]


@pytest.mark.parametrize(("columns", "parts"), [(200, 1), (95, 1), (94, 2), (60, 2), (40, 4), (10, 4)])
def test_columns_that_do_not_fit_follow_below(monkeypatch, columns, parts):
    """Prevents lines that a terminal breaks, columns that are lost, and rows without anything in them."""
    monkeypatch.setenv("COLUMNS", str(columns))
    printed = terminal_table(ROWS)
    assert printed.count("─\n") == parts
    assert max(map(len, printed.splitlines())) <= max(columns, 29)
    for row in ROWS:
        assert all(cell in printed for cell in row)
    for line in printed.splitlines():
        assert line.split() not in (["teacher"], ["student"], ["floor"])


def test_a_table_that_fits_is_whole(monkeypatch):
    """Prevents another layout where there is room."""
    monkeypatch.setenv("COLUMNS", "200")
    assert terminal_table(ROWS) == aligned_table(ROWS)


@pytest.mark.parametrize("columns", ["80", "100"])
def test_the_summary_of_a_run_fits(monkeypatch, columns):
    """Prevents a table at the end of a run that the terminal wraps."""
    monkeypatch.setenv("COLUMNS", columns)
    results = example()
    results["efficiency"]["latency"][0]["models"]["student"]["jitter"] = 2.1
    printed = summary_table(results)
    assert "The machine was busy" in printed
    assert max(map(len, printed.splitlines())) <= int(columns)
    assert all(word in printed for word in ("retention", "student’s gain", "parameters", "ms, batch 32", "majority"))


def test_a_file_has_80_columns(monkeypatch):
    """Prevents a log that is as wide as its table, whoever reads it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("os.get_terminal_size", not_a_terminal)
    assert max(map(len, terminal_table(ROWS).splitlines())) <= 80


def not_a_terminal(descriptor):
    raise OSError
