"""Runs whose student teaches itself, or whose teacher's checkpoints teach."""

import re

import pytest
from safetensors.torch import load_file

from distil_nlp.cli import main
from distil_nlp.errors import UserError
from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.schemes import schemes_of
from distil_nlp.recipe import load_recipe
from tests.helpers import ROOT
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

ENDS = "training.num_train_epochs=1"
NO_TERMS = "objective.soft_target_cross_entropy=null"


def check(name, folder, changes):
    """Check a shipped recipe as a run does before it loads anything."""
    recipe = load_recipe(ROOT / f"recipes/schemes/{name}.yaml", [f"training.output_dir={folder}", *changes])
    preflight.validate_plan(RunPlan.of(recipe, name))


def told(recipe):
    """The sentence of a recipe's only scheme."""
    (scheme,) = schemes_of(recipe)
    return scheme.sentence(recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teacher.cache={}"], "no teacher.cache beside it"),
        (["teacher.ensemble=[other]"], "no teacher.ensemble beside it"),
        (["teacher.dtype=bfloat16"], "teacher.dtype too"),
        (["teacher.self.decay=0.9"], "teacher.self.decay too"),
        ([NO_TERMS, "objective.hard_label={}"], "a term of the objective that learns from a teacher"),
        (["objective.hidden_mse={}"], "terms on outputs with last_epoch / got hidden_mse"),
        (["data.augmentation.mixup={}"], "none with teacher.self=last_epoch / got mixtures of rows"),
        (["data.augmentation.replacement={}"], "copies of rows with replaced words"),
        ([ENDS], "more than 1 with teacher.self=last_epoch / got 1"),
        (["data.task=mlm", NO_TERMS, "objective.soft_target_kl={}"], "kept by row, not by token"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_trained(tmp_path, changes, message):
    """Prevents hours of training with a key that is not read, or rows that have no target."""
    with pytest.raises(UserError, match=re.escape(message)):
        check("ps_kd", tmp_path, changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["teacher.finetune=null"], "a teacher that is fine-tuned here / got teacher.finetune=null"),
        (["teacher.finetune_when=untrained"], "got teacher.finetune_when=untrained"),
        (["teacher.cache={}"], "no teacher.cache beside them"),
        (["teacher.ensemble=[other]"], "no teacher.ensemble beside them"),
        (["teacher.self=ema"], "no teacher.checkpoints beside it"),
        (["teacher.checkpoints=[0.5, 0.25, 1.0]"], "fractions that grow and end with 1.0"),
        (["teacher.checkpoints=[0.25, 0.5]"], "fractions that grow and end with 1.0"),
    ],
)
def test_checkpoints_that_cannot_teach_are_refused(tmp_path, changes, message):
    """Prevents a student that waits for teachers that nobody keeps."""
    with pytest.raises(UserError, match=re.escape(message)):
        check("rco", tmp_path, changes)


def disk(place, capsys, *overrides):
    """The megabytes of disk that `distil-nlp check` tells."""
    assert main(["check", *place.command("training.save_total_limit=1", *overrides)]) == 0
    return int(re.search(r"disk\s+([\d,]+) MB at most", capsys.readouterr().out)[1].replace(",", ""))


def test_check_counts_the_copies_of_weights_in_checkpoints(tmp_path, capsys):
    """Prevents a disk that is full since 40 copies of the student were not counted, in each of two checkpoints."""
    place = Place(tmp_path).prepare()
    counted = [disk(place, capsys, f"teacher.self={{kind: checkpoints, count: {count}}}") for count in (1, 41)]
    place.run("training.max_steps=1")
    size = place.results["student"]["parameters"]
    assert counted[1] - counted[0] == pytest.approx(2 * 40 * 4 * size / 1e6, abs=1)


def test_a_whole_run_of_checkpoints(tmp_path):
    """Prevents earlier teachers that are not kept, not checked, or retrained for a second run; and other teachers that
    are trained anew for a key that is absent."""
    place = Place(tmp_path).prepare()
    tuned = "teacher.finetune={max_steps: 4, learning_rate: 0.001}"
    assert place.run(tuned, "teacher.checkpoints=[0.25, 0.5, 1.0]") == 0
    (folder,) = (tmp_path / "teachers").iterdir()
    weights = [load_file(folder / name / "model.safetensors") for name in ("model-0.25", "model-0.5", "model")]
    assert len({value["classifier.weight"][0, 0].item() for value in weights}) == 3
    before = (folder / "model-0.25" / "model.safetensors").stat().st_mtime_ns
    assert place.run(tuned, "teacher.checkpoints=[0.25, 0.5, 1.0]", "run.overwrite=true") == 0
    assert (folder / "model-0.25" / "model.safetensors").stat().st_mtime_ns == before
    recipe = load_recipe(place.out / "recipe.yaml")
    assert "as it was after 25%, 50%, 100% of its fine-tuning" in told(recipe)
    (folder / "model-0.25" / "model.safetensors").write_bytes(b"")
    assert place.run(tuned, "teacher.checkpoints=[0.25, 0.5, 1.0]", "run.overwrite=true") == 0
    assert load_file(folder / "model-0.25" / "model.safetensors").keys() == weights[0].keys()


def test_a_whole_run_of_averages(tmp_path):
    """Prevents terms on hidden states and attention that are bound to a model that does not teach."""
    place = Place(tmp_path).prepare()
    assert place.run("teacher.self={kind: checkpoints, count: 2}", "student.num_layers=4") == 0
    assert place.results["student"]["initialisation"]["teacher_layers"] == [0, 1, 2, 3]
    assert place.results["training"]["final_terms"]["hidden_cosine"] > 0
    recipe = load_recipe(place.out / "recipe.yaml")
    assert "at its last 2 checkpoints, one after each step" in told(recipe)


def test_a_whole_run_of_last_epoch(tmp_path):
    """Prevents a reference model that is refused though it does not teach, a verdict on its teaching, and a run that
    does not say who taught."""
    place = Place(tmp_path).prepare()
    terms = ["objective.attention_kl=null", "objective.hidden_cosine=null", "objective.hard_label=null"]
    assert (
        place.run("teacher.self=last_epoch", "training.num_train_epochs=2", "run.accept_weak_teacher=false", *terms)
        == 0
    )
    assert place.results["recipe"]["teacher"]["self"]["kind"] == "last_epoch"
    assert place.results["training"]["steps"] == 12
    assert "accuracy" in place.results["teacher"]["metrics"]
    report = (place.out / "report" / "report.md").read_text()
    assert "The teacher knows no more" not in report
    recipe = load_recipe(place.out / "recipe.yaml")
    assert "labels mixed with its own predictions" in told(recipe)
