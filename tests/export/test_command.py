"""`distil-nlp export`: what it refuses, and that a finished run stays what it was."""

import json

import pytest

from distil_nlp.cli import distill, main
from distil_nlp.errors import UserError
from distil_nlp.export import packages
from distil_nlp.pipeline import export
from distil_nlp.recipe import load_recipe
from tests.export.runs_of_kinds import SHORT
from tests.helpers.messages import one_line
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run of a classifier."""
    place = Place(tmp_path_factory.mktemp("run") / "place").prepare()
    assert place.run(*SHORT) == 0
    return place


def test_other_settings_than_the_exports_are_refused(place, capsys):
    """Prevents an override without effect on a student that is finished."""
    assert main(["export", str(place.out), "training.max_steps=3"]) == 2
    assert "training.max_steps: expected a setting of the section export" in one_line(capsys.readouterr().err)
    assert main(["export", str(place.out), "export.int8=int4"]) == 2
    assert "export.int8" in one_line(capsys.readouterr().err)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    """Prevents a traceback for a folder that was mistyped."""
    assert main(["export", str(tmp_path)]) == 2
    assert "expected the folder of a run / got one without recipe.yaml" in one_line(capsys.readouterr().err)


def test_missing_packages_are_told_before_anything_is_done(place, capsys, monkeypatch):
    """Prevents a run of hours whose export then finds no onnxruntime."""
    monkeypatch.setattr(packages, "package_versions", lambda names: dict.fromkeys(names, "1") | {"onnxruntime": None})
    for command in (["export", str(place.out)], ["check", *place.command("export.onnx=true")]):
        assert main(command) == 2
        said = one_line(capsys.readouterr().err)
        assert "got no onnxruntime" in said
        assert "pip install 'distil-nlp[export]'" in said


def test_a_student_that_was_changed_since_is_not_exported(place):
    """Prevents the figures of a run from standing beside a graph of other weights."""
    weights = place.out / "student" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(UserError, match=r"expected the student that was scored / got another model\.safetensors"):
            export.export_run(place.out, load_recipe(place.out / "recipe.yaml"))
    finally:
        weights.write_bytes(before)
    assert not (place.out / "student" / "onnx").exists()


def test_settings_of_the_export_do_not_make_another_run(place, capsys):
    """Prevents a finished run from being refused or trained again because of how it is exported."""
    assert distill(place.command(*SHORT, "export.gate=0.5", "export.int8=off")) == 0
    assert "this run is finished" in capsys.readouterr().out


def test_a_run_exports_its_student_at_its_end(place, capsys, monkeypatch):
    """Prevents `export.onnx` without effect, and an export that is done again by each further start."""
    done = []

    def exported(folder, recipe):
        done.append(recipe.export.gate)
        path = folder / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"export": {}}))

    monkeypatch.setattr(export, "export_claimed", exported)
    before = (place.out / "results.json").read_text()
    try:
        for _ in range(2):
            assert distill(place.command(*SHORT, "export.onnx=true", "export.gate=0.9")) == 0
    finally:
        (place.out / "results.json").write_text(before)
    assert done == [0.9]


@pytest.mark.integration
def test_one_of_two_processes_exports(tmp_path):
    """Prevents two processes that write one file, and one that waits for ever for the other."""
    place = Place(tmp_path).prepare()
    quick = ("export.onnx=true", "export.latency=off", "export.int8=off", "training.per_device_train_batch_size=2")
    forked_pair("scripts/distill.py", *place.command(*SHORT, *quick))
    assert place.results["environment"]["processes"] == 2
    assert place.results["export"]["models"]["onnx"]["fidelity"]["agreement"] == 1
    assert (place.out / "student" / "onnx" / "model.onnx").is_file()
