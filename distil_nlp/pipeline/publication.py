"""What people see of a finished run: card, report and verdicts, and the student on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distil_nlp.hub import push, push_command, write_card
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.run_folder import RESULTS, STUDENT
from distil_nlp.reporting.report import write_report
from distil_nlp.reporting.summary import summary_table
from distil_nlp.reporting.verdicts import stop_verdict, verdict_lines, verdicts
from distil_nlp.results import RunResults, drop_non_finite, read_runs
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def show_run(folder: Path, results: dict[str, Any], is_link: bool = False) -> None:
    """Write card and report, and log the table at the end, the places and, last, what matters most."""
    logger.info(summary_table(results))
    write_card(results, folder / STUDENT)
    has_report = results["recipe"]["run"].get("report", True)
    report = write_report([folder]) if has_report else "none (run.report: false)"
    if is_link:
        return
    logger.info(f"student: {folder / STUDENT}\nreport:  {report}\n")
    run = RunResults(folder.name, folder, drop_non_finite(results))
    logger.info(verdict_lines(verdicts(run)))  # the path of the results follows


def publish_run(plan: RunPlan) -> Path:
    """Push the student to the Hub if the recipe says so; return the path of `results.json`.

    A student that is no better than a guess stays here: whoever wants it there all the same pushes it by hand.
    """
    hub = plan.recipe.hub
    if hub.push and plan.args.should_save:
        repo_id = str(hub.repo_id)
        if reason := stop_verdict(read_runs([plan.folder])[0]):
            command = push_command(plan.folder, repo_id, hub.private)
            logger.warning(f"not pushed to {repo_id}: {reason}\nTo upload it all the same: {command}")
        else:
            logger.info(f"pushed: {push(plan.folder, repo_id, private=hub.private)}")
    return plan.folder / RESULTS
