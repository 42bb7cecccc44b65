"""Examples run as a newcomer would run them, and leave a student that plain transformers loads."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from distil_nlp.cli import distill
from distil_nlp.pipeline import findings
from distil_nlp.results import read_run, schema_mismatches
from tests.helpers import ROOT, tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

EXAMPLES = sorted([*(ROOT / "examples").rglob("*.py"), *(ROOT / "examples").rglob("*.ipynb")])


@pytest.fixture
def teacher(tmp_path):
    """The folder of a teacher with 4 layers, and its tokenizer."""
    folder = tmp_path / "teacher"
    tiny.mlm_model(4).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def run_example(name, folder, *arguments):
    """Run an example in `folder`, offline and on the CPU, and return its output."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_loads(folder, teacher):
    """Half the teacher's layers, finite logits, and weights that training moved away from the teacher's."""
    student, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert student.config.num_hidden_layers == 2
    logits = student(**tokenizer(tiny.SENTENCES[0], return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    before = AutoModelForMaskedLM.from_pretrained(teacher).get_input_embeddings().weight
    assert not torch.equal(student.get_input_embeddings().weight, before)


def test_multilabel_data(tmp_path, shared):
    """Prevents docs whose data cannot be made: the types of entities in each text of WNUT-17."""
    run_example("multilabel_data.py", tmp_path, shared / "data" / "wnut17", "rows")
    rows = [json.loads(line) for line in (tmp_path / "rows" / "validation.jsonl").read_text().splitlines()]
    assert len(rows) == 1009
    assert {label for row in rows for label in row["labels"]} == {
        "corporation", "creative-work", "group", "location", "person", "product"
    }  # fmt: skip
    assert min(len(row["labels"]) for row in rows) == 0
    assert max(len(row["labels"]) for row in rows) > 1


@pytest.mark.integration
def test_ranking_data(tmp_path, shared):
    """Prevents docs whose data cannot be made: ten sentences for each question of QNLI, answers among them."""
    run_example("ranking_data.py", tmp_path, shared / "data" / "glue" / "qnli", "rows")
    rows = [json.loads(line) for line in (tmp_path / "rows" / "validation.jsonl").read_text().splitlines()]
    relevant: dict[str, list[int]] = {}
    for row in rows:
        relevant.setdefault(row["query"], []).append(row["label"])
    assert {len(labels) for labels in relevant.values()} == {10}
    assert all(1 <= sum(labels) < 10 for labels in relevant.values())


@pytest.mark.integration
def test_distil_with_trainer(tmp_path, teacher):
    """Prevents a first script that no longer matches the code."""
    (tmp_path / "texts.txt").write_text("\n".join(tiny.SENTENCES * 4) + "\n\n", encoding="utf-8")
    arguments = (teacher, "mine", "--texts", "texts.txt", "--max-steps", 3)
    assert "parameters" in run_example("distil_with_trainer.py", tmp_path, *arguments)
    assert_loads(tmp_path / "mine" / "student", teacher)


@pytest.mark.integration
def test_own_loss(tmp_path, teacher):
    """Prevents a class to derive from that asks for more than the example says, and a term that is not logged."""
    assert "hidden_l1" in run_example("own_loss.py", tmp_path, teacher, "own")
    assert_loads(tmp_path / "own" / "student", teacher)


@pytest.mark.integration
def test_distil_classifier(tmp_path):
    """Prevents a script for classifiers that no longer matches the code; labels are names, in the teacher's order."""
    model = tiny.classifier(4)
    model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    place = Place(tmp_path)
    place.teacher(model)
    lines = [f'"{text}",{"yes" if i % 3 else "no"}' for i, text in enumerate(place.texts)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    printed = run_example("distil_classifier.py", tmp_path, "teacher", "rows.csv", "mine", "--max-steps", 2)
    assert "student from teacher layers [1, 3]" in printed
    assert re.search(r"accuracy of the copied layers [01]\.\d{3}, after distillation [01]\.\d{3}", printed)
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mine" / "student")
    assert (student.config.num_hidden_layers, student.config.id2label) == (2, {0: "no", 1: "yes"})


NOTEBOOK = ROOT / "examples" / "classification.ipynb"


@pytest.mark.integration
def test_the_notebook_runs_and_shows_its_table(tmp_path, shared, monkeypatch):
    """Prevents a notebook that stops at a cell, or in which the results of a run are an object's name."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    settings = notebook.cells[1]
    assert settings.source.count('"google-bert/bert-base-uncased"') == 1
    teacher = str(shared / "models" / "minilm-l6-h384")
    settings.source = settings.source.replace('"google-bert/bert-base-uncased"', repr(teacher))
    for name, value in {"PYTHONPATH": ROOT, "IPYTHONDIR": tmp_path / "ipython", "OMP_NUM_THREADS": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    outputs = {cell.source.splitlines()[-1]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    (table,) = (output.data["text/html"] for output in outputs["run.show()"])
    assert "<table><tr>" in table
    for name in ("<li><b>", "teacher", "student", "labels only", "majority class", "retention"):
        assert name in table
    printed = "".join(output.get("text", "") for found in outputs.values() for output in found)
    assert "student from teacher layers [2]" in printed
    assert re.search(r"accuracy [01]\.\d{3} on 36 rows", printed)
    for folder, depth in (("tickets", 3), ("smaller", 1)):
        student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "runs" / folder / "student")
        assert student.config.num_hidden_layers == depth


def test_the_notebook_is_kept_without_outputs():
    """Prevents figures of another version, and paths of somebody's machine, in a file that is read as text."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


OWN_TERMS = ROOT / "examples" / "own_terms.yaml"


@pytest.mark.integration
def test_own_terms_in_a_recipe(tmp_path, monkeypatch, capfd):
    """Prevents a loss of one's own that seeds, baselines, card, report and upload do not know, or hide the code of."""
    monkeypatch.setattr(
        findings, "measure_efficiency", lambda *args, **kwargs: {"teacher": {}, "student": {}, "efficiency": {}}
    )
    place = Place(tmp_path).prepare()
    (tmp_path / "my_terms.py").write_text((ROOT / "examples" / "my_terms.py").read_text())
    (tmp_path / "own.yaml").write_text(OWN_TERMS.read_text())
    command = [
        str(tmp_path / "own.yaml"), f"teacher.name={place.folder / 'teacher'}", f"data.path={place.folder / 'data'}",
        f"training.output_dir={place.out}", "training.max_steps=2", "training.logging_steps=1", "training.use_cpu=true",
        "run.accept_weak_teacher=true", "evaluation.seeds=2", "training.disable_tqdm=true", "data.max_length=32",
    ]  # fmt: skip
    assert distill(command) == 0
    printed = capfd.readouterr().out
    sha256 = hashlib.sha256((tmp_path / "my_terms.py").read_bytes()).hexdigest()
    assert f"code of your own is run: {tmp_path / 'my_terms.py'}, sha256 {sha256}" in printed
    results = read_run(place.out)
    assert [mismatch for mismatch in schema_mismatches(results) if "own_code" in mismatch] == []
    (code,) = results["own_code"]
    assert (code["sha256"], list(code["terms"])) == (sha256, ["hidden_l1"])
    assert results["seeds"]["accuracy"]["seeds"] == [42, 43]
    assert results["baselines"]["no_distillation"]["gain"]["seeds"] == 2
    assert results["training"]["final_terms"]["hidden_l1"] > 0
    card = (place.out / "student" / "README.md").read_text()
    assert "| `hidden_l1` | mean absolute difference of the hidden states | 0.5 |" in card
    assert f"`hidden_l1` of `my_terms.py` (SHA-256 `{sha256}`)" in card
    report = (place.out / "report" / "report.md").read_text()
    assert f"my_terms.py, sha256 {sha256}: hidden_l1" in report
    assert "hidden_l1, absolute difference from" in report

    again = [str(place.out / "recipe.yaml")]
    assert distill(again) == 0
    assert "this run is finished" in capfd.readouterr().out
    (tmp_path / "my_terms.py").write_text((tmp_path / "my_terms.py").read_text().replace(".abs()", ".square()"))
    assert distill(again) == 0
    assert "plugins changed since, its figures are of what was there before" in capfd.readouterr().out
    (place.out / "results.json").unlink()
    assert distill(again) == 2
    assert "got other code of your own (plugins)" in one_line(capfd.readouterr().err)
    (tmp_path / "my_terms.py").unlink()
    assert distill(again) == 2
    assert "my_terms.py', which does not exist" in one_line(capfd.readouterr().err)


def test_the_how_to_shows_the_example():
    """Prevents a page whose code nobody ran."""
    page = (ROOT / "docs" / "own_terms.md").read_text()
    assert f"```python\n{(ROOT / 'examples' / 'my_terms.py').read_text()}```" in page


def source_of(path):
    """The code of a script, or of a notebook's cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")


_OF_EXAMPLES = {*sys.stdlib_module_names, "transformers", "datasets", "sklearn", "torch", "matplotlib"}
"""Packages that every installation has."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_need_public_names_alone(path):
    """Prevents an example that works in a checkout only, or that teaches imports from inside the package."""
    for node in ast.walk(ast.parse(source_of(path))):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            assert module.split(".")[0] in _OF_EXAMPLES or module == "distil_nlp"
