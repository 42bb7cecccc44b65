"""Recipes: what is read, and what is said about mistakes."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distil_nlp.errors import UserError
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective.schedule import Schedule
from distil_nlp.recipe import MultitaskRecipe, Recipe, complete, concise, dump_recipe, load_any_recipe, load_recipe
from tests.helpers import ROOT

RECIPES = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "recipes" / "schemes").glob("*.yaml")])

SMALL = """
teacher: {name: t, finetune: {num_train_epochs: 1}}
data: {path: d, task: mlm}
objective:
  soft_target_kl: {weight: 5.0}
training: {learning_rate: 5e-5}
"""


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe, and loads it."""

    def load(text: str = SMALL, *overrides: str) -> Recipe:
        (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
        return load_recipe(tmp_path / "small.yaml", overrides)

    return load


def recipes_in(path):
    """Return the recipe of a file, or of each task of several."""
    found = load_any_recipe(path)
    return [*found.tasks.values()] if isinstance(found, MultitaskRecipe) else [found]


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_each_recipe_loads_and_survives_a_round_trip(path, tmp_path):
    """torchtune's test validated 3 of 197 configs."""
    for found in recipes_in(path):
        (tmp_path / "again.yaml").write_text(dump_recipe(found), encoding="utf-8")
        assert load_recipe(tmp_path / "again.yaml") == found
        assert [name for name in TERMS if getattr(found.objective, name)]


def test_there_are_recipes():
    """A glob that finds nothing tests nothing."""
    assert {"glue.yaml"} <= {path.name for path in RECIPES}


def test_every_term_can_stand_in_a_recipe():
    """A term that only Python can reach is lost on the command line."""
    assert list(type(load_recipe(RECIPES[0]).objective).model_fields) == list(TERMS)


def test_every_mistake_is_in_one_message(recipe):
    """One mistake per run costs a start of torch each."""
    text = """
    teacher: {name: t, dtyp: float32, finetune: {learning_rat: 1}}
    student: {layers: evry_other, num_layers: 0}
    data: {task: mlm, max_length: four}
    objective: {soft_target_kl: {temperature: 0, rows: some}}
    training: {learning_rate: fast, warmup_step: 3, save_strategy: epochs}
    modle: {}
    """
    with pytest.raises(UserError) as caught:
        recipe(text, "data.max_length", "training.seed=one")
    message = str(caught.value)
    assert "small.yaml: 14 mistakes in the recipe, nothing was run\n" in message
    for expected in (
        "'data.max_length': expected section.key=value, such as training.learning_rate=5e-5",
        "teacher.dtyp: unknown key; did you mean dtype?",
        "teacher.finetune.learning_rat: unknown key; did you mean learning_rate?",
        "student.layers: expected 'every_other', 'first', 'last', 'important', 'random', 'stack' or 'interpolate' or "
        "a valid list",
        "student.num_layers: expected greater than 0 / got 0",
        "data.path: missing",
        "data.max_length: expected a valid integer / got 'four'",
        "objective.soft_target_kl.temperature: expected greater than 0 / got 0",
        "objective.soft_target_kl.rows: expected 'masked', 'labelled' or 'all' or a valid number / got 'some'",
        "modle: unknown key; known: plugins, teacher, student, data, multitask, objective, balance, training, "
        "evaluation, export, hub",
        "training.learning_rate: expected a valid number / got 'fast'",
        "training.warmup_step: unknown key; did you mean warmup_steps?",
        "training.save_strategy: expected one of epoch / got 'epochs'",
        "training.seed: expected a valid integer / got 'one'",
    ):
        assert f"  - {expected}" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.hidden_cosin={}"], "objective.hidden_cosin: unknown key; did you mean hidden_cosine?"),
        (["objective.hidden_mse.layer=last"], "objective.hidden_mse.layer: unknown key; did you mean layers?"),
        (["data.masking.propability=0.2"], "data.masking.propability: unknown key; did you mean probability?"),
        (["objective.soft_target_kl.schedule.wait={}"], "schedule.wait: unknown key; did you mean weight?"),
        (["objective.hidden_mse.layers=[[0]]"], "objective.hidden_mse.layers: expected .* / got"),
        (["objective.hidden_mse.layers=[[0, 1], [-1, 0]]"], "objective.hidden_mse.layers: expected .* / got"),
        (
            ["objective.attention_kl.heads=both"],
            "attention_kl.heads: expected 'each' or 'average' / got 'both'",
        ),
        (["objective.hard_label.weight=-1"], "hard_label.weight: expected greater than or equal to 0 / got -1"),
        (["objective.hard_label.weight=.inf"], "objective.hard_label.weight: expected a finite number / got inf"),
        (["data.max_length=4"], "data.max_length: expected greater than or equal to 8 / got 4"),
        (["data.masking.probability=15"], "data.masking.probability: expected less than 1 / got 15"),
        (["data.text_columns=[a, b, c]"], "data.text_columns: expected .* / got"),
        (["data.streaming=5"], "data.streaming: expected .* / got 5"),
        (["objective=null"], "'objective=null': expected section.key=value"),
        (["objective.hard_label=5"], "objective.hard_label: expected a valid dictionary .* / got 5"),
        (["training.bf16=perhaps"], "training.bf16: expected a valid boolean / got 'perhaps'"),
        (["training.seed=1.5"], r"training.seed: expected a valid integer.* / got 1\.5"),
        (["training.learning_rate='5e-5'"], "training.learning_rate: expected a valid number / got '5e-5'"),
        (["training.data_seed='3'"], "training.data_seed: expected a valid integer.* / got '3'"),
        (["student.num_layers=true"], "student.num_layers: expected .* / got True"),
        (["training.lr_scheduler_type=cosin"], "training.lr_scheduler_type: expected one of cosine.* / got 'cosin'"),
        (["teacher.finetune.seed=x"], "teacher.finetune.seed: expected a valid integer / got 'x'"),
        (["evaluation.seeds=[4294967296]"], "evaluation.seeds: expected .*less than 4294967296 / got"),
        (["evaluation.seeds=0"], "evaluation.seeds: expected .*greater than 0.* / got 0"),
        (["evaluation.baselines=[none]"], "evaluation.baselines: expected 'no_distillation', .* / got"),
        (["learning_rate=5e-5"], "'learning_rate=5e-5': expected section.key=value"),
        (["training..seed=1"], r"'training\.\.seed=1': expected section.key=value"),
        (["training.seed.x=1", "training.seed=1"], None),
        (["training.seed=1", "training.seed.x=1"], "'training.seed.x=1': seed is a value, not a section"),
        (["training.seed=[1"], r"'training\.seed=\[1': expected a YAML value / got .*flow sequence"),
    ],
)
def test_a_mistake_names_the_key_and_the_value(recipe, changes, message):
    """TRL dropped misspelt keys in silence; torchtune's message printed the wrong variable."""
    if message is None:
        assert recipe(SMALL, *changes).training["seed"] == 1
        return
    with pytest.raises(UserError, match=message) as caught:
        recipe(SMALL, *changes)
    assert ": 1 mistake in the recipe" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("5e-5", 5e-5), ("1E+3", 1e3), ("2e-4", 2e-4), (".5e1", 5.0), ("1.e2", 100.0)]
)
def test_numbers_with_an_exponent_are_numbers(recipe, text, value):
    """5e-5 is a string to PyYAML, and would end in the optimiser as one."""
    found = recipe(SMALL.replace("5e-5", text)).training["learning_rate"]
    assert (found, type(found)) == (value, float)
    assert recipe(SMALL, f"training.learning_rate={text}").training["learning_rate"] == value


