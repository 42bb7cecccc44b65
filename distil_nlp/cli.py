"""The command line: `distil-nlp distill …` and `distil-nlp evaluate-glue …`, which the scripts call too."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import distributed

from distil_nlp.errors import UserError
from distil_nlp.redaction import redact
from distil_nlp.training.preemption import Preempted
from distil_nlp.utils.failures import readable_data, writable_disk
from distil_nlp.utils.logging import is_main_process, redact_logs, say
from distil_nlp.utils.memory import keep_freed_memory


class _Parser(argparse.ArgumentParser):
    """Repeats no token that was typed in the wrong place."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))


def distill(argv: Sequence[str] | None = None) -> int:
    """Runs a recipe; the last line on stdout is the path of `results.json`."""
    parser = _Parser(
        prog="distill", description="Distil a teacher into a student, as a recipe says.",
        epilog="example: accelerate launch scripts/distill.py recipes/glue.yaml data.task=mrpc training.seed=1",
    )  # fmt: skip
    parser.add_argument("recipe", help="a YAML file; see recipes/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace the recipe's")
    options = parser.parse_args(argv)

    def run() -> Path:
        from distil_nlp.pipeline.distill import distil
        from distil_nlp.recipe import load_recipe

        return distil(load_recipe(options.recipe, options.overrides), Path(options.recipe).stem)

    return _guarded(run)


def evaluate_glue(argv: Sequence[str] | None = None) -> int:
    """Scores a model on GLUE tasks with their official metrics: as it is, or fine-tuned on each of them."""
    from distil_nlp.evaluation.glue.settings import FinetuningSettings
    from distil_nlp.tasks import GLUE

    parser = _Parser(
        prog="evaluate_glue", description="Score a model on GLUE tasks.",
        epilog="example: accelerate launch scripts/evaluate_glue.py runs/x/student --mode finetune --tasks all",
    )  # fmt: skip
    parser.add_argument("model", help="a folder such as runs/x/student, or a name on the Hub")
    parser.add_argument("--mode", choices=["score", "finetune"], default="score",
                        help="score: as it is, on its own task; finetune: each task anew, on the labels")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", choices=[*GLUE, "all"], required=True, metavar="TASK",
                        help=f"all, or {', '.join(GLUE)}")  # fmt: skip
    parser.add_argument("--data", default="nyu-mll/glue", help="a folder or Hub name in the layout of nyu-mll/glue")
    parser.add_argument("--max-length", type=_count, default=128, help="tokens; at most the model's positions")
    parser.add_argument("--batch-size", type=_count, default=32, help="rows; of a training step over all processes")
    parser.add_argument("--output", type=_path, help="score: also write the scores to this JSON file; finetune: "
                        "the folder, instead of runs/x/glue or runs/glue-<name>")  # fmt: skip
    finetuning = _finetuning_options(parser)
    options = vars(parser.parse_args(argv))
    chosen = {name: options.pop(name) for name in finetuning if name in options}
    options["tasks"] = list(GLUE) if "all" in options["tasks"] else list(dict.fromkeys(options["tasks"]))
    mode = options.pop("mode")
    if chosen and mode != "finetune":
        names = ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
        parser.error(f"{names}: expected with --mode finetune / got --mode {mode} / they would have no effect")

    def run() -> Path | None:
        if mode == "score":
            from distil_nlp.evaluation.glue.scoring import score_on_glue

            return score_on_glue(**options)
        from distil_nlp.evaluation.glue.protocol import finetune_on_glue

        own = {name: chosen.pop(name) for name in ("seeds", "submission") if name in chosen}
        settings = FinetuningSettings(
            max_length=options.pop("max_length"), batch_size=options.pop("batch_size"), **chosen
        )
        return finetune_on_glue(**options, **own, settings=settings)

    return _guarded(run)


