"""YAML that a stranger wrote: recipes, studies, overrides, and cards beside models and data; bounded, or refused."""

import copy

import pytest
import yaml

from distil_nlp.data import load_splits
from distil_nlp.errors import UserError
from distil_nlp.hub.sources import teacher_metadata
from distil_nlp.pipeline.run_folder import run_state
from distil_nlp.recipe import load_recipe
from distil_nlp.results import read_results
from distil_nlp.results.files import read_run
from distil_nlp.study.plan import read_plan
from distil_nlp.utils.bounded_yaml import BoundedLoader

BASE = {"teacher": {"name": "t"}, "data": {"path": "d", "task": "mrpc"}, "objective": {"hard_label": {}}}


def bomb(levels):
    """Of ten aliases a level: each level is ten times as large, once written out."""
    first = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    return first + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, levels))


HOSTILE = {
    "aliases, 5 levels": bomb(5) + "teacher: {name: *a4}\n",
    "aliases, 10 levels": bomb(10) + "teacher: {name: *a9}\n",
    "aliases, 100 levels": bomb(100) + "teacher: {name: *a99}\n",
    "aliases of mappings": "a: &a {x: 1, y: 2}\n" + "".join(
        f"b{i}: &b{i} {{{', '.join(f'k{j}: *{before}' for j in range(20))}}}\n"
        for i, before in enumerate(["a", *(f"b{i}" for i in range(9))])
    ),
    "long text, many aliases": f"a: &a {'x' * 100_000}\nteacher: {{name: [{','.join(['*a'] * 30_000)}]}}\n",
    "very long text, some aliases": f"a: &a {'x' * 900_000}\nteacher: {{name: [{','.join(['*a'] * 300)}]}}\n",
    "an anchor in itself": "teacher: &a {name: *a}\n",
    "two anchors in each other": "teacher: &a {name: &b [*a, *b]}\n",
    "deep lists": f"teacher: {'[' * 60}{']' * 60}\n",
    "very deep lists": f"teacher: {'[' * 100_000}\n",
    "deep mappings": f"teacher: {'{a: ' * 60}1{'}' * 60}\n",
    "many values": f"teacher: {{name: [{'a,' * 15_000}]}}\n",
    "a decimal number": f"training: {{seed: {'9' * 5000}}}\n",
    "a hexadecimal number": f"training: {{seed: 0x{'f' * 5000}}}\n",
    "a number to the base of 60": f"training: {{seed: 1{':59' * 10_000}}}\n",
    "a long fraction": f"training: {{seed: 1.{'1' * 5000}}}\n",
    "a large file": f"# {'x' * 2**21}\n",
    "bytes": "training: {output_dir: !!binary aGVsbG8=}\n",
    "a set": "student: {config: !!set {a}}\n",
    "a date": "training: {run_name: !!timestamp 2001-01-01}\n",
    "an object": "training: {seed: !!python/object/apply:os.system [true]}\n",
    "a merge key": "x: &x {a: 1}\nteacher: {<<: *x}\n",
}  # fmt: skip


