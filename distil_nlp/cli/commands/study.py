"""`distil-nlp study`: vary methods or any keys of a recipe, run each cell, and compare them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import names, path, positive_int
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.recipe import read_yaml
from distil_nlp.recipe.shipped import STUDIES, recipe_file
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.names import path_name

logger = get_logger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("study", help="a YAML file, or the name of one that `distil-nlp recipes` lists")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="values for the recipe of all runs"
    )
    parser.add_argument("--methods", type=names, help="these alone: plain,pkd; all if left out")
    parser.add_argument("--jobs", type=positive_int, default=1, help="runs at a time, each with its share of the cores")
    parser.add_argument("--output", type=path, help="folder; default: runs/study-<name of the file>")


def precheck(options: Namespace) -> None:
    read_yaml(recipe_file(options.study, STUDIES))


def run(options: Namespace) -> Path:
    with quick_imports():
        from distil_nlp.study.runner import run_study

    file = recipe_file(options.study, STUDIES)
    folder = options.output or Path("runs") / path_name(f"study-{file.stem}")
    return run_study(file, folder, options.overrides, options.methods, options.jobs)


COMMAND = Command(
    name="study",
    summary="vary methods or any keys of a recipe, and compare what comes of it",
    description="Vary methods or any keys of a recipe, run each cell, and compare what comes of it.",
    example="distil-nlp study methods teacher.name=bert-base-uncased",
    add_arguments=add_arguments,
    precheck=precheck,
    run=run,
)
