"""The form of a tree's `results.json`."""

from __future__ import annotations

from typing import Any, Literal

from distil_nlp.results.schema.base import Block, MetricValues, Number, SplitName, described
from distil_nlp.results.schema.base import Metric as MetricName
from distil_nlp.results.schema.scores import ScoreInterval, SeedSummary

TREE_SCHEMA_VERSION = 1


class TreeGain(Block):
    """Difference between the soft tree that the teacher taught and another model, paired over rows and seeds."""

    mean: Number = described("Mean over seeds of soft tree − this model, as a fraction.")
    low: Number = described("Lower end of the 95 % interval.")
    high: Number = described("Upper end.")


class TreeLine(Block):
    """A model of the table."""

    name: str = described("`teacher`, `student`, `soft tree`, …; names of the table's lines.")
    taught_by: Literal["", "teacher", "labels"] = described("Who taught it; empty for teacher and student.")
    seeds: dict[MetricName, SeedSummary] = described("Each metric over the seeds; the teacher has one.")
    interval: ScoreInterval = described("The headline metric on the first evaluation split, with its interval.")
    agreement: SeedSummary = described("Fraction of rows with the teacher's prediction, on the first evaluation split.")
    gain: TreeGain | None = described("Gain of the soft tree over this model.", null="for the soft tree itself")


class TreeResults(Block):
    """All figures of a tree."""

    schema_version: Literal[1] = described("Version of this form.")
    run: str | None = described("Folder of the run whose teacher taught.", null="for a recipe")
    recipe: dict[str, Any] = described("The recipe with its defaults.")
    environment: dict[str, Any] = described("Software and hardware, as in a run's `results.json`.")
    task: str = described("A GLUE task, or `classification`.")
    headline: str = described("The headline metric, which intervals and gains are taken on.")
    labels: list[str] = described("Names of the classes.")
    teacher: str = described("Name of the teacher.")
    input: Literal["tfidf", "embedding"] = described("Input of all models but teacher and student.")
    features: int = described("Length of that input.")
    settings: dict[str, int | float] = described("Settings of the tree and its training.")
    seeds: list[int] = described("Seeds of the trees; the first is drawn.")
    rows: dict[SplitName, int] = described("Training rows (`train`), labelled ones (`labelled`), and each split's.")
    leaves_used: int = described("Leaves of the drawn tree that are some training row's likeliest.")
    seconds: float = described("Seconds of the training of all trees and scikit-learn's models, and of their scoring.")
    majority: MetricValues = described("Metrics of always predicting the majority class of the training rows.")
    models: list[TreeLine] = described("The lines of the table.")
