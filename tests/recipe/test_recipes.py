"""Every shipped recipe builds, every accelerate configuration parses, and the docs know every key."""

import re

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import MobileBertConfig, MobileBertForMaskedLM

from distil_nlp.losses.registry import TERMS
from distil_nlp.models import choose_layers
from distil_nlp.objective import LayerTerm, ModelShape
from distil_nlp.pipeline import builders as build
from distil_nlp.pipeline.plan import output_folder
from distil_nlp.recipe import MultitaskRecipe, load_any_recipe, load_recipe, read_yaml, recipe_from
from distil_nlp.recipe.sections import Recipe
from distil_nlp.study.plan import read_plan, recipe_of
from distil_nlp.tasks import Head
from tests.helpers import ROOT, tiny
from tests.helpers.training import curve, trainer

RECIPES = [*sorted((ROOT / "recipes").glob("*.yaml")), *sorted((ROOT / "recipes" / "schemes").glob("*.yaml"))]
TEACHER_DEPTH = {"quickstart": 6, "mobilebert_style": 24, "reverse": 6, "theseus": 6, "netaug": 6}
TEACHER_DEPTH |= {"sparse": 6, "quantization_aware": 6}


def checkpoint(folder):
    """A student that an earlier recipe left."""
    tiny.mlm_model(6, hidden_size=96).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds(path, tmp_path):
    """Prevents a shipped recipe whose layers, terms or arguments do not fit together."""
    recipe = load_any_recipe(path, ["training.use_cpu=true"])
    if isinstance(recipe, MultitaskRecipe):
        recipe = recipe.first
    if recipe.student.name is not None:
        recipe = load_recipe(path, ["training.use_cpu=true", f"student.name={checkpoint(tmp_path / 'student')}"])
    args = build.training_arguments(recipe.training, tmp_path, recipe)
    assert args.learning_rate == recipe.training["learning_rate"]
    depth, kind = TEACHER_DEPTH.get(path.stem, 12), build.task_of(recipe).kind
    wide = {"hidden_size": 96}  # which 48 relation heads divide
    made = {"AutoModelForMaskedLM": tiny.mlm_model, "AutoModelForTokenClassification": tiny.tagger}
    teacher = made.get(kind.auto_model, tiny.classifier)(depth, **wide)
    head = Head(kind) if kind.predicts_words else Head(kind, None, 2)
    student, report = build.student_from(recipe, teacher, tiny.tokenizer(), head)
    assert student.config.num_hidden_layers == (recipe.student.num_layers or depth // 2)
    if recipe.student.name is None:
        assert report.layers == choose_layers(recipe.student.layers, depth, recipe.student.num_layers)
    build.objective_from(recipe, kind).bind(ModelShape.of(teacher.config), ModelShape.of(student.config))


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ([], torch.float32),
        (["training.bf16=true"], torch.bfloat16),
        (["training.fp16=true"], torch.float16),
        (["training.bf16=true", "teacher.dtype=float32"], torch.float32),
    ],
)
def test_the_teacher_runs_in_the_precision_of_the_training(changes, dtype):
    """Prevents a teacher in float32, which costs more than the step, beside a student in half precision."""
    assert build.teacher_dtype(load_recipe(ROOT / "recipes" / "glue.yaml", ["data.task=mrpc", *changes])) == dtype


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_header_is_a_run_book(path):
    """Prevents a recipe that does not say what it needs, how to launch it and what to expect."""
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("# Needs ", "# Launch ", "# Expect "):
        assert any(line.startswith(word) for line in header), word


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_accelerate_configuration_parses(path):
    """Prevents a launcher configuration with a key that accelerate does not know."""
    found = load_config_from_file(str(path))
    assert found.num_processes >= 1
    assert found.mixed_precision == yaml.safe_load(path.read_text())["mixed_precision"]


