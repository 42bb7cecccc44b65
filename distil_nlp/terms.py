"""Terms: what a student can match, which rows and layers each looks at, and what it must see for that.

`losses/` does the arithmetic. To add a term: a function in `losses/`, a subclass here, its name in `TERMS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distil_nlp import losses
from distil_nlp.errors import UserError
from distil_nlp.schedule import Schedule
from distil_nlp.signals import EMBEDDINGS, Request, Signals
from distil_nlp.tasks import Kind

Layers = Literal["last", "uniform", "all"] | Sequence[tuple[int | str, int | str]]
Rows = Literal["masked", "all"] | float
Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Shape:
    """What a term must know of a model to pair its layers: depth, width, number of attention heads, and which layers
    see a window only (ModernBERT)."""

    num_layers: int
    hidden_size: int
    num_heads: int
    layer_types: tuple[str, ...] | None = None

    @classmethod
    def of(cls, config: Any) -> Shape:
        types = getattr(config, "layer_types", None)
        shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
        return cls(*shape, tuple(types) if types else None)


def pair_layers(layers: Layers, teacher: Shape, student: Shape, where: str) -> list[tuple[int, int]]:
    """(teacher block, student block) pairs; blocks are 0-based, `embeddings` is `EMBEDDINGS`.

    `last` pairs the last blocks; `uniform` every student block with the teacher block at the same relative
    depth, block ⌊(i + 1) · T / S⌋ − 1; `all` is `uniform` and the embedding outputs.

    Raises:
        UserError: if a number is outside the model.
    """
    depth_t, depth_s = teacher.num_layers, student.num_layers
    if depth_s > depth_t:
        raise UserError(
            f"expected at most the teacher's {depth_t} layers / got a student of {depth_s} / layers cannot be paired / "
            "take a shallower student"
        )
    uniform = [((i + 1) * depth_t // depth_s - 1, i) for i in range(depth_s)]
    if layers == "last":
        return [(depth_t - 1, depth_s - 1)]
    if layers == "uniform":
        return uniform
    if layers == "all":
        return [(EMBEDDINGS, EMBEDDINGS), *uniform]
    pairs = []
    for pair in layers:
        for block, depth, role in zip(pair, (depth_t, depth_s), ("teacher", "student"), strict=True):
            if block != "embeddings" and not (isinstance(block, int) and 0 <= block < depth):
                raise UserError(
                    f"{where}.layers: expected {role} layers 0 to {depth - 1} or embeddings / got {block!r} in "
                    f"{list(pair)} / there is no such layer / pairs are [teacher layer, student layer]"
                )
        pairs.append(tuple(EMBEDDINGS if block == "embeddings" else block for block in pair))
    return pairs


class Term:
    """One thing the student matches.

    Args:
        weight: its factor in the loss, a number or a `Schedule`; 0 throughout switches the term off.

    A subclass sets `name` and `needs_teacher`, and fills in `rows`, `request` and `sum`. What it returns is
    summed over `rows` and averaged over layer pairs, so that weights mean the same for one pair as for six.
    """

    name: str
    needs_teacher = True

    def __init__(self, weight: float | Schedule = 1.0):
        self.weight = weight if isinstance(weight, Schedule) else Schedule(float(weight))

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        """Called once with the models' shapes: pairs layers, checks that term and models fit."""
        self.kind = kind

    def rows(self) -> str:
        """The row set: `masked`, `all` or a share for tokens; `sequences` or `labelled` for whole rows."""
        raise NotImplementedError

    def request(self, role: Role) -> Request:
        raise NotImplementedError

    def projections(self) -> dict[str, tuple[tuple[int, str], nn.Module]]:
        """Projections the term trains: name → (student (layer, row set), module)."""
        return {}

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        """Σ over the rows of this micro-batch. `batch` holds `input_ids`, `rows` and `labels`."""
        raise NotImplementedError


