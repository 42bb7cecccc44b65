"""`distil-nlp check`: what a run would do, and what it would take."""

from __future__ import annotations

import shutil
import textwrap
from argparse import Namespace

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.commands.distill import add_arguments, precheck
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.recipe.shipped import recipe_file

_INDENT = 10


def run(options: Namespace) -> None:
    with quick_imports():
        from distil_nlp.recipe import load_any_recipe

    file = recipe_file(options.recipe)
    recipe = load_any_recipe(file, options.overrides)
    with quick_imports():  # takes seconds, and mistakes in the recipe are told before
        from distil_nlp.pipeline.multitask import dry_run_any

    width = max(shutil.get_terminal_size().columns, 2 * _INDENT)
    for subject, text in dry_run_any(recipe, file.stem):
        print(textwrap.fill(f"{subject:{_INDENT}}{text}", width, subsequent_indent=" " * _INDENT), flush=True)
    print("the recipe can be run: nothing was trained or kept")


COMMAND = Command(
    name="check",
    summary="say what a recipe would do, and what it would take, without training",
    description="Load everything, try both models, time a few steps, and say what the run would do and take.",
    example="distil-nlp check own_data teacher.name=my-bert data.path=tickets.csv",
    add_arguments=add_arguments,
    precheck=precheck,
    run=run,
)
