"""Shipped recipes, broken in two thousand ways: each is run as far as the models, or rejected in words."""

import contextlib
import copy
import math
import random

import pytest
import yaml

from distil_nlp.cli import distill
from distil_nlp.errors import UserError
from distil_nlp.pipeline import distill as stages
from distil_nlp.recipe import any_recipe_from, complete, dump_recipe, load_recipe
from distil_nlp.recipe.yaml_file import parse_yaml
from distil_nlp.redaction import abbreviate_home
from tests.helpers import ROOT

SHIPPED = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "recipes" / "schemes").glob("*.yaml")])
SEVERAL = ROOT / "recipes" / "multitask.yaml"
"""A recipe of several tasks, which has no single `Recipe` to compare with."""
SHIPPED.remove(SEVERAL)
EACH = -(-2000 // len(SHIPPED))
VALUES = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, 0.0, -0.5, 0.5, 1e-300, 1e308, math.inf, -math.inf, math.nan,
    "", " ", "yes", "no", "null", "5e-5", "1,2", "every_other", "mlm", "all", "../../etc", "a/b/c", "\x00", "é" * 300,
    "🙂", "${HOME}", "{{7*7}}", "-", "!!python/object/apply:os.system [true]", [], [None], [1, 3], [[1, 0]],
    [[1, 2, 3]], ["a"], {}, {"a": 1}, {"weight": 1}, {"weight": {"weight": 1}}, {"shape": "linear", "end": 0}, {1: 2},
]  # fmt: skip
CHARACTERS = "\t:{}[]&*!|>'\"%@`#,-? \n\x07é0"