def test_overrides_win_over_the_file_and_make_sections(recipe):
    """The last one counts; values are YAML."""
    found = recipe(
        SMALL,
        "student.layers=[1, 3]",
        "training.seed=1",
        "training.seed=2",
        "teacher.finetune=",
        "objective.hidden_mse={layers: [[embeddings, embeddings], [1, 0]], rows: 0.25}",
        "data.masking.whole_words=true",
        "data.path=a=b",
        "training.save_strategy=no",
    )
    assert found.student.layers == [1, 3]
    assert found.training == {"learning_rate": 5e-5, "seed": 2, "save_strategy": "no"}
    assert found.teacher.finetune is None
    assert found.objective.hidden_mse.layers == [["embeddings", "embeddings"], [1, 0]]
    assert found.objective.hidden_mse.rows == 0.25
    assert found.data.masking.whole_words is True
    assert found.data.path == "a=b"
    assert found.objective.soft_target_kl.weight == 5.0


def test_a_schedule_in_a_recipe_is_one_that_can_be_built(recipe):
    """The section and the class must name the same shapes."""
    change = "objective.soft_target_kl.schedule.temperature={shape: cosine, end: 1}"
    found = recipe(SMALL, change).objective.soft_target_kl
    schedule = found.schedule.temperature
    assert Schedule(found.temperature, schedule.end, schedule.shape)(1.0) == 1.0


