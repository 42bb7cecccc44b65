"""The notebooks in examples/notebooks run to their end, and show what they say."""

import json
import re

import pytest

from tests.helpers import ROOT, showcase, tiny

NOTEBOOKS = ROOT / "examples" / "notebooks"


def run(name, folder, monkeypatch, **settings):
    """Run a notebook in a folder, with other values of its settings; return what its cells printed."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(NOTEBOOKS / name)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert all(re.search(rf"^(\w+, )*{setting}\b.* = ", cell.source, re.M) for setting in settings)
    cell.source += "".join(f"\n{setting} = {value!r}" for setting, value in settings.items())
    for variable, value in {"PYTHONPATH": ROOT, "IPYTHONDIR": folder / "ipython", "OMP_NUM_THREADS": 1}.items():
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs), outputs


def save(model, folder):
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@pytest.mark.integration
def test_the_trainer_notebook(tmp_path, monkeypatch):
    """Prevents a notebook that no longer matches the code, or whose log has no column for a term."""
    save(tiny.classifier(4), tmp_path / "teacher")
    printed, _ = run("trainer.py", tmp_path, monkeypatch, TEACHER="teacher", MAX_STEPS=2)
    assert "student from teacher layers [1, 3]" in printed
    assert re.search(r"step +soft_target_kl +hidden_cosine\n +1 +-?\d+\.\d{4} +-?\d+\.\d{4}", printed)
    assert re.search(r"agreement: \d+ of 24", printed)
    assert (tmp_path / "runs/notebook-trainer/student/model.safetensors").is_file()


@pytest.mark.integration
def test_the_notebook_that_compares_methods(tmp_path, monkeypatch):
    """Prevents a notebook whose table lacks a method or a figure."""
    save(tiny.mlm_model(4), tmp_path / "teacher")
    printed, _ = run("comparing_methods.py", tmp_path, monkeypatch, TEACHER="teacher", MAX_STEPS=2, SEEDS=2)
    for method in ("outputs", "outputs and states", "relations"):
        assert re.search(
            rf"^{method} +accuracy [01]\.\d+ \([01]\.\d+ to [01]\.\d+\), agreement [01]\.\d+$", printed, re.M
        )


@pytest.mark.integration
def test_the_notebook_that_plots(tmp_path, monkeypatch):
    """Prevents a key of results.json that was renamed."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "results.json").write_text(json.dumps(showcase.example()))
    printed, outputs = run("plotting_results.py", tmp_path, monkeypatch)
    assert re.search(r"one f1 teacher 0\.\d+ student 0\.\d+ retention", printed)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "retention.png").is_file()
