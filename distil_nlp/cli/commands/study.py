"""`distil-nlp study`: distil with one objective after another, and compare them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import names, path
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.names import path_name

logger = get_logger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("study", type=path, help="a YAML file; see recipes/study/")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="values for the recipe of all runs"
    )
    parser.add_argument("--methods", type=names, help="these alone: plain,pkd; all if left out")
    parser.add_argument("--output", type=path, help="folder; default: runs/study-<name of the file>")


def run(options: Namespace) -> Path:
    from distil_nlp.study.runner import run_study

    folder = options.output or Path("runs") / path_name(f"study-{options.study.stem}")
    return run_study(options.study, folder, options.overrides, options.methods)


COMMAND = Command(
    name="study",
    summary="distil with one objective after another, and compare them",
    description="Distil with one objective after another, and compare them.",
    example="distil-nlp study recipes/study/methods.yaml teacher.name=bert-base-uncased",
    add_arguments=add_arguments,
    run=run,
)
