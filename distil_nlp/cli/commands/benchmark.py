"""`distil-nlp benchmark`: time steps beside other implementations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import path, positive_int
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_PARTS = ("mlm", "options", "attention", "task", "terms", "scaling", "inference", "communication")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=["mlm", "attention", "inference"], metavar="PART",
                        help=f"of {', '.join(_PARTS)}; mlm, attention and inference if left out")  # fmt: skip
    parser.add_argument("--size", choices=["base", "mini", "tiny"], default="base",
                        help="of the teacher: BERT-base, MiniLM-L6, or one for trying out")  # fmt: skip
    parser.add_argument("--batch", type=positive_int, default=8, help="rows of a step")
    parser.add_argument("--length", type=positive_int, default=128, help="tokens of a row")
    parser.add_argument("--rounds", type=positive_int, default=7, help="steps that count, of each contender")
    parser.add_argument("--threads", type=positive_int, help="of the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="mixed precision, for all contenders")
    parser.add_argument("--model", help="parts task and terms: a folder or a name on the Hub")
    parser.add_argument("--glue", help="parts task and terms: a folder or Hub name in the layout of nyu-mll/glue")
    parser.add_argument("--terms", nargs="+", metavar="TERM", help="part terms: these alone, as recipes name them")
    parser.add_argument("--output", type=path, default=Path("runs/benchmark"), help="folder; default: %(default)s")


def run(options: Namespace) -> Path:
    with quick_imports():
        from distil_nlp.benchmark.run import run_benchmark
        from distil_nlp.benchmark.suites import BenchmarkSettings

    arguments = vars(options).copy()
    folder = arguments.pop("output")
    parts = tuple(dict.fromkeys(arguments.pop("parts")))
    terms = arguments.pop("terms")
    terms = terms and tuple(dict.fromkeys(terms))
    return run_benchmark(BenchmarkSettings(parts=parts, terms=terms, **arguments), folder, logger.info)


COMMAND = Command(
    name="benchmark",
    summary="time steps and inference beside other implementations",
    description="Time distillation beside DistilBERT's loop, TextBrewer and plain fine-tuning.",
    example="distil-nlp benchmark --parts mlm task --model bert-base-uncased --glue nyu-mll/glue",
    add_arguments=add_arguments,
    run=run,
)