def _finetuning_options(parser: argparse.ArgumentParser) -> list[str]:
    """Adds what only `--mode finetune` takes; the options' names. They are absent where they are not given."""
    from distil_nlp.evaluation.glue.settings import SEEDS, FinetuningSettings, parse_seeds

    def seeds(text: str) -> list[int]:
        try:
            return parse_seeds(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"expected a count such as 5, or a list such as 1,2,3 / got {text}"
            ) from error

    group = parser.add_argument_group("with --mode finetune")
    add = partial(group.add_argument, default=argparse.SUPPRESS)
    actions = [
        add(
            "--seeds",
            type=seeds,
            help=f"a count (5: 42 to 46) or a list (1,2,3; one alone: 7,); {len(SEEDS)} if left out",
        ),
        add("--epochs", type=_number, help=f"{FinetuningSettings.epochs:g} if left out"),
        add("--learning-rate", type=_number, help=f"{FinetuningSettings.learning_rate:g} if left out"),
        add("--warmup", type=_share, help=f"share of the steps; {FinetuningSettings.warmup:g} if left out"),
        add("--weight-decay", type=_share, help=f"{FinetuningSettings.weight_decay:g} if left out"),
        add("--max-train-rows", type=_count, help="at most as many training rows, for trying out"),
        add("--max-steps", type=_count, help="instead of epochs, for trying out"),
        add("--from-mnli", action="store_true", help="RTE, MRPC and STS-B start from the model fine-tuned on MNLI"),
        add("--bf16", action="store_true", help="mixed precision"),
        add("--submission", action="store_true", help="also write predictions on the test splits for GLUE's server"),
    ]
    return [action.dest for action in actions]


def push_to_hub(argv: Sequence[str] | None = None) -> int:
    """Uploads a finished run to the Hub, after showing what would go where; the last line on stdout is the commit."""
    parser = _Parser(
        prog="push_to_hub", description="Upload a finished run's student, model card and report to the Hub.",
        epilog="example: python scripts/push_to_hub.py runs/glue-mrpc-42 --repo-id me/my-distilbert --private",
    )  # fmt: skip
    parser.add_argument("run", type=_path, help="a run's folder, with results.json and student/")
    parser.add_argument("--repo-id", required=True, metavar="ID", help="name or namespace/name, new or existing")
    parser.add_argument("--private", action="store_true", help="make a new repository private; fill no public one")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(argv)

    def run() -> None:
        from distil_nlp.hub import plan_upload, upload

        planned = plan_upload(options.run, options.repo_id, private=options.private)
        say(str(planned))
        if not options.yes:
            if not sys.stdin.isatty():
                raise UserError("--yes: expected where nobody can answer / got no terminal / nothing went up / add it")
            print("\nUpload? [y/N] ", end="", flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                return say("nothing was uploaded")
        say(upload(planned))

    return _guarded(run)


def make_report(argv: Sequence[str] | None = None) -> int:
    """Writes the report of a run, or the comparison of several; the last line on stdout is the path of the page."""
    parser = _Parser(
        prog="make_report", description="Write the report of a finished run, or compare several.",
        epilog="example: python scripts/make_report.py runs/glue-mrpc-42 runs/glue-mrpc-43",
    )  # fmt: skip
    parser.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="a run's folder, with results.json")
    parser.add_argument("--output", type=_path, help="folder of report.html, report.md and the plots; if left out: "
                        "report/ in the run's folder, for several runs comparison/ beside the first")  # fmt: skip
    options = parser.parse_args(argv)

    def run() -> Path:
        from distil_nlp.reporting.report import write_report

        return write_report(options.runs, options.output)

    return _guarded(run)


