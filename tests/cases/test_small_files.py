"""Small files of a run that are cut, empty, older or of another type: a stage is repeated, or refused in words."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import TrainingArguments

from distil_nlp.cli import study
from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue.output_folder import SCORES, Folder
from distil_nlp.evaluation.glue.settings import FinetuningSettings
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.kept_outputs import read_outputs
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.run_folder import run_state
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.recipe import load_recipe
from distil_nlp.study.processes import MEMORY_FILE
from distil_nlp.teachers.cache.shards import MANIFEST, read_manifest
from distil_nlp.training.checkpoints import (
    COMPLETE,
    NOTHING_SPENT,
    SPENT,
    last_complete_checkpoint,
    mark_as_complete,
    read_spent,
    warn_about_changed_processes,
)
from distil_nlp.utils.files import load_json, read_json
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.helpers.studies import run_jobs_here

pytestmark = pytest.mark.integration

DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "an object without keys": lambda content: b"{}",
    "a list": lambda content: b"[1, 2]",
    "null": lambda content: b"null",
    "another encoding": lambda content: content.decode().encode("utf-16"),
    "deep": lambda content: b"[" * 100_000,
}


def damage(path, kind):
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_object_is_none_and_says_why(tmp_path, capsys, kind):
    """Prevents a traceback of the parser, or of whoever looks for a key."""
    file = tmp_path / "some.json"
    file.write_text(json.dumps({"steps": 3, "history": []}))
    assert read_json(file, "it is made again", steps=int, history=list) == {"steps": 3, "history": []}
    damage(file, kind)
    assert read_json(file, "it is made again", steps=int, history=list) is None
    assert f"{file} cannot be used (" in (said := capsys.readouterr().out)
    assert "): it is made again" in said
    with pytest.raises(ValueError, match=r"no whole JSON|instead of an object|no usable steps, history"):
        load_json(file, steps=int, history=list)


def test_a_missing_object_is_none_without_a_word(tmp_path, capsys):
    """Prevents a line for each thing that is yet to be made."""
    assert read_json(tmp_path / "none.json", "x") is None
    assert not capsys.readouterr().out


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    """A finished run with a further seed and a teacher of its own."""
    place = Place(tmp_path_factory.mktemp("finished")).prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
        assert place.run(*COMMAND) == 0
    return place


COMMAND = ("training.max_steps=1", "evaluation.seeds=2", "teacher.finetune={max_steps: 1}", "training.save_steps=1")


@pytest.fixture
def finished(finished_once, monkeypatch):
    """The same, put back afterwards; costs and pictures are left out."""
    kept = finished_once.folder.with_name("kept")
    shutil.copytree(finished_once.folder, kept)
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    yield finished_once
    shutil.rmtree(finished_once.folder)
    kept.rename(finished_once.folder)


@pytest.fixture
def trained(monkeypatch):
    """Names of the folders of students that are trained."""
    names, train = [], StudentRun.train

    def spy(run, *args, **kwargs):
        names.append(run.folder.name)
        return train(run, *args, **kwargs)

    monkeypatch.setattr(StudentRun, "train", spy)
    return names


def weights_altered(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


VARIANT = "run/variants/distilled-43"
REPEATED = {
    "cut or of another type": {
        "run/training.json": ("cut", "training.json cannot be used (no whole JSON"),
        f"{VARIANT}/training.json": ("a list", "a JSON list instead of an object"),
        "run/provenance.json": ("empty", "has no fingerprints: whether data, models and recipe"),
        "teachers/*/teacher.json": ("cut", "the teacher is fine-tuned again"),
        "run/results.json": ("null", "a JSON NoneType instead of an object"),
    },
    "without keys": {
        "run/training.json": ("an object without keys", "no usable steps, max_steps, history, final_terms"),
        f"{VARIANT}/outputs.npz": ("cut", "outputs.npz cannot be used"),
        "teachers/*/teacher.json": ("an object without keys", "no usable weights): the teacher is fine-tuned again"),
        "run/results.json": ("cut", "the student is scored again"),
    },
    "altered or gone": {
        "run/student/model.safetensors": ("altered", "is not as it was saved; the student is trained again"),
        f"{VARIANT}/training.json": ("gone", "student 2 of 2"),
        "teachers/*/model/model.safetensors": ("altered", "is not as it was saved; the teacher is fine-tuned again"),
        "run/results.json": ("empty", "the student is scored again"),
    },
}


@pytest.mark.parametrize("kind", REPEATED)
def test_a_stage_whose_file_is_damaged_is_repeated(finished, trained, capsys, kind):
    """Prevents a traceback, a student without a word scored in place of another, and an old score without a reason."""
    for name, (how, _) in REPEATED[kind].items():
        (file,) = finished.folder.glob(name)
        {"gone": Path.unlink, "altered": weights_altered}.get(how, lambda file, how=how: damage(file, how))(file)
    assert finished.run(*COMMAND) == 0
    printed = capsys.readouterr().out
    assert not [said for _, said in REPEATED[kind].values() if said not in printed]
    assert trained == ["run", "distilled-43"]
    assert finished.results["seeds"]["accuracy"]["seeds"] == [42, 43]


def test_a_student_that_was_exchanged_is_not_published(finished, monkeypatch, capsys):
    """Prevents a student on the Hub with the scores of another."""
    monkeypatch.setattr("distil_nlp.pipeline.preflight.check_repository", lambda name, private: None)
    weights_altered(finished.out / "student" / "model.safetensors")
    assert finished.run(*COMMAND) == 0
    assert "model.safetensors is not what was scored" in capsys.readouterr().out
    assert finished.run(*COMMAND, "hub.push=true", "hub.repo_id=me/x") == 2
    assert "expected the student that was scored / got another model.safetensors" in one_line(capsys.readouterr().err)


def test_results_of_another_schema_are_made_anew(finished, capsys):
    """Prevents a run that is finished and that nothing can show."""
    file, recipe = finished.out / "results.json", load_recipe(finished.command()[0], COMMAND)
    recipe = RunPlan.of(recipe, "tiny").recipe
    assert run_state(finished.out, recipe) == "finished"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    assert run_state(finished.out, recipe) == "unfinished"
    assert "has schema 99, not 2: the student is scored again" in capsys.readouterr().out


@pytest.mark.parametrize("arrays", [{}, {"test/predictions": np.zeros((3, 2))}, {"test/predictions": 1, "x/labels": 2}])
def test_outputs_of_other_rows_or_keys_are_not_read(tmp_path, capsys, arrays):
    """Prevents gains that are taken between outputs of different rows."""
    np.savez(tmp_path / "outputs.npz", **arrays)
    assert read_outputs(tmp_path / "outputs.npz", {"test": range(9)}) is None
    assert "the student is trained again" in capsys.readouterr().out


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_checkpoint_of_damaged_words_is_passed_over_or_used_without_them(tmp_path, capsys, kind):
    """Prevents a traceback over a file of a checkpoint, and an empty list of files that passes for a whole one."""
    for step in (1, 2):
        (folder := tmp_path / f"checkpoint-{step}").mkdir()
        (folder / SPENT).write_text(json.dumps({"seconds": 1.0, "tokens": 2, "processes": 2, "rows_per_step": 4}))
        mark_as_complete(folder)
    damage(folder / COMPLETE, kind)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-1"
    assert "passed over" in capsys.readouterr().out
    damage(folder / SPENT, kind)
    assert read_spent(folder) == NOTHING_SPENT
    warn_about_changed_processes(folder, TrainingArguments(str(tmp_path), use_cpu=True))
    assert "checkpoint-2 does not say what it has cost" in capsys.readouterr().out
    (folder / SPENT).unlink()
    assert read_spent(folder) == NOTHING_SPENT


@pytest.mark.parametrize("content", [*DAMAGES, '{"key": {}, "layout": {"rows": 1}}'])
def test_a_cache_whose_words_are_damaged_is_refused(tmp_path, content):
    """Prevents a KeyError or TypeError in place of the folder's name."""
    file = tmp_path / MANIFEST
    file.write_text(json.dumps({"key": {}, "layout": {"rows": 1, "epochs": 1, "shard_rows": 1}}))
    assert read_manifest(tmp_path)["key"] == {}
    damage(file, content) if content in DAMAGES else file.write_text(content)
    with pytest.raises(UserError, match=r"teacher.cache: expected cache.json in .* / delete the folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("kind", DAMAGES)
def test_scores_of_a_glue_evaluation(tmp_path, capsys, kind):
    """Prevents an evaluation that cannot be taken up again, and one that takes another model's scores for its own."""
    header = {"model": {"name": "m", "encoder_sha256": "1"}, "data": "d", "settings": {}}
    folder = Folder(tmp_path, header, FinetuningSettings())
    record = {"task": "mrpc", "seed": 1, "metrics": {}, "rows": {}, "seconds": 1.0, "predictions": None}
    folder.of("mrpc", 1).mkdir(parents=True)
    (file := folder.of("mrpc", 1) / SCORES).write_text(json.dumps(record))
    assert folder.records() == [record]
    damage(file, kind)
    assert folder.records() == []
    assert "this fine-tuning is repeated" in capsys.readouterr().out
    (tmp_path / "glue.json").write_text(json.dumps(header))
    folder.check()
    damage(tmp_path / "glue.json", kind)
    with pytest.raises(UserError, match=r"--output: expected the settings of an evaluation in"):
        folder.check()


@pytest.fixture
def a_study(tmp_path, monkeypatch):
    """A study that is finished, with runs in this process."""
    monkeypatch.setattr("distil_nlp.study.runner.run_jobs", run_jobs_here)
    plan = {"recipe": Place(tmp_path).prepare().command()[0], "tasks": ["classification"], "seeds": 1}
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({**plan, "always": {"hard_label": {}}, "methods": {"plain": {}, "none": {}}})
    )
    command = [str(tmp_path / "study.yaml"), "--output", str(tmp_path / "study"), "training.max_steps=1"]
    assert study([*command, "--methods", "plain"]) == 0
    return command, tmp_path / "study"


def test_files_of_a_study(a_study, capsys):
    """Prevents a study that cannot be taken up again because one of its runs has a damaged file."""
    command, folder = a_study
    run = folder / "classification" / "plain"
    capsys.readouterr()
    for kind in ("cut", "an object without keys"):
        (run / MEMORY_FILE).write_text("")
        damage(run / "results.json", kind)
        assert study([*command, "--methods", "plain"]) == 0
        said = capsys.readouterr().out
        assert "the run is taken up again" in said
        assert "run 1 of 1: plain on classification" in said
        assert json.loads((folder / "study.json").read_text())[0]["peak_mib"] == 500
    (run / MEMORY_FILE).write_text("")
    assert study([*command, "--methods", "plain"]) == 0
    assert json.loads((folder / "study.json").read_text())[0]["peak_mib"] is None
    damage(folder / "settings.json", "cut")
    assert study(command) == 2
    assert "expected the settings of the runs in" in one_line(capsys.readouterr().err)
