"""Writing of reports: `report.html`, `report.md`, and the plots as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distil_nlp.errors import UserError
from distil_nlp.reporting.report.comparison_verdicts import GainOver
from distil_nlp.reporting.report.html import page_script, page_template
from distil_nlp.reporting.report.pages import Page, comparison_page, run_page
from distil_nlp.reporting.verdicts import verdict_lines
from distil_nlp.results import read_runs
from distil_nlp.utils.files import validate_links, write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_SCRIPT = Path(__file__).parent / "templates" / "report.js"


def write_report(
    folders: Sequence[Path], output: Path | None = None, gain_over: GainOver = lambda run, other: None
) -> Path:
    """Write the report of a run, or the comparison of several, and return the path of `report.html`.

    The log has the verdicts on a comparison.

    Args:
        folders: folders of finished runs, each with a `results.json`.
        output: the folder to write to. Default: `report/` in the run's folder; for several runs `comparison/` beside
            the first.
        gain_over: compares two runs row by row; without it a comparison does not tell which run is the best.

    Raises:
        UserError: if a folder has no `results.json` that can be read or its links lead out of it, or the report cannot
            be written.
    """
    runs = read_runs(folders)
    page = run_page(runs[0]) if len(runs) == 1 else comparison_page(runs, gain_over)
    if len(runs) > 1:
        logger.info(verdict_lines(page.all_verdicts))
    first = runs[0].folder
    if output is None and len(runs) == 1:
        validate_links(first)
    return write_page(page, output or (first / "report" if len(runs) == 1 else first.resolve().parent / "comparison"))


def write_page(page: Page, output: Path) -> Path:
    """Write a page, its text and its plots into a folder, and return the path of `report.html`.

    Raises:
        UserError: if the folder cannot be written to.
    """
    try:
        _write(page, output)
    except OSError as error:
        raise UserError(
            "--output",
            "a folder that can be written to",
            f"{output} ({error.strerror})",
            why="the report would be lost",
            fix="name another folder",
        ) from error
    return output / "report.html"


def _write(page: Page, output: Path) -> None:
    """Write a page and its plots into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    for picture in page.pictures:
        write_atomically(output / picture.file, picture.png)
    write_atomically(output / "report.md", page_template("report.md.j2", markdown=True).render(page=page))
    html = page_template("report.html.j2").render(page=page, **page_script(_SCRIPT))
    write_atomically(output / "report.html", html)
