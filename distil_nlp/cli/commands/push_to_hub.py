"""`distil-nlp push-to-hub`: upload a finished run."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import path
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger

if TYPE_CHECKING:
    from distil_nlp.hub import UploadPlan

logger = get_logger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=path, help="a run's folder, with results.json and student/")
    parser.add_argument("--repo-id", required=True, metavar="ID", help="name or namespace/name, new or existing")
    parser.add_argument("--private", action="store_true", help="make a new repository private; fill no public one")
    parser.add_argument("--demo", metavar="SPACE", help="name or namespace/name of a static Space, for its demo too")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: Namespace) -> None:
    with quick_imports():
        from distil_nlp.hub import plan_upload, upload

    with TemporaryDirectory() as place:
        plans = [plan_upload(options.run, options.repo_id, private=options.private)]
        if options.demo:
            plans.append(_plan_demo(options, plans[0].repo_id, Path(place) / "demo"))
        logger.info("\n\n".join(map(str, reversed(plans))))  # the verdicts on the run come last
        if options.yes or _confirmed():
            for planned in plans:
                logger.info(upload(planned))
        else:
            logger.info("nothing was uploaded")


def _plan_demo(options: Namespace, model_id: str, folder: Path) -> UploadPlan:
    """Write the demo, without rows of the data, which are not published; return the plan of its upload."""
    with quick_imports():
        from distil_nlp.demo import write_space
        from distil_nlp.hub import plan_space_upload

    write_space(options.run, folder, model_id)
    return plan_space_upload(options.run, options.demo, folder, model_id, private=options.private)


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UserError("--yes", "where nobody can answer", "no terminal", "nothing was uploaded", "add --yes")
    print("\nUpload? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


COMMAND = Command(
    name="push-to-hub",
    summary="upload a finished run's student, model card and report",
    description="Upload a finished run's student, model card and report to the Hub.",
    example="distil-nlp push-to-hub runs/glue-mrpc-42 --repo-id me/my-distilbert --private",
    add_arguments=add_arguments,
    run=run,
)
