"""Replaced-token detection: which words of a text did the teacher put there?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.losses.numerics import at_least_fp32
from distil_nlp.objective import LossTerm, ModelShape, check_same_shape
from distil_nlp.objective.term import Role
from distil_nlp.signals.types import ProjectionInput, SignalRequest, Signals
from distil_nlp.tasks import TaskKind, task_kind


def replaced_tokens(logits: Tensor, is_replaced: Tensor) -> Tensor:
    """Return Σ_tokens −y log D − (1 − y) log (1 − D) in nats: the binary cross-entropy of telling replaced tokens.

    log 2 = 0.69 a token where the student cannot tell at all; the entropy of the share of replaced tokens where it
    knows that alone.

    Args:
        logits: of a token's being replaced, (tokens,). D is their sigmoid; the paper's D is the probability of the
            original, 1 − D here.
        is_replaced: y, True for tokens that are not those of the original text, (tokens,).

    Raises:
        ValueError: if the shapes differ.

    Reference: ELECTRA, Clark et al. 2020, arXiv:2003.10555, section 2: L_Disc = E[Σ_t −1(x_t^corrupt = x_t) log D(t) −
    1(x_t^corrupt ≠ x_t) log (1 − D(t))].
    """
    check_same_shape(logits, is_replaced, "(tokens,) alike", ("logits", "is_replaced"))
    logits = at_least_fp32(logits)
    return F.binary_cross_entropy_with_logits(logits, is_replaced.to(logits.dtype), reduction="sum")


class ReplacedTokens(LossTerm):
    """`replaced_tokens`: binary cross-entropy in nats of telling which tokens the teacher put into the text (ELECTRA).

    A word is drawn from the teacher's distribution (temperature 1) for each masked token. The student reads the text
    with these words beside the masked one, in a batch of twice the rows, and tells for each token whether it was
    replaced; a draw that is the original word is original. The mean is over all tokens but padding and special ones.
    The head is ELECTRA's: dense, GELU, one output; it does not leave with the student. Evaluation draws too, the same
    words each time for the same teacher and masks.

    Unlike in the paper, the generator is the teacher, which does not learn; its code counts [CLS] and [SEP] too. There
    the term has weight 50 beside the generator's own loss of masked words.
    """

    name, paper, is_variant = "replaced_tokens", "2003.10555", True
    samples_text, accepts_cached_teacher = True, False
    outputs, levels = ("distribution",), ("token",)
    unit = "nats"
    formula = (
        "the binary cross-entropy of telling, for each token, whether it is the text’s own or a word that the teacher "
        "put in a masked place"
    )

    @classmethod
    def applies_to(cls, kind: TaskKind | str) -> bool:
        return task_kind(kind).predicts_words

    @classmethod
    def why_not(cls, kind: TaskKind) -> str:
        return "the teacher puts words in masked places, which only masked language modelling has"

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        self._source = ProjectionInput(student.num_layers - 1, self.counted_rows())
        self._width = student.hidden_size

    def counted_rows(self) -> str:
        return "ordinary"

    @property
    def reads_masked_tokens(self) -> bool:
        return True

    def request(self, role: Role) -> SignalRequest:
        if role == "teacher":
            return SignalRequest(logits=True)
        return SignalRequest(hidden=frozenset({(self._source.layer, self._source.rows)}))

    def projections(self) -> dict[str, tuple[ProjectionInput, nn.Module]]:
        width = self._width
        return {self.name: (self._source, nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)))}

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        return replaced_tokens(student.projected[self.name].squeeze(-1), batch["is_replaced"])
