"""What people see of an exported student: tables, sentences, the plot, the card and its snippets, and the upload."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from distil_nlp.hub import is_written_card, render_card
from distil_nlp.hub.exported import exported_files
from distil_nlp.reporting.export import (
    export_latency_table,
    export_sentences,
    export_summary,
    export_table,
    gate_failure,
    is_publishable,
)
from distil_nlp.reporting.plots.scores import latency_figure
from distil_nlp.reporting.plots.style import style
from distil_nlp.reporting.report.pages import run_page
from distil_nlp.reporting.verdicts import verdicts
from distil_nlp.results import RunResults
from distil_nlp.results.schema.export import ExportResults
from tests.helpers.showcase import example, exported

WHERE = Path("runs/glue-mrpc-42/student")


def run_of(folder=Path("mine"), kept=0.998, **changes):
    return RunResults("mine", folder, example(export=exported(kept) | changes))


def card(kept=0.998, **changes):
    return render_card(example(export=exported(kept), **changes), WHERE)


def test_the_example_is_of_the_schema():
    """Prevents tests of a form that no run writes."""
    ExportResults.model_validate(exported())


def test_the_table_has_all_four_models():
    """Prevents a speed without a score, and figures under another model's name."""
    table = export_table(run_of())
    assert table.head == (
        "", "F1", "predictions as the student’s", "retention", "MB", "ms, batch 1", "speed-up",
    )  # fmt: skip
    assert table.rows == (
        ("teacher", "0.842", "94.1\u00a0%", "–", "90.8", "20.0 / 24.0", "–"),
        ("student", "0.837", "–", "99.4\u00a0%", "69.6", "10.6 / 12.7", "1.9×"),
        ("ONNX", "0.837", "100.0\u00a0%", "99.4\u00a0%", "69.8", "9.40 / 11.3", "2.1×"),
        ("ONNX, int8", "0.835", "98.5\u00a0%", "99.2\u00a0%", "18.1", "4.10 / 4.92", "4.9×"),
    )
    assert "batch 1, real lengths, 1\u00a0thread." in table.note


def test_the_latencies_have_percentiles_and_threads():
    """Prevents a median without the slow forwards, and one thread's figures beside all threads'."""
    table = export_latency_table(run_of())
    assert [row[0] for row in table.rows] == [
        f"batch {size}, real lengths, {threads}" for threads in ("2\u00a0threads", "1\u00a0thread") for size in (1, 32)
    ]
    assert {"teacher, ms", "ONNX, ms", "ONNX, int8, ms", "speed-up, ONNX, int8"} <= set(table.head)
    assert table.rows[2][1] == "20.0 / 24.0 / 28.0"


def test_the_plot_has_the_exported_models():
    """Prevents a plot that tells how fast the student is in PyTorch alone."""
    with style():
        picture = latency_figure(run_of())
        before = latency_figure(RunResults("mine", Path("mine"), example()))
    for point in ("teacher 0.842", "student 0.837", "ONNX 0.837", "ONNX, int8 0.835"):
        assert point in picture.description
    assert "ONNX" not in before.description


def test_a_run_that_was_not_exported_says_nothing_of_it():
    """Prevents empty sections in the reports of all other runs."""
    run = RunResults("mine", Path("mine"), example())
    assert export_table(run) is export_latency_table(run) is None
    assert export_sentences(run) == []
    assert "Exported student" not in [section.title for section in run_page(run).sections]
    assert "onnx" not in render_card(example(), WHERE)


def test_a_copy_below_the_gate_is_told_with_advice():
    """Prevents a copy that lost much from going unnoticed, or a refusal without a way on."""
    run = run_of(kept=0.951)
    said = gate_failure(run)
    assert said.startswith(
        "The int8 copy is not published: it keeps 95.1\u00a0% of the ONNX model’s score, less than 99"
    )
    for way in ("export.int8=static", "export.int8_layers=feed_forward", "export.gate=…"):
        assert way in said
    assert (is_publishable(run, "onnx"), is_publishable(run, "int8")) == (True, False)
    assert said in [verdict.text for verdict in verdicts(run)]
    assert said in " ".join(export_summary(run).split("\n")).replace("  ", " ") or "not published" in export_summary(
        run
    )
    tried = exported(0.951)["settings"] | {"int8": "static", "int8_layers": "feed_forward"}
    assert "export.int8" not in gate_failure(run_of(kept=0.951, settings=tried))
    assert gate_failure(run_of()) == ""


