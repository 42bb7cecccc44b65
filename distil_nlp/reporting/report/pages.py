"""What stands on the page, in order; how it looks is the templates' business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from distil_nlp.reporting.tables import Table, training
from distil_nlp.results import Run

MOST_COLUMNS = 4
"""Of a table that fits beside a picture."""


@dataclass(frozen=True)
class Section:
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
    sections: Sequence[Section]
    recipe: str = ""

    @property
    def pictures(self) -> list[Picture]:
        return [picture for section in self.sections for picture in section.pictures if picture]


def run_page(run: Run) -> Page:
    """The report of one run."""
    with style():
        sections = [
            Section("Quality", (), [tables.quality(run)], [charts.scores_figure(run), charts.trade_figure(run)]),
            Section("Cost", (), [tables.cost(run)]),
            Section("Fidelity", words.fidelity(run), (), matrices.matrix_figures(run)),
            Section(
                "Training",
                (),
                [training(run)],
                [curves.terms_figure(run), curves.weights_figure(run), curves.gradients_figure(run)],
            ),
            Section("What to do next", advice=advice.advice(run)),
        ]
    recipe = run("recipe")
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else ""
    remarks = [remark for remark in (words.worth(run), words.floor(run)) if remark]
    return Page(run.name, _subject(run), words.lead(run), remarks, _filled(sections), text)


def comparison_page(runs: Sequence[Run]) -> Page:
    """Several runs side by side."""
    with style():
        pictures = [compare.scores_figure(runs), compare.trade_figure(runs)]
    sections = [
        Section("Runs", (), [compare.overview(runs)], pictures),
        Section("Recipes", (), [compare.differences(runs)]),
    ]
    title = f"{len(runs)} runs"
    return Page(
        title, ", ".join(run.name for run in runs), compare.lead(runs), compare.remarks(runs), _filled(sections)
    )


def _subject(run: Run) -> str:
    """Teacher, task and what was scored, in one line."""
    teacher = run("teacher.name") or run("recipe.teacher.name")
    student = run("student.name") or run("recipe.student.name")
    splits = ", ".join(f"{split} ({plural(rows, 'row')})" if rows else split for split, rows in run.splits.items())
    return words.joined(
        teacher and f"teacher {teacher}",
        student and f"student from {student}",
        f"task {run.task}",
        splits and f"scored on {splits}",
        by=" · ",
    )


def _filled(sections: Sequence[Section]) -> list[Section]:
    return [section for section in sections if not section.is_empty]
