"""What is said of a run of several tasks."""

import json

import pytest

from distil_nlp.reporting.multitask import sharing_verdict, tasks_tables, write_tasks
from distil_nlp.results import RunResults, read_runs
from tests.helpers.showcase import example


def results(low=None, high=None, **changes):
    """The example with a student trained alone, over which the student's gain is from `low` to `high`."""
    made = example(**changes)
    if low is not None:
        gain = made["baselines"]["no_distillation"]["gain"] | {"mean": (low + high) / 2, "low": low, "high": high}
        made["baselines"]["plain"] = {"metrics": {"f1": 0.82}, "gain": gain}
    return made


@pytest.mark.parametrize(
    ("gains", "severity", "told"),
    [
        ({"a": (0.01, 0.03), "b": (0.02, 0.04)}, "good", "better on a (+2.0 points), b (+3.0 points)."),
        ({"a": (-0.01, 0.03)}, "note", "no difference beyond the noise on a."),
        (
            {"a": (0.01, 0.03), "b": (-0.01, 0.03), "c": (-0.03, -0.01)},
            "caution",
            "better on a (+2.0 points); worse on c (−2.0 points); no difference beyond the noise on b.",
        ),
    ],
    ids=["better", "noise", "all three"],
)
def test_what_sharing_did_is_said_of_each_task(tmp_path, gains, severity, told):
    """Prevents a table of many columns in which nobody sees that a task lost by sharing its encoder."""
    found = sharing_verdict([RunResults(name, tmp_path, results(*gain)) for name, gain in gains.items()])
    assert found.severity == severity
    assert found.text == f"One encoder for all, beside a student of each task alone: {told}"


def test_nothing_is_said_where_a_task_was_not_trained_alone(tmp_path):
    """Prevents a verdict on all tasks from some of them."""
    runs = [RunResults("a", tmp_path, results(0.01, 0.03)), RunResults("b", tmp_path, results())]
    assert sharing_verdict(runs) is None


def test_a_run_of_several_tasks_ends_with_its_verdicts(tmp_path, capsys):
    """Prevents a run of hours that ends with figures alone."""
    for name, low in (("a", 0.01), ("b", -0.03)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results(low, low + 0.02)))
    write_tasks(tmp_path, ["a", "b"])
    said = " ".join(capsys.readouterr().out.partition("report.html")[2].split())
    lead = "beside a student of each task alone: better on a (+2.0 points); worse on b (−2.0 points)."
    assert said.startswith("caution: One encoder for all, ")
    assert said.index(lead) < said.index("good: a: Distillation paid") < said.index("good: b: Distillation paid")
    page = (tmp_path / "report" / "report.md").read_text()
    assert page.index(lead) < page.index("b: Distillation paid")
    tables = tasks_tables(read_runs([tmp_path / "a", tmp_path / "b"]))
    assert [[row[0] for row in table.rows] for table in tables] == [["a", "b"]] * 3
    assert all(table.note in (tmp_path / "tasks.md").read_text() for table in tables)
    assert all(len(table.head) <= 6 for table in tables)  # more are not seen without scrolling
