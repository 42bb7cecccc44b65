"""A soft decision tree of a run's or a recipe's teacher: trained, compared, and written down."""

from __future__ import annotations

import json
import shutil
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distil_nlp.evaluation.metrics import headline_metric
from distil_nlp.recipe import Recipe
from distil_nlp.redaction import abbreviate_home
from distil_nlp.reporting.markdown import terminal_table
from distil_nlp.results import drop_non_finite
from distil_nlp.tree.comparison import compared_models
from distil_nlp.tree.examples import example_routes
from distil_nlp.tree.folder import validate_tree_folder
from distil_nlp.tree.inputs import EMBEDDING, TreeInputs, tree_inputs
from distil_nlp.tree.loading import TRAIN, TreeData, load_tree_data
from distil_nlp.tree.nodes import DescribedTree, describe_tree, tree_document
from distil_nlp.tree.page import write_tree_page
from distil_nlp.tree.schema import TREE_SCHEMA_VERSION, TreeResults
from distil_nlp.tree.table import table_note, tree_lines, tree_table, tree_verdict
from distil_nlp.tree.targets import is_labelled
from distil_nlp.tree.training import TreeSettings
from distil_nlp.utils.environment import environment
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class TreeRequest:
    """A tree that is wanted.

    Attributes:
        recipe: rows and teacher.
        name: of the run or the recipe.
        run: the run's folder; None for a recipe.
        input: `tfidf` or `embedding`.
        settings: of tree and training.
        seeds: the first tree is drawn.
        output: folder that is written to.
    """

    recipe: Recipe
    name: str
    run: Path | None
    input: str
    settings: TreeSettings
    seeds: Sequence[int]
    output: Path


def grow_tree(request: TreeRequest) -> Path:
    """Train the trees and what they are compared with, write all files, and return the path of the page.

    Raises:
        UserError: for every problem that the user can fix.
    """
    validate_tree_folder(request.output)
    with claimed(request.output):
        data = load_tree_data(
            request.recipe, request.name, request.run, request.output, with_states=request.input == EMBEDDING
        )
        inputs, began = tree_inputs(data, request.input), time.perf_counter()
        tree, models = compared_models(data, inputs, request.settings, request.seeds)
        lines = tree_lines(data, models)
        described = describe_tree(tree, inputs)
        results = _results(request, data, inputs, described, lines, time.perf_counter() - began)
        routes = example_routes(tree, data, inputs) if data.shows_rows else []
        document = tree_document(described, data.labels, request.settings.beta, request.input)
        write_atomically(request.output / "tree.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        write_atomically(request.output / "results.json", json.dumps(results, indent=2) + "\n")
        page = write_tree_page(request.name, results, described, routes, request.output)
    logger.info(f"\n{results['task']}\n{terminal_table(tree_table(results), names=2)}\n")
    logger.info(f"{_folded(table_note())}\n\n{_folded(tree_verdict(results))}")
    return page


def _folded(text: str) -> str:
    """Return a text in lines of the terminal's width."""
    return textwrap.fill(text, shutil.get_terminal_size().columns, break_long_words=False)


def _results(
    request: TreeRequest,
    data: TreeData,
    inputs: TreeInputs,
    described: DescribedTree,
    lines: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Return the content of `results.json`, checked against its form."""
    rows = {TRAIN: len(data.train.labels), "labelled": int(is_labelled(data.train).sum())}
    results = {
        "schema_version": TREE_SCHEMA_VERSION,
        "run": str(request.run) if request.run else None,
        "recipe": request.recipe.model_dump(mode="json"),
        "environment": environment(request.seeds[0], torch.device("cpu"), 1),
        "task": data.task,
        "headline": headline_metric(data.task),
        "labels": data.labels,
        "teacher": data.teacher_name,
        "input": request.input,
        "features": inputs.features[TRAIN].shape[1],
        "settings": asdict(request.settings),
        "seeds": list(request.seeds),
        "rows": rows | {split: len(outputs.labels) for split, outputs in data.teacher.items()},
        "leaves_used": sum(leaf.share > 0 for leaf in described.leaves),
        "seconds": round(seconds, 1),
        "majority": data.majority,
        "models": lines,
    }
    document = abbreviate_home(drop_non_finite(results))
    TreeResults.model_validate(document)
    return document
