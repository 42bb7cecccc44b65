"""Latencies as they are shown: each figure with its setting, and what was not measured, or on a busy machine, said."""

from pathlib import Path

import pytest

from distil_nlp.hub.card import render_card
from distil_nlp.reporting.formatting import GAP
from distil_nlp.reporting.latency import (
    Setting,
    headline_setting,
    latencies_by_setting,
    latency_sentences,
    latency_table,
    speed_up,
)
from distil_nlp.reporting.plots.scores import latency_figure
from distil_nlp.reporting.plots.style import style
from distil_nlp.reporting.report.comparison import overview_table
from distil_nlp.reporting.report.pages import run_page
from distil_nlp.reporting.summary import summary_table
from distil_nlp.results import RunResults
from tests.helpers.showcase import example


def run_of(results, name="mine"):
    return RunResults(name, Path(name), results)


def off():
    """The results of a run with `evaluation.efficiency: off`."""
    results = example()
    results["recipe"]["evaluation"]["efficiency"] = "off"
    results["efficiency"] = None
    for role in ("teacher", "student"):
        del results[role]["flops_per_token"], results[role]["peak_memory_mib"]
    return results


def plain(text):
    return text.replace(GAP, " ")


def test_every_setting_has_a_line():
    """Prevents a percentile under another model, setting or unit, and an order in which nothing is found."""
    table = latency_table(run_of(example()))
    assert table.head == ("", "teacher, ms", "student, ms", "teacher, rows/s", "student, rows/s", "speed-up")
    assert plain(table.rows[0][0]) == "batch 1, real lengths, 2 threads"
    assert table.rows[0][1:] == ("10.0 / 12.0 / 14.0", "5.30 / 6.36 / 7.42", "100", "189", "1.9×")
    assert [plain(row[0]) for row in table.rows[2:5]] == [
        "batch 32, real lengths, 2 threads", "batch 1, real lengths, 1 thread", "batch 8, real lengths, 1 thread",
    ]  # fmt: skip
    assert plain(table.rows[-1][0]) == "batch 32, 128 tokens, 1 thread"
    assert "53 tokens on average" in plain(table.note)
    assert "96 forwards of each model" in plain(table.note)


def test_further_models_have_columns_of_their_own():
    """Prevents a table that knows two models by name."""
    results = example()
    for entry in results["efficiency"]["latency"]:
        entry["models"]["student, int8"] = {"p50": entry["models"]["teacher"]["p50"] / 4, "forwards": 7}
    table = latency_table(run_of(results))
    assert table.head[1:4] == ("teacher, ms", "student, ms", "student, int8, ms")
    assert table.head[-2:] == ("speed-up, student", "speed-up, student, int8")
    assert table.rows[0][-2:] == ("1.9×", "4.0×")
    assert "7 to 96" in table.note


def test_headlines_are_of_one_setting():
    """Prevents a speed-up without its setting, and runs that are compared at different ones."""
    run = run_of(example())
    assert headline_setting(run) == Setting(32, None, 2)
    few = example()
    few["efficiency"]["latency"] = [e for e in few["efficiency"]["latency"] if e["batch_size"] == 8]
    nothing, few = run_of(off(), "nothing"), run_of(few, "few")
    assert headline_setting(run, few, nothing) == Setting(8, None, 2)
    assert headline_setting(nothing) is None
    assert speed_up(run, headline_setting(nothing)) is None
    table = overview_table([run, few, nothing])
    assert "Latency: median, batch 8, real lengths, 2 threads." in plain(table.note)
    column = table.head.index("latency, ms")
    assert [row[column] for row in table.rows] == ["34.4", "34.4", "–"]
    with style():
        assert "batch 32, real lengths, 2 threads" in plain(latency_figure(run).description)


def test_an_open_setting_is_no_setting():
    """Prevents inputs of an unknown length that pass for another's."""
    results = example()
    results["efficiency"]["latency"] = [
        {"batch_size": 1, "lengths": "max_length", "tokens": None, "models": {"student": {"p50": 1.0}}},
        {"batch_size": 1, "lengths": "data", "tokens": 9.0, "models": {"teacher": {"p50": 1.0}}},
    ]
    assert latencies_by_setting(run_of(results)) == {}


@pytest.mark.parametrize(("jitter", "is_busy"), [(1.5, False), (2.1, True)])
def test_a_busy_machine_is_told(jitter, is_busy):
    """Prevents figures of a busy machine that are taken for the model's."""
    results = example()
    results["efficiency"]["latency"][1]["models"]["student"]["jitter"] = jitter
    told = "of the same inputs in 1 of 24 measurements" in plain("".join(latency_sentences(run_of(results))))
    assert told == is_busy
    for text in (summary_table(results), render_card(results, Path("runs/x/student"))):
        assert (
            "(2.1× for the student at batch 8, real lengths, 2 threads)" in " ".join(plain(text).split())
        ) == is_busy


def test_what_was_not_measured_is_told(tmp_path):
    """Prevents an empty table, or a failure, where nothing was measured."""
    results = off()
    said = "Latency, operations and memory were not measured (evaluation.efficiency: off)."
    assert latency_sentences(run_of(results)) == [said]
    assert said in summary_table(results)
    assert "ms," not in summary_table(results)
    card = render_card(results, Path("runs/x/student"))
    assert said in card
    assert "as fast" not in card
    sections = {section.title: section for section in run_page(run_of(results)).sections}
    assert sections["Latency"].sentences == [said]
    assert latency_table(run_of(results)) is None


def test_settings_that_were_left_out_are_told():
    """Prevents a table that seems whole."""
    results = example()
    results["efficiency"]["left_out"] = 3
    assert "3 settings left out: the time was over." in plain(latency_table(run_of(results)).note)
