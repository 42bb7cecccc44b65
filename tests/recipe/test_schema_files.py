"""Files made from the schema of recipes: the reference page, and the JSON schema for editors."""

import json
from itertools import chain

import jsonschema
import pytest
import yaml

from distil_nlp import cli
from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe import Recipe, recipe_from
from distil_nlp.recipe.json_schema import _sections, recipe_schema, schema_text
from distil_nlp.recipe.reference_page import reference_page
from distil_nlp.recipe.shipped import schema_file
from distil_nlp.recipe.yaml_file import read_yaml
from tests.helpers import ROOT

SCHEMA = recipe_schema()
RECIPES = sorted(chain((ROOT / "recipes").glob("*.yaml"), (ROOT / "recipes" / "schemes").glob("*.yaml")))
SHORT = {"teacher": {"name": "x"}, "data": {"path": "x", "task": "mrpc"}, "objective": {"hard_label": {}}}


def mistakes(recipe):
    """The keys at which the JSON schema finds a mistake."""
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(recipe)
    return [".".join(map(str, error.absolute_path)) for error in found]


def test_the_page_and_the_schema_are_those_of_the_code():
    """Prevents a key that is documented otherwise than it is; `make docs-schema` writes both files."""
    assert (ROOT / "docs" / "recipe_reference.md").read_text(encoding="utf-8") == reference_page()
    assert schema_file().read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_and_term_is_described():
    """Prevents an empty cell of the reference, and a hover in an editor that says nothing."""
    definitions = [SCHEMA, *SCHEMA["$defs"].values()]
    bare = [key for one in definitions for key, value in one["properties"].items() if not value.get("description")]
    assert bare == []
    assert "see `" not in json.dumps([one["properties"]["rows"] for one in definitions if "rows" in one["properties"]])
    page = reference_page()
    assert all(f"### `{name}`" in page for name in TERMS)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert len(headings) == len(set(headings))
    assert len({section.__name__ for section in _sections(Recipe)}) >= len(SCHEMA["$defs"])


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes_are_valid(file):
    """Prevents an editor that finds mistakes where there are none."""
    assert mistakes(read_yaml(file)) == []


@pytest.mark.parametrize(
    "more",
    [
        "data: {text_columns: body}",
        "teacher: {ensemble: [a, {name: b, weight: 2}]}",
        "teacher: {self: ema}",
        "student: {exits: [1, 2]}",
        "student: {peers: 2, config: {hidden_size: 12}}",
        "student: {peers: [{num_layers: 2}]}",
        "student: {branches: 3}",
        "objective: {hidden_mse: {layers: [[1, 0], [embeddings, embeddings]]}}",
        "objective: {soft_target_kl: {temperature: 4, schedule: {temperature: {shape: linear, end: 1}}}}",
        "evaluation: {seeds: [1, 2], probe: {path: x, every: 2}}",
        "data: {path: {train: [a, b], test: c}}",
        "plugins: mine.py",
    ],
)
def test_short_forms_are_valid_too(more):
    """Prevents an editor that knows the long form of a key alone."""
    recipe = merged(more)
    if "plugins" not in recipe:
        recipe_from(recipe)
    assert mistakes(recipe) == []


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("teacher: {nam: y}", "teacher"),
        ("student: {layers: evry_other}", "student.layers"),
        ("objective: {soft_target_kl: {temperature: 0}}", "objective.soft_target_kl"),
        ("objective: {my_term: {}}", "objective"),
        ("data: {max_length: long}", "data.max_length"),
        ("trainin: {}", ""),
    ],
)
def test_mistakes_are_found_where_they_are(more, where):
    """Prevents a schema that accepts all; each of these is a mistake of a recipe for `distil-nlp` too."""
    recipe = merged(more)
    assert [place for place in mistakes(recipe) if place == where]
    with pytest.raises(Exception, match="mistake"):
        recipe_from(recipe)


def test_terms_of_ones_own_are_allowed_with_plugins():
    """Prevents an editor that refuses a term which the recipe's own file defines."""
    assert mistakes(merged("objective: {my_term: {}}") | {"plugins": ["mine.py"]}) == []


def merged(more):
    recipe = {name: dict(section) for name, section in SHORT.items()}
    for name, section in yaml.safe_load(more).items():
        recipe[name] = recipe.get(name, {}) | section if isinstance(section, dict) else section
    return recipe


def test_the_command_writes_the_schema(tmp_path, monkeypatch, capsys):
    """Prevents an installed package whose users cannot get at the file."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes", "copy", "schema"]) == 0
    assert capsys.readouterr().out == "recipe.schema.json\n"
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == SCHEMA
    assert cli.main(["recipes", "show", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
