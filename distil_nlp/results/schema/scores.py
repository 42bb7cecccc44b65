"""Scores over seeds, their intervals, gains and calibration, by class and length, and baselines."""

from __future__ import annotations

from distil_nlp.results.schema.base import Block, Metric, MetricValues, ModelName, Number, described


class SeedSummary(Block):
    """One metric over all seeds. A value that is null counts as 0 in median, minimum and maximum."""

    seeds: list[int] = described("The seeds, in the order of `values`.")
    values: list[Number] = described("The metric of each seed.")
    median: float = described("Median over the seeds.")
    minimum: float = described("Smallest value.")
    maximum: float = described("Largest value.")


class GainSummary(Block):
    """Difference between the distilled student and a baseline, with a paired bootstrap interval."""

    metric: str = described("The headline metric, on the first evaluation split.")
    mean: Number = described("Mean over seeds of student − baseline, as a fraction (0.01 is a point).")
    low: Number = described("Lower end of the interval, as a fraction.")
    high: Number = described("Upper end of the interval, as a fraction.")
    level: float = described("Confidence level of the interval: 0.95.")
    resamples: int = described("Bootstrap resamples.")
    rows: int = described("Evaluation rows that were resampled; blocks of text for `mlm`.")
    seeds: int = described("Seeds compared. With one seed the interval covers the choice of rows alone.")
    outside_noise: bool = described("True if the interval does not contain 0.")


class DifferenceInterval(Block):
    """Difference between the distilled student and another model, with a paired bootstrap interval at 95 %."""

    mean: Number = described("Mean over seeds of student − model; below 0, the student is calibrated better.")
    low: Number = described("Lower end of the interval.")
    high: Number = described("Upper end of the interval.")


class CalibrationDifferences(Block):
    """Differences between the distilled student and another model in calibration."""

    ece: DifferenceInterval = described("Of the expected calibration error.")
    nll: DifferenceInterval = described("Of the negative log-likelihood.")


class ModelCalibration(Block):
    """Calibration of a model on the labelled rows of the first evaluation split, means over seeds.

    Of `multilabel` over each label of each row by itself, of `tokens` over the words that are read and have a tag.
    """

    ece: Number = described("Expected calibration error, a fraction, over 15 bins. Of few rows it is biased upwards.")
    nll: Number = described("Mean −log likelihood of the label, in nats.")
    difference: CalibrationDifferences = described(
        "What the student differs by.", absent="unless the model is the teacher or `no_distillation`"
    )


class ScoreInterval(Block):
    """Score of a model on the headline metric, with a bootstrap interval."""

    mean: Number = described("Mean over seeds, on the first evaluation split.")
    low: Number = described("Lower end of the interval.")
    high: Number = described("Upper end of the interval.")
    level: float = described("Confidence level of the interval: 0.95.")
    rows: int = described("Evaluation rows that were resampled; blocks of text for `mlm`.")
    seeds: int = described("Seeds. With one seed the interval covers the choice of rows alone.")


class ClassScores(Block):
    """Scores of a model on one class, as fractions; 0 where it never predicts the class."""

    precision: float = described("Precision.")
    recall: float = described("Recall.")
    f1: float = described("F1.")


class ClassBreakdown(Block):
    """One class; for `tokens` one type of entity."""

    name: str = described("Its name, or its number as text.")
    rows: int = described("Rows with this label; for `tokens` entities of this type, for `tags` words with this tag.")
    teacher: ClassScores = described("Scores of the teacher.")
    student: ClassScores = described("Scores of the student.")


class LengthBreakdown(Block):
    """The mean error on a quarter of the rows: the fraction of wrong rows, or the distance from the label."""

    shortest: int = described("Tokens of the shortest row, special tokens included.")
    longest: int = described("Tokens of the longest row.")
    rows: int = described("Number of rows.")
    teacher: float = described("Mean error of the teacher.")
    student: float = described("Mean error of the student.")


class Changes(Block):
    """Numbers of labelled rows, by which of the two models has them right."""

    both_right: int = described("Both.")
    lost: int = described("The teacher alone.")
    won: int = described("The student alone.")
    both_wrong: int = described("Neither.")


class Breakdown(Block):
    """Scores of the teacher and the run's own student on parts of the first evaluation split.

    The rows themselves are in `predictions.parquet`.
    """

    lengths: list[LengthBreakdown] = described(
        "Quarters of the rows, from short to long texts.", absent="for `tokens` and `tags`"
    )
    changes: Changes = described("Rows that are right or wrong.", absent="for regression, `tokens` and `tags`")
    classes: list[ClassBreakdown] = described("Classes, in the order of their ids.", absent="for regression")


class Thresholds(Block):
    """Thresholds of predictions, one of a model.

    Of `multilabel` it is the probability from which a row has a label. Of `qa_v2` a question has no answer where the
    score of none ([CLS] as start and end), minus that of the best answer, is above it; scores are sums of two logits.
    """

    rows: int | None = described(
        "Rows or questions to choose by (`data.selection_share`), on which each model’s has the highest F1.",
        null="without such rows; then it is 0.5, and 0 for `qa_v2`",
    )
    models: dict[ModelName, float] = described("Of `teacher`, `student` and each baseline, of the first seed.")


class MajorityBaseline(Block):
    """Scores that need no model."""

    metrics: MetricValues = described(
        "Scores on the first evaluation split of the majority class (classification), the mean of the training labels "
        "(regression), the most frequent labels (multi-label classification), the token frequencies (`mlm`) or the "
        "words that two texts share (ranking, embeddings)."
    )


class CopiedBaseline(Block):
    """The initialised student, before any training."""

    metrics: MetricValues = described("Scores; keys as in `teacher.metrics`.")
    gain: GainSummary = described("Gain of the distilled student over this baseline.")


class TrainedBaseline(CopiedBaseline):
    """A student trained for the same steps and seeds in another way."""

    metrics: MetricValues = described("Scores of the first seed; keys as in `teacher.metrics`.")
    seeds: dict[Metric, SeedSummary] = described("Each metric over all seeds.")


class Baselines(Block):
    """Students and constants that the distilled student is compared with."""

    majority: MajorityBaseline = described("Majority class, mean or token frequencies.")
    copied_only: CopiedBaseline = described("Initialised student, before training.")
    no_distillation: TrainedBaseline = described(
        "Student trained on labels only.", absent="unless `evaluation.baselines` has it"
    )
    random_init: TrainedBaseline = described(
        "Student distilled from random weights.", absent="unless `evaluation.baselines` has it"
    )
    plain: TrainedBaseline = described(
        "Student distilled without the training schemes, for as many steps.",
        absent="unless `evaluation.baselines` has it or `equal_compute`",
    )
    equal_compute: TrainedBaseline = described(
        "Student distilled without the training schemes, for as many operations as all stages took.",
        absent="unless `evaluation.baselines` has it",
    )
