"""Definition of a command."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distil_nlp.cli.parser import Parser


def _accept(options: Namespace) -> None:
    pass


@dataclass(frozen=True)
class Command:
    """One of the commands of `distil-nlp`.

    Attributes:
        name: the first argument on the command line.
        summary: the line in the list of commands.
        description: the first sentence of its own help.
        example: a command line.
        add_arguments: adds its arguments to its parser.
        run: does the work, and returns the path to print as the last line, if any.
        validate: raises `argparse.ArgumentError` for options that do not go together.
        precheck: raises `UserError` for what is wrong and can be told before torch is imported, such as a missing file.
        parse: returns the options in its arguments; by default options may stand among the overrides of a recipe, as in
            `study.yaml --methods pkd training.seed=1`, which argparse allows for no parser that has subparsers.
        uses_torch: whether its work is done with torch.
    """

    name: str
    summary: str
    description: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Path | None]
    validate: Callable[[Namespace], None] = _accept
    precheck: Callable[[Namespace], None] = _accept
    parse: Callable[[Parser, Sequence[str]], Namespace] = Parser.parse_intermixed_args
    uses_torch: bool = True
