"""Training schemes, the models between teacher and student, and what all stages took."""

from __future__ import annotations

from distil_nlp.results.schema.base import Block, MetricValues, described


class SchemeUsed(Block):
    """A training scheme."""

    key: str = described("The recipe key that switches it on.")
    title: str = described("Its name.")
    paper: str | None = described("Number of its paper on arXiv.", null="where the sentence has it")
    sentence: str = described("What was done.")


class Compute(Block):
    """What trainings took, all together. The teacher's own is not among them."""

    steps: int = described("Optimiser steps.")
    seconds: float = described("Wall-clock seconds.")
    tokens: int = described("Tokens of the students' batches, without padding.")
    tokens_forward: int | None = described(
        "Tokens forward; see `training.tokens_forward`.",
        null="where a training of an older version is among them",
        absent="in files of older versions",
    )
    tokens_backward: int | None = described(
        "Tokens backward; see `training.tokens_backward`.",
        null="as `tokens_forward`",
        absent="in files of older versions",
    )
    flops: float | None = described(
        "Floating-point operations; see `training.flops`.", null="where those of a training could not be counted"
    )


class LinkUsed(Block):
    """A run whose student teaches: an assistant, or an earlier generation."""

    title: str = described("Its role.")
    folder: str = described("The folder of its run.")
    parameters: int = described("Parameters of its student.")
    encoder_parameters: int = described("Those of the encoder's layers.")
    metrics: MetricValues = described("Scores of its student; keys as in `teacher.metrics`.")
    steps: int = described("Optimiser steps of its training.")
    seconds: float = described("Wall-clock seconds of its training.")
    tokens: int = described("Tokens of its training.")
    tokens_forward: int | None = described(
        "Tokens forward in its training.", null="if they were not counted", absent="in files of older versions"
    )
    tokens_backward: int | None = described(
        "Tokens backward in its training.", null="if they were not counted", absent="in files of older versions"
    )
    flops: float | None = described("Floating-point operations of its training.", null="if they were not counted")


class SchemeCompute(Block):
    """What the trainings of one seed took."""

    all_stages: Compute = described("The run's own student and all links.")
    plain: Compute = described("The baseline `plain`.", absent="unless `evaluation.baselines` has it")
    equal_compute: Compute = described("The baseline `equal_compute`.", absent="unless `evaluation.baselines` has it")


class TrainLoss(Block):
    """Mean loss of both models on training rows, without dropout: a student far above its teacher under-fits."""

    rows: int = described("Number of training rows, drawn from all that have a label.")
    teacher: float = described("Of the teacher: nats for classes and masked tokens, squared error for numbers.")
    student: float = described("Of the student.")


class Schemes(Block):
    """The training schemes: who taught, and how often."""

    used: list[SchemeUsed] = described("The schemes of the recipe.")
    links: list[LinkUsed] = described("Runs whose students taught, in order.")
    compute: SchemeCompute = described("What the trainings took.")
    mean_of_generations: MetricValues = described(
        "Scores of the mean answers of all generations (of probabilities, for classes).",
        absent="unless `student.generations` is above 1",
    )
    train_loss: TrainLoss = described(
        "Loss on training rows, for advice on `student.augment`.",
        absent="without it, for streams, and for rows without labels",
    )
