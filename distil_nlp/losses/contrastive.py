"""A contrastive loss: the student's state identifies its own sequence among the teacher's of a micro-batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.losses.numerics import matmul_fp32, normalize
from distil_nlp.objective import BatchTerm, LayerPairs, Positive, Weight, check_same_shape


def contrastive(student: Tensor, teacher: Tensor, temperature: float = 0.07) -> Tensor:
    """Return mean_i −log (exp(cos(sᵢ, tᵢ) / T) / Σ_j exp(cos(sᵢ, tⱼ) / T)), in nats.

    InfoNCE with the teacher's other rows as negatives. It never reaches 0: with n rows it is at least
    log(1 + (n − 1) exp(−2 / T)), where the others point the opposite way, and mean_i log Σ_j exp((cos(tᵢ, tⱼ) − 1) / T)
    where student equals teacher. At chance level it is log n.

    Args:
        student: (rows, width).
        teacher: (rows, width); no gradient flows to it.
        temperature: T > 0.

    Raises:
        ValueError: if T is not positive, or the shapes differ.

    Reference: after CRD, arXiv:1910.10699; InfoNCE is van den Oord et al. 2018, arXiv:1807.03748.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0 / got {temperature}")
    check_same_shape(student, teacher, "(rows, width) alike")
    cosines = matmul_fp32(normalize(student), normalize(teacher.detach()).T)
    return F.cross_entropy(cosines / temperature, torch.arange(len(student), device=student.device))


class Contrastive(BatchTerm):
    """`contrastive`: InfoNCE between the teacher's [CLS] states and a learned linear map of the student's.

    It runs over the sequences of a micro-batch. CRD draws thousands of negatives from a memory of all rows, uses the
    student's rows as negatives too, and maps the teacher's states; here the negatives are the teacher's states of the
    micro-batch's other sequences, without a map.

    Args:
        layers: the pairs of layers whose [CLS] states are compared.
        temperature: T; the default is that of CRD's code.
    """

    name, paper, is_variant = "contrastive", "1910.10699", True
    unit = "nats"
    formula = "InfoNCE between [CLS] states of a micro-batch, those of the student through a learned linear map"

    def __init__(self, weight: Weight = 1.0, layers: LayerPairs = "last", temperature: Positive = 0.07):
        super().__init__(weight, layers)
        self.temperature = temperature

    def projection(self, narrow: int, wide: int) -> nn.Module:
        return nn.Linear(narrow, wide)

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return contrastive(student, teacher, self.temperature)
