"""`distil-nlp make-report`: write the report of a run, or compare several."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import path
from distil_nlp.cli.quick_imports import quick_imports


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=path, metavar="RUN", help="a run's folder, with results.json")
    parser.add_argument("--output", type=path, help="folder of report.html, report.md and the plots; if left out: "
                        "report/ in the run's folder, for several runs comparison/ beside the first")  # fmt: skip


def run(options: Namespace) -> Path:
    with quick_imports():
        from distil_nlp.reporting.report import write_report

    if len(options.runs) == 1:
        return write_report(options.runs, options.output)
    with quick_imports():
        from distil_nlp.study.comparison import gain_on_same_rows  # imports torch, which the report of a run needs not
    return write_report(options.runs, options.output, gain_on_same_rows)


COMMAND = Command(
    name="make-report",
    summary="write the report of a finished run, or compare several",
    description="Write the report of a finished run, or compare several.",
    example="distil-nlp make-report runs/glue-mrpc-42 runs/glue-mrpc-43",
    add_arguments=add_arguments,
    run=run,
)
