"""The schema of results.json: what runs write, what reporting reads, and the page that documents it."""

import ast
import copy
import inspect
import json
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from datasets import Dataset
from pydantic import BaseModel

from distil_nlp.pipeline import publication
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.scores import LABELS_ONLY
from distil_nlp.results import Results, read_results, schema_mismatches, write_results
from distil_nlp.results.schema import Block
from distil_nlp.results.schema.costs import ModelCost
from distil_nlp.results.schema_page import _paths_of_blocks, schema_page
from tests.helpers import ROOT, tiny
from tests.helpers.runs import Place
from tests.helpers.showcase import example

# What runs write ----------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    return Place(tmp_path).prepare()


def keys_of(results):
    """The paths of all keys, those of lists of blocks included, and not those of the recipe."""
    paths = set()

    def visit(tree, path):
        for key, value in tree.items() if isinstance(tree, dict) else ():
            paths.add(f"{path}{key}")
            if key != "recipe":
                visit(value, f"{path}{key}.")

    visit(results, "")
    return paths


def test_a_classification_run_matches_the_schema(place):
    """Prevents a key that no document names, in the run that has most of them."""
    options = [
        "evaluation.seeds=2",
        "evaluation.baselines=[no_distillation, random_init]",
        "data.evaluation_splits=[validation, test]",
        "balance.kind=uncertainty",
        "run.gradients_every=2",
        "training.max_steps=4",
        "training.eval_strategy=steps",
        "training.eval_steps=2",
        "training.load_best_model_at_end=true",
    ]
    assert place.run(*options) == 0
    results = place.results
    assert schema_mismatches(results) == []
    entries = results["training"]["history"]
    assert any("eval_loss" in entry for entry in entries)
    assert any("hard_label_weight" in entry and "gradient_norm/hard_label" in entry for entry in entries)
    assert {"fidelity.ece", "fidelity.confusion", "baselines.random_init.gain.low"} <= keys_of(results)


@pytest.mark.integration
def test_a_regression_run_matches_the_schema(place):
    """Prevents figures of regression that the schema does not know; a teacher of each seed."""
    rows = Dataset.from_dict({"text": place.texts, "label": [0.5 * i for i in range(24)]})
    place.save({"train": rows, "validation": rows})
    place.teacher(tiny.classifier(4, num_labels=1))
    options = ["data.task=regression", "training.max_steps=2", "evaluation.seeds=2", "teacher.reseed=true"]
    assert place.run(*options, "teacher.finetune={max_steps: 1}") == 0
    results = place.results
    assert schema_mismatches(results) == []
    assert {"fidelity.pearson", "teacher.seeds.pearson.median"} <= keys_of(results)


@pytest.mark.integration
def test_a_language_modelling_run_matches_the_schema(place):
    """Prevents figures of masked tokens that the schema does not know; rows of a stream are not counted."""
    place.save({"train": Dataset.from_dict({"text": place.texts * 60})})
    place.teacher(tiny.mlm_model(4))
    options = ["data.task=mlm", "data.max_length=16", "data.streaming=true", "data.max_evaluation_rows=20"]
    options += ["data.held_out_share=0.3", "training.max_steps=2", "training.train_sampling_strategy=random"]
    assert place.run(*options) == 0
    results = place.results
    assert schema_mismatches(results) == []
    assert results["rows"]["train"] is None
    assert {"fidelity.tokens", "student.metrics.perplexity"} <= keys_of(results)


def full_example():
    """The example with the parts that it leaves out."""
    results = example(data={"revision": None})
    results["teacher"] |= {"ensemble": None, "revisions": {}, "card": {"license": "mit"}}
    results["student"]["initialisation"] |= {"checkpoint": None, "revision": None}
    results["training"]["max_steps"] = 460
    return results


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("student.colour", "red", "student.colour: Extra inputs are not permitted"),
        ("training.seconds", "412", "training.seconds: Input should be a valid number"),
        ("training.steps", 1.5, "training.steps: Input should be a valid integer"),
        ("schema_version", 1, "schema_version: Input should be 2"),
        ("training.history", [{"step": 1, "loss of all": 1.0}], "got loss of all"),
        ("training.history", [{"step": 1, "loss": "low"}], "training.history.0.loss"),
        ("teacher", {}, "teacher.name: Field required"),
        (
            "teacher",
            {"name": "t", "ensemble": None, "revisions": {}, "card": {}},
            "size_mb, metrics of a teacher that is",
        ),
    ],
)
def test_mismatches_are_named(path, value, message):
    """Prevents a schema that accepts anything."""
    results = full_example()
    assert schema_mismatches(results) == []
    *parents, last = path.split(".")
    tree = results
    for key in parents:
        tree = tree[key]
    tree[last] = value
    assert message in "; ".join(schema_mismatches(results))


