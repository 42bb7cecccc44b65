"""What stands on the page, in order; how it looks is the templates' business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from distil_nlp.reporting import sentences as words
from distil_nlp.reporting import tables
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.plots import curves, matrices
from distil_nlp.reporting.plots import scores as charts
from distil_nlp.reporting.plots.style import Picture, style
from distil_nlp.reporting.report import advice
from distil_nlp.reporting.report import comparison as compare
from distil_nlp.reporting.report.advice import Advice
from distil_nlp.reporting.tables import Table, training_table
from distil_nlp.results import RunResults

MOST_COLUMNS = 4
"""Of a table that fits beside a picture."""


@dataclass(frozen=True)
class ReportSection:
    """A heading and what stands under it."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table | None] = ()
    pictures: Sequence[Picture | None] = ()
    advice: Sequence[Advice] = ()

    @property
    def is_beside(self) -> bool:
        """Whether its table is narrow, and stands where a last row of two pictures would have a gap."""
        narrow = len(self.tables) == 1 and self.tables[0] is not None and len(self.tables[0].head) <= MOST_COLUMNS
        return narrow and sum(map(bool, self.pictures)) % 2 == 1

    @property
    def is_empty(self) -> bool:
        return not any((*self.sentences, *self.tables, *self.pictures, *self.advice))


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subject: str
    lead: str
    remarks: Sequence[str]
    sections: Sequence[ReportSection]
    recipe: str = ""

    @property
    def pictures(self) -> list[Picture]:
        return [picture for section in self.sections for picture in section.pictures if picture]


def run_page(run: RunResults) -> Page:
    """The report of one run."""
    with style():
        sections = [
            ReportSection(
                "Quality", (), [tables.quality_table(run)], [charts.scores_figure(run), charts.latency_figure(run)]
            ),
            ReportSection("Cost", (), [tables.cost_table(run)]),
            ReportSection("Fidelity", words.fidelity_sentences(run), (), matrices.matrix_figures(run)),
            ReportSection(
                "Training",
                (),
                [training_table(run)],
                [curves.terms_figure(run), curves.weights_figure(run), curves.gradients_figure(run)],
            ),
            ReportSection("What to do next", advice=advice.advice(run)),
        ]
    recipe = run.get("recipe")
    text = yaml.safe_dump(_without_unset(recipe), sort_keys=False, allow_unicode=True) if recipe else ""
    remarks = [remark for remark in (words.distillation_gain(run), words.majority_note(run)) if remark]
    return Page(run.name, _subject(run), words.headline(run), remarks, _filled(sections), text)


def _without_unset(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe without its nulls and the sections that have nothing else.

    Fields of `TrainingArguments` (`training`, `teacher.finetune`) stay as they are: each was set by the user.
    """
    shown = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value and key not in ("training", "finetune"):
            value = _without_unset(value) or None
        if value is not None:
            shown[key] = value
    return shown


def comparison_page(runs: Sequence[RunResults]) -> Page:
    """Several runs side by side."""
    with style():
        pictures = [compare.comparison_scores_figure(runs), compare.comparison_latency_figure(runs)]
    sections = [
        ReportSection("Runs", (), [compare.overview_table(runs)], pictures),
        ReportSection("Recipes", (), [compare.recipe_differences(runs)]),
    ]
    title = f"{len(runs)} runs"
    return Page(
        title,
        ", ".join(run.name for run in runs),
        compare.comparison_headline(runs),
        compare.comparison_remarks(runs),
        _filled(sections),
    )


def _subject(run: RunResults) -> str:
    """Teacher, task and what was scored, in one line."""
    teacher = run.get("teacher.name") or run.get("recipe.teacher.name")
    student = run.get("student.name") or run.get("recipe.student.name")
    splits = ", ".join(f"{split} ({plural(rows, 'row')})" if rows else split for split, rows in run.splits.items())
    return words.join_parts(
        teacher and f"teacher {teacher}",
        student and f"student from {student}",
        f"task {run.task}",
        splits and f"scored on {splits}",
        by=" · ",
    )


def _filled(sections: Sequence[ReportSection]) -> list[ReportSection]:
    return [section for section in sections if not section.is_empty]
