"""Losses on attention maps: the distributions over keys of paired layers, before dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.kernels.attention import kernel_in_use
from distil_nlp.objective import BlockTerm, LayerPairs, ModelShape, Role, RowSetName, Weight
from distil_nlp.signals.attention import Attention, QueriesKeys, attention_sum
from distil_nlp.signals.types import SignalRequest, Signals
from distil_nlp.tasks import TaskKind


def attention_kl(student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """Return Σ_rows mean_heads KL(teacher ‖ student) between attention distributions, in nats.

    A row is one query token; its distribution runs over the keys that it attends to. 0 at equality. Keys to which the
    teacher gives probability 0 (padding among them) add nothing.

    Args:
        student: log-probabilities, (batch, heads, queries, keys).
        teacher: log-probabilities of the same shape; no gradient flows to them.
        chosen: (batch, queries), 1 for rows that count and 0 for the others, such as padded queries.

    Raises:
        ValueError: if the shapes differ (`average_heads` on both sides where the heads do).

    Reference: MiniLM, arXiv:2002.10957, equation 5, for any mapped layer.
    """
    check_same_maps(student, teacher)
    return sum_chosen(F.kl_div(student, teacher.detach(), reduction="none", log_target=True), chosen)


def attention_mse(student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """Return Σ_rows mean_heads Σ_keys (student − teacher)² between attention probabilities.

    Keys are summed, not averaged: a mean over keys would shrink with padding and sequence length. `attention_kl` gives
    small probabilities more weight; arguments and errors are the same.

    Reference: TinyBERT, arXiv:1909.10351, equation 7, on probabilities instead of scores.
    """
    check_same_maps(student, teacher)
    return sum_chosen((student.exp() - teacher.detach().exp()).square(), chosen)


def sum_chosen(per_key: Tensor, chosen: Tensor) -> Tensor:
    """Sum (batch, heads, queries, keys) over keys and the chosen queries; average over heads."""
    per_query = per_key.sum(-1).mean(1)
    return per_query.masked_fill(chosen == 0, 0).sum()


def check_same_maps(student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError if the shapes differ."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected (batch, heads, seq, seq) alike / got student {tuple(student.shape)}, "
            f"teacher {tuple(teacher.shape)} / average the heads on both sides if their numbers differ"
        )


class AttentionTerm(BlockTerm):
    """A term on the attention of paired layers, before dropout: a sum over query tokens."""

    lacking = "attend to nothing"

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        teacher = self.teacher_shape
        if teacher.layer_types and student.layer_types:
            mismatched = [(t, s) for t, s in self.pairs if teacher.layer_types[t] != student.layer_types[s]]
            if mismatched:
                teacher_block, student_block = mismatched[0]
                types = f"{teacher.layer_types[teacher_block]} and {student.layer_types[student_block]}"
                raise UserError(
                    f"objective.{self.name}.layers",
                    "layers that see the same tokens",
                    f"{list(mismatched[0])}, {types}",
                    why="a distribution over all tokens cannot be matched within a window",
                    fix="pair layers of one type",
                )

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(attention=self.blocks(role))

    def states(
        self, student: Signals, teacher: Signals, batch: Mapping[str, Any]
    ) -> list[tuple[Attention, Attention, Tensor]]:
        """Return (student, teacher, chosen queries) for each pair of layers; see `attention_sum`."""
        tokens = batch["input_ids"]
        chosen = (
            torch.zeros_like(tokens).flatten().index_fill_(0, batch["rows"][self.counted_rows()], 1).view_as(tokens)
        )
        return [
            (student.attention[student_block], teacher.attention[teacher_block], chosen)
            for teacher_block, student_block in self.pairs
        ]


class HeadsTerm(AttentionTerm):
    """A term on the attention of paired layers, head by head or averaged over heads.

    Args:
        heads: `each` compares head with head and needs equal numbers; `average` compares the means.

    Attributes:
        map_loss: the formula, (student, teacher, chosen) → sum, such as `attention_kl`.
        of_scores: True if the formula takes scores instead of log-probabilities.
        has_kernel: True if the formula is that of `AttentionKernel`.
    """

    map_loss: Any
    of_scores: ClassVar[bool] = False
    has_kernel: ClassVar[bool] = False

    def __init__(
        self,
        weight: Weight = 1.0,
        layers: LayerPairs = "uniform",
        rows: RowSetName = "all",
        heads: Literal["each", "average"] = "each",
    ):
        super().__init__(weight, layers, rows)
        self.heads = heads

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        teacher = self.teacher_shape
        if self.heads == "each" and teacher.num_heads != student.num_heads:
            raise UserError(
                f"objective.{self.name}",
                "as many attention heads on both sides",
                f"teacher {teacher.num_heads}, student {student.num_heads}",
                why="heads cannot be paired one by one",
                fix=f"set objective.{self.name}.heads=average, or the student's num_attention_heads",
            )

    def loss(self, student: Attention, teacher: Attention, chosen: Tensor) -> Tensor:
        kernel = kernel_in_use() if self.has_kernel and self.heads == "each" else None
        if kernel and isinstance(student, QueriesKeys) and isinstance(teacher, QueriesKeys):
            found = kernel.divergence(student, teacher, chosen)
            if found is not None:
                return found
        return attention_sum(type(self).map_loss, student, teacher, chosen, self.heads == "average", self.of_scores)


class AttentionKL(HeadsTerm):
    """`attention_kl`: KL(teacher ‖ student) per query token, averaged over heads (MiniLM).

    The default pairs all of the student's layers; MiniLM takes `layers: last`.
    """

    name, map_loss, has_kernel = "attention_kl", staticmethod(attention_kl), True
    unit = "nats"
    formula, paper = "KL(teacher ‖ student) of the attention distributions", "2002.10957"


class AttentionMSE(HeadsTerm):
    """`attention_mse`: squared error of the distribution per query token, averaged over heads.

    After TinyBERT, which takes the scores before the softmax: that is `attention_scores_mse`.
    """

    name, map_loss = "attention_mse", staticmethod(attention_mse)
    unit = "squared difference"
    formula, paper, is_variant = "squared error of the attention distributions", "1909.10351", True
