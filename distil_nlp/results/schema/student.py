"""The student: its shape, what it started from, and what trained together with it."""

from __future__ import annotations

from distil_nlp.results.schema.base import Block, Metric, MetricValues, Number, described
from distil_nlp.results.schema.costs import ModelCost
from distil_nlp.results.schema.scores import SeedSummary


class PartsOfALayer(Block):
    """The sizes of a layer, before it was cut."""

    feed_forward: int | None = described("Feed-forward units.", null="if the family has none of its own")
    heads: int = described("Attention heads.")
    width: int = described("Features of the states.")


class ShapeBudget(Block):
    """What a student may cost."""

    name: str = described("Key of `student.budget`.")
    value: float = described("Its value in the recipe.")
    limit: float = described("The same in the unit of costs.")
    unit: str = described("What costs are counted in.")


class TriedShape(Block):
    """A shape that fits the budget and cannot grow."""

    layers: int = described("Depth.")
    heads: int = described("Attention heads of a layer.")
    units: int = described("Feed-forward units of a layer.")
    cost: float = described("In the budget's unit; of those that were tried, measured by themselves.")
    lost: float = described("Importance of the teacher's parts that it lacks.")
    distances: list[float] = described(
        "Mean distance of its outputs to the teacher's on training rows after each round of trial steps: KL in nats, "
        "or squared differences of numbers and vectors."
    )


class ShapeSearch(Block):
    """The search for the shape of a student (`student.budget`)."""

    budget: ShapeBudget = described("What the student may cost.")
    batch: int = described("Rows of the forward whose latency was measured.")
    length: int = described("Tokens of each row.")
    teacher_cost: float = described("What the teacher costs.")
    shapes: int = described("Shapes whose cost is known.")
    fitting: int = described("Those of them that fit.")
    candidates: list[TriedShape] = described("Those of these that cannot grow, the least loss of importance first.")
    chosen: TriedShape = described("The shape of the student.")


class PrunedStart(Block):
    """What a pruned student keeps of its teacher's layers, and its scores before it was repaired."""

    importance: str = described("Criterion by which parts were kept.")
    rows: int = described("Training rows that it was measured on, at most.")
    feed_forward: int | None = described("Feed-forward units of a layer.", null="if the family has none of its own")
    heads: int = described("Attention heads of a layer.")
    width: int = described("Features of the states.")
    of: PartsOfALayer = described("What the teacher's layers have.")
    cut: MetricValues = described(
        "Scores right after cutting; those after the repair are the baseline `copied_only`.",
        absent="if it was not repaired",
    )
    search: ShapeSearch = described("How its shape was found.", absent="without `student.budget`")
    repaired_on: int = described("Tokens that the repair was fitted to.", absent="if it was not repaired")


class FactorisedEmbeddings(Block):
    """The student's embeddings, of fewer features than the teacher's, and a projection to the width."""

    size: int = described("Features of the embeddings.")
    variance: float = described(
        "Share of the second moment of the teacher's embeddings (word, position and segment) that lies within them."
    )


class Initialisation(Block):
    """Origin of the student's parameters before training."""

    teacher_layers: list[int] | None = described(
        "Layer (0-based) that each student layer was copied from: of the teacher, or of the last assistant with "
        "`teacher.start: assistant`.",
        null="if no layers were copied",
    )
    copied: int = described("Number of tensors that were copied.")
    new: list[str] = described("Names of the tensors that were newly initialised.")
    dropped: list[str] = described(
        "Names of the teacher's tensors that found no place of their own, blocks that were left out aside.",
        absent="in runs of older versions",
    )
    checkpoint: str | None = described(
        "Checkpoint the student started from (`student.name`).", null="if it was built from the teacher"
    )
    revision: str | None = described("Commit of that checkpoint.", null="for a folder, or without a checkpoint")
    widened: int = described(
        "Number of copied tensors that are larger than the teacher's, by copies of its neurons.",
        absent="in runs of older versions",
    )
    logit_difference: float | None = described(
        "Of a student that is deeper or wider than its teacher: largest difference of their logits on a few tokens, "
        "before training.",
        null="for other students",
        absent="in runs of older versions",
    )
    start: str | None = described(
        "Whether that student starts as its teacher, and why not.",
        null="for other students",
        absent="in runs of older versions",
    )
    pruning: PrunedStart = described("What was kept of each layer.", absent="unless the student was pruned")
    embeddings: FactorisedEmbeddings = described("Its embeddings.", absent="unless `student.embedding_size` is set")


class Zeros(Block):
    """Weights of a pruned student that are zero (`student.sparsity`), counted in the saved weights."""

    weights: int = described("Weights of the linear layers of its blocks.")
    zeros: float = described("Fraction of these that are zero.")
    of_all: float = described("The same zeros, as a fraction of all parameters.")


class Student(ModelCost):
    """The run's own student, whose weights are in `student/`: initialisation, size, inference cost and scores."""

    metrics: MetricValues = described("Scores of these weights; keys as in `teacher.metrics`.")
    initialisation: Initialisation = described("Origin of the parameters before training.")
    sparsity: Zeros = described("Zeros among the weights.", absent="without `student.sparsity`")


class Exit(ModelCost):
    """An exit of the student (`student.exits`): a plain model of its first layers and a head of their own."""

    layers: int = described("Layers of the student before the exit.")
    folder: str = described("Folder of the model, within the run's.")
    metrics: MetricValues = described("Scores of these weights; keys as in `teacher.metrics`.")
    seeds: dict[Metric, SeedSummary] = described("Each metric over all seeds.", absent="in files of older versions")


class TrainedMember(Block):
    """One of several models that trained together."""

    layers: int = described("Its layers.")
    metrics: MetricValues = described("Scores; keys as in `teacher.metrics`.")
    selection: Number = described("Its headline metric on the rows to choose by.", absent="without such rows")
    initialisation: Initialisation = described("Origin of its parameters.")


class TrainedTogether(Block):
    """Models that trained together, one of which is the student in `student/`."""

    members: list[TrainedMember] = described("Each of them, the student as it was built first.")
    exported: int = described("Number of the one that is kept, from 1.")
    chosen_by: str = described("The metric on the rows to choose by, or `first` without such rows.")
    mean: MetricValues = described("Mean of their scores.")
    ensemble: MetricValues = described("Scores of the mean of their probabilities (regression: of their outputs).")
