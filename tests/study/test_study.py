"""A study on tiny models: a run for each method and task, taken up again, and a table."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from distil_nlp.cli import study
from distil_nlp.training.checkpoints import last_complete_checkpoint
from tests.helpers import ROOT
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.helpers.studies import run_jobs_here

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
    plan = {**plan, "methods": METHODS, **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in plan.items() if value != "left out"}, sort_keys=False))
    return str(path), tmp_path / "study"


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "processes"])
def test_a_study_runs_each_method_once_and_tells_them_side_by_side(tmp_path, capsys, monkeypatch, real):
    """Prevents runs of unlike steps or objectives in one table, and a stopped study that begins anew."""
    if not real:
        monkeypatch.setattr("distil_nlp.study.runner.run_jobs", run_jobs_here)
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
    assert all(0 <= row["agreement"] <= 1 for row in rows.values())
    told = (folder / "study.md").read_text()
    assert "| cosine |" in told
    assert "accuracy after 2 steps: teacher 0." in told
    assert "majority class 0." in told
    assert "| × plain |" in told
    assert "| − plain, points |" in told
    page = (folder / "report" / "report.html").read_text()
    assert "beyond the noise" in page or "points ahead of plain" in page
    assert {"scores-classification.png", "gains-classification.png"} <= {p.name for p in (folder / "report").iterdir()}
    gain = rows["cosine"]["gain"]
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert gain["won"] + gain["lost"] <= gain["seeds"] == len(rows["cosine"]["values"]) == 2
    assert rows["plain"]["gain"] is None
    assert {"teacher", "untrained copy", "one class for all"} <= rows["plain"]["beside"].keys(), "keys stay"
    (folder / "classification" / "cosine" / "results.json").unlink()
    capsys.readouterr()
    assert study(command) == 0
    printed = capsys.readouterr().out
    assert "run 2 of 2: cosine on classification" in printed
    assert "run 1 of 2" not in printed
    assert study([*command, "training.max_steps=3"]) == 2
    assert "got others: overrides was" in one_line(capsys.readouterr().err)
    path, _ = prepared(tmp_path, methods={**METHODS, "cosine": {"hidden_cosine": {"layers": "uniform"}}})
    assert study(command) == 2
    assert "methods.cosine: expected the settings that" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_seeds_and_measurements_are_added_to_finished_runs(tmp_path, capsys, monkeypatch):
    """Prevents a study of one seed that must begin anew to have two, or to be timed, and runs done again for less."""
    monkeypatch.setattr("distil_nlp.study.runner.run_jobs", run_jobs_here)
    path, folder = prepared(tmp_path, seeds=1)
    command = [path, "--output", str(folder), "training.max_steps=1"]

    def rows_after(*more):
        capsys.readouterr()
        assert study([*command, *more]) == 0
        return {row["method"]: row for row in json.loads((folder / "study.json").read_text())}

    first = rows_after()
    assert first["cosine"]["student"]["latency_ms"] is None
    timed = rows_after("evaluation.efficiency=quick", "--methods", "cosine")
    assert "run 1 of 1: cosine" in capsys.readouterr().out
    assert timed["cosine"]["student"]["latency_ms"] > 0
    assert timed["cosine"]["values"] == first["cosine"]["values"]
    rows_after()
    assert "run 1 of 2" not in capsys.readouterr().out, "what is timed stays timed"
    longer = rows_after("evaluation.seeds=2")
    printed = capsys.readouterr().out
    assert "run 1 of 2: plain" in printed
    assert "run 2 of 2: cosine" in printed
    assert {name: row["values"][:1] for name, row in longer.items()} == {n: row["values"] for n, row in first.items()}
    assert [row["seeds"] for row in longer.values()] == [2, 2]
    assert longer["cosine"]["gain"]["seeds"] == 2
    assert study(command) == 2
    assert "seeds was 2, is 1" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_some_methods_alone(tmp_path, capsys, monkeypatch):
    """Prevents a night of all methods for the sake of one, a table that forgets the others, and a name that is none."""
    monkeypatch.setattr("distil_nlp.study.runner.run_jobs", run_jobs_here)
    path, folder = prepared(tmp_path, seeds=1)
    command = [path, "--output", str(folder), "training.max_steps=1"]
    assert study([*command, "--methods", "cosine,typo,plane"]) == 2
    assert "--methods: expected some of plain, cosine / got typo, plane" in one_line(capsys.readouterr().err)
    assert not folder.exists()
    with pytest.raises(SystemExit, match="2"):
        study([*command, "--methods", "plain,"])
    assert study([path, "--methods", "cosine", *command[1:]]) == 0
    assert "run 1 of 1: cosine on classification" in capsys.readouterr().out
    assert study([*command, "--methods", "plain, cosine"]) == 0
    assert "run 1 of 2: plain on classification" in capsys.readouterr().out
    assert {row["method"] for row in json.loads((folder / "study.json").read_text())} == {"plain", "cosine"}


@pytest.mark.integration
def test_the_recipes_own_task_and_another_baseline(tmp_path, monkeypatch):
    """Prevents a study of one's own data that must be told its task twice, or be compared with `plain` alone."""
    monkeypatch.setattr("distil_nlp.study.runner.run_jobs", run_jobs_here)
    path, folder = prepared(tmp_path, tasks="left out", seeds=1, baseline="cosine")
    assert study([path, "--output", str(folder), "training.max_steps=1"]) == 0
    rows = {row["method"]: row for row in json.loads((folder / "study.json").read_text())}
    assert {row["task"] for row in rows.values()} == {"classification"}
    assert rows["cosine"]["gain"] is None
    assert rows["plain"]["gain"]["seeds"] == 1
    (folder / "classification" / "plain" / "outputs.npz").unlink()
    assert study([path, "--output", str(folder), "training.max_steps=1"]) == 0
    rows = {row["method"]: row for row in json.loads((folder / "study.json").read_text())}
    assert rows["plain"]["gain"] is None, "a run of an older version, whose outputs were not kept"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": None}, "methods: expected a value such as {plain: {}, cosine:"),
        ({"always": ["hard_label"]}, "always: expected a value such as {soft_target_kl: {}"),
        ({"seeds": 0}, "seeds: expected a value such as 3 / got 0"),
        ({"method": {}}, "method: unknown key; did you mean methods?"),
        ({"plugins": ["my_terms.py"]}, "plugins: a recipe's key; set it in the recipe that the study names"),
        ({"baseline": "none"}, "baseline: expected one of plain, cosine / got 'none'"),
    ],
    ids=str,
)
def test_a_studys_file_is_told_what_it_lacks(tmp_path, capsys, changes, words):
    """Prevents the name of a private class for documentation."""
    path, folder = prepared(tmp_path, **changes)
    assert study([path, "--output", str(folder)]) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not folder.exists()


