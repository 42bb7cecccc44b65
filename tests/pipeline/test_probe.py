"""Runs with `evaluation.probe`."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distil_nlp.cli import main
from distil_nlp.pipeline.distill import distil
from distil_nlp.recipe import load_recipe
from distil_nlp.training import trainer
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place

MLM = (
    *("data.task=mlm", "data.text_columns=null", "data.max_length=16", "data.held_out_share=0.3"),
    *("training.train_sampling_strategy=random", "training.max_steps=5", "training.save_steps=2"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    place = Place(tmp_path_factory.mktemp("place")).prepare()
    place.teacher(tiny.mlm_model(4, hidden_dropout_prob=0.2))  # training draws random numbers
    (place.folder / "own.txt").write_text("\n".join(f"{text} {i}" for text in tiny.SENTENCES * 20 for i in range(3)))
    rows = [{"words": text, "says": "yes" if "cat" in text else "no"} for text in place.texts]
    (place.folder / "probe.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


def options(place: Place, out: str, **probe: Any) -> list[str]:
    """Arguments of a run in a folder; with a probe every two steps, changed so, or without one (`every=None`)."""
    place.out = place.folder / out
    given = {"path": str(place.folder / "probe.jsonl"), "text_columns": "words", "label_column": "says"}
    given |= {"max_rows": 16, "every": 2, **probe}
    probes = [] if given["every"] is None else [f"evaluation.probe={json.dumps(given)}"]
    return [*MLM, f"data.path={place.folder / 'own.txt'}", *probes]


def scored_steps(history: list[dict]) -> list[int]:
    return [entry["step"] for entry in history if "probe_accuracy" in entry]


def weights(folder: Path) -> dict:
    return load_file(folder / "student" / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all((value == other[name]).all() for name, value in one.items())


@pytest.fixture(scope="module")
def probed(place) -> tuple[dict, dict]:
    """The results and the weights of a run with a probe."""
    assert place.run(*options(place, "probed")) == 0
    return place.results, weights(place.out)


def test_a_run_has_the_curve_and_what_it_is_compared_with(probed):
    """Prevents a probe that is computed and found nowhere, or that misses the start or the end."""
    training = probed[0]["training"]
    assert scored_steps(training["history"]) == [0, 2, 4, 5]
    probe = training["probe"]
    assert (probe["task"], probe["train_rows"], probe["pooling"]) == ("classification", 16, "mean")
    assert probe["scored_rows"] > 2
    assert all(0 <= probe[name] <= 1 for name in ("teacher", "majority"))


def test_the_report_draws_it(probed, place):
    """Prevents a curve that nobody sees."""
    report = place.folder / "probed" / "report"
    assert (report / "probe.png").is_file()
    assert "Linear probe on classification over training" in (report / "report.html").read_text()


@pytest.mark.integration
def test_a_run_ends_with_the_same_weights_without_it(probed, place):
    """Prevents a probe that draws random numbers, leaves the student in eval mode, or changes it otherwise."""
    assert place.run(*options(place, "plain", every=None)) == 0
    assert same(weights(place.out), probed[1])
    assert "probe" not in place.results["training"]


@pytest.mark.integration
def test_a_resumed_run_has_the_whole_curve(probed, place, monkeypatch):
    """Prevents scores that are lost or taken twice where training carries on from a checkpoint."""

    def stop(self, *args, **kwargs):
        if self.trainer.state.global_step == 4:
            raise KeyboardInterrupt

    arguments = options(place, "resumed")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.CheckpointGuard, "on_step_begin", stop, raising=False)
        path, *overrides = place.command(*arguments)
        recipe = load_recipe(path, overrides)
        with pytest.raises(KeyboardInterrupt):
            distil(recipe, "tiny")
    assert place.run(*arguments) == 0
    training = place.results["training"]
    assert training["resumed_from"] == "checkpoint-4"
    assert scored_steps(training["history"]) == [0, 2, 4, 5]
    assert training["probe"] == probed[0]["training"]["probe"]
    assert same(weights(place.out), probed[1])


def test_check_tells_of_it(place, capsys):
    """Prevents data of the probe that is first read when the run begins."""
    assert main(["check", *place.command(*options(place, "checked"))]) == 0
    assert "16 rows to learn from" in one_line(capsys.readouterr().out)


BAD: dict[str, tuple[dict, str]] = {
    "a kind that it has no classifier for": ({"task": "regression"}, "evaluation.probe.task: expected one of"),
    "no such task": ({"task": "sst"}, "evaluation.probe.task: expected one of"),
    "columns of its own": ({"task": "sst2"}, "evaluation.probe.text_columns: expected none for sst2"),
    "no columns": ({"text_columns": None}, "evaluation.probe.text_columns: expected the text column"),
    "no such column": ({"text_columns": "body"}, "evaluation.probe.text_columns: expected columns body"),
    "no labels": ({"label_column": "class"}, "evaluation.probe.label_column: expected a column 'class'"),
    "no file": ({"path": "./none.csv"}, "evaluation.probe.path: expected a dataset at ./none.csv"),
    "no step": ({"every": 0}, "evaluation.probe.every: expected greater than 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_before_training(place, capsys, name):
    """Prevents a run that fails at the first score, or messages about the keys of `data`."""
    changed, message = BAD[name]
    assert place.run(*options(place, "refused", **changed)) == 2
    assert message in one_line(capsys.readouterr().err)
    assert not place.out.exists()


def test_a_task_needs_no_probe(place, capsys):
    """Prevents a key that has no effect: a task has scores of its own."""
    place.out = place.folder / "refused"
    assert place.run(f"evaluation.probe={{path: {place.folder / 'probe.jsonl'}}}") == 2
    assert "evaluation.probe: expected none for a task" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_two_processes_score_once_and_do_not_wait_for_ever(probed, place):
    """Prevents a score that each process computes, and processes that wait for one that computes none."""
    arguments = options(place, "two")
    forked_pair("-m", "distil_nlp", "distill", *place.command(*arguments, "training.per_device_train_batch_size=2"))
    training = json.loads((place.out / "results.json").read_text())["training"]
    assert scored_steps(training["history"]) == [0, 2, 4, 5]
    assert training["probe"] == probed[0]["training"]["probe"]