def test_a_student_that_teaches_itself_has_the_objective_of_its_paper():
    """Prevents a key that needs a second one, and a word that is not taken for a section."""
    path, without = ROOT / "recipes/schemes/ps_kd.yaml", {"objective"}
    settings = {key: value for key, value in read_yaml(path).items() if key not in without}
    settings["teacher"]["self"] = "last_epoch"
    recipe = recipe_from(settings)
    assert (recipe.teacher.self.kind, recipe.teacher.self.alpha) == ("last_epoch", 0.8)
    terms = build.objective_from(recipe, "classification").terms
    assert [(term.name, term.temperature.start) for term in terms] == [("soft_target_cross_entropy", 1.0)]


def test_distilbert_is_as_published():
    """Prevents the recipe from drifting from the paper's terms, layers and optimiser."""
    recipe = load_recipe(ROOT / "recipes" / "distilbert_base.yaml")
    objective, training = recipe.objective, recipe.training
    weights = [term.weight for term in (objective.soft_target_kl, objective.hard_label, objective.hidden_cosine)]
    assert weights == [5.0, 2.0, 1.0]
    assert (objective.soft_target_kl.rows, objective.hidden_cosine.layers) == ("all", "last")
    assert recipe.student.layers == [0, 2, 4, 7, 9, 11]
    assert recipe.student.architecture == "distilbert"
    adam = [training[f"adam_{name}"] for name in ("beta1", "beta2", "epsilon")]
    assert adam == [0.9, 0.98, 1e-6]
    assert (training["learning_rate"], training["max_grad_norm"], training["warmup_steps"]) == (5e-4, 5.0, 0.05)


def read(name):
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    return recipe, recipe.objective.model_dump(exclude_none=True, exclude={"__all__": {"schedule"}}), recipe.training


def batch_of(training, processes=8):
    return processes * training["per_device_train_batch_size"] * training.get("gradient_accumulation_steps", 1)


@pytest.mark.parametrize(
    ("name", "terms", "heads", "batch", "rate"),
    [
        ("minilm", ["attention_kl", "value_relation"], None, 1024, 5e-4),
        ("minilmv2", ["query_relation", "key_relation", "value_relation"], 48, 256, 6e-4),
    ],
)
def test_minilm_is_as_published(name, terms, heads, batch, rate):
    """Prevents the recipes from drifting from the papers' terms, layers and optimiser."""
    _, objective, training = read(name)
    assert list(objective) == terms
    assert {term["layers"] for term in objective.values()} == {"last"}
    assert {term["weight"] for term in objective.values()} == {1.0}
    assert objective["value_relation"].get("relation_heads") == heads
    assert (batch_of(training), training["learning_rate"], training["max_steps"]) == (batch, rate, 400_000)
    assert (training["warmup_steps"], training["weight_decay"]) == (4000, 0.01)


def test_tinybert_is_as_published():
    """Prevents layers of other depths, and weights that forget that a term is a mean over layers."""
    general, objective, training = read("tinybert_general")
    task, of_task, stage = read("tinybert_task")
    prediction, of_prediction, last = read("tinybert_task_prediction")
    assert objective == of_task
    both = build.objective_from(general, "mlm")
    both.bind(ModelShape(12, 768, 12), ModelShape(6, 768, 12))
    pairs = {term.name: (term.weight.start / len(term.pairs), term.pairs) for term in both.terms}
    blocks = [(2 * i + 1, i) for i in range(6)]
    assert pairs == {"hidden_mse": (1.0, [(-1, -1), *blocks]), "attention_scores_mse": (1.0, blocks)}
    assert (batch_of(training), training["learning_rate"], training["warmup_steps"]) == (256, 1e-4, 10_000)
    assert (stage["num_train_epochs"], stage["learning_rate"]) == (20, 5e-5)
    assert list(of_prediction) == ["soft_target_kl"]
    assert of_prediction["soft_target_kl"]["temperature"] == 1.0
    assert (last["num_train_epochs"], last["learning_rate"]) == (3, 3e-5)
    assert task.teacher == prediction.teacher
    assert task.data == prediction.data  # so that the second half finds the rows of the first
    replacement = task.data.augmentation.replacement
    assert (replacement.copies, replacement.probability, replacement.candidates) == (20, 0.4, 15)
    assert task.student.name == "runs/tinybert_general-wikipedia-42/student"
    assert str(output_folder(general, "tinybert_general")) + "/student" == task.student.name
    assert str(output_folder(task, "tinybert_task")) + "/student" == prediction.student.name


