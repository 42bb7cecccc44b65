"""A study on tiny models: a run for each method and task, taken up again, and a table."""

import json

import pytest
import yaml

from distil_nlp.cli import distill, study
from tests.test_stages import Place


def run_here(arguments, place):
    """A run without a process of its own, which takes seconds to start."""
    assert distill(arguments) == 0
    (place / "peak_mib.txt").write_text("500\n")


METHODS = {"plain": {}, "cosine": {"hidden_cosine": {"layers": "last"}}}


def prepared(tmp_path, **changes):
    """(the study's file, a folder for it)."""
    place = Place(tmp_path).prepare()
    recipe = place.command()[0]
    plan = {
        "recipe": recipe,
        "tasks": ["classification"],
        "seeds": 2,
        "always": {"soft_target_kl": {}, "hard_label": {}},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**plan, "methods": METHODS, **changes}, sort_keys=False))
    return str(path), tmp_path / "study"


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "processes"])
def test_a_study_runs_each_method_once_and_tells_them_side_by_side(tmp_path, capsys, monkeypatch, real):
    """Prevents runs of unlike steps or objectives in one table, and a stopped study that begins anew."""
    if not real:
        monkeypatch.setattr("distil_nlp.stages.write_report", lambda folders: folders[0] / "report.html")
        monkeypatch.setattr("distil_nlp.study._run", run_here)
    path, folder = prepared(tmp_path)
    command = [path, "--output", str(folder), "training.max_steps=2", "training.seed=7"]
    assert study(command) == 0
    rows = {row["method"]: row for row in json.loads((folder / "study.json").read_text())}
    assert rows["plain"]["terms"] == ["hard_label", "soft_target_kl"]
    assert rows["cosine"]["terms"] == ["hard_label", "hidden_cosine", "soft_target_kl"]
    assert {(row["steps"], row["seeds"]) for row in rows.values()} == {(2, 2)}
    assert rows["plain"]["times_plain"] == 1.0
    assert all(row["low"] <= row["median"] <= row["high"] for row in rows.values())
    assert all(row["seconds_per_step"] > 0 and row["peak_mib"] > 100 for row in rows.values())
    assert "| cosine |" in (folder / "study.md").read_text()
    (folder / "classification" / "cosine" / "results.json").unlink()
    capsys.readouterr()
    assert study(command) == 0
    printed = capsys.readouterr().out
    assert "run 2 of 2: cosine on classification" in printed
    assert "run 1 of 2" not in printed
    assert study([*command, "training.max_steps=3"]) == 2
    assert "got other overrides" in capsys.readouterr().err
    path, _ = prepared(tmp_path, methods={**METHODS, "cosine": {"hidden_cosine": {"layers": "uniform"}}})
    assert study(command) == 2
    assert "methods.cosine: expected the terms that" in capsys.readouterr().err


def test_mistakes_of_a_study_are_told(tmp_path, capsys):
    """Prevents hours that end at the last method's typing mistake."""
    for changes, said in (
        (
            {"methods": {"plain": {}, "typo": {"hiden_cosine": {}}}},
            "hiden_cosine: unknown key; did you mean hidden_cosine",
        ),
        ({"tasks": ["mprc"]}, "mprc"),
        (
            {"methods": {"plain": {}, "x": {"bounded_regression": {}}}},
            "objective.bounded_regression: expected regression",
        ),
        ({"tasks": []}, "tasks: List should have at least 1 item"),
        ({"metods": {}}, "metods: Extra inputs are not permitted"),
    ):
        path, folder = prepared(tmp_path, **changes)
        assert study([path, "--output", str(folder)]) == 2
        assert said in capsys.readouterr().err
        assert not (folder / "classification").exists()
        assert not (folder / "settings.json").exists(), "a mistake must not bind the folder"