@pytest.mark.slow
def test_a_study_that_is_told_to_stop_leaves_a_checkpoint_and_no_process(tmp_path):
    """Prevents a machine that is taken away in the middle of a step, because its word reached the wrong process."""
    path, folder = prepared(tmp_path)
    changes = ["training.max_steps=100000", "training.save_strategy=steps", "training.save_steps=20"]
    command = [sys.executable, "scripts/study.py", path, "--output", str(folder), *changes]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    place, ends = folder / "classification" / "plain", time.monotonic() + 120
    while last_complete_checkpoint(place) is None and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.2)
    first = last_complete_checkpoint(place)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert "told to stop (SIGTERM)" in process.stderr.read(), "which ends when no process holds it any more"
    last = last_complete_checkpoint(place)
    assert last != first
    time.sleep(1)
    assert last_complete_checkpoint(place) == last
    assert not (folder / "classification" / "cosine").exists()


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
        ({"tasks": []}, "tasks: expected a value such as [mrpc, rte]"),
        ({"metods": {}}, "metods: unknown key; did you mean methods?"),
    ):
        path, folder = prepared(tmp_path, **changes)
        assert study([path, "--output", str(folder)]) == 2
        assert said in one_line(capsys.readouterr().err)
        assert not (folder / "classification").exists()
        assert not (folder / "settings.json").exists(), "a mistake must not bind the folder"
