"""Contents of the report pages, in order; the templates lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distil_nlp.recipe import concise, dump_yaml
from distil_nlp.reporting import breakdown, export, joint, latency, sentences, tables, teachers
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.plots import curves, exits, matrices, probe, scores, shapes, weights
from distil_nlp.reporting.plots.style import Picture, style
from distil_nlp.reporting.pruning import pruned_scores_table, pruning_sentences
from distil_nlp.reporting.report import advice, comparison
from distil_nlp.reporting.report.advice import Advice
from distil_nlp.reporting.report.comparison_verdicts import GainOver, best_run, own_verdicts
from distil_nlp.reporting.schemes import compute_table, scheme_sentences
from distil_nlp.reporting.scores import LABELS_ONLY, answers_word, learned_from_answers, teacher_word
from distil_nlp.reporting.tables import Table, training_table
from distil_nlp.reporting.tokens import tokens_sentences
from distil_nlp.reporting.verdicts import Severity, Verdict, leading_verdict, verdicts
from distil_nlp.results import RunResults

MOST_COLUMNS, WIDEST = 4, 480
"""Most columns of a table, and width of a picture, that fit into half of the page."""


@dataclass(frozen=True)
class PageBlock:
    """A part of a section: a paragraph, a table or a picture, over half of the page or all of it."""

    text: str = ""
    table: Table | None = None
    picture: Picture | None = None
    is_wide: bool = False


@dataclass(frozen=True)
class ReportSection:
    """A heading with its sentences, tables, pictures and advice."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table | None] = ()
    pictures: Sequence[Picture | None] = ()
    advice: Sequence[Advice] = ()

    @property
    def blocks(self) -> list[PageBlock]:
        """The parts in order, so that no half of the page stays empty: narrow ones come in pairs.

        Where one is left over, the sentences stand beside it, or the first narrow table takes the whole width.
        """
        blocks = [PageBlock(table=table, is_wide=_is_wide(table)) for table in self.tables if table]
        blocks += [PageBlock(picture=picture, is_wide=picture.width > WIDEST) for picture in self.pictures if picture]
        is_odd = sum(not block.is_wide for block in blocks) % 2 == 1
        if self.sentences:
            return [PageBlock(" ".join(self.sentences), is_wide=not is_odd), *blocks]
        if is_odd:
            narrow = next((block for block in blocks if block.table and not block.is_wide), None)
            return [replace(block, is_wide=block.is_wide or block is narrow) for block in blocks]
        return blocks

    @property
    def is_empty(self) -> bool:
        """True for a section without contents."""
        return not any((*self.sentences, *self.tables, *self.pictures, *self.advice))


def _is_wide(table: Table) -> bool:
    return len(table.head) > MOST_COLUMNS or table.is_private


@dataclass(frozen=True)
class Page:
    """A report, or a comparison of runs.

    Attributes:
        subject: teacher, task and splits, or the names of the runs.
        lead: what matters most.
        remarks: sentences after it.
        severity: of the lead; None where the figures lead.
        verdicts: further verdicts.
        recipe: the recipe as YAML; empty for a comparison.
    """

    title: str
    subject: str
    lead: str
    remarks: Sequence[str]
    sections: Sequence[ReportSection]
    recipe: str = ""
    severity: Severity | None = None
    verdicts: Sequence[Verdict] = ()

    @property
    def all_verdicts(self) -> list[Verdict]:
        """The lead, where it is a verdict, and the further ones."""
        return [*([Verdict(self.severity, self.lead)] if self.severity else []), *self.verdicts]

    @property
    def pictures(self) -> list[Picture]:
        """All plots of the page."""
        return [picture for section in self.sections for picture in section.pictures if picture]


