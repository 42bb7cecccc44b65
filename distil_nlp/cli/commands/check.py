"""`distil-nlp check`: what a run would do, and what it would take."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.commands.distill import add_arguments

_INDENT = 10


def run(options: Namespace) -> None:
    from distil_nlp.pipeline.dry_run import dry_run
    from distil_nlp.recipe import load_recipe

    for subject, text in dry_run(load_recipe(options.recipe, options.overrides), Path(options.recipe).stem):
        print(textwrap.fill(f"{subject:{_INDENT}}{text}", 100, subsequent_indent=" " * _INDENT), flush=True)
    print("the recipe can be run: nothing was trained or kept")


COMMAND = Command(
    name="check",
    summary="say what a recipe would do, and what it would take, without training",
    description="Load everything, try both models, time a few steps, and say what the run would do and take.",
    example="distil-nlp check recipes/own_data.yaml teacher.name=my-bert data.path=tickets.csv",
    add_arguments=add_arguments,
    run=run,
)
