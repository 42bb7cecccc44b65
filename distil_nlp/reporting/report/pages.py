"""Contents of the report pages, in order; the templates lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distil_nlp.recipe import concise, dump_yaml
from distil_nlp.reporting import latency, sentences, tables
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.plots import curves, matrices, scores
from distil_nlp.reporting.plots.style import Picture, style
from distil_nlp.reporting.report import advice, comparison
from distil_nlp.reporting.report.advice import Advice
from distil_nlp.reporting.tables import Table, training_table
from distil_nlp.results import RunResults

MOST_COLUMNS = 4
"""Largest number of columns of a table beside a picture."""


@dataclass(frozen=True)
class ReportSection:
    """A heading with its sentences, tables, pictures and advice."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table | None] = ()
    pictures: Sequence[Picture | None] = ()
    advice: Sequence[Advice] = ()

    @property
    def is_beside(self) -> bool:
        """True for a section whose only table is narrow and fits into the gap of an odd number of pictures."""
        narrow = len(self.tables) == 1 and self.tables[0] is not None and len(self.tables[0].head) <= MOST_COLUMNS
        return narrow and sum(map(bool, self.pictures)) % 2 == 1

    @property
    def is_empty(self) -> bool:
        """True for a section without contents."""
        return not any((*self.sentences, *self.tables, *self.pictures, *self.advice))


@dataclass(frozen=True)
class Page:
    """A report, or a comparison of runs.

    Attributes:
        subject: teacher, task and splits, or the names of the runs.
        lead: the main finding.
        remarks: sentences after it.
        recipe: the recipe as YAML; empty for a comparison.
    """

    title: str
    subject: str
    lead: str
    remarks: Sequence[str]
    sections: Sequence[ReportSection]
    recipe: str = ""

    @property
    def pictures(self) -> list[Picture]:
        """All plots of the page."""
        return [picture for section in self.sections for picture in section.pictures if picture]


def run_page(run: RunResults) -> Page:
    """Return the report of one run."""
    with style():
        sections = [
            ReportSection("Quality", (), [tables.quality_table(run)], [scores.scores_figure(run)]),
            ReportSection("Cost", (), [tables.cost_table(run)], [scores.latency_figure(run)]),
            ReportSection("Latency", latency.latency_sentences(run), [latency.latency_table(run)]),
            ReportSection("Fidelity", sentences.fidelity_sentences(run), (), matrices.matrix_figures(run)),
            ReportSection(
                "Training",
                (),
                [training_table(run)],
                [curves.terms_figure(run), curves.weights_figure(run), curves.gradients_figure(run)],
            ),
            ReportSection("What to do next", advice=advice.advice(run)),
        ]
    recipe = run.get("recipe")
    text = dump_yaml(concise(recipe)) if recipe else ""
    remarks = [remark for remark in (sentences.distillation_gain(run), sentences.majority_note(run)) if remark]
    return Page(run.name, _subject(run), sentences.headline(run), remarks, _without_empty(sections), text)


def comparison_page(runs: Sequence[RunResults]) -> Page:
    """Return the comparison of several runs."""
    with style():
        pictures = [comparison.comparison_scores_figure(runs), comparison.comparison_latency_figure(runs)]
    sections = [
        ReportSection("Runs", (), [comparison.overview_table(runs)], pictures),
        ReportSection("Recipes", (), [comparison.recipe_differences(runs)]),
    ]
    title = f"{len(runs)} runs"
    return Page(
        title,
        ", ".join(run.name for run in runs),
        comparison.comparison_headline(runs),
        comparison.comparison_remarks(runs),
        _without_empty(sections),
    )


def _subject(run: RunResults) -> str:
    """Return teacher, student, task and scored splits in one line."""
    teacher = run.get("teacher.name") or run.get("recipe.teacher.name")
    student = run.get("recipe.student.name")
    splits = ", ".join(_scored(run, split, rows) for split, rows in run.splits.items())
    return sentences.join_parts(
        teacher and f"teacher {teacher}",
        student and f"student from {student}",
        f"task {run.task}",
        splits and f"scored on {splits}",
        by=" · ",
    )


def _scored(run: RunResults, split: str, rows: int | None) -> str:
    """Return a split with its number of rows, and of texts in it that were trained on."""
    repeated = (run.get("rows.in_training") or {}).get(split)
    among = f", {plural(repeated, 'training text')} among them" if repeated else ""
    return f"{split} ({plural(rows, 'row')}{among})" if rows else split


def _without_empty(sections: Sequence[ReportSection]) -> list[ReportSection]:
    """Return the sections that have contents."""
    return [section for section in sections if not section.is_empty]