class OutputTerm(Term):
    """A term on logits: rows are tokens for language modelling, sequences otherwise."""

    def request(self, role: Role) -> Request:
        return Request(logits=role == "student" or self.needs_teacher)

    def logits(self, signals: Signals, batch: Mapping[str, Any]) -> Tensor:
        """The term's rows among those that the head ran on."""
        return signals.logits.index_select(0, batch["rows"][f"logits/{self.rows()}"])


class SoftTargetKL(OutputTerm):
    """`soft_target_kl`: the teacher's softened output, T² · KL in nats per row; for regression the squared
    error to the teacher's output.

    Args:
        temperature: T, a number or a `Schedule`. Has no meaning for regression.
        row_set: language modelling only: `masked` tokens, `all` attended tokens, or a sampled share of them.
            DistilBERT's published default is all; the masked 15 % spare 85 % of the vocabulary projection.
    """

    name = "soft_target_kl"

    def __init__(self, weight: float | Schedule = 1.0, temperature: float | Schedule = 2.0, row_set: Rows = "masked"):
        super().__init__(weight)
        self.temperature = temperature if isinstance(temperature, Schedule) else Schedule(float(temperature))
        self.row_set = row_set

    def rows(self) -> str:
        return str(self.row_set) if self.kind == "mlm" else "sequences"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        ours, theirs = self.logits(student, batch), self.logits(teacher, batch)
        if self.kind == "regression":
            return losses.soft_target_mse(ours, theirs)
        if isinstance(theirs, losses.TopLogits):
            return losses.soft_target_kl_top(ours, theirs, self.temperature(progress))
        return losses.soft_target_kl(ours, theirs, self.temperature(progress))


class HardLabel(OutputTerm):
    """`hard_label`: the data's own targets. Cross-entropy over masked tokens (language modelling) or labelled
    rows (classification), squared error (regression); rows labelled −100 or NaN take no part."""

    name = "hard_label"
    needs_teacher = False

    def rows(self) -> str:
        return "masked" if self.kind == "mlm" else "labelled"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        if "labels" not in batch:
            return self.logits(student, batch).sum() * 0.0
        labels = batch["labels"].flatten().index_select(0, batch["rows"][self.rows()])
        loss = losses.hard_mse if self.kind == "regression" else losses.hard_cross_entropy
        return loss(self.logits(student, batch), labels)


class RightGuesses(OutputTerm):
    """`accuracy`, for evaluation: how often the most likely word is the masked one."""

    name = "accuracy"
    needs_teacher = False

    def __init__(self):
        super().__init__(weight=0.0)

    def rows(self) -> str:
        return "masked"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        labels = batch["labels"].flatten().index_select(0, batch["rows"]["masked"])
        return (self.logits(student, batch).argmax(-1) == labels).sum()


class _LayerTerm(Term):
    """A term on paired layers.

    Args:
        layers: [teacher, student] pairs of 0-based blocks (`embeddings` for the embedding output), or
            `last`, `uniform`, `all` (see `pair_layers`).
        row_set: `all` attended tokens, `masked` tokens, or a sampled share.
    """

    def __init__(self, weight: float | Schedule = 1.0, layers: Layers = "uniform", row_set: Rows = "all"):
        super().__init__(weight)
        self.layers, self.row_set = layers, row_set

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        super().bind(kind, teacher, student)
        if self.row_set == "masked" and kind != "mlm":
            raise UserError(
                f"objective.{self.name}.rows: expected all or a share / got masked / {kind} masks no tokens / "
                "use rows=all"
            )
        self.pairs = pair_layers(self.layers, teacher, student, f"objective.{self.name}")
        self.teacher_shape, self.student_shape = teacher, student

    def rows(self) -> str:
        return str(self.row_set)

    def blocks(self, role: Role) -> frozenset[int]:
        return frozenset(pair[role == "student"] for pair in self.pairs)