def write(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def refusal(read, *args):
    with pytest.raises(UserError) as caught:
        read(*args)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_recipe_is_refused_in_few_words(tmp_path, name):
    """Prevents hours and gigabytes for a file of 300 bytes, and a message of millions of letters."""
    message = refusal(load_recipe, write(tmp_path, HOSTILE[name]))
    assert "expected YAML / got" in message or "expected a recipe / got a file of" in message


@pytest.mark.parametrize("name", HOSTILE)
def test_a_study_and_the_recipe_of_a_run_are_read_alike(tmp_path, name):
    path = write(tmp_path, HOSTILE[name])
    assert str(path) in refusal(read_plan, path)
    recipe = load_recipe(write(tmp_path, yaml.safe_dump(BASE)))
    (tmp_path / "run" / "student").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text(HOSTILE[name])
    assert "expected the recipe of a run" in refusal(run_state, tmp_path / "run", recipe)


@pytest.mark.parametrize("value", ["[" * 60, "0x" + "f" * 5000, "&a [*a]", "!!binary aGVs", "*nobody"])
def test_an_override_is_refused_alike(tmp_path, value):
    path = write(tmp_path, yaml.safe_dump(BASE))
    assert "expected a YAML value / got" in refusal(load_recipe, path, [f"training.seed={value}"])


def test_honest_anchors_work(tmp_path):
    text = """
    teacher: {name: t, finetune: &optimiser {learning_rate: 5e-5, num_train_epochs: 3}}
    data: {path: d, task: mrpc}
    objective:
      hidden_mse: {layers: &pairs [[1, 0], [3, 1]]}
      attention_kl: {layers: *pairs}
    training: *optimiser
    """
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.training == recipe.teacher.finetune == {"learning_rate": 5e-5, "num_train_epochs": 3}
    assert recipe.objective.attention_kl.layers == recipe.objective.hidden_mse.layers == [[1, 0], [3, 1]]


def test_aliases_count_as_what_they_stand_for():
    """Prevents a bound that aliases get around, and one that honest files reach."""
    fits = f"a: &a [{'x,' * 49}]\nb: [{'*a,' * 190}]"
    assert len(yaml.load(fits, Loader=BoundedLoader)["b"]) == 190
    with pytest.raises(yaml.YAMLError, match="more than 10,000 values, once its aliases are written out"):
        yaml.load(fits.replace("*a,", "*a, *a,"), Loader=BoundedLoader)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\\", "[1"])
def test_results_that_are_no_json_of_this_world_are_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    assert "expected JSON / got" in refusal(read_run, tmp_path)
    assert read_results(tmp_path / "results.json") == {}


CARDS = {
    "aliases": f"{bomb(12)}language: *a11\n",
    "aliases in results": f"{bomb(12)}model-index: *a11\n",
    "an anchor in itself": "language: &a [*a]\n",
    "deep lists": f"language: {'[' * 90}{']' * 90}\n",
    "very deep lists": f"language: {'[' * 50_000}{']' * 50_000}\n",
    "long text": f"license: {'x' * 100_000}\n",
    "numbers and mappings": "language: {a: 1}\nlicense: 5\nbase_model: [1, {a: 2}]\n",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_teachers_card_says_what_can_be_read(tmp_path, name):
    """Prevents memory that ends at the README.md of a teacher, and a nest of lists in the student's own card."""
    (tmp_path / "README.md").write_text(f"---\n{CARDS[name]}---\n# A model\n")
    found = teacher_metadata(str(tmp_path))
    assert set(found) <= {"language", "license"}
    assert not any(found.values())


def test_an_honest_card_is_read_as_before(tmp_path):
    text = "---\nlicense: mit\nlanguage: &l [en, no]\nother: *l\nbase_model: me/x\n---\n* a list *\n"
    (tmp_path / "README.md").write_text(text)
    assert teacher_metadata(str(tmp_path)) == {"license": "mit", "language": ["en", "no"], "base_model": "me/x"}


@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("key", ["configs", "dataset_info", "language"])
def test_a_card_of_data_is_refused_before_it_multiplies(tmp_path, file, key):
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    text = f"{bomb(12)}{key}: *a11\n"
    (tmp_path / file).write_text(f"---\n{text}---\n" if file == "README.md" else text)
    assert "once its aliases are written out" in refusal(load_splits, str(tmp_path))


def test_data_with_an_honest_card_are_read(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    card = "---\nconfigs:\n- config_name: default\n  data_files: '*.csv'\n---\n**bold** &a *a\n"
    (tmp_path / "README.md").write_text(card)
    assert len(load_splits(str(tmp_path))["train"]) == 2


def test_what_is_read_can_be_copied_and_printed(tmp_path):
    """Prevents values that only fail when the recipe is written down again."""
    recipe = load_recipe(write(tmp_path, yaml.safe_dump(BASE | {"student": {"config": {"a": [[["b"]], {"c": None}]}}})))
    assert copy.deepcopy(recipe).model_dump(mode="json") == recipe.model_dump(mode="json")
