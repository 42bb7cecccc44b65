"""Runs whose student teaches itself."""

import re

import pytest

from distil_nlp.errors import UserError
from distil_nlp.pipeline import builders, preflight
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import load_recipe
from tests.helpers import ROOT
from tests.helpers.runs import Place

ENDS = "training.num_train_epochs=1"
NO_TERMS = "objective.soft_target_cross_entropy=null"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teacher.cache={}"], "no teacher.cache beside it"),
        (["teacher.ensemble=[other]"], "no teacher.ensemble beside it"),
        (["teacher.dtype=bfloat16"], "teacher.dtype too"),
        ([NO_TERMS, "objective.hard_label={}"], "a term of the objective that learns from a teacher"),
        (["objective.hidden_mse={}"], "terms on outputs with last_epoch / got hidden_mse"),
        (["data.augmentation.mixup={}"], "none with teacher.self=last_epoch / got mixtures of rows"),
        (["data.augmentation.replacement={}"], "copies of rows with replaced words"),
        ([ENDS], "more than 1 with teacher.self=last_epoch / got 1"),
        (["data.task=mlm", NO_TERMS, "objective.soft_target_kl={}"], "would not fit into memory"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_trained(tmp_path, changes, message):
    """Prevents hours of training with a key that is not read, or rows that have no target."""
    recipe = load_recipe(ROOT / "recipes/schemes/ps_kd.yaml", [f"training.output_dir={tmp_path}", *changes])
    with pytest.raises(UserError, match=re.escape(message)):
        preflight.validate_plan(RunPlan.of(recipe, "ps_kd"))


@pytest.mark.integration
def test_a_whole_run_of_last_epoch(tmp_path):
    """Prevents a reference model that is refused though it does not teach, a verdict on its teaching, and a run that
    does not say who taught."""
    place = Place(tmp_path).prepare()
    terms = ["objective.attention_kl=null", "objective.hidden_cosine=null", "objective.hard_label=null"]
    assert (
        place.run("teacher.self=last_epoch", "training.num_train_epochs=2", "run.accept_weak_teacher=false", *terms)
        == 0
    )
    assert place.results["recipe"]["teacher"]["self"] == {"kind": "last_epoch", "alpha": 0.8}
    assert place.results["training"]["steps"] == 12
    assert "accuracy" in place.results["teacher"]["metrics"]
    report = (place.out / "report" / "report.md").read_text()
    assert "The teacher knows no more" not in report
    recipe = load_recipe(place.out / "recipe.yaml")
    assert "labels mixed with its own predictions" in builders.teaching_sentence(recipe)
