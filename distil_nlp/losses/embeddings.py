"""Losses on the vectors of texts: each with the teacher's, and the similarities among a micro-batch's texts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.losses.hidden_states import hidden_cosine
from distil_nlp.losses.logit_mse import logit_mse
from distil_nlp.losses.numerics import check_same_rows, matmul_fp32, normalize
from distil_nlp.objective import OutputBatchTerm, SoftTerm, Temperature, Weight, as_schedule


def similarity_kl(student: Tensor, teacher: Tensor, temperature: float = 0.05) -> Tensor:
    """Return mean_i KL(p(·|i) ‖ q(·|i)) in nats, p the teacher's similarities, q the student's.

    p(j|i) = exp(cos(i, j) / T) / Σ_{k≠i} exp(cos(i, k) / T): which of the other texts j is like text i. 0 where all
    cosines agree; two texts have but one other each, so that it is always 0. There is no factor T².

    Args:
        student: (rows, length), at least 2 rows.
        teacher: (rows, length) of the same rows; its length may differ. No gradient flows to it.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the numbers of rows differ.

    Reference: after SEED, arXiv:2101.04731, section 3, whose other texts are a queue of earlier ones.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0 / got {temperature}")
    check_same_rows(student, teacher)
    student_log_probs, teacher_log_probs = (_log_probs(rows, temperature) for rows in (student, teacher.detach()))
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum() / len(student)


def _log_probs(rows: Tensor, temperature: float) -> Tensor:
    """Return log p(j|i), (rows, rows); the diagonal is so low that its probability is 0."""
    rows = normalize(rows)
    diagonal = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    scaled = matmul_fp32(rows, rows.T) / temperature
    return F.log_softmax(scaled.masked_fill(diagonal, torch.finfo(scaled.dtype).min / 2), dim=-1)


class EmbeddingCosine(SoftTerm):
    """`embedding_cosine`: 1 − cos between the vectors of student and teacher, per text.

    Between vectors of length 1 it is half their squared distance.
    """

    name, outputs = "embedding_cosine", ("embedding",)
    unit = "1 − cosine"
    formula = "1 − cosine of the texts’ vectors"

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return hidden_cosine(student, teacher)


class EmbeddingMSE(SoftTerm):
    """`embedding_mse`: squared error of the vectors, averaged over their numbers, per text.

    Between vectors of length 1 it is `embedding_cosine` times 2 ÷ length: 1/192 of it for 384 numbers, so that it needs
    a larger weight.
    """

    name, outputs, paper = "embedding_mse", ("embedding",), "2004.09813"
    unit = "squared difference"
    formula = "squared error of the texts’ vectors, averaged over their numbers"

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return logit_mse(student, teacher)


class EmbeddingSimilarityKL(OutputBatchTerm):
    """`embedding_similarity_kl`: KL of the softmax over each text's cosines with the micro-batch's others.

    Args:
        temperature: T by which cosines are divided, a number or a `Schedule`.
    """

    name, outputs, paper, is_variant = "embedding_similarity_kl", ("embedding",), "2101.04731", True
    unit = "nats"
    formula = "KL(teacher ‖ student) of the softmax over a text’s cosines with the others of a micro-batch"

    def __init__(self, weight: Weight = 1.0, temperature: Temperature = 0.05):
        super().__init__(weight)
        self.temperature = as_schedule(temperature)

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        return similarity_kl(student, teacher, self.temperature(progress))