def test_mobileberts_weights_go_over_from_layers_to_predictions():
    """Prevents weights of a sum over layers, where code and term take the mean, and a student of another depth."""
    recipe, _, _ = read("mobilebert_style")
    terms = build.objective_from(recipe, "mlm")
    terms.bind(ModelShape(24, 1024, 16), ModelShape(24, 256, 16))
    pairs = {term.name: term.pairs for term in terms.terms if isinstance(term, LayerTerm)}
    blocks = [(i, i) for i in range(24)]
    assert pairs == {"hidden_mse": blocks, "attention_kl": blocks}
    weights = [dict(zip(terms.names, terms.weights(progress), strict=True)) for progress in (0.0, 1.0)]
    assert weights[0] == {"hidden_mse": 100.0, "attention_kl": 1.0, "hard_label": 0.0, "soft_target_kl": 0.0}
    assert weights[1] == {"hidden_mse": 0.0, "attention_kl": 0.0, "hard_label": 0.5, "soft_target_kl": 0.5}


def test_mobileberts_own_classes_learn_by_its_recipe(tmp_path):
    """Prevents a header that promises a student whose bottlenecks or heads its terms cannot be paired with."""
    sizes = {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16, "intermediate_size": 32}
    config = MobileBertConfig(
        vocab_size=len(tiny.VOCABULARY), hidden_size=64, num_hidden_layers=24, num_attention_heads=2, **sizes
    )
    MobileBertForMaskedLM(config).save_pretrained(tmp_path / "student")
    tiny.tokenizer().save_pretrained(tmp_path / "student")
    header = (ROOT / "recipes" / "mobilebert_style.yaml").read_text()
    said = re.search(r"own classes as the student: … (.*?)\n#\s+\(4 heads", header, re.S)[1].replace("\\\n#", "")
    own = said.replace("google/mobilebert-uncased", str(tmp_path / "student")).split()
    assert f"student.name={tmp_path / 'student'}" in own
    recipe = load_recipe(ROOT / "recipes" / "mobilebert_style.yaml", own)
    teacher = tiny.mlm_model(24)
    student, report = build.student_from(recipe, teacher, tiny.tokenizer(), Head("mlm"))
    assert report.new == []
    run = trainer(tmp_path / "run", student, teacher, build.objective_from(recipe, "mlm").terms, learning_rate=1e-3)
    run.train()
    values = curve(run, "hidden_mse")
    assert values[-1] < values[0]
    assert all(value > 0 for name in ("attention_kl", "soft_target_kl", "hard_label") for value in curve(run, name))


def test_the_docs_name_every_recipe():
    """Prevents a shipped recipe that nobody finds."""
    text = (ROOT / "docs" / "recipes.md").read_text()
    for path in RECIPES:
        assert f"| `{path.relative_to(ROOT / 'recipes')}` |" in text


def test_the_docs_name_every_key():
    """Prevents keys that only the source tells of."""
    text = (ROOT / "docs" / "recipes.md").read_text()
    for name, field in Recipe.model_fields.items():
        assert f"## `{name}`" in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"`{key}" in text, f"{name}.{key}"
    for name in TERMS:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_method_of_a_study_fits_its_models(path, tmp_path):
    """Prevents a study that stops at its twentieth method, after a night."""
    plan = read_plan(path)
    assert plan.compared_with in plan.all_methods
    if path.stem == "methods":
        assert plan.compared_with == "plain"
    for name in plan.all_methods:
        recipe = load_recipe(recipe_of(plan, path, name, tmp_path))
        objective = build.objective_from(recipe, build.task_of(recipe).kind)
        objective.bind(ModelShape(12, 768, 12, None, 3072, 2), ModelShape(6, 768, 12, None, 3072, 2))
