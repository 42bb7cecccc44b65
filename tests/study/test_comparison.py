"""Pairs of runs: compared row by row where their rows are the same, and not at all elsewhere."""

import json

import numpy as np
import pytest

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.kept_outputs import OUTPUTS, save_outputs
from distil_nlp.results import RunResults
from distil_nlp.results.predictions import write_predictions
from distil_nlp.results.provenance import PROVENANCE
from distil_nlp.study.comparison import gain_on_same_rows, gain_over

LABELS = np.arange(60) % 3


def run_of(folder, wrong, *, rows="a", seed=42, texts=None):
    """A run whose student is wrong on its first rows."""
    folder.mkdir()
    predictions = np.eye(3)[np.where(np.arange(60) < wrong, (LABELS + 1) % 3, LABELS)]
    save_outputs(folder / OUTPUTS, {"test": Outputs(predictions, LABELS)})
    (folder / PROVENANCE).write_text(json.dumps({"evaluation_rows": rows}))
    if texts:
        columns = {"split": ["test"] * 60, "row": range(60), "text": texts, "label": LABELS.tolist()}
        write_predictions(folder, columns)
    results = {"task": "classification", "headline": "accuracy", "environment": {"seed": seed}}
    return RunResults(folder.name, folder, results | {"rows": {"evaluation": {"test": 60}}})


def test_runs_of_the_same_rows_are_paired(tmp_path):
    """Prevents a comparison of two runs by ranges over seeds, where each row tells."""
    good, bad = run_of(tmp_path / "good", 6), run_of(tmp_path / "bad", 30)
    gain = gain_on_same_rows(good, bad)
    assert gain["mean"] == pytest.approx(0.4)
    assert 0.2 < gain["low"] < 0.4 < gain["high"] < 0.6


def test_texts_tell_where_fingerprints_do_not(tmp_path):
    """Prevents students of two tokenizers that cannot be compared, although their texts are the same."""
    texts = [f"text {i}" for i in range(60)]
    first, second = (run_of(tmp_path / name, 6, rows=name, texts=texts) for name in ("first", "second"))
    assert gain_on_same_rows(first, second)["mean"] == 0.0
    other = run_of(tmp_path / "other", 6, rows="c", texts=[*texts[1:], "another"])
    assert gain_on_same_rows(first, other) is None


def test_rows_that_are_cut_elsewhere_are_not_compared(tmp_path, capsys):
    """Prevents a study that stops at its first table, where a method reads other tokens or lengths."""
    first, second = run_of(tmp_path / "first", 6), run_of(tmp_path / "second", 6)
    save_outputs(second.folder / OUTPUTS, {"test": Outputs(np.eye(3)[LABELS[:50]], LABELS[:50])})
    assert gain_over(first, second) is None
    assert "scored on other rows" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["other rows", "another seed", "no outputs", "damaged outputs"])
def test_without_pairs_nothing_is_compared(tmp_path, change):
    """Prevents a difference of scores on unlike rows, and a comparison that ends in a traceback."""
    first = run_of(tmp_path / "first", 6)
    options = {"other rows": {"rows": "b"}, "another seed": {"seed": 1}}.get(change, {})
    second = run_of(tmp_path / "second", 9, **options)
    if change == "no outputs":
        (second.folder / OUTPUTS).unlink()
    if change == "damaged outputs":
        (second.folder / OUTPUTS).write_bytes(b"PK")
    assert gain_on_same_rows(first, second) is None
