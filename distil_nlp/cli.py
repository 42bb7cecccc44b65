"""The command line: `distil-nlp distill …` and `distil-nlp evaluate-glue …`, which the scripts call too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from distil_nlp.console import is_main_process, say
from distil_nlp.errors import UserError


def distill(argv: Sequence[str] | None = None) -> int:
    """Runs a recipe; the last line on stdout is the path of `results.json`."""
    parser = argparse.ArgumentParser(
        prog="distill", description="Distil a teacher into a student, as a recipe says.",
        epilog="example: accelerate launch scripts/distill.py recipes/glue.yaml data.task=mrpc training.seed=1",
    )  # fmt: skip
    parser.add_argument("recipe", help="a YAML file; see recipes/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace the recipe's")
    options = parser.parse_args(argv)

    def run() -> Path:
        from distil_nlp.recipe import load_recipe
        from distil_nlp.stages import distil

        return distil(load_recipe(options.recipe, options.overrides), Path(options.recipe).stem)

    return _guarded(run)


def evaluate_glue(argv: Sequence[str] | None = None) -> int:
    """Scores a model on GLUE tasks with their official metrics."""
    from distil_nlp.tasks import GLUE

    parser = argparse.ArgumentParser(prog="evaluate_glue", description="Score a model on GLUE tasks.")
    parser.add_argument("model", help="a folder such as runs/x/student, or a name on the Hub")
    parser.add_argument("--mode", choices=["score"], default="score", help="score: as it is, on its own task")
    parser.add_argument("--tasks", nargs="+", choices=[*GLUE], required=True, metavar="TASK", help=", ".join(GLUE))
    parser.add_argument("--data", default="nyu-mll/glue", help="a folder or Hub name in the layout of nyu-mll/glue")
    parser.add_argument("--max-length", type=_count, default=128, help="tokens; at most the model's positions")
    parser.add_argument("--batch-size", type=_count, default=32)
    parser.add_argument("--output", type=Path, help="also write the scores to this JSON file")
    options = parser.parse_args(argv)

    def run() -> Path | None:
        from distil_nlp.glue import score_on_glue

        return score_on_glue(**vars(options))

    return _guarded(run)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0 / got {text}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The console command `distil-nlp`."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {"distill": distill, "evaluate-glue": evaluate_glue}
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in commands:
        print(f"usage: distil-nlp {{{','.join(commands)}}} …   (each with --help)", file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    return commands[arguments[0]](arguments[1:])


def _guarded(run: Callable[[], Path | None]) -> int:
    """Runs; a user's mistake is one message on stderr and exit code 2."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "─" must not end a finished run
    try:
        path = run()
    except KeyboardInterrupt:
        print("interrupted; the same command carries on from the last checkpoint", file=sys.stderr)
        return 130
    except UserError as error:
        if is_main_process():
            print(f"error: {error}", file=sys.stderr)
        return 2
    if path is not None:
        say(str(path))
    return 0
