"""Results of older schema versions, read in today's form."""

import json

import pytest

from distil_nlp.reporting.report import write_report
from distil_nlp.results import read_results, read_run
from tests.helpers.showcase import example


def version_1():
    """The example as version 1 has it: latencies by batch size in the models' blocks, at one length."""
    results = example(schema_version=1)
    for role, median in (("teacher", 10.0), ("student", 5.0)):
        sizes = {"1": median, "32": 32 * median}
        results[role]["latency_ms"] = {n: {"median": ms, "p95": 1.6 * ms, "repeats": 30} for n, ms in sizes.items()}
        results[role]["tokens_per_second"] = {"1": 1.0, "32": 2.0}
    results["efficiency"] = {"device": "x86_64 CPU, 2 cores", "threads": 2, "dtype": "float32", "sequence_length": 128,
                             "warm_up": 2, "speed_up": {"1": 2.0, "32": 2.0}}  # fmt: skip
    return results


def test_latencies_of_version_1_are_settings(tmp_path):
    """Prevents reports of earlier runs without latencies, or with figures of another length."""
    (tmp_path / "results.json").write_text(json.dumps(version_1()))
    found = read_run(tmp_path)
    assert found == read_results(tmp_path / "results.json")
    assert found["schema_version"] == 2
    assert not {"latency_ms", "tokens_per_second"} & found["teacher"].keys()
    assert found["teacher"]["flops_per_token"] == version_1()["teacher"]["flops_per_token"]
    first, second = found["efficiency"].pop("latency")
    assert second == {
        "batch_size": 32, "lengths": "max_length", "tokens": 128, "threads": 2,
        "models": {
            "teacher": {"p50": 320.0, "rows_per_second": 100.0, "forwards": 30, "jitter": 1.6},
            "student": {"p50": 160.0, "rows_per_second": 200.0, "forwards": 30, "jitter": 1.6},
        },
    }  # fmt: skip
    assert first["batch_size"] == 1
    assert found["efficiency"] == {
        "device": "x86_64 CPU, 2 cores", "dtype": "float32", "max_length": 128, "warm_up": 2,
    }  # fmt: skip
    page = write_report([tmp_path]).read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "2.0× as fast (batch 32, 128 tokens, 2 threads)." in page
    assert "Median of a forward" in page


@pytest.mark.parametrize(
    "changes",
    [
        {"efficiency": None},
        {"teacher": None},
        {"teacher": [], "student": 3},
        {"student": {"latency_ms": []}},
        {"student": {"latency_ms": {"x": {"median": 1}, "2": 3, "4": {"median": "1", "p95": None}, "8": {}}}},
    ],
)
def test_damaged_results_of_version_1_are_read(tmp_path, changes):
    """Prevents a traceback over a file of an earlier version that lacks what others have."""
    (tmp_path / "results.json").write_text(json.dumps({**version_1(), **changes}))
    found = read_results(tmp_path / "results.json")
    assert found["schema_version"] == 2
    assert found["task"] == "mrpc"


def test_results_of_today_stay_as_they_are(tmp_path):
    """Prevents figures that change by being read."""
    (tmp_path / "results.json").write_text(json.dumps(example()))
    assert read_results(tmp_path / "results.json") == example()