class _HiddenTerm(_LayerTerm):
    """Hidden states of paired layers; a learned linear projection lifts a narrower or wider student."""

    loss: Any

    def request(self, role: Role) -> Request:
        return Request(hidden=frozenset((block, self.rows()) for block in self.blocks(role)))

    def projections(self) -> dict[str, tuple[tuple[int, str], nn.Module]]:
        narrow, wide = self.student_shape.hidden_size, self.teacher_shape.hidden_size
        if narrow == wide:
            return {}
        return {
            self._projection(block): ((block, self.rows()), nn.Linear(narrow, wide))
            for block in sorted(self.blocks("student"))
        }

    def _projection(self, block: int) -> str:
        return f"{self.name}_{'embeddings' if block == EMBEDDINGS else block}"

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        total = 0.0
        for theirs, ours in self.pairs:
            name = self._projection(ours)
            state = student.projected[name] if name in student.projected else student.hidden[ours, self.rows()]
            total = total + type(self).loss(state, teacher.hidden[theirs, self.rows()])
        return total / len(self.pairs)


class HiddenCosine(_HiddenTerm):
    """`hidden_cosine`: 1 − cos per token and layer pair (DistilBERT's third term)."""

    name, loss = "hidden_cosine", staticmethod(losses.hidden_cosine)


class HiddenMSE(_HiddenTerm):
    """`hidden_mse`: squared error per token, averaged over the width (TinyBERT)."""

    name, loss = "hidden_mse", staticmethod(losses.hidden_mse)


class _AttentionTerm(_LayerTerm):
    """Attention distributions of paired layers, before dropout.

    Args:
        heads: `each` compares head with head and needs equal numbers; `average` compares the means.
    """

    loss: Any

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        layers: Layers = "uniform",
        row_set: Rows = "all",
        heads: Literal["each", "average"] = "each",
    ):
        super().__init__(weight, layers, row_set)
        self.heads = heads

    def bind(self, kind: Kind, teacher: Shape | None, student: Shape) -> None:
        super().bind(kind, teacher, student)
        if any(EMBEDDINGS in pair for pair in self.pairs):
            self.pairs = [pair for pair in self.pairs if EMBEDDINGS not in pair]
            if self.layers != "all":
                raise UserError(
                    f"objective.{self.name}.layers: expected blocks / got embeddings / embeddings attend to "
                    "nothing / take that pair out"
                )
        if teacher.layer_types and student.layer_types:
            unlike = [(t, s) for t, s in self.pairs if teacher.layer_types[t] != student.layer_types[s]]
            if unlike:
                raise UserError(
                    f"objective.{self.name}.layers: expected layers that see the same tokens / got {list(unlike[0])}, "
                    f"{teacher.layer_types[unlike[0][0]]} and {student.layer_types[unlike[0][1]]} / a distribution "
                    "over all tokens cannot be matched within a window / pair layers of one type"
                )
        if self.heads == "each" and teacher.num_heads != student.num_heads:
            raise UserError(
                f"objective.{self.name}: expected as many attention heads on both sides / got teacher "
                f"{teacher.num_heads}, student {student.num_heads} / heads cannot be paired one by one / set "
                f"objective.{self.name}.heads=average, or the student's num_attention_heads"
            )

    def request(self, role: Role) -> Request:
        return Request(attention=self.blocks(role))

    def sum(self, student: Signals, teacher: Signals, batch: Mapping[str, Any], progress: float) -> Tensor:
        tokens, average = batch["input_ids"], self.heads == "average"
        chosen = torch.zeros_like(tokens).flatten().index_fill_(0, batch["rows"][self.rows()], 1).view_as(tokens)
        total = 0.0
        for theirs, ours in self.pairs:
            both = student.attention[ours], teacher.attention[theirs]
            total = total + losses.attention_sum(type(self).loss, *both, chosen, average)
        return total / len(self.pairs)


class AttentionKL(_AttentionTerm):
    """`attention_kl`: KL(teacher ‖ student) per query token, averaged over heads (MiniLM)."""

    name, loss = "attention_kl", staticmethod(losses.attention_kl)


class AttentionMSE(_AttentionTerm):
    """`attention_mse`: squared error of the distribution per query token, averaged over heads."""

    name, loss = "attention_mse", staticmethod(losses.attention_mse)


TERMS: dict[str, type[Term]] = {
    term.name: term for term in (SoftTargetKL, HardLabel, HiddenCosine, HiddenMSE, AttentionKL, AttentionMSE)
}