def test_a_key_twice_is_an_error(recipe):
    """PyYAML takes the last one and says nothing."""
    with pytest.raises(UserError, match=r"small\.yaml: expected YAML / got the key weight is given twice.*line 5"):
        recipe(SMALL.replace("{weight: 5.0}", "{weight: 5.0, weight: 1}"))


@pytest.mark.parametrize("text", ["teacher: [", "a: b: c", "\t- x: 1", "? [1, 2]\n: {? {a: b} : c}"])
def test_text_that_is_no_yaml_is_an_error(recipe, text):
    """A traceback of the parser hides the file's name."""
    with pytest.raises(UserError, match=r"small\.yaml: expected YAML / got .+"):
        recipe(text)


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    """A model file given by mistake."""
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"model\.yaml: expected YAML / got .*utf-8"):
        load_recipe(tmp_path / "model.yaml")


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- a", "list"), ("just words", "str")])
def test_a_file_without_sections_is_an_error(recipe, text, kind):
    """An empty file is no recipe of defaults."""
    with pytest.raises(UserError, match=f"expected sections such as teacher, student and data / got {kind}"):
        recipe(text)


def test_a_missing_file_names_the_nearest(tmp_path):
    """A traceback does not help with a typing mistake."""
    (tmp_path / "distilbert.yaml").write_text(SMALL)
    message = r"at .*distilbret\.yaml / got no such file / did you mean .*bert\.yaml"
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(tmp_path / "distilbret.yaml")
    assert caught.value.fix.startswith("did you mean ")  # labelled so on a terminal
    with pytest.raises(UserError, match=r"nowhere/x\.yaml / got no such file / give the path of a \.yaml file"):
        load_recipe(tmp_path / "nowhere" / "x.yaml")
    with pytest.raises(UserError, match="got a folder"):
        load_recipe(tmp_path)


