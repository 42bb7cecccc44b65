"""Whole runs that are exported, of every kind of task: what the graphs score is what the student scores."""

import json
import math

import onnx
import pytest

from distil_nlp.cli import main
from distil_nlp.results import schema_mismatches
from distil_nlp.tasks import KINDS
from tests.export.runs_of_kinds import MAKERS, run_of

OUTPUTS = {"qa": ["start_logits", "end_logits"], "embedding": ["last_hidden_state"]}


def test_every_kind_is_tried():
    """Prevents a kind of task without a test of its export."""
    assert {*MAKERS, "embedding"} == set(KINDS)


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_the_graphs_score_as_the_student_does(kind, tmp_path, capsys):
    """Prevents a graph with other answers: of padding, of rows in another order, of another pooling."""
    run = run_of(kind, tmp_path / "place")
    assert main(["export", str(run), "export.latency=quick"]) == 0
    said = capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())
    assert schema_mismatches(results) == []
    block, models = results["export"], results["export"]["models"]
    assert models.keys() == {"teacher", "student", "onnx", "int8"}
    assert block["outputs"] == OUTPUTS.get(kind, ["logits"])
    assert block["difference"] <= 1e-5
    for name, value in results["student"]["metrics"].items():  # of the run, and again by each of the two
        assert models["student"]["metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-6)
        assert models["onnx"]["metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-6)
    likeness = models["onnx"]["fidelity"]
    alike = next(likeness[name] for name in ("agreement", "pearson", "cosine", "kendall_tau") if name in likeness)
    assert alike is None or alike == pytest.approx(1, abs=1e-5)
    assert all(math.isfinite(value) for value in models["int8"]["metrics"].values())
    settings = {(one["batch_size"], one["threads"]) for one in block["efficiency"]["latency"]}
    assert (1, 1) in settings
    assert block["efficiency"]["latency"][0]["models"].keys() == models.keys()
    graph = onnx.load(run / "student" / "onnx" / "model.onnx").graph
    assert [one.name for one in graph.input] == block["inputs"]
    axes = [[size.dim_param for size in one.type.tensor_type.shape.dim] for one in graph.input]
    assert axes == [["batch", "sequence"]] * len(axes)
    assert sorted(path.name for path in (run / "student" / "onnx").iterdir()) == [
        "model.onnx", "model_quantized.onnx",
    ]  # fmt: skip
    assert "ONNX, int8" in said
    assert "## Without PyTorch" in (run / "student" / "README.md").read_text()
    assert "## Exported student" in (run / "report" / "report.md").read_text()
