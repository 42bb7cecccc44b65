"""Names out of files become names of folders: of methods, tasks, recipes, models, corpora. None leads elsewhere."""

import string
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from distil_nlp.cli import study
from distil_nlp.data.augmentation.word_replacement import WordReplacement, rows_folder
from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue.output_folder import default_folder
from distil_nlp.pipeline.builders.teacher import teacher_cache
from distil_nlp.pipeline.plan import output_folder
from distil_nlp.pipeline.teacher import teacher_folder
from distil_nlp.recipe import Recipe
from distil_nlp.study.plan import read_plan
from distil_nlp.teachers.cache.builder import cache_folder
from distil_nlp.utils.names import path_name
from tests.helpers.messages import one_line

HOSTILE = (
    "../../escaped", "..", ".", "", "/absolute", "a/b", "a\\b", "C:\\x", "nul\0l", "x" * 3000, "größe", "🙂", " ",
    "a b", "kd T=2", "kd/T=2", "-rf", ".hidden", "end.", "line\nbreak", "~", "$HOME", "*", "a|b", "\udce4",
)  # fmt: skip
FINE = ("plain", "hidden_cosine", "kd-T2", "a.b", "BERT_base-uncased.v1", "1e5", "x" * 120)
ALLOWED = set(string.ascii_letters + string.digits + "._-")


def is_one_plain_name(name):
    return set(name) <= ALLOWED and name not in ("", ".", "..") and name[0] not in ".-" and len(name) <= 200


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_becomes_one_plain_name(text):
    assert is_one_plain_name(path_name(text))
    assert path_name(text) != text
    assert path_name(path_name(text)) == path_name(text), "a name that was made is kept"


@pytest.mark.parametrize("text", FINE)
def test_a_plain_name_stays(text):
    """Prevents folders of earlier runs that are no longer found."""
    assert path_name(text) == text


def test_texts_that_look_alike_do_not_share_a_folder():
    alike = ["a/b", "a_b", "a b", "a-b", "a\\b", "a:b", "-a-b", "a-b.", "x" * 300, "x" * 301]
    assert len({path_name(text) for text in alike}) == len(alike)


def written_study(tmp_path, **changes):
    recipe = {"teacher": {"name": "t"}, "data": {"path": "d", "task": "mrpc"}, "objective": {"hard_label": {}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    plan = {"recipe": "r.yaml", "tasks": ["mrpc"], "always": {"hard_label": {}}, "methods": {"plain": {}}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(plan | changes))
    return path


@pytest.mark.parametrize("where", ["methods", "tasks"])
@pytest.mark.parametrize("name", [*HOSTILE[:12], "kd T=2", ".hidden"])
def test_a_study_refuses_a_name_before_it_writes(tmp_path, where, name):
    """Prevents a study's file that overwrites recipes, and a method in a folder of another."""
    changes = {"methods": {"plain": {}, name: {}}} if where == "methods" else {"tasks": ["mrpc", name]}
    path = written_study(tmp_path, **changes)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=rf"^{where}: expected names of at most 120 letters .* / call it \w"):
        read_plan(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_writes_nothing_outside(tmp_path, capsys):
    path = written_study(tmp_path, methods={"plain": {}, "../../escaped": {}})
    assert study([str(path), "--output", str(tmp_path / "st" / "deep")]) == 2
    assert "methods: expected names" in one_line(capsys.readouterr().err)
    assert {file.name for file in tmp_path.iterdir()} == {"r.yaml", "study.yaml"}


def test_names_that_differ_in_case_alone_are_refused(tmp_path):
    """Prevents two methods in one folder on a disk that does not tell them apart."""
    with pytest.raises(UserError, match="differ in more than upper and lower case / got 'KD' and 'kd'"):
        read_plan(written_study(tmp_path, methods={"KD": {}, "kd": {}}))


@pytest.mark.parametrize("folder", ["st #1", "a: b", "[x]", "ö ü", "'q\""])
def test_a_study_may_lie_in_any_folder(tmp_path, monkeypatch, folder):
    """Prevents runs of all methods in one folder, because the rest of its path was read as a YAML comment."""
    seen = {}
    monkeypatch.setattr("distil_nlp.study.runner._validate", lambda recipe, name, place: seen.update({place: recipe}))
    monkeypatch.setattr("distil_nlp.study.runner.run_jobs", lambda jobs, at_once, on_start: iter(()))
    study([str(written_study(tmp_path)), "--output", str(tmp_path / folder)])
    assert {str(place): recipe.training["output_dir"] for place, recipe in seen.items()} == {
        str(tmp_path / folder / "mrpc" / "plain"): str(tmp_path / folder / "mrpc" / "plain")
    }


ROWS = Dataset.from_dict({"input_ids": [[1]], "labels": [0]})


def recipe(model="t", corpus="d", task="mrpc"):
    return Recipe.model_validate(
        {"teacher": {"name": model, "cache": {}, "folder": "teachers"}, "data": {"path": corpus, "task": task},
         "objective": {}}
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("", "\udce4")])
def test_folders_that_are_named_by_default_have_plain_names(name):
    """Prevents a default folder that a model, a corpus or a recipe of a stranger leads elsewhere."""
    made = [
        output_folder(recipe(), name),
        output_folder(recipe(corpus=name, task="mlm"), "r"),
        teacher_folder(recipe(model="m", corpus=name, task="mlm"), {}, ROWS),
        cache_folder(teacher_cache(recipe(model="m" if "\0" in name else name)), {}),
        rows_folder(WordReplacement(folder="rows"), name, "0123"),
    ]
    if "\0" not in name and len(name) < 250:  # no such name can be a path
        made += [default_folder(name), teacher_folder(recipe(model=name), {}, ROWS)]
    for folder in made:
        assert folder.parent.parts in (("runs",), ("teachers",), ("runs", "caches"), ("rows",)), folder
        assert is_one_plain_name(folder.name), folder


def test_folders_of_plain_names_are_where_they_were():
    assert output_folder(recipe(), "glue") == Path("runs/glue-mrpc-42")
    assert output_folder(recipe(corpus="wikimedia/wikipedia", task="mlm"), "minilm") == Path("runs/minilm-wikipedia-42")
    assert output_folder(recipe(corpus="my/texts.txt", task="mlm"), "mlm") == Path("runs/mlm-texts-42")
    name = teacher_folder(recipe(model="google/bert"), {}, ROWS).name
    assert name == "bert-mrpc-ca75d4eeb6", "a new key of the recipe, at its default, would train every teacher anew"
    chosen = recipe().model_copy(update={"training": {"output_dir": "/any where/ö #1/../x"}})
    assert output_folder(chosen, "glue") == Path("/any where/ö #1/../x"), "a path that a user gives is free"
