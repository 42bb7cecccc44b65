"""Mixing of several teachers' outputs into one: how much each of them counts in a row, and what is averaged.

Shapes: outputs of all teachers are stacked as (teachers, …, classes); `…` are the rows of a batch, or (batch, seq).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.signals.types import DeferredLogits

Mix = Literal["logits", "probabilities"]
Weighting = Literal["fixed", "confidence", "correctness", "student_uncertainty"]


def confidence_weights(logits: Tensor) -> Tensor:
    """Return w_k = (1 − H_k ÷ Σ_j H_j) ÷ (K − 1), (teachers, …): a teacher counts more in a row the surer it is.

    H_k is the entropy of teacher k's own distribution, unsoftened. Σ_k w_k = 1; where all are certain, w_k = 1 ÷ K.

    Args:
        logits: (teachers, …, classes), of two teachers or more; no gradient flows to them.

    Reference: EBKD as the authors of CA-MKD have it in their code (Rorozhl/CA-MKD, `helper/loops.py`). There w_k is
    1 − H_k ÷ ΣH, which sums to K − 1 over the teachers; each weighs its own KL, and the sum is divided by rows · K. So
    the loss has (K − 1) ÷ K of the size of ours, and NaN where a probability underflows.
    """
    entropies = entropy(logits)
    total = entropies.sum(0)
    shares = torch.where(total > 0, entropies / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / len(logits))
    return (1 - shares) / (len(logits) - 1)


def correctness_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """Return w_k = (1 − softmax_k(CE_k)) ÷ (K − 1), (teachers, …): a teacher counts more the nearer it is to the label.

    CE_k is teacher k's cross-entropy with the label, unsoftened. Σ_k w_k = 1. A row without a label (−100) has the
    weights of `confidence_weights`.

    Args:
        logits: (teachers, …, classes), of two teachers or more; no gradient flows to them.
        labels: (…).

    Reference: CA-MKD, arXiv:2201.00007, as its code has it (Rorozhl/CA-MKD, `distiller_zoo/CAMKD.py`). There each w_k
    weighs its teacher's KL, and the sum is divided by rows · K: the loss is K times smaller than ours. The paper also
    weighs an intermediate layer of each teacher so, which is not done here: terms on layers look at the first teacher.
    """
    log_probs, label = logits.detach().float().log_softmax(-1), labels.clamp_min(0).unsqueeze(-1)
    losses = torch.stack([-one.gather(-1, label).squeeze(-1) for one in log_probs])
    weights = (1 - losses.softmax(0)) / (len(logits) - 1)
    return torch.where(labels >= 0, weights, confidence_weights(logits))


def uncertainty_weights(student: Tensor, places: Sequence[int]) -> Tensor:
    """Return w_k = max(0, 1 − |u · (K − 1) − place_k|), (teachers, …): the surer the student, the larger its teacher.

    u is the entropy of the student's distribution ÷ log classes, from 0 (certain) to 1. The teachers stand from the
    largest, at 0, to the smallest, at K − 1; each row is taught by the two that are next to u · (K − 1). Σ_k w_k = 1.

    Args:
        student: logits, (…, classes); no gradient flows to them.
        places: place_k of each teacher.

    Reference: Dynamic Knowledge Distillation, Li et al. 2021 (EMNLP). With two teachers it is the mode `soft-instance`
    of the authors' code (lancopku/DynamicKD, `models/student.py`): u to the small one, 1 − u to the large one. Theirs
    has two teachers only, multiplies each one's own loss, and lets the gradient flow through the weights; ours are
    constants of the step. Their other modes weigh whole batches: `soft` by the mean of u, `hard` gives the half of the
    batch with the higher entropy to the small teacher. More than two teachers are an extension of our own.
    """
    uncertainty = entropy(student) / math.log(student.shape[-1])
    return torch.stack([(1 - (uncertainty * (len(places) - 1) - place).abs()).clamp_min(0) for place in places])


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of softmax(logits) in nats over the last axis, without gradient; never NaN or below 0."""
    log_probs = logits.detach().float().log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1).clamp_max(0)