def test_results_that_do_not_match_are_written_all_the_same(tmp_path, capsys):
    """Prevents hours of training that are lost to a mistake in the schema."""
    results = full_example() | {"novel": float("nan")}
    write_results(tmp_path / "results.json", copy.deepcopy(results))
    assert "is complete, but differs from its schema: novel: Extra inputs" in capsys.readouterr().out
    assert read_results(tmp_path / "results.json") == {**results, "novel": None}
    assert json.loads((tmp_path / "results.json").read_text())["novel"] is None


# What reporting reads -----------------------------------------------------------------------------------------

_WILDCARD = "*"
_RESULTS = {"run", "facts", "self"}
"""Names of what has a `get` of dotted paths."""


def literal(node):
    """A string, or an f-string with `*` for what is filled in; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name) and node.id == "LABELS_ONLY":
        return LABELS_ONLY
    if isinstance(node, ast.FormattedValue):
        return literal(node.value) if isinstance(node.value, ast.Name) and node.value.id == "LABELS_ONLY" else _WILDCARD
    if isinstance(node, ast.JoinedStr):
        return "".join(map(literal, node.values))
    return None


def is_results(node):
    """`run`, `facts`, `self`, or an element of a list of runs."""
    return isinstance(node, ast.Subscript) or (isinstance(node, ast.Name) and node.id in _RESULTS)


def paths_read(tree):
    """The paths in `run.get("…")`, `run.both("…")` and `_both(run, …, "…")`."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        path = literal(call.args[-1] if name == "_both" else call.args[0])
        if path is None or name not in ("get", "both", "_both"):
            continue
        if name == "get" and ("." in path or is_results(call.func.value)):
            yield path
        elif name != "get":
            yield from (f"{role}.{path}" for role in ("teacher", "student"))


def exists(kind, keys):
    """Whether a path of keys can be in what the schema (and, inside `recipe`, the recipe) describes."""
    if not keys or kind is Any:
        return True
    if get_origin(kind) in (Union, UnionType):
        return any(exists(inner, keys) for inner in get_args(kind))
    if get_origin(kind) is dict:
        return exists(get_args(kind)[1], keys[1:])
    if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
        return False
    fields = {name: field.annotation for name, field in kind.model_fields.items()}
    if kind is Results:
        fields["recipe"] = Recipe
    chosen = fields if keys[0] == _WILDCARD else {keys[0]} & fields.keys()
    return any(exists(fields[name], keys[1:]) for name in chosen)


def test_every_path_that_is_read_can_be_written():
    """Prevents a figure that disappears from reports, cards and studies because its key was renamed or misspelt."""
    files = [
        path for package in ("reporting", "hub", "study") for path in (ROOT / "distil_nlp" / package).rglob("*.py")
    ]
    read = {(file.name, path) for file in files for path in paths_read(ast.parse(file.read_text()))}
    assert len({path for _, path in read}) > 60
    assert not [(file, path) for file, path in sorted(read) if not exists(Results, path.split("."))]
    for wrong in ("teacher.metric", "retention.f1", "*.latency_ms.32.mean", "recipe.teacher.names", "rows.test"):
        assert not exists(Results, wrong.split("."))


# The page -----------------------------------------------------------------------------------------------------


def test_the_page_is_the_schema():
    """Prevents a document that says something else than the code; `make docs-schema` makes it anew."""
    assert (ROOT / "docs" / "results_schema.md").read_text(encoding="utf-8") == schema_page()


def test_every_key_has_a_meaning():
    """Prevents a key without words, a null that its type does not allow, and a block that the page leaves out."""
    blocks = _paths_of_blocks()
    for block in blocks:
        assert block.__doc__, block
        for name, field in block.model_fields.items():
            notes = field.json_schema_extra
            assert field.description.startswith(notes["meaning"]), (block, name)
            assert notes["meaning"].endswith("."), (block, name)
            assert bool(notes["absent"]) != field.is_required(), (block, name)
            assert not notes["null"] or type(None) in get_args(field.annotation), (block, name)
    home = Block.__module__.rpartition(".")[0]  # a tree has its own file
    own = {block for block in subclasses(Block) if block.__module__.startswith(f"{home}.")}
    assert set(blocks) == own - {ModelCost}


def subclasses(block):
    found = set(block.__subclasses__())
    return found.union(*map(subclasses, found))
