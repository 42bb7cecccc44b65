"""`distil-nlp distill`: run a recipe."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file; see recipes/")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="values that replace the recipe's"
    )


def run(options: Namespace) -> Path:
    from distil_nlp.pipeline.distill import distil
    from distil_nlp.recipe import load_recipe

    return distil(load_recipe(options.recipe, options.overrides), Path(options.recipe).stem)


COMMAND = Command(
    name="distill",
    summary="distil a teacher into a student",
    description="Distil a teacher into a student, as a recipe says.",
    example="accelerate launch -m distil_nlp distill recipes/glue.yaml data.task=mrpc training.seed=1",
    add_arguments=add_arguments,
    run=run,
)
