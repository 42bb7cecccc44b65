"""How alike student and teacher are."""

from __future__ import annotations

from typing import Literal

from distil_nlp.results.schema.base import Block, Number, described


class BothNumbers(Block):
    """A number for each of the two models."""

    teacher: float = described("Value of the teacher.")
    student: float = described("Value of the student.")


class BothMatrices(Block):
    """A confusion matrix for each of the two models: true classes as rows, predicted classes as columns."""

    teacher: list[list[int]] = described("Counts of the teacher.")
    student: list[list[int]] = described("Counts of the student.")


Layer = int | Literal["embeddings"]


class LayerSimilarity(Block):
    """Linear CKA of the hidden states of every student layer with every teacher layer."""

    teacher_layers: list[Layer] = described("Teacher layers (0-based) and `embeddings`, the columns of `values`.")
    student_layers: list[Layer] = described("Student layers (0-based) and `embeddings`, the rows of `values`.")
    values: list[list[Number]] = described("CKA: 1 if equal up to rotation and scale, near 0 if unrelated.")
    tokens: int = described("Tokens compared.")


class Fidelity(Block):
    """Similarity of the student to the teacher on the first evaluation split."""

    rows: int = described(
        "Rows whose outputs are compared: all of the split; for `mlm`, `tokens` and `tags` at most 2,000, evenly "
        "spaced over it. For `qa` all questions."
    )
    agreement: float = described(
        "Fraction of rows (`mlm`: of masked tokens; `tokens` and `tags`: of words with a tag) on which both predict "
        "the same class, set of labels, or answer.",
        absent="for regression, ranking and embeddings",
    )
    kl: Number = described(
        "Mean KL(teacher ‖ student) in nats, at temperature 1; for `multilabel` summed over labels; for `qa` the "
        "mean of start and end, over at most 2,000 windows.",
        absent="for regression, ranking and embeddings",
    )
    tokens: int = described(
        "Masked tokens compared; words for `tokens` and `tags`.", absent="unless outputs are of tokens"
    )
    entity_f1: Number = described(
        "F1 of the student's entities where the teacher's are taken for the truth (strict IOB2).",
        absent="unless the task is `tokens`",
        null="if neither finds an entity",
    )
    ece: BothNumbers = described(
        "Expected calibration error, a fraction, over 15 bins.", absent="unless classification has labelled rows"
    )
    nll: BothNumbers = described(
        "Mean −log likelihood of the label, in nats.",
        absent="unless `classification`, `multilabel` or `tokens` has labelled rows, and in files of older versions",
    )
    confusion: BothMatrices = described(
        "Confusion matrices over labelled rows.", absent="unless classification has labelled rows"
    )
    pearson: Number = described(
        "Pearson correlation of student and teacher outputs.",
        absent="unless the task is regression",
        null="if an output is constant",
    )
    mean_absolute_difference: Number = described(
        "Mean |student − teacher| of the outputs, in the labels' unit.", absent="unless the task is regression"
    )
    cosine: float = described(
        "Mean cosine of the vectors of student and teacher.", absent="unless the task is embedding"
    )
    cosine_lowest: float = described("5th percentile of these cosines.", absent="unless the task is embedding")
    same_neighbour: Number = described(
        "Fraction of texts, at most 2,000, whose nearest other text is the same one for both models.",
        absent="unless the task is embedding",
        null="for a single text",
    )
    kendall_tau: Number = described(
        "Mean over queries of the rank correlation (Kendall's tau-b) of the scores of student and teacher.",
        absent="unless the task is ranking",
        null="if no query has two documents",
    )
    same_top: Number = described(
        "Fraction of queries whose first document is the same one for both models.",
        absent="unless the task is ranking",
        null="if no query has two documents",
    )
    cka: LayerSimilarity = described(
        "Similarity of layers.", absent="if fewer than 4 tokens were evaluated, or it could not be measured"
    )
    cka_not_measured: str = described(
        "Why the layers could not be compared: a model that does not show its states.", absent="if they could"
    )
