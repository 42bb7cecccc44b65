"""`distil-nlp export`: the student of a finished run as ONNX, and in int8."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import path
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.errors import UserError
from distil_nlp.export.packages import require_export_packages
from distil_nlp.recipe import read_yaml

_SECTION = "export."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=path, metavar="RUN", help="a run's folder, with results.json and student/")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="export.key=value", help="settings of the export, such as "
        "export.int8=static, export.int8_layers=feed_forward, export.gate=0.98, export.latency=quick"
    )  # fmt: skip


def precheck(options: Namespace) -> None:
    for override in options.overrides:
        if not override.startswith(_SECTION):
            raise UserError(
                override.partition("=")[0],
                "a setting of the section export",
                override,
                why="the run is finished, and only its export can be changed",
                fix="give export.key=value, or run the recipe anew",
            )
    recipe = options.run / "recipe.yaml"
    if not recipe.is_file():
        raise UserError(
            str(options.run),
            "the folder of a run",
            "one without recipe.yaml",
            why="rows and teacher are read from there",
            fix="name a folder such as runs/glue-mrpc-42",
        )
    read_yaml(recipe)


def run(options: Namespace) -> Path:
    require_export_packages()
    with quick_imports():
        from distil_nlp.recipe import load_recipe

    recipe = load_recipe(options.run / "recipe.yaml", options.overrides)
    recipe.training["output_dir"] = str(options.run)  # where the run is now
    with quick_imports():
        from distil_nlp.pipeline.export import export_run

    return export_run(options.run, recipe)


COMMAND = Command(
    name="export",
    summary="write a finished run's student as ONNX and int8, and score both",
    description="Write the student of a finished run as ONNX and in int8, and score and time both beside the teacher.",
    example="distil-nlp export runs/glue-mrpc-42 export.int8=static",
    add_arguments=add_arguments,
    precheck=precheck,
    run=run,
)