def test_a_dump_is_read_back(recipe, tmp_path):
    """The recipe kept beside a run must start the same run again."""
    found = recipe(
        SMALL,
        "objective.attention_kl={layers: [[embeddings, embeddings], [1, 0]], rows: 0.25, heads: average}",
        "objective.hard_label.schedule.weight={shape: linear, end: 0}",
        "student.config={hidden_size: 64}",
        "data.path=dätä",
        "training.optim_args=null",
    )
    (tmp_path / "again.yaml").write_text(dump_recipe(found), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == found
    written_out = yaml.safe_dump(found.model_dump(mode="json"), allow_unicode=True)  # as earlier versions kept it
    (tmp_path / "written_out.yaml").write_text(written_out, encoding="utf-8")
    assert load_recipe(tmp_path / "written_out.yaml") == found
    assert set(complete(yaml.safe_load(dump_recipe(found)))) == set(Recipe.model_fields)


def test_a_dump_says_what_differs_from_the_defaults(recipe):
    """Prevents a kept recipe of 41 nulls, and one that hides the terms or switches which are on with all defaults."""
    found = recipe(
        SMALL,
        "teacher.finetune={}",
        "teacher.cache={}",
        "student.layers=every_other",
        "data.max_length=64",
        "data.masking.probability=0.15",
        "data.augmentation.mixup={}",
        "objective.hard_label={}",
        "objective.hidden_mse.layers=[[embeddings, embeddings], [1, 0]]",
        "objective.hidden_mse.schedule.weight={shape: linear, end: 0}",
        "objective.attention_kl=null",
        "training.optim_args=null",
        "hub.private=false",
    )
    text = dump_recipe(found)
    assert yaml.safe_load(text) == {
        "teacher": {"name": "t", "finetune": {}, "cache": {}},
        "data": {"path": "d", "task": "mlm", "max_length": 64, "augmentation": {"mixup": {}}},
        "objective": {
            "soft_target_kl": {"weight": 5.0},
            "hard_label": {"weight": 1.0},
            "hidden_mse": {
                "weight": 1.0,
                "schedule": {"weight": {"shape": "linear", "end": 0.0}},
                "layers": [["embeddings", "embeddings"], [1, 0]],
            },
        },
        "training": {"learning_rate": 5e-5, "optim_args": None},
    }
    assert "layers: [[embeddings, embeddings], [1, 0]]\n" in text


def test_the_short_form_and_the_complete_one_are_of_each_other():
    """Prevents a card or a report whose recipe is another than the one in results.json."""
    for recipe in (recipe for path in RECIPES for recipe in recipes_in(path)):
        settings = recipe.model_dump(mode="json")
        assert complete(concise(settings)) == settings
        assert concise(concise(settings)) == concise(settings)
    assert concise({"data": {"of_an_older_version": None}, "objective": {"gone": {}}, "gone": 1}) == {
        "data": {"of_an_older_version": None},
        "objective": {"gone": {}},
        "gone": 1,
    }
    assert complete({"data": 3})["data"] == 3


@pytest.mark.parametrize(
    "name", ["7e12345", "1e5", "5E-3", "no", "2024-01-01", "null", "1_000", "true", "0x1f", "a: b", "~"]
)
def test_words_that_look_like_numbers_are_read_back_as_words(recipe, tmp_path, name):
    """A short commit such as 7e12345 is a number in YAML unless it is quoted."""
    found = recipe(SMALL, f'teacher.revision="{name}"')
    assert found.teacher.revision == name
    (tmp_path / "again.yaml").write_text(dump_recipe(found), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml").teacher.revision == name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rate=st.floats(0, 1000, allow_nan=False), weight=st.floats(0, 1e9), steps=st.integers(1, 10**12))
def test_numbers_survive_a_round_trip(tmp_path_factory, rate, weight, steps):
    """A learning rate that changes in its last digit is another run."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(SMALL)
    found = load_recipe(path, [f"training.learning_rate={rate!r}", f"training.max_steps={steps}"])
    found.objective.soft_target_kl.weight = weight
    path.write_text(dump_recipe(found))
    again = load_recipe(path)
    assert again == found
    assert again.training["learning_rate"] == rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.learning_rate=-1", "expected a number from 0 to 1000 / got -1"),
        ("training.per_device_train_batch_size=0", "got 0"),
        ("training.seed=null", "expected a value / got None"),
        ("training.data_seed='3'", "got '3'"),
        ("training.push_to_hub=true", "the Hub is the recipe's section hub"),
        ("training.resume_from_checkpoint=x", "carries on by itself"),
        ("training.save_only_model=true", "cannot be carried on from exactly"),
        ("teacher.finetune={eval_strategy: epoch}", "the last step is kept / got 'epoch'"),
        ("student.layers=[]", "student.layers"),
        ("objective.soft_target_kl.schedule.temperature={shape: linear, end: 0}", "greater than 0 / got 0"),
    ],
)
def test_values_that_would_fail_hours_later_are_refused_now(recipe, change, message):
    """A negative batch size, a temperature of 0 at the last step, a checkpoint that cannot be resumed."""
    with pytest.raises(UserError, match=re.escape(message)):
        recipe(SMALL, change)
