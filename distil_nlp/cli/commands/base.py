"""Definition of a command."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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
    """

    name: str
    summary: str
    description: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Path | None]
    validate: Callable[[Namespace], None] = _accept
