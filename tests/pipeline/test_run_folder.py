"""Whose an output folder is: recipes with and without their defaults written out are the same run."""

import json

import pytest

from distil_nlp.errors import UserError
from distil_nlp.pipeline.run_folder import claim, run_state
from distil_nlp.recipe import dump_recipe, dump_yaml, load_recipe
from distil_nlp.redaction import abbreviate_home

RECIPE = """
teacher: {name: t, cache: {}}
data: {path: ~/d, task: mlm, masking: {whole_words: true}}
objective: {soft_target_kl: {}, hidden_mse: {layers: [[embeddings, embeddings], [1, 0]]}}
training: {num_train_epochs: 2}
"""


@pytest.fixture
def recipe(tmp_path):
    """Loads the recipe, with overrides."""
    (tmp_path / "small.yaml").write_text(RECIPE)
    return lambda *overrides: load_recipe(tmp_path / "small.yaml", overrides)


def written_out(recipe):
    """The text that earlier versions kept: every default named, a null for each term that is off."""
    return dump_yaml(abbreviate_home(recipe.model_dump(mode="json")))


@pytest.fixture(params=[dump_recipe, written_out], ids=["short", "written out"])
def folder(request, recipe, tmp_path):
    """A finished run whose recipe was kept in either form."""
    folder = tmp_path / "run"
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "config.json").write_text("{}")
    (folder / "recipe.yaml").write_text(request.param(recipe()))
    results = {"recipe": abbreviate_home(recipe().model_dump(mode="json"))}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_the_same_recipe_is_the_same_run_in_either_form(folder, recipe):
    """Prevents a finished run that is rejected, or trained again, because a file names its defaults or does not."""
    assert run_state(folder, recipe()) == "finished"
    assert run_state(folder, recipe("data.max_length=128", "student.layers=every_other")) == "finished"
    assert run_state(folder, recipe("hub.private=true", "teacher.cache.folder=elsewhere")) == "finished"
    assert run_state(folder, recipe("evaluation.seeds=2")) == "unfinished"
    (folder / "results.json").unlink()
    assert run_state(folder, recipe()) == "unfinished"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("training.learning_rate=3e-4", "training.learning_rate was None, is 0.0003"),
        ("training.num_train_epochs=3", "training.num_train_epochs was 2, is 3"),
        ("student.layers=first", "student.layers was 'every_other', is 'first'"),
        ("teacher.cache.top_k=64", "teacher.cache.top_k was 128, is 64"),
        ("data.masking.whole_words=false", "data.masking.whole_words was True, is False"),
        ("objective.soft_target_kl.temperature=4", r"objective.soft_target_kl.temperature was [0-9.]+, is 4\.0"),
    ],
)
def test_one_difference_is_named_and_no_other(folder, recipe, change, named):
    """Prevents a list of defaults that one of two files does not name, with the difference somewhere among them."""
    with pytest.raises(UserError, match=f"got another recipe's: {named} / its results"):
        run_state(folder, recipe(change))


def test_keys_of_another_version_are_named(folder, recipe):
    """Prevents a traceback, or a run of an unknown setting that passes for this one."""
    saved = folder / "recipe.yaml"
    saved.write_text(saved.read_text().replace("  path:", "  forgotten: 3\n  path:"))
    with pytest.raises(UserError, match=r"got another recipe's: data\.forgotten was 3, is None / its"):
        run_state(folder, recipe())


@pytest.mark.parametrize("content", [b"teacher: [", b"\xff\xfe\x00", b"- a list"])
def test_a_recipe_that_is_none_is_said(folder, recipe, content):
    """Prevents a traceback of the parser."""
    (folder / "recipe.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"expected the recipe of a run in .* / got no YAML"):
        run_state(folder, recipe())


def test_what_is_claimed_is_recognised(recipe, tmp_path):
    """Prevents a run that does not know its own recipe."""
    claim(tmp_path / "new", recipe())
    (tmp_path / "new" / "student").mkdir()
    assert run_state(tmp_path / "new", recipe()) == "unfinished"
    assert "null" not in (tmp_path / "new" / "recipe.yaml").read_text()