def paths(tree, before=()):
    """Of every value, sections included."""
    found = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found.append((*before, key))
        if isinstance(value, dict | list):
            found += paths(value, (*before, key))
    return found


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def mutated(tree, draw):
    """A recipe with one to three things wrong with it, or merely other."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        *parent, key = draw.choice(paths(tree) or [()])
        section, kind = at(tree, parent), draw.choice(["value", "value", "value", "drop", "rename", "swap", "more"])
        if kind == "value":
            section[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind == "drop":
            del section[key]
        elif kind == "rename" and isinstance(section, dict):
            section[_misspelt(str(key), draw)] = section.pop(key)
        elif kind == "swap":
            other = draw.choice(paths(tree))
            section[key] = copy.deepcopy(at(tree, other))
        elif isinstance(section, dict):
            section[draw.choice(["weigth", "Weight", "lr", "é", "", "layers ", "__class__", "output_dir"])] = 1
        if not tree:
            break
    return tree


def _misspelt(word, draw):
    i = draw.randrange(len(word)) if word else 0
    return draw.choice([word[:i] + word[i + 1 :], word[:i] + "x" + word[i:], word.upper(), word + "s", word[::-1]])


def garbled(text, draw):
    """A recipe with a few other characters."""
    for _ in range(draw.choice([1, 2, 5])):
        i = draw.randrange(len(text))
        text = text[:i] + draw.choice(["", draw.choice(CHARACTERS)]) + text[i + draw.choice([0, 1]) :]
    return text


class Reached(Exception):
    """The recipe was taken; models would be loaded now."""

    def __init__(self, recipe):
        self.recipe = recipe


def once(rehearse):
    """Rehearse the same arguments once: most mutations leave them as they are."""
    ended = {}

    def rehearse_new(fields, build, has_metrics=False, key="training.{}".format):
        arguments = repr((sorted(fields.items()), has_metrics, key("x")))
        if arguments not in ended:
            try:
                ended[arguments] = rehearse(fields, build, has_metrics, key)
            except UserError as error:
                ended[arguments] = error
        if ended[arguments] is not None:
            raise ended[arguments]

    return rehearse_new


@pytest.mark.integration
@pytest.mark.parametrize("mutations", [EACH // 5, pytest.param(EACH, marks=pytest.mark.integration)])
@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_no_broken_recipe_ends_in_a_traceback_or_loses_a_key(shipped, mutations, tmp_path, monkeypatch, capsys):
    """Prevents `AttributeError: 'NoneType' …` for a forgotten value, and a misspelt key that nobody reads."""
    monkeypatch.chdir(tmp_path)
    checked = stages.preflight.validate_plan

    def check(plan):
        checked(plan)
        raise Reached(plan.recipe)

    monkeypatch.setattr(stages.preflight, "validate_plan", check)
    monkeypatch.setattr("distil_nlp.pipeline.preflight.check_repository", lambda *args, **kwargs: None)
    monkeypatch.setattr(stages.preflight, "rehearse", once(stages.preflight.rehearse))
    text, taken, refused = shipped.read_text(), 0, 0
    tree = parse_yaml(text)
    path = tmp_path / "mutated.yaml"
    for number in range(mutations):
        draw = random.Random(f"{shipped.stem}-{number}")
        changed = draw.random() < 0.8
        written = yaml.safe_dump(mutated(tree, draw), allow_unicode=True) if changed else garbled(text, draw)
        path.write_text(written, encoding="utf-8", errors="surrogateescape")
        try:
            code = distill([str(path), "training.use_cpu=true"])
        except Reached as reached:
            taken += 1
            assert_all_kept(parse_yaml(path.read_text()), reached.recipe, written)
            continue
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error} / case {number}\n{written}") from error
        said = capsys.readouterr().err
        assert code == 2, written
        assert "Traceback" not in said, written
        assert len(said) > 30, said
        refused += 1
    if mutations == EACH:  # a few may all be refused
        assert taken > mutations / 20, "so few are taken that the mutations are too wild to tell anything"
        assert refused > mutations / 3


@pytest.mark.integration
@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_what_is_kept_of_any_recipe_is_that_recipe(shipped, tmp_path):
    """Prevents a value that is lost in the short form, or that comes back as another."""
    path, again, taken = tmp_path / "mutated.yaml", tmp_path / "again.yaml", 0
    tree = parse_yaml(shipped.read_text())
    for number in range(60):
        draw = random.Random(f"{shipped.stem}-kept-{number}")
        path.write_text(yaml.safe_dump(mutated(tree, draw), allow_unicode=True), encoding="utf-8")
        try:
            recipe = load_recipe(path)
        except UserError:
            continue
        again.write_text(dump_recipe(recipe), encoding="utf-8")
        assert load_recipe(again) == recipe, path.read_text()
        assert complete(parse_yaml(again.read_text())) == abbreviate_home(recipe.model_dump(mode="json"))
        taken += 1
    assert taken > 3, "so few are taken that nothing is tried"


def assert_all_kept(tree, recipe, written):
    """Every value of the file is in the recipe that is run."""
    kept = recipe.model_dump(mode="json")
    for path in paths(tree):
        value = at(tree, path)
        if isinstance(value, dict | list) or path == ("training", "use_cpu"):
            continue
        try:
            found = at(kept, path)
        except (KeyError, TypeError, IndexError) as error:
            raise AssertionError(f"{'.'.join(map(str, path))} was lost\n{written}") from error
        if value is None and isinstance(found, dict):
            continue  # a section left empty has its defaults
        value = [value] if isinstance(value, str) and isinstance(found, list) else value  # one name is a list of one
        same = found == (float(value) if isinstance(found, float) else value)
        assert same, f"{path}: {value!r} became {found!r}\n{written}"


@pytest.mark.parametrize(
    "text",
    [
        "teacher: &a [*a]",
        "a: &a [1]\nb: &b [*a, *a]\nc: &c [*b, *b]\nteacher: {name: *c}",
        "teacher: " + "[" * 5000,
        "teacher: !!python/object/apply:os.system ['touch owned']",
        "teacher: {name: x, <<: {revision: y}}",
        "? [1, 2]\n: 3",
        "",
        "- 1",
        "teacher: {name: 2001-01-01}",
        "\x00",
    ],
)
def test_yaml_that_means_harm_is_refused(text, tmp_path, monkeypatch, capsys):
    """Prevents code in a recipe, loops without end, and tracebacks from the parser."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert distill([str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_the_fuzz_can_fail():
    """A mutation that changes nothing, or a check that loses nothing, would find nothing."""
    tree = parse_yaml(SHIPPED[0].read_text())
    assert sum(mutated(tree, random.Random(i)) != tree for i in range(50)) > 45
    with pytest.raises(AssertionError, match="was lost"):
        assert_all_kept({"teacher": {"weigth": 1}}, _Nothing(), "")


def test_no_broken_list_of_tasks_ends_in_a_traceback():
    """Prevents `AttributeError` for an entry of `data` that is no section, or has a name that is no text."""
    tree, taken = parse_yaml(SEVERAL.read_text()), 0
    for number in range(300):
        settings = mutated(tree, random.Random(number))
        if isinstance(settings, dict):
            with contextlib.suppress(UserError):
                any_recipe_from(settings)
                taken += 1
    assert taken > 10


class _Nothing:
    def model_dump(self, mode):
        return {"teacher": {}}
