"""`distil-nlp demo`: a page on which an exported student runs in the browser."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import path
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=path, metavar="RUN", help="an exported run's folder (`distil-nlp export RUN`)")
    parser.add_argument("--out", type=path, metavar="FOLDER", help="the folder to write; default: RUN/demo")
    parser.add_argument(
        "--no-rows", action="store_true", help="invented examples, also where the run shows rows of its data"
    )


def run(options: Namespace) -> Path:
    with quick_imports():
        from distil_nlp.demo import write_demo

    folder = options.out or options.run / "demo"
    logger.info("writing the page, with transformers.js from the npm registry")
    page = write_demo(options.run, folder, has_rows=not options.no_rows)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    logger.info(f"{size / 1e6:.0f} MB, for any web server; to look at it: python -m http.server -d {folder}")
    return page


COMMAND = Command(
    name="demo",
    summary="write a page on which an exported student runs in the browser",
    description="Write a static page on which an exported student runs in the browser, for any web server.",
    example="distil-nlp demo runs/glue-mrpc-42 --out site",
    add_arguments=add_arguments,
    run=run,
    uses_torch=False,
)