def geometric_mean(logits: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_k w_k · z_k, (…, classes): after a softmax at any temperature, the weighted geometric mean.

    Args:
        logits: z, (teachers, …, classes).
        weights: w, (teachers, …), which sum to 1.

    Reference: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 5, beside the arithmetic mean.
    """
    return (weights.unsqueeze(-1) * logits.float()).sum(0)


def arithmetic_mean(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Return T · log Σ_k w_k · softmax(z_k / T), (…, classes): softened by the same T, the weighted arithmetic mean.

    As the target of a KL or a cross-entropy it has the gradient of Σ_k w_k · KL(teacher k ‖ student), which the methods
    of `confidence_weights`, `correctness_weights` and `uncertainty_weights` are written with: a cross-entropy is linear
    in its target. Read at another temperature than T it is no arithmetic mean.

    Args:
        logits: z, (teachers, …, classes).
        weights: w, (teachers, …), which sum to 1.
        temperature: T > 0.
    """
    log_probs = (logits.float() / temperature).log_softmax(-1)
    return temperature * (weights.log().unsqueeze(-1) + log_probs).logsumexp(0)


@dataclass(frozen=True)
class Mixing:
    """A way to mix the outputs of several teachers.

    In each row the method's weights are multiplied by `weights` and divided by their sum, so that they sum to 1.

    Args:
        weights: of each teacher, at least 0, one of them above; a teacher of weight 0 is not asked in training.
        mix: the weighted mean of `logits` or of `probabilities`.
        weighting: what a row's weights follow: nothing (`fixed`), each teacher's own certainty (`confidence`), its
            cross-entropy with the label (`correctness`), or the student's entropy (`student_uncertainty`).
        sizes: parameters of each teacher, which `student_uncertainty` orders them by; of equals the first is larger.
        has_answers: True if the last of the teachers are answers in the data's columns, NaN in rows without one: there
            the others' weights are divided by their own sum.

    Raises:
        UserError: if no weight is above 0, or one is below.
    """

    weights: tuple[float, ...]
    mix: Mix = "logits"
    weighting: Weighting = "fixed"
    sizes: tuple[int, ...] = ()
    has_answers: bool = False

    def __post_init__(self) -> None:
        if min(self.weights) < 0 or not max(self.weights) > 0:
            raise UserError(
                "teacher.weight",
                "weights of at least 0, one of them above",
                ", ".join(f"{weight:g}" for weight in self.weights),
                why="the teachers' mean would have no meaning",
                fix="raise the weight of a teacher",
            )

    @property
    def active(self) -> list[int]:
        """The numbers of the teachers with a weight above 0."""
        return [number for number, weight in enumerate(self.weights) if weight > 0]

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights ÷ their sum."""
        return tuple(weight / sum(self.weights) for weight in self.weights)

    @property
    def is_constant(self) -> bool:
        """Whether mixed logits depend neither on the row's weights nor on the temperature at which they are read."""
        return len(self.active) == 1 or (self.mix == "logits" and self.weighting == "fixed")

    @property
    def models(self) -> list[int]:
        """The numbers of the teachers that are models."""
        return [*range(len(self.weights) - self.has_answers)]

    def of(self, numbers: Sequence[int]) -> Mixing:
        """Return the mixing of some of the teachers alone."""
        sizes = tuple(self.sizes[number] for number in numbers if number < len(self.sizes))
        weights, has_answers = tuple(self.weights[number] for number in numbers), self.has_answers
        has_answers &= len(self.weights) - 1 in numbers
        return replace(self, weights=weights, sizes=sizes, has_answers=has_answers)

    def row_weights(self, logits: Sequence[Tensor], labels: Tensor | None = None, student: Any = None) -> Tensor:
        """Return the weight of each teacher in each row, (teachers, …); those of a row sum to 1.

        Args:
            logits: of each teacher, (…, classes); NaN in rows where there is no answer.
            labels: (…); without them `correctness` is `confidence`.
            student: the student's logits, (…, classes); without them `student_uncertainty` is `fixed`.
        """
        active = self.active
        found = self.of(active)._method_weights(torch.stack([logits[number] for number in active]), labels, student)
        own = [found[place] * self.weights[number] for place, number in enumerate(active)]
        if self.has_answers:
            own[-1] = own[-1] * _is_answered(logits[-1]) if len(logits) - 1 in active else own[-1]
        total = torch.stack(own).sum(0)
        parts = dict(zip(active, own, strict=True))
        return torch.stack([parts[k] / total if k in parts else torch.zeros_like(total) for k in range(len(logits))])

    def _method_weights(self, logits: Tensor, labels: Tensor | None, student: Any) -> Tensor:
        """Return the weights of the method alone, of teachers whose own weights are above 0."""
        if len(logits) > 1 and self.weighting == "correctness" and labels is not None:
            return correctness_weights(logits, labels)
        if len(logits) > 1 and self.weighting in ("confidence", "correctness"):
            return confidence_weights(logits)
        if len(logits) > 1 and self.weighting == "student_uncertainty" and student is not None:
            return uncertainty_weights(student, self._places())
        return torch.ones(logits.shape[:-1], device=logits.device) / len(logits)

    def _places(self) -> list[int]:
        """Return the place of each teacher from the largest to the smallest."""
        order = sorted(range(len(self.weights)), key=lambda number: -self.sizes[number] if self.sizes else 0)
        return [order.index(number) for number in range(len(order))]

    def mixed(
        self, logits: Sequence[Tensor], labels: Tensor | None = None, student: Any = None, temperature: float = 1.0
    ) -> Tensor:
        """Return the mixed logits, (…, classes), to be read at this temperature; arguments as for `row_weights`."""
        active = self.active
        if len(active) == 1:
            return logits[active[0]]
        chosen = [logits[number] for number in active]
        own = self.of(active)
        if own.is_constant and not own.has_answers and len(set(own.weights)) == 1:
            return torch.stack(chosen).mean(0)
        weights = own.row_weights(chosen, labels, student)
        if own.has_answers:
            chosen[-1] = chosen[-1].nan_to_num()  # of weight 0 there
        if self.mix == "logits":
            return geometric_mean(torch.stack(chosen), weights)
        return arithmetic_mean(torch.stack(chosen), weights, temperature)

    def outputs(
        self, logits: Sequence[Tensor], labels: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor | MixedLogits:
        """Return the mixed logits, or what gives them once the temperature and the student's logits are known.

        Args:
            logits: of each teacher, (rows, classes).
            labels: of a batch, or None.
            rows: positions in the batch of the rows that the logits are of; None for all of them, in order.
        """
        return self.mixed(logits) if self.is_constant else MixedLogits(self, tuple(logits), labels, rows)


def _is_answered(logits: Tensor) -> Tensor:
    return ~logits.isnan().any(-1)


@dataclass(frozen=True)
class MixedLogits(DeferredLogits):
    """The logits of several teachers for the rows of a batch, to be mixed where they are read.

    Attributes:
        mixing: how.
        members: of each teacher, (rows, classes).
        labels: of the batch, or None.
        rows: positions in the batch of these rows; None for all of them, in order.
    """

    mixing: Mixing
    members: tuple[Tensor, ...]
    labels: Tensor | None = None
    rows: Tensor | None = None

    def logits_for(self, student: Tensor, temperature: float) -> Tensor:
        return self.mixing.mixed(self.members, self._own(self.labels), self._own(student), temperature)

    def _own(self, values: Tensor | None) -> Tensor | None:
        return values if values is None or self.rows is None else values.index_select(0, self.rows)


@dataclass(frozen=True)
class MixedVocabulary:
    """The vocabulary's logits of several teachers, computed and mixed chunk by chunk.

    Attributes:
        mixing: how.
        members: of each teacher, see `Signals.vocabulary`.
        labels: of the head's rows, (rows,), or None.
    """

    mixing: Mixing
    members: tuple[Any, ...]
    labels: Tensor | None = None

    def logits(self, start: int, stop: int) -> Tensor | MixedLogits:
        """Return the logits of rows `start` to `stop`, or what gives them."""
        labels = None if self.labels is None else self.labels[start:stop]
        return self.mixing.outputs([member.logits(start, stop) for member in self.members], labels)
