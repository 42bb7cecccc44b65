"""What changed between a run's start and its continuation is named and refused; a finished run says so."""

import itertools
import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from datasets import Dataset
from safetensors.torch import load_file, save_file

from distil_nlp.data.fingerprint import hash_data_files, hash_model_files, hash_values
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.teacher import teacher_folder
from distil_nlp.recipe import load_recipe
from distil_nlp.results.provenance import Provenance
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

SHORT = ("training.max_steps=4", "training.save_steps=2")


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """A run that was stopped with two checkpoints."""
    place = Place(tmp_path_factory.mktemp("stopped")).prepare()
    tiny.classifier(2, seed=5).save_pretrained(place.folder / "start")
    tiny.tokenizer().save_pretrained(place.folder / "start")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distil_nlp.training.fit._save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        assert place.run(*SHORT, f"student.name={place.folder / 'start'}") == 130
    assert sorted(path.name for path in place.out.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    return place


@pytest.fixture
def stopped(stopped_once):
    """The same, put back afterwards."""
    kept = stopped_once.folder.with_name("kept")
    shutil.copytree(stopped_once.folder, kept)
    yield stopped_once
    shutil.rmtree(stopped_once.folder)
    kept.rename(stopped_once.folder)


def a_label(place):
    rows = Dataset.from_parquet(
        str(place.folder / "data" / "train-00000-of-00001.parquet"), cache_dir=place.folder / "c"
    )
    columns = rows.to_dict()
    columns["label"][-1] ^= 1
    changed = Dataset.from_dict(columns, features=rows.features)
    changed.to_parquet(place.folder / "data" / "train-00000-of-00001.parquet")


def fewer_evaluation_rows(place):
    file = place.folder / "data" / "test-00000-of-00001.parquet"
    rows = Dataset.from_parquet(str(file), cache_dir=place.folder / "c")
    rows.select(range(8)).to_parquet(file)


def a_weight(place, folder="teacher"):
    file = place.folder / folder / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("bias"))
    save_file({**weights, name: weights[name] + 1e-3}, file, {"format": "pt"})


def a_configuration(place):
    file = place.folder / "teacher" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "relu"}))


def the_start(place):
    a_weight(place, "start")


