"""Neuron selectivity transfer: the activation patterns of a layer's neurons, compared as distributions by MMD."""

from typing import Literal

from torch import Tensor

from distil_nlp.losses.numerics import TINY, matmul_fp32, normalize
from distil_nlp.objective import LayerPairs, SequenceTerm, Weight

Kernel = Literal["linear", "polynomial", "gaussian"]


def mmd(student: Tensor, teacher: Tensor, kernel: Kernel = "polynomial") -> Tensor:
    """Return Σ_sequences MMD² between the neurons of student and teacher; 0 where both have the same, in any order.

    A neuron is the vector of one hidden dimension's values over the tokens of a sequence, normalised. With x of the
    teacher's T neurons and y of the student's S: MMD² = Σ k(x, x') / T² + Σ k(y, y') / S² − 2 Σ k(x, y) / (T · S).

    Args:
        student: (sequences, tokens, width), 0 at padding.
        teacher: (sequences, tokens, width), 0 at padding; its width may differ. No gradient flows to it.
        kernel: `linear` k = x·y, which compares mean neurons; `polynomial` k = (x·y)², which compares the similarities
            between tokens; `gaussian` k = exp(−‖x − y‖² / 2σ²), where σ² is the sequence's mean ‖x − y‖² between
            teacher and student, without gradient.

    Raises:
        ValueError: if the numbers of sequences or tokens differ.

    Reference: Neuron Selectivity Transfer, arXiv:1707.01219, sections 3 and 4.
    """
    if student.dim() != 3 or student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            "expected (sequences, tokens, width) with the same sequences and tokens on both sides / got student "
            f"{tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
    y, x = normalize(student.transpose(1, 2)), normalize(teacher.detach().transpose(1, 2))
    if kernel == "linear":
        return (y.mean(1) - x.mean(1)).square().sum()
    if kernel == "polynomial":  # Σ (x·y)² is the product of Σ x xᵀ and Σ y yᵀ: no matrix of neurons is needed
        student_gram = matmul_fp32(y.transpose(1, 2), y) / y.shape[1]
        teacher_gram = matmul_fp32(x.transpose(1, 2), x) / x.shape[1]
        return (student_gram - teacher_gram).square().sum()
    between = _squared_distances(y, x)
    scale = -0.5 / between.detach().mean((1, 2), keepdim=True).clamp_min(TINY)
    within = [_squared_distances(neurons, neurons).mul(scale).exp().mean((1, 2)) for neurons in (y, x)]
    return (within[0] + within[1] - 2 * between.mul(scale).exp().mean((1, 2))).sum()


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    squares = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None]
    return squares - 2 * matmul_fp32(x, y.transpose(1, 2))


class MMD(SequenceTerm):
    """`mmd`: squared maximum mean discrepancy between the neurons of paired layers, per sequence (NST).

    Widths need not agree, and nothing is projected.

    Args:
        layers: the pairs of layers, all attended tokens of which are compared.
        kernel: see the formula. `polynomial` is the paper's best; `gaussian` holds matrices of width² for each
            sequence.
    """

    name, paper = "mmd", "1707.01219"
    unit = "squared MMD"
    formula = "the squared maximum mean discrepancy between neurons, each its normalised activations over a sequence"

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last", kernel: Kernel = "polynomial"):
        super().__init__(weight, layers)
        self.kernel = kernel

    def projection(self, narrow: int, wide: int) -> None:
        return None

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return mmd(student, teacher, self.kernel)
