"""`DistillationResult`: what a run left, for Python: scores, baselines, paths, and a table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.models import load_tokenizer
from distil_nlp.reporting.sentences import headline
from distil_nlp.reporting.summary import summary_table
from distil_nlp.reporting.tables import quality_table
from distil_nlp.reporting.verdicts import verdict_lines, verdicts
from distil_nlp.results import RunResults, read_run

_CELL = '<td style="text-align: {}">{}</td>'


@dataclass(frozen=True)
class DistillationResult:
    """The results of a finished run; `print` shows its table, and so does a notebook.

    Attributes:
        folder: the run's folder, `training.output_dir`.
    """

    folder: Path

    @cached_property
    def run(self) -> RunResults:
        """The results with access by path: `run.get("fidelity.agreement")`."""
        return RunResults(self.folder.name, self.folder, read_run(self.folder))

    @property
    def results(self) -> dict[str, Any]:
        """The contents of `results.json`; see docs/results_schema.md."""
        return self.run.results

    @property
    def scores(self) -> dict[str, float | None]:
        """The student's metrics, as fractions: medians over the seeds where there are several."""
        return _medians(self.run.get("student.metrics"), self.run.get("seeds"))

    @property
    def teacher_scores(self) -> dict[str, float | None]:
        """The teacher's metrics, likewise."""
        return _medians(self.run.get("teacher.metrics"), self.run.get("teacher.seeds"))

    @property
    def baselines(self) -> dict[str, dict[str, float | None]]:
        """The metrics of each baseline, likewise: `no_distillation`, `majority`, …"""
        entries = (self.run.get("baselines") or {}).items()
        return {name: _medians(entry.get("metrics"), entry.get("seeds")) for name, entry in entries if entry}

    @property
    def retention(self) -> float | None:
        """Median student ÷ median teacher on the headline metric; None unless the teacher's is above 0."""
        return self.run.get("retention")

    @property
    def student_path(self) -> Path:
        """The folder that plain transformers loads."""
        return self.folder / "student"

    @property
    def report_path(self) -> Path:
        """The report: one self-contained page."""
        return self.folder / "report" / "report.html"

    @property
    def results_path(self) -> Path:
        """`results.json`."""
        return self.folder / "results.json"

    def load_student(self) -> PreTrainedModel:
        """Return the run's own student, of the first seed, in eval mode."""
        auto = getattr(transformers, self.run.kind.auto_model)
        return auto.from_pretrained(str(self.student_path), trust_remote_code=False, use_safetensors=True).eval()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return its tokenizer."""
        return load_tokenizer(str(self.student_path))

    def show(self) -> None:
        """Show the table: as such in a notebook, as text elsewhere."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            print(self)
            return
        display(self) if get_ipython() else print(self)

    def __str__(self) -> str:
        told = [verdict_lines(verdicts(self.run)), headline(self.run)]
        return "\n".join([*filter(None, told), f"{summary_table(self.results)}report: {self.report_path}"])

    def _repr_html_(self) -> str:
        """Return verdicts, headline, table of scores, and a link to the report, for a notebook."""
        table, link = quality_table(self.run), escape(self.report_path.as_posix())
        lines = [table.head, *table.rows] if table else []
        rows = "".join(f"<tr>{''.join(_cells(line))}</tr>" for line in lines)
        note = f"<p>{escape(table.note)}</p>" if table and table.note else ""
        told = "".join(f"<li><b>{one.severity}</b>: {escape(one.text)}</li>" for one in verdicts(self.run))
        return (
            f"{told and f'<ul>{told}</ul>'}<p><b>{escape(headline(self.run))}</b></p><table>{rows}</table>{note}"
            f'<p>Report: <a href="{link}">{link}</a></p>'
        )


def _cells(line: Sequence[str]) -> list[str]:
    return [_CELL.format("right" if number else "left", escape(cell)) for number, cell in enumerate(line)]


def _medians(metrics: Mapping[str, Any] | None, seeds: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return metric → median over the seeds, or the value of the only one."""
    medians = {name: summary["median"] for name, summary in (seeds or {}).items()}
    return {**(metrics or {}), **medians}