def benchmark(argv: Sequence[str] | None = None) -> int:
    """Times steps beside those of others; the last line on stdout is the path of `benchmark.json`."""
    parts = ("mlm", "options", "attention", "task", "terms", "scaling", "inference", "communication")
    parser = _Parser(
        prog="benchmark", description="Time distillation beside DistilBERT's loop, TextBrewer and plain fine-tuning.",
        epilog="example: python scripts/benchmark.py --parts mlm task --model bert-base-uncased --glue nyu-mll/glue",
    )  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=parts, default=["mlm", "attention", "inference"], metavar="PART",
                        help=f"of {', '.join(parts)}; mlm, attention and inference if left out")  # fmt: skip
    parser.add_argument("--size", choices=["base", "mini", "tiny"], default="base",
                        help="of the teacher: BERT-base, MiniLM-L6, or one for trying out")  # fmt: skip
    parser.add_argument("--batch", type=_count, default=8, help="rows of a step")
    parser.add_argument("--length", type=_count, default=128, help="tokens of a row")
    parser.add_argument("--rounds", type=_count, default=7, help="steps that count, of each contender")
    parser.add_argument("--threads", type=_count, help="of the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="mixed precision, for all contenders")
    parser.add_argument("--model", help="parts task and terms: a folder or a name on the Hub")
    parser.add_argument("--glue", help="parts task and terms: a folder or Hub name in the layout of nyu-mll/glue")
    parser.add_argument("--terms", nargs="+", metavar="TERM", help="part terms: these alone, as recipes name them")
    parser.add_argument("--output", type=_path, default=Path("runs/benchmark"), help="folder; default: %(default)s")
    options = vars(parser.parse_args(argv))

    def run() -> Path:
        from distil_nlp.benchmark.run import run_benchmark
        from distil_nlp.benchmark.suites import BenchmarkSettings

        folder, chosen = options.pop("output"), tuple(dict.fromkeys(options.pop("parts")))
        terms = options.pop("terms")
        return run_benchmark(
            BenchmarkSettings(parts=chosen, terms=terms and tuple(dict.fromkeys(terms)), **options), folder, say
        )

    return _guarded(run)


def study(argv: Sequence[str] | None = None) -> int:
    """Distils with one objective after another; the last line on stdout is the path of the table."""
    parser = _Parser(
        prog="study", description="Distil with one objective after another, and compare them.",
        epilog="example: python scripts/study.py recipes/study/methods.yaml teacher.name=bert-base-uncased",
    )  # fmt: skip
    parser.add_argument("study", type=_path, help="a YAML file; see recipes/study/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values for the recipe of all runs")
    parser.add_argument("--methods", type=_names, help="these alone: plain,pkd; all if left out")
    parser.add_argument("--output", type=_path, help="folder; default: runs/study-<name of the file>")
    options = parser.parse_intermixed_args(argv)

    def run() -> Path:

        folder = options.output or Path("runs") / f"study-{options.study.stem}"
        from distil_nlp.study.runner import run_study

        return run_study(options.study, folder, options.overrides, say, options.methods)

    return _guarded(run)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _names(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names with a comma between them / got {text!r}")
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0 / got {text}")
    return int(text)


def _number(text: str) -> float:
    if not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0 / got {text}")
    return float(text)


def _share(text: str) -> float:
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1 / got {text}")
    return float(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The console command `distil-nlp`."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "distill": distill,
        "evaluate-glue": evaluate_glue,
        "push-to-hub": push_to_hub,
        "make-report": make_report,
        "benchmark": benchmark,
        "study": study,
    }
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in commands:
        print(f"usage: distil-nlp {{{','.join(commands)}}} …   (each with --help)", file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    return commands[arguments[0]](arguments[1:])


def _guarded(run: Callable[[], Path | None]) -> int:
    """Runs; a user's mistake is one message on stderr and exit code 2."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "─" must not end a finished run
    redact_logs()
    if not torch.accelerator.is_available():
        keep_freed_memory()
    try:
        with writable_disk(), readable_data():
            path = run()
    except KeyboardInterrupt:
        print("interrupted; the same command carries on from the last checkpoint", file=sys.stderr)
        return 130
    except UserError as error:
        if is_main_process():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Preempted as told:
        if is_main_process():
            print(redact(str(told)), file=sys.stderr)
        return 128 + signal.SIGTERM
    if path is not None and is_main_process():
        print(path, flush=True)  # as it was given, for `$(… | tail -1)`: a shell takes no ~ there
    _part()
    return 0


def _part() -> None:
    """Ends the processes' connection while Python is whole; left to the interpreter's end, its threads may abort it."""
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # trainers hold themselves, and with them the connection
        distributed.destroy_process_group()
