"""`distil-nlp evaluate-glue`: score a model on GLUE tasks."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import fraction_below_one, path, positive_int, positive_number
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.errors import shown

_FINETUNING = (
    "seeds",
    "epochs",
    "learning_rate",
    "warmup",
    "weight_decay",
    "max_train_rows",
    "max_steps",
    "from_mnli",
    "bf16",
    "submission",
)
"""Options of `--mode finetune` alone; absent from the namespace where they are not given."""


def add_arguments(parser: ArgumentParser) -> None:
    from distil_nlp.tasks import GLUE

    parser.add_argument("model", help="a folder such as runs/x/student, or a name on the Hub")
    parser.add_argument("--mode", choices=["score", "finetune"], default="score",
                        help="score: as it is, on its own task; finetune: each task anew, on the labels")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", choices=[*GLUE, "all"], required=True, metavar="TASK",
                        help=f"all, or {', '.join(GLUE)}")  # fmt: skip
    parser.add_argument("--data", default="nyu-mll/glue", help="a folder or Hub name in the layout of nyu-mll/glue")
    parser.add_argument("--max-length", type=positive_int, default=128, help="tokens; at most the model's positions")
    parser.add_argument(
        "--batch-size", type=positive_int, default=32, help="rows; of a training step over all processes"
    )
    parser.add_argument("--output", type=path, help="score: also write the scores to this JSON file; finetune: "
                        "the folder, instead of runs/x/glue or runs/glue-<name>")  # fmt: skip
    _add_finetuning_arguments(parser)


def _add_finetuning_arguments(parser: ArgumentParser) -> None:
    from distil_nlp.evaluation.glue.settings import SEEDS, FinetuningSettings, parse_seeds

    def seeds(text: str) -> list[int]:
        try:
            return parse_seeds(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"expected a count such as 5, or a list such as 1,2,3 / got {shown(text)}"
            ) from error

    group = parser.add_argument_group("with --mode finetune")
    add = partial(group.add_argument, default=argparse.SUPPRESS)
    add(
        "--seeds",
        type=seeds,
        help=f"a count (5: 42 to 46) or a list (1,2,3; a single seed: 7,); {len(SEEDS)} if left out",
    )
    add("--epochs", type=positive_number, help=f"{FinetuningSettings.epochs:g} if left out")
    add("--learning-rate", type=positive_number, help=f"{FinetuningSettings.learning_rate:g} if left out")
    add("--warmup", type=fraction_below_one, help=f"fraction of the steps; {FinetuningSettings.warmup:g} if left out")
    add("--weight-decay", type=fraction_below_one, help=f"{FinetuningSettings.weight_decay:g} if left out")
    add("--max-train-rows", type=positive_int, help="at most as many training rows, for trying out")
    add("--max-steps", type=positive_int, help="instead of epochs, for trying out")
    add("--from-mnli", action="store_true", help="RTE, MRPC and STS-B start from the model fine-tuned on MNLI")
    add("--bf16", action="store_true", help="mixed precision")
    add("--submission", action="store_true", help="also write predictions on the test splits for GLUE's server")


def validate(options: Namespace) -> None:
    given = ", ".join(f"--{name.replace('_', '-')}" for name in _FINETUNING if name in options)
    if given and options.mode != "finetune":
        message = f"{given}: expected with --mode finetune / got --mode {options.mode} / they would have no effect"
        raise argparse.ArgumentError(None, message)


def run(options: Namespace) -> Path | None:
    from distil_nlp.tasks import GLUE
    from distil_nlp.utils.hub_connection import use_cache_without_network

    use_cache_without_network([options.model, options.data])
    arguments = vars(options).copy()
    finetuning = {name: arguments.pop(name) for name in _FINETUNING if name in arguments}
    tasks = arguments.pop("tasks")
    arguments["tasks"] = list(GLUE) if "all" in tasks else list(dict.fromkeys(tasks))
    if arguments.pop("mode") == "score":
        with quick_imports():
            from distil_nlp.evaluation.glue.scoring import score_on_glue
        return score_on_glue(**arguments)
    with quick_imports():
        from distil_nlp.evaluation.glue.protocol import finetune_on_glue
        from distil_nlp.evaluation.glue.settings import FinetuningSettings

    of_protocol = {name: finetuning.pop(name) for name in ("seeds", "submission") if name in finetuning}
    settings = FinetuningSettings(
        max_length=arguments.pop("max_length"), batch_size=arguments.pop("batch_size"), **finetuning
    )
    return finetune_on_glue(**arguments, **of_protocol, settings=settings)


COMMAND = Command(
    name="evaluate-glue",
    summary="score a model on GLUE, as it is or fine-tuned on each task",
    description="Score a model on GLUE tasks.",
    example="distil-nlp launch evaluate-glue runs/x/student --mode finetune --tasks all",
    add_arguments=add_arguments,
    run=run,
    validate=validate,
)