CHANGES = {
    "other training rows": a_label,
    "other evaluation rows": fewer_evaluation_rows,
    "another teacher": a_weight,
    "got another teacher": a_configuration,
    "another student.name to start from": the_start,
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_stopped_run_is_not_carried_on_with_something_else(stopped, capsys, said):
    """Prevents a student that learnt from two sets of rows, or of two teachers, by one cleaned file after a crash."""
    CHANGES[said](stopped)
    own = f"student.name={stopped.folder / 'start'}"
    assert stopped.run(*SHORT, own) == 2
    message = one_line(capsys.readouterr().err)
    assert said in message
    assert "run.overwrite=true to start anew" in message
    assert not (stopped.out / "student").exists()


def test_other_versions_are_told_and_not_refused(stopped_once, capsys):
    """Prevents a run that must be started anew for an upgrade, and figures that differ for no reason that is told."""
    kept = json.loads((stopped_once.out / "provenance.json").read_text())
    Provenance(**kept).validate(kept, stopped_once.out)
    assert not capsys.readouterr().out
    Provenance(**kept).validate({**kept, "versions": {**kept["versions"], "torch": "2.0.0"}}, stopped_once.out)
    assert f"{stopped_once.out} was begun with torch 2.0.0 (now {version('torch')})" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_goes_on_and_says_what_it_cannot_tell(stopped, capsys):
    """Prevents runs on users' disks that a new version refuses."""
    for file in stopped.out.glob("**/provenance.json"):
        file.unlink()
    for checkpoint in stopped.out.glob("checkpoint-*"):
        complete = json.loads((checkpoint / "complete.json").read_text())
        del complete["provenance.json"]
        (checkpoint / "complete.json").write_text(json.dumps(complete))
    assert stopped.run(*SHORT, f"student.name={stopped.folder / 'start'}") == 0
    assert f"{stopped.out} has no fingerprints: whether data, models and recipe" in capsys.readouterr().out
    assert (stopped.out / "provenance.json").is_file()


def test_a_checkpoint_of_another_recipe_is_not_carried_on(stopped, capsys):
    """Prevents a checkpoint that was copied here, or left by a race, from becoming this recipe's student."""
    for file in stopped.out.glob("checkpoint-4/provenance.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "recipe": "another"}))
        complete = json.loads((file.parent / "complete.json").read_text())
        del complete["provenance.json"]
        (file.parent / "complete.json").write_text(json.dumps(complete))
    assert stopped.run(*SHORT, f"student.name={stopped.folder / 'start'}") == 2
    assert "checkpoint-4 was begun with / got another recipe" in one_line(capsys.readouterr().err)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("finished")).prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
        assert place.run("training.max_steps=1") == 0
    return place


def test_a_finished_run_knows_what_it_was_made_of(finished, capsys, tmp_path):
    """Prevents a second seed that another teacher taught, and another recipe's student under this one's name."""
    record = json.loads((finished.out / "training.json").read_text())
    assert record["provenance"] == json.loads((finished.out / "provenance.json").read_text())
    assert record["weights"].keys() == {"model.safetensors"}
    assert finished.run("training.max_steps=1") == 0
    assert "changed since" not in capsys.readouterr().out
    (finished.out / "results.json").rename(tmp_path / "results.json")
    (finished.out / "training.json").write_text(
        json.dumps({**record, "provenance": {**record["provenance"], "recipe": "another's"}})
    )
    assert finished.run("training.max_steps=1") == 2
    assert "training.json was begun with / got another recipe" in one_line(capsys.readouterr().err)
    (finished.out / "training.json").write_text(json.dumps(record))
    (tmp_path / "results.json").rename(finished.out / "results.json")
    for change, word in ((a_weight, "teacher"), (a_label, "data files and teacher")):
        change(finished)
        assert finished.run("training.max_steps=1") == 0
        said = capsys.readouterr().out
        assert "this run is finished" in said
        assert f"{word} changed since, its figures are of what was there before" in said
    assert finished.run("training.max_steps=1", "evaluation.seeds=2") == 2
    assert "got other training rows and another teacher" in one_line(capsys.readouterr().err)


def test_the_fine_tuned_teachers_folder_depends_on_all_files_and_rows(tmp_path):
    """Prevents a teacher of other weights in shards, of another configuration, or of rows far down in the file."""
    place = Place(tmp_path).prepare()
    tiny.classifier(4).save_pretrained(place.folder / "teacher", max_shard_size="20KB")
    (place.folder / "teacher" / "model.safetensors").unlink()
    recipe, count = load_recipe(place.command()[0]), 30_000
    columns = {"input_ids": [[2, 7, 3]] * count, "labels": [0] * count, "length": [3] * count}

    def folder():
        return teacher_folder(recipe, {}, Dataset.from_dict(columns))

    found = [folder(), folder()]
    last = sorted((place.folder / "teacher").glob("*.safetensors"))[-1]
    save_file({name: value + 1e-3 for name, value in load_file(last).items()}, last, {"format": "pt"})
    found.append(folder())
    a_configuration(place)
    found.append(folder())
    columns["labels"] = [0] * (count - 1) + [1]
    found.append(folder())
    columns["word_ids"] = [[-1, 0, -1]] * count
    found.append(folder())
    assert [one == other for one, other in itertools.pairwise(found)] == [True, False, False, False, True]


def test_rows_are_known_by_their_values_alone():
    """Prevents a run that is refused because its rows were read from a cache in other chunks or types."""
    values = {"input_ids": [[1, 2], [3], []] * 5000, "labels": [0, 1, 2] * 5000}
    rows = Dataset.from_dict(values)
    same = [
        Dataset.from_dict({name: values[name] for name in reversed(values)}),
        Dataset.from_dict({**values, "input_ids": [np.array(ids, np.int32) for ids in values["input_ids"]]}),
        Dataset.from_dict({k: v + v[:7] for k, v in values.items()}).select(range(15000)),
        rows.shuffle(seed=1).select(np.argsort(rows.shuffle(seed=1)._indices.column(0).to_numpy())),
    ]
    assert {hash_values(other) for other in same} == {hash_values(rows)}
    moved = {**values, "input_ids": [[1], [2, 3], []] * 5000}
    other = [
        moved,
        {**values, "labels": [0, 1, 2] * 4999 + [0, 1, 1]},
        {**values, "labels": [*values["labels"][:-1], None]},
    ]
    assert len({hash_values(Dataset.from_dict(changed)) for changed in [values, *other]}) == 4


def test_files_that_are_no_data_or_no_weights_do_not_count(tmp_path):
    """Prevents a run that is refused for an edited README, a log beside the data, or the cache of a file browser."""
    (tmp_path / "rows.csv").write_text("text,label\na,0\n")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_text('{"hidden_size": 2}')
    before = hash_model_files(tmp_path), hash_data_files(str(tmp_path / "rows.csv"))
    (tmp_path / "README.md").write_text("new")
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json").write_text('{"transformers_version": "6", "hidden_size": 2}')
    assert (hash_model_files(tmp_path), hash_data_files(str(tmp_path / "rows.csv"))) == before
    assert hash_data_files("nyu-mll/glue") is None
