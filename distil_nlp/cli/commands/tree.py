"""`distil-nlp tree`: a soft decision tree as the student of a text classifier."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import fraction_up_to_one, path, positive_int, positive_number
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.errors import UserError
from distil_nlp.recipe import read_yaml
from distil_nlp.recipe.shipped import recipe_file
from distil_nlp.utils.names import path_name

_DEEPEST = 10


def _depth(text: str) -> int:
    """Return a depth of at most 10, which is 1,024 leaves."""
    depth = positive_int(text)
    if depth > _DEEPEST:
        raise ValueError
    return depth


def _strength(text: str) -> float:
    return 0.0 if float(text) == 0 else positive_number(text)


_depth.__name__, _strength.__name__ = "depth from 1 to 10,", "number from 0,"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN|RECIPE", help="a run's folder; or a recipe, a YAML file or the name "
                        "of one that `distil-nlp recipes` lists")  # fmt: skip
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="values that replace the recipe's"
    )
    parser.add_argument("--input", choices=("tfidf", "embedding"), default="tfidf",
                        help="words, or the state that the teacher's output layer reads; default: tfidf")  # fmt: skip
    parser.add_argument("--depth", type=_depth, default=6, help="decisions on the way to a leaf; default: 6")
    parser.add_argument("--temperature", type=positive_number, default=1.0,
                        help="of the teacher's distribution; default: 1")  # fmt: skip
    parser.add_argument("--label-weight", type=fraction_up_to_one, default=0.0, metavar="SHARE",
                        help="share of the label in the target, 0 to 1; default: 0, the teacher alone")  # fmt: skip
    parser.add_argument("--penalty", type=_strength, default=0.1,
                        help="λ, against nodes that send all to one side; default: 0.1")  # fmt: skip
    parser.add_argument("--beta", type=positive_number, default=1.0,
                        help="inverse temperature of the decisions; default: 1")  # fmt: skip
    parser.add_argument("--epochs", type=positive_int, default=20,
                        help="passes over the rows, of at most 2,000 steps in all; default: 20")  # fmt: skip
    parser.add_argument("--learning-rate", type=positive_number, default=0.02, help="of Adam; default: 0.02")
    parser.add_argument("--seeds", type=positive_int, default=3, help="trees, with the seeds 0, 1, …; default: 3")
    parser.add_argument("--output", type=path, help="folder; default: tree/ in the run's folder, or "
                        "runs/tree-<recipe>-<data>; with -embedding at its end for that input")  # fmt: skip


def validate(options: Namespace) -> None:
    if options.overrides and Path(options.source).expanduser().is_dir():
        raise ArgumentError(None, "a run keeps its own recipe: leave out the overrides, or give the recipe")


def precheck(options: Namespace) -> None:
    run = _run_folder(options)
    if run is None:
        read_yaml(recipe_file(options.source))
    elif not (run / "recipe.yaml").is_file():
        raise UserError(
            str(run),
            "the folder of a run",
            "one without recipe.yaml",
            why="rows and teacher are read from there",
            fix="name a folder such as runs/own_data-tickets-42, or a recipe",
        )
    else:
        read_yaml(run / "recipe.yaml")


def _run_folder(options: Namespace) -> Path | None:
    folder = Path(options.source).expanduser()
    return folder if folder.is_dir() else None


def run(options: Namespace) -> Path:
    with quick_imports():
        from distil_nlp.recipe import load_recipe

    folder = _run_folder(options)
    file = folder / "recipe.yaml" if folder else recipe_file(options.source)
    recipe = load_recipe(file, options.overrides)
    if folder:
        recipe.training["output_dir"] = str(folder)  # where the run is now
    with quick_imports():  # takes seconds, and mistakes in the recipe are told before
        from distil_nlp.tree.run import TreeRequest, grow_tree
        from distil_nlp.tree.training import TreeSettings

    name = folder.resolve().name if folder else file.stem
    names = ("depth", "temperature", "label_weight", "penalty", "beta", "epochs", "learning_rate")
    settings = TreeSettings(**{key: getattr(options, key) for key in names})
    output = options.output or _default_output(folder, name, recipe, options.input)
    return grow_tree(TreeRequest(recipe, name, folder, options.input, settings, range(options.seeds), output))


def _default_output(run_folder: Path | None, name: str, recipe: Any, kind: str) -> Path:
    from distil_nlp.pipeline.builders import folder_name

    ending = "" if kind == "tfidf" else f"-{kind}"
    if run_folder:
        return run_folder / f"tree{ending}"
    return Path("runs") / path_name(f"tree-{name}-{folder_name(recipe)}{ending}")


COMMAND = Command(
    name="tree",
    summary="distil a classifier into a decision tree that can be read",
    description="Distil a text classifier into a soft decision tree, and write a page that shows its decisions.",
    example="distil-nlp tree runs/own_data-tickets-42",
    add_arguments=add_arguments,
    validate=validate,
    precheck=precheck,
    run=run,
)
