"""The section `evaluation`: seeds, baselines and scores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from distil_nlp.recipe.sections.base import NAME_AS_LIST, NonEmpty, NonEmptyList, Section, SeedList


class ProbeSection(Section):
    """A linear probe of the student while it is distilled; see `distil_nlp.evaluation.linear_probe.LinearProbe`.

    Attributes:
        path: a small labelled set, as `data.path`.
        name: configuration of the dataset; by default the GLUE task.
        revision: commit, branch or tag of the dataset.
        task: `classification`, or a GLUE task of classes.
        text_columns: one column, or two for pairs; for `classification`.
        label_column: likewise.
        pooling: how the last layer's states of a text become its features.
        every: steps between two scores.
        max_rows: of the rows to learn from, and of those to score on.
    """

    path: NonEmpty | NonEmptyList | Annotated[dict[str, NonEmpty | NonEmptyList], Field(min_length=1)]
    name: str | None = None
    revision: str | None = None
    task: str = "classification"
    text_columns: Annotated[list[str], NAME_AS_LIST, Field(min_length=1, max_length=2)] | None = None
    label_column: str = "label"
    pooling: Literal["mean", "cls"] = "mean"
    every: PositiveInt = 500
    max_rows: Annotated[int, Field(ge=2)] = 1000


class EvaluationSection(Section):
    """Seeds, baselines and scores.

    Attributes:
        seeds: number of students, with `training.seed` and the numbers after it as seeds; or a list of seeds.
        baselines: further students to compare with: trained on labels only, from random weights, or not trained; for
            a training scheme also distilled without it, for the same steps (`plain`) or for as many as take the same
            operations (`equal_compute`).
        batch_size: rows of a forward.
        early_stopping_patience: evaluations without a better checkpoint before training stops; null for no limit.
        efficiency: how much of latency, operations and memory is measured at the end: `full` (about a minute), `quick`
            (seconds) or `off`.
        compare_layers: compare the layers of teacher and student (CKA), besides their outputs.
        show_rows: keep the texts of the evaluation rows in the run's folder, and show some in `report.html`.
        probe: for `mlm`: a linear probe of the student every so many steps.
    """

    seeds: PositiveInt | SeedList = 1
    baselines: list[Literal["no_distillation", "random_init", "copied_only", "plain", "equal_compute"]] = []
    batch_size: PositiveInt = 32
    early_stopping_patience: PositiveInt | None = None
    efficiency: Literal["full", "quick", "off"] = "full"
    compare_layers: bool = True
    show_rows: bool = True
    probe: ProbeSection | None = None
