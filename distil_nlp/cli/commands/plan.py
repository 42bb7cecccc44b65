"""`distil-nlp plan`: what a run or a study will take, stage by stage, before it runs."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import fraction_above_zero, path, positive_int, positive_number
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.recipe import read_yaml
from distil_nlp.recipe.shipped import STUDIES, recipe_file
from distil_nlp.utils.names import path_name

_INDENT = 10


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file of a recipe or a study, or the name of a shipped one")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="values that replace the recipe's"
    )
    parser.add_argument("--accelerator", metavar="NAME", help="plan for an accelerator by its figures: h100, a100, …")
    parser.add_argument("--utilization", type=fraction_above_zero, help="share of its peak that training reaches")
    parser.add_argument("--processes", type=positive_int, default=1, help="that share the rows, each with its own")
    parser.add_argument("--price-per-hour", type=positive_number, help="of each process's machine or accelerator")
    parser.add_argument("--currency", default="USD", help="of the price; default: USD")
    parser.add_argument("--watts", type=positive_number, help="of each; default: the accelerator's own")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON, all else on stderr")
    parser.add_argument("--output", type=path, help="the folder of a study's runs; default: that of `study`")


def validate(options: Namespace) -> None:
    if options.utilization is not None and options.accelerator is None:
        raise ArgumentError(None, "--utilization is a share of an accelerator's peak: name one with --accelerator")


def precheck(options: Namespace) -> None:
    options.begin = time.perf_counter()  # before torch is imported, as a run's time begins too
    from distil_nlp.pipeline.planning.accelerators import accelerator_named

    read_yaml(_file_of(options.recipe))
    if options.accelerator is not None:
        accelerator_named(options.accelerator)


def run(options: Namespace) -> None:
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        lines = list(_plan(options, options.begin))
    print("\n".join(lines))


def _plan(options: Namespace, begin: float) -> Iterator[str]:
    """Yield the lines of the plan."""
    with quick_imports():
        from distil_nlp.pipeline.planning.accelerators import UTILIZATION, accelerator_named
        from distil_nlp.pipeline.planning.basis import Basis
        from distil_nlp.pipeline.planning.lines import plan_json, stage_table, total_lines
        from distil_nlp.pipeline.planning.plan_recipe import plan_recipe
        from distil_nlp.recipe import load_recipe

    basis = Basis(
        accelerator=accelerator_named(options.accelerator) if options.accelerator else None,
        utilization=options.utilization or UTILIZATION,
        processes=options.processes,
        price_per_hour=options.price_per_hour,
        currency=options.currency,
        watts=options.watts,
    )
    file = _file_of(options.recipe)
    if "recipe" in read_yaml(file):  # a study
        from distil_nlp.study.costs import plan_study

        folder = options.output or path(f"runs/{path_name(f'study-{file.stem}')}")
        costs = plan_study(file, folder, options.overrides, basis, begin, _say)
    else:
        costs = plan_recipe(load_recipe(file, options.overrides), file.stem, basis, begin=begin, say=_say)
    if options.json:
        yield plan_json(costs, basis, recipe=str(options.recipe), overrides=options.overrides)
        return
    yield stage_table(costs)
    yield ""
    for subject, text in [
        ("basis", basis.sentence),
        *total_lines(costs, basis),
        *(("change", one) for one in costs.advice),
    ]:
        yield textwrap.fill(f"{subject:{_INDENT}}{text}", 120, subsequent_indent=" " * _INDENT)


def _file_of(name: str) -> Path:
    """Return the file of a recipe, or of a study: shipped studies have a folder of their own, as `study` knows."""
    file = recipe_file(name)
    return file if file.is_file() else recipe_file(name, STUDIES)


def _say(text: str) -> None:
    print(f"planning: {text}", file=sys.stderr, flush=True)


COMMAND = Command(
    name="plan",
    summary="say what a run or a study will take: time, memory, disk, energy, money",
    description="Take a few steps, or an accelerator's figures, and say what each stage of a run will take.",
    example="distil-nlp plan glue data.task=mrpc --accelerator h100 --price-per-hour 3",
    add_arguments=add_arguments,
    precheck=precheck,
    validate=validate,
    run=run,
)