def run_page(run: RunResults) -> Page:
    """Return the report of one run."""
    with style():
        sections = [
            ReportSection(
                "Quality",
                sentences.threshold_sentences(run),
                [tables.quality_table(run), breakdown.lengths_table(run)],
                [scores.scores_figure(run)],
            ),
            ReportSection("Tokens", tokens_sentences(run)),
            ReportSection("Pruning", pruning_sentences(run), [pruned_scores_table(run)], [shapes.shapes_figure(run)]),
            ReportSection("Training scheme", scheme_sentences(run), [compute_table(run)]),
            ReportSection(
                "Teachers",
                teachers.ensemble_sentences(run),
                [teachers.members_table(run)],
                [weights.row_weights_figure(run)],
            ),
            ReportSection("Classes", (), [breakdown.classes_table(run)], matrices.confusion_figures(run)),
            _rows_section(run),
            ReportSection("Cost", (), [tables.cost_table(run)], [scores.latency_figure(run)]),
            ReportSection(
                "Trained together",
                joint.joint_sentences(run),
                [joint.exits_table(run), *joint.members_tables(run)],
                [exits.exits_figure(run)],
            ),
            ReportSection("Latency", latency.latency_sentences(run), [latency.latency_table(run)]),
            ReportSection(
                "Exported student",
                export.export_sentences(run),
                [export.export_table(run), export.export_latency_table(run)],
            ),
            ReportSection(
                "Fidelity",
                sentences.fidelity_sentences(run),
                [tables.calibration_table(run)],
                [matrices.cka_figure(run)],
            ),
            ReportSection(
                "Training",
                (),
                [training_table(run)],
                [
                    probe.probe_figure(run),
                    curves.terms_figure(run),
                    curves.weights_figure(run),
                    curves.gradients_figure(run),
                ],
            ),
            ReportSection("What to do next", advice=advice.advice(run)),
        ]
    recipe, lead = run.get("recipe"), leading_verdict(run)
    figures = sentences.headline(run)
    return Page(
        run.name,
        _subject(run),
        lead.text if lead else figures,
        [remark for remark in (lead and figures, *_remarks(run)) if remark],
        _without_empty(sections),
        dump_yaml(concise(recipe)) if recipe else "",
        lead.severity if lead else None,
        [verdict for verdict in verdicts(run) if verdict != lead],
    )


def _remarks(run: RunResults) -> list[str]:
    """Return the sentences with the figures behind the verdicts."""
    gain = sentences.distillation_gain(run) if run.get(f"{LABELS_ONLY}.gain") else ""
    return [gain, sentences.majority_note(run)]


def _rows_section(run: RunResults) -> ReportSection:
    """Return the rows that changed; their texts are on the page alone."""
    rows, told = breakdown.row_tables(run), breakdown.changes_sentences(run)
    if any(rows):
        surest = ", and where the student is surest" if run.kind.has_row_probability else ""
        told.append(f"Below are those that changed most{surest}; predictions.parquet has all.")
    if any(table and "text" in table.head for table in rows):
        told.append("Who gets this page reads these texts: evaluation.show_rows=false leaves them out.")
    return ReportSection("Rows that changed", told, rows)


def comparison_page(runs: Sequence[RunResults], gain_over: GainOver) -> Page:
    """Return the comparison of several runs.

    Args:
        runs: at least two.
        gain_over: compares two of them row by row.
    """
    with style():
        pictures = [comparison.comparison_scores_figure(runs), comparison.comparison_latency_figure(runs)]
    sections = [
        ReportSection("Runs", (), [comparison.overview_table(runs)], pictures),
        ReportSection("Recipes", (), [comparison.recipe_differences(runs)]),
    ]
    best, figures = best_run(runs, gain_over), comparison.comparison_headline(runs)
    remarks = comparison.comparison_remarks(runs, is_paired=best is not None)
    return Page(
        f"{len(runs)} runs",
        ", ".join(run.name for run in runs),
        best.text if best else figures,
        [figures, *remarks] if best and best.severity != "stop" else remarks,
        _without_empty(sections),
        severity=best.severity if best else None,
        verdicts=own_verdicts(runs),
    )


def _subject(run: RunResults) -> str:
    """Return teacher, student, task and scored splits in one line."""
    teacher = run.get("teacher.name") or run.get("recipe.teacher.name")
    taught = teacher and f"{teacher_word(run)} {teacher}"
    if learned_from_answers(run):
        taught = f"{answers_word(run)} · student made of {teacher}"
    student = run.get("recipe.student.name")
    splits = ", ".join(_scored(run, split, rows) for split, rows in run.splits.items())
    return sentences.join_parts(
        taught,
        student and f"student from {student}",
        f"task {run.task}",
        splits and f"scored on {splits}",
        by=" · ",
    )


def _scored(run: RunResults, split: str, rows: int | None) -> str:
    """Return a split with its number of rows, and of texts in it that were trained on."""
    repeated = (run.get("rows.in_training") or {}).get(split)
    among = f", {plural(repeated, 'training text')} among them" if repeated else ""
    return f"{split} ({plural(rows, run.kind.row_name)}{among})" if rows else split


def _without_empty(sections: Sequence[ReportSection]) -> list[ReportSection]:
    """Return the sections that have contents."""
    return [section for section in sections if not section.is_empty]