def test_a_copy_of_a_worthless_model_is_not_published():
    """Prevents a share of nothing from counting as enough."""
    run = run_of(gate={"threshold": 0.99, "kept": None, "passed": False})
    assert "its score cannot be compared" in gate_failure(run)
    assert not is_publishable(run, "int8")


def test_the_page_has_a_section():
    """Prevents figures that are in results.json alone."""
    page = run_page(run_of())
    section = next(one for one in page.sections if one.title == "Exported student")
    assert len(section.tables) == 2
    assert "keeps 99.8\u00a0% of the ONNX model’s F1, and is published" in " ".join(section.sentences)


def test_the_card_has_table_snippets_and_tags():
    """Prevents files on the Hub that nobody finds or knows how to run."""
    text = card()
    assert {"onnx", "transformers.js"} <= set(ModelCard(text).data.tags)
    assert "\n## Without PyTorch\n" in text
    assert "| ONNX, int8 | 0.835 |" in text
    assert '{ dtype: "q8" }' in text
    assert 'hf_hub_download("path/to/student", "onnx/model_quantized.onnx")' in text
    assert '"The first text.", "The second text."' in text


def test_the_card_of_a_refused_copy_offers_the_other_file():
    """Prevents a snippet of a file that was not uploaded."""
    text = card(0.9)
    assert "model_quantized" not in text
    assert '{ dtype: "fp32" }' in text
    assert '"onnx/model.onnx"' in text


@pytest.mark.parametrize(
    "task", ["mrpc", "classification", "multilabel", "stsb", "ranking", "tokens", "qa", "mlm", "embedding"]
)
def test_the_snippets_are_code(task, tmp_path):
    """Prevents a snippet that nobody can run, for lack of a bracket."""
    text = card(task=task)
    python = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "onnxruntime" in code]
    script = re.findall(r"```js\n(.*?)```", text, re.S)
    assert (len(python), len(script)) == (1, 1)
    ast.parse(python[0])
    assert ('backend="onnx"' in text) == (task == "embedding")
    if shutil.which("node"):
        (tmp_path / "snippet.mjs").write_text(script[0])
        subprocess.run(["node", "--check", tmp_path / "snippet.mjs"], check=True, capture_output=True)


def test_a_card_that_was_changed_by_hand_is_known(tmp_path):
    """Prevents an export that overwrites what an author wrote."""
    student = tmp_path / "run" / "student"
    student.mkdir(parents=True)
    assert is_written_card(example(), student)
    (student / "README.md").write_text(render_card(example(), student))
    assert is_written_card(example(), student)
    (student / "README.md").write_text("mine")
    assert not is_written_card(example(), student)


@pytest.fixture
def files(tmp_path):
    """A folder with both files of an exported student, and their checksums."""
    folder = tmp_path / "student" / "onnx"
    folder.mkdir(parents=True)
    for name in ("model", "model_quantized"):
        (folder / f"{name}.onnx").write_text(name)
    return tmp_path


def with_checksums(folder, kept=0.998):
    block = json.loads(json.dumps(exported(kept)))
    for one in block["models"].values():
        if "file" in one:
            one["sha256"] = hashlib.sha256((folder / "student" / one["file"]).read_bytes()).hexdigest()
    return RunResults("mine", folder, example(export=block))


def test_both_files_go_up(files):
    """Prevents an upload without what the card describes."""
    found, left_out = exported_files(with_checksums(files))
    assert found.keys() == {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert left_out == ()


def test_a_copy_below_the_gate_stays_here(files):
    """Prevents an int8 copy on the Hub that lost more than it may."""
    found, left_out = exported_files(with_checksums(files, 0.95))
    assert found.keys() == {"onnx/model.onnx"}
    assert left_out[0].startswith("Not uploaded: onnx/model_quantized.onnx. The int8 copy is not published: it keeps")


def test_a_file_that_was_not_scored_stays_here(files):
    """Prevents graphs of other weights, as after a second training, from going up with these figures."""
    run = with_checksums(files)
    (files / "student/onnx/model.onnx").write_text("another")
    found, left_out = exported_files(run)
    assert found.keys() == {"onnx/model_quantized.onnx"}
    assert left_out == (
        "Not uploaded: onnx/model.onnx, of which no scores are known; distil-nlp export makes it anew.",
    )
    bare = RunResults("mine", files, example())
    assert exported_files(bare)[0] == {}
    assert len(exported_files(bare)[1]) == 2
