"""Self-attention relations: similarities among a layer's queries, keys or values."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionTerm, attention_kl
from distil_nlp.objective import Count, LayerPairs, ModelShape, Role, RowSetName, Weight
from distil_nlp.signals.attention import Attention, QueriesKeys, attention_sum
from distil_nlp.signals.types import SignalRequest
from distil_nlp.tasks import TaskKind


def relation(states: Tensor, mask: Tensor | None = None, heads: int | None = None) -> QueriesKeys:
    """Return softmax(X Xᵀ / √d) of a layer's queries, keys or values X, as attention of X to itself.

    The heads are concatenated and split again into `heads` of width d, so that two models may have different numbers
    and widths of heads. `attention_sum` with `attention_kl` then gives Σ_rows mean_heads KL(teacher ‖ student), in
    nats: a row is one token, its relation a distribution over the tokens that are visible to it. 0 at equality.

    Args:
        states: (batch, the model's heads, seq, head width).
        mask: the visible tokens, see `attention_log_probabilities`.
        heads: the number of relation heads; the model's own if None.

    Raises:
        ValueError: if the width cannot be split into so many heads.

    Reference: MiniLM, arXiv:2002.10957 (values, with the models' own heads); MiniLMv2, arXiv:2012.15828 (queries, keys
    and values, with any number of relation heads).
    """
    if heads is not None and heads != states.shape[1]:
        joined = states.transpose(1, 2).flatten(2)
        if joined.shape[-1] % heads:
            raise ValueError(f"expected a width that {heads} relation heads divide / got {joined.shape[-1]}")
        states = joined.unflatten(-1, (heads, -1)).transpose(1, 2)
    return QueriesKeys(states, states, states.shape[-1] ** -0.5, mask)


class _RelationTerm(AttentionTerm):
    """KL(teacher ‖ student) between relations per token, averaged over relation heads.

    Args:
        layers: see `LayerTerm`. MiniLM takes the last layers; MiniLMv2 the last layer of a base-size teacher, and one
            above the middle of a large one: `[[20, 5]]` is layer 21 of 24 for the last of 6.
        rows: see `LayerTerm`.
        relation_heads: the number of heads into which both models' vectors are split; it must divide both widths.
            MiniLMv2 takes 48 for base-size teachers and 64 for large ones. None, as in MiniLM, takes the models' own
            heads, whose numbers must agree.

    Attributes:
        vectors: `query`, `key` or `value`.
    """

    vectors: ClassVar[str]
    paper = "2012.15828"

    def __init__(
        self,
        weight: Weight = 1.0,
        layers: LayerPairs = "last",
        rows: RowSetName = "all",
        relation_heads: Count | None = None,
    ):
        super().__init__(weight, layers, rows)
        self.relation_heads = relation_heads

    def bind(self, kind: TaskKind | str, teacher: ModelShape | None, student: ModelShape) -> None:
        super().bind(kind, teacher, student)
        teacher = self.teacher_shape
        if self.relation_heads is None and teacher.num_heads != student.num_heads:
            raise UserError(
                f"objective.{self.name}",
                "as many attention heads on both sides",
                f"teacher {teacher.num_heads}, student {student.num_heads}",
                why="relations cannot be paired head by head",
                fix=f"set objective.{self.name}.relation_heads, which both widths can be split into",
            )
        widths = {"teacher": teacher.hidden_size, "student": student.hidden_size}
        indivisible = [f"{role} {width}" for role, width in widths.items() if width % (self.relation_heads or 1)]
        if indivisible:
            raise UserError(
                f"objective.{self.name}.relation_heads",
                "a number that divides both widths",
                f"{self.relation_heads}, {' and '.join(indivisible)}",
                why="heads would be of unequal width",
                fix="take a divisor of both",
            )

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(attention=self.blocks(role), scores=self.blocks(role))

    def loss(self, student: Attention, teacher: Attention, chosen: Tensor) -> Tensor:
        student_relations, teacher_relations = (self._relations(attention) for attention in (student, teacher))
        return attention_sum(attention_kl, student_relations, teacher_relations, chosen)

    def _relations(self, attention: Any) -> QueriesKeys:
        return relation(getattr(attention, self.vectors), attention.mask, self.relation_heads)


class QueryRelation(_RelationTerm):
    """`query_relation`: KL between relations of queries (MiniLMv2)."""

    name, vectors = "query_relation", "query"
    unit = "nats"
    formula = "KL(teacher ‖ student) of the scaled dot-products among queries, mean over relation heads"


class KeyRelation(_RelationTerm):
    """`key_relation`: KL between relations of keys (MiniLMv2)."""

    name, vectors = "key_relation", "key"
    unit = "nats"
    formula = "KL(teacher ‖ student) of the scaled dot-products among keys, mean over relation heads"


class ValueRelation(_RelationTerm):
    """`value_relation`: KL between relations of values (MiniLM; MiniLMv2 with `relation_heads`)."""

    name, vectors, paper = "value_relation", "value", "2002.10957"
    unit = "nats"
    formula = "KL(teacher ‖ student) of the scaled dot-products among values, mean over relation heads"

    def request(self, role: Role) -> SignalRequest:
        return SignalRequest(attention=self.blocks(role), values=self.blocks(role))
