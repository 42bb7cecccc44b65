"""`distil-nlp distill`: run a recipe."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.recipe import read_yaml
from distil_nlp.recipe.shipped import recipe_file


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file, or the name of one that `distil-nlp recipes` lists")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="values that replace the recipe's"
    )


def precheck(options: Namespace) -> None:
    read_yaml(recipe_file(options.recipe))


def run(options: Namespace) -> Path:
    with quick_imports():
        from distil_nlp.recipe import load_any_recipe

    file = recipe_file(options.recipe)
    recipe = load_any_recipe(file, options.overrides)
    with quick_imports():  # takes seconds, and mistakes in the recipe are told before
        from distil_nlp.pipeline.multitask import distil_any

    return distil_any(recipe, file.stem)


COMMAND = Command(
    name="distill",
    summary="distil a teacher into a student",
    description="Distil a teacher into a student, as a recipe says.",
    example="distil-nlp distill glue data.task=mrpc training.seed=1",
    add_arguments=add_arguments,
    precheck=precheck,
    run=run,
)
