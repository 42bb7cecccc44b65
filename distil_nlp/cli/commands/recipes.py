"""`distil-nlp recipes`: list, show and copy the recipes that come with the package."""

from __future__ import annotations

import shutil
import textwrap
from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import path
from distil_nlp.errors import UserError
from distil_nlp.recipe.shipped import (
    CONFIGURATIONS,
    STUDIES,
    TRAINING_SCHEMES,
    describe_file,
    nearest_shipped,
    schema_file,
    shipped_file,
    shipped_names,
)
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_SCHEMA = "schema"
"""Name of the JSON schema of recipes, beside those of the recipes."""
_MORE = (
    "for editors: `distil-nlp recipes copy schema` writes the JSON schema of recipes",
    "distil-nlp recipes show NAME prints one, with what it needs and gives",
)
_GROUPS = {
    "": "recipes, for `distil-nlp distill NAME`",
    TRAINING_SCHEMES: "training schemes: who teaches, and how often",
    STUDIES: "studies, for `distil-nlp study NAME`",
    CONFIGURATIONS: "configurations, for `distil-nlp launch --config_file NAME …`",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", choices=["list", "show", "copy"], default="list", metavar="{list,show,copy}",
        help="list: the names, with a line each (what happens without arguments); show: print one; copy: copy one",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", help="of the list")
    parser.add_argument("destination", nargs="?", type=path, help="copy: a file or folder; default: here")


def validate(options: Namespace) -> None:
    from argparse import ArgumentError

    if options.action != "list" and options.name is None:
        raise ArgumentError(None, f"{options.action}: expected a name / see `distil-nlp recipes`")
    if options.action != "copy" and options.destination is not None:
        raise ArgumentError(None, f"{options.action}: takes no destination")


def run(options: Namespace) -> Path | None:
    if options.action == "list":
        groups = [_group(folder, title) for folder, title in _GROUPS.items()]
        logger.info("\n\n".join([*groups, *_MORE]))
        return None
    file = _named(options.name)
    if options.action == "show":
        logger.info(file.read_text(encoding="utf-8").rstrip())
        return None
    return _copy(file, options.destination or Path(file.name))


def _group(folder: str, title: str) -> str:
    """Return the names in a folder below a heading, each with its first sentence, folded to the terminal."""
    names = shipped_names(folder)
    start = max(map(len, names)) + 4
    width = max(shutil.get_terminal_size().columns, start + 40)
    fold = textwrap.TextWrapper(width, subsequent_indent=" " * start, break_on_hyphens=False)
    return "\n".join([title, *(fold.fill(f"  {name}".ljust(start) + _sentence(name)) for name in names)])


def _sentence(name: str) -> str:
    file = shipped_file(name)
    return describe_file(file) if file else ""


def _named(name: str) -> Path:
    file = schema_file() if name == _SCHEMA else shipped_file(name)
    if file is None:
        near = nearest_shipped(name)
        fix = f"did you mean {near}?" if near else "see `distil-nlp recipes`"
        raise UserError(None, "the name of a recipe that comes with the package", name, fix=fix)
    return file


def _copy(file: Path, destination: Path) -> Path:
    """Copy a file to a new one, or into a folder; return the copy.

    Raises:
        UserError: if there is a file already.
    """
    target = destination / file.name if destination.is_dir() else destination
    if target.exists():
        raise UserError(str(target), "no file of that name yet", "one", fix="name another destination")
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(file, target))


COMMAND = Command(
    name="recipes",
    summary="list, show or copy the recipes that come with the package",
    description="List, show or copy the recipes that come with the package.",
    example="distil-nlp recipes copy glue my-recipe.yaml",
    add_arguments=add_arguments,
    run=run,
    validate=validate,
    uses_torch=False,
)
