# PYTHON_ARGCOMPLETE_OK
"""The command line: `distil-nlp COMMAND …`; `scripts/` call one function for each command."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import distil_nlp
from distil_nlp.cli.commands import COMMANDS
from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.guard import run_guarded
from distil_nlp.cli.parser import Parser
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.errors import shown

_OTHER_NAMES = {
    "train": "distill", "run": "distill", "list": "recipes", "ls": "recipes",
    "cp": "recipes copy", "cat": "recipes show", "validate": "check",
    "push": "push-to-hub", "upload": "push-to-hub", "compare": "make-report",
}  # fmt: skip
"""Names that other command lines have for what a command does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console command `distil-nlp` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser, subparsers = _parsers()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    name = arguments[0]
    if name in COMMANDS:
        return _run(name, subparsers[name], arguments[1:])
    if not name.startswith("-"):
        near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"there is no command {shown(name)!r}; {hint}")
    parser.parse_args(arguments)  # --help and --version, which end here, or argparse's own error
    return 2


def distill(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; the last line on stdout is the path of `results.json`."""
    return _main_of("distill", argv)


def check(argv: Sequence[str] | None = None) -> int:
    """Say what a recipe would do and take, without training."""
    return _main_of("check", argv)


def evaluate_glue(argv: Sequence[str] | None = None) -> int:
    """Score a model on GLUE tasks with their official metrics: as it is, or fine-tuned on each of them."""
    return _main_of("evaluate-glue", argv)


def push_to_hub(argv: Sequence[str] | None = None) -> int:
    """Upload a finished run to the Hub, after showing the plan; the last line on stdout is the commit."""
    return _main_of("push-to-hub", argv)


def make_report(argv: Sequence[str] | None = None) -> int:
    """Write the report of a run, or the comparison of several; the last line on stdout is the path of the page."""
    return _main_of("make-report", argv)


def benchmark(argv: Sequence[str] | None = None) -> int:
    """Time steps beside those of other implementations; the last line on stdout is the path of `benchmark.json`."""
    return _main_of("benchmark", argv)


def study(argv: Sequence[str] | None = None) -> int:
    """Distil with one objective after another; the last line on stdout is the path of the table."""
    return _main_of("study", argv)


def _main_of(name: str, argv: Sequence[str] | None) -> int:
    return main([name, *(sys.argv[1:] if argv is None else argv)])


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of `distil-nlp` and those of its commands; a shell that completes a word gets its answer here.

    The parsers import no torch, so that help and completion take no seconds.
    """
    parser = Parser(
        prog="distil-nlp",
        usage="distil-nlp [-h] [--version] COMMAND ...",
        description="Distil Hugging Face encoders into smaller ones.",
        epilog="distil-nlp COMMAND --help shows the arguments of a command",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {distil_nlp.__version__}")
    # the column is as wide as the metavar, and argparse forgets that the names below it are indented by two more
    metavar = "COMMAND".ljust(max(map(len, COMMANDS)) + 2)
    choices = parser.add_subparsers(title="commands", prog="distil-nlp", metavar=metavar, required=True)
    subparsers = {}
    for name, command in COMMANDS.items():
        subparsers[name] = choices.add_parser(
            name,
            help=command.summary,
            description=command.description,
            epilog=f"example: {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the example in one piece, to be copied
        )
        command.add_arguments(subparsers[name])
    try:
        import argcomplete
    except ImportError:  # an optional extra
        pass
    else:
        argcomplete.autocomplete(parser)
    return parser, subparsers


def _run(name: str, parser: Parser, arguments: Sequence[str]) -> int:
    """Parse a command's own arguments, so that errors show its own usage, and run it."""
    command = COMMANDS[name]
    options = command.parse(parser, arguments)
    try:
        command.validate(options)
    except argparse.ArgumentError as error:
        parser.error(str(error))
    return run_guarded(lambda: _work(command, options))


def _work(command: Command, options: argparse.Namespace) -> Path | None:
    """Run a command, after what can be checked without torch; return the path to print."""
    command.precheck(options)
    if not command.uses_torch:
        return command.run(options)
    with quick_imports():
        from distil_nlp.cli.torch_process import torch_process

    with torch_process():
        return command.run(options)
