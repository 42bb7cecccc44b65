"""Factorised embeddings (ALBERT, arXiv:1909.11942, section 3.1): a narrow table, and a projection to the width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


@dataclass(frozen=True)
class Projection:
    """How a family brings narrow embeddings to the width of its states.

    Attributes:
        field: the configuration's name for the features of the embeddings.
        module: the linear layer, within the encoder.
        is_after_norm: whether the embeddings are normalised before it, in their own features, rather than after it.
    """

    field: str
    module: str
    is_after_norm: bool


EMBEDDING_PROJECTIONS = {
    "convbert": Projection("embedding_size", "embeddings_project", True),
    "deberta": Projection("embedding_size", "embeddings.embed_proj", False),
    "deberta-v2": Projection("embedding_size", "embeddings.embed_proj", False),
    "electra": Projection("embedding_size", "embeddings_project", True),
    "rembert": Projection("input_embedding_size", "encoder.embedding_hidden_mapping_in", True),
    "roformer": Projection("embedding_size", "embeddings_project", True),
}
"""Type of a model → its projection. ALBERT has one too, but no student is made of blocks that share their weights."""


def embedding_field(config: PretrainedConfig, size: int) -> dict[str, int]:
    """Return the field of a student's configuration that makes its embeddings narrower, with its value.

    Args:
        config: of the teacher.
        size: features of the student's embeddings.

    Raises:
        UserError: if the family has no projection from embeddings to states, or the teacher's are no wider.
    """
    projection = EMBEDDING_PROJECTIONS.get(config.model_type)
    if projection is None:
        raise UserError(
            "student.embedding_size",
            f"a teacher of one of the families {', '.join(sorted(EMBEDDING_PROJECTIONS))}",
            config.model_type,
            why="its embeddings have the width of its states",
            fix="leave it out; student.vocabulary makes the table of any family smaller",
        )
    own = _size(config, projection)
    if size >= own:
        raise UserError(
            "student.embedding_size", f"fewer than the teacher's {own} features", str(size), fix="leave it out"
        )
    return {projection.field: size}


def factorised_tensors(teacher: PreTrainedModel, student: PreTrainedModel) -> tuple[dict[str, Tensor], float]:
    """Return a student's tables, norm and projection by their names, and the share of variance that they keep.

    The tables are brought to the k directions in which the sum of word, position and segment varies most (the first k
    eigenvectors P of its second moment over the tables, k the features of the student's embeddings); the projection
    leads back, by the teacher's own if it has one: x ↦ (x P)(Pᵀ Wᵀ). Tables that lie within k dimensions give the
    teacher's states.

    Where a norm stands before the projection, it would take another mean and deviation of fewer features. So x has
    its mean taken out first, k is one less, and the k features are turned to be orthogonal to (1, …, 1), which leaves
    their mean at 0; what the norm multiplies and adds goes into the projection, with the mean of ‖x P‖ ÷ ‖x‖ over all
    words in their first place.

    Args:
        teacher: with wider embeddings.
        student: of the same family and width, with narrower ones.
    """
    config = student.config
    projection = EMBEDDING_PROJECTIONS[config.model_type]
    names = _names(student, projection)
    tables = {name: _on_cpu(teacher.get_parameter(name)) for name in names["tables"]}
    if projection.is_after_norm:
        tables = {name: table - table.mean(1, keepdim=True) for name, table in tables.items()}
    size = _size(config, projection)
    directions, kept = _directions([*tables.values()], size - projection.is_after_norm)
    turned = _without_mean(size) if projection.is_after_norm else torch.eye(size, dtype=torch.float64)
    narrow = directions @ turned.T  # features of the teacher's embeddings × the student's
    found = {name: table @ narrow for name, table in tables.items()}
    weight, bias = _projection(teacher, projection, directions.shape[0])
    if projection.is_after_norm:
        norm = teacher.get_submodule(names["norm"])
        assert isinstance(norm, nn.LayerNorm)
        gain, shift = _on_cpu(norm.weight), _on_cpu(norm.bias)
        bias = bias + weight @ shift
        weight = weight * gain * _norms_ratio([*tables.values()], directions) * (len(narrow) / size) ** 0.5
        found[f"{names['norm']}.weight"], found[f"{names['norm']}.bias"] = torch.ones(size), torch.zeros(size)
        found[f"{names['projection']}.bias"] = bias
    found[f"{names['projection']}.weight"] = weight @ narrow
    return {name: tensor.float() for name, tensor in found.items()}, kept


def _names(model: PreTrainedModel, projection: Projection) -> dict[str, Any]:
    """Return the names of a model's tables, of the norm of its embeddings and of its projection."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    base: Any = model.base_model
    embeddings = dict(base.embeddings.named_children())
    tables = [f"{prefix}embeddings.{name}.weight" for name in _TABLES if isinstance(embeddings.get(name), nn.Embedding)]
    return {
        "tables": tables,
        "norm": f"{prefix}embeddings.LayerNorm",
        "projection": f"{prefix}{projection.module}",
    }


def _size(config: PretrainedConfig, projection: Projection) -> int:
    return int(getattr(config, projection.field, config.hidden_size))


def _directions(tables: list[Tensor], count: int) -> tuple[Tensor, float]:
    """Return the directions in which the sum of the tables' rows has most of its second moment, and their share."""
    means = [table.mean(0) for table in tables]
    centred = (table - mean for table, mean in zip(tables, means, strict=True))
    total = torch.stack(means).sum(0)
    moment = torch.outer(total, total) + sum((table.T @ table / len(table) for table in centred), torch.tensor(0.0))
    values, vectors = torch.linalg.eigh(moment)
    return vectors[:, -count:], float(values[-count:].sum() / values.sum())


def _without_mean(size: int) -> Tensor:
    """Return size − 1 orthonormal columns, each of which sums to 0."""
    start = torch.eye(size, dtype=torch.float64)
    start[:, 0] = 1
    return torch.linalg.qr(start)[0][:, 1:]


def _norms_ratio(tables: list[Tensor], directions: Tensor) -> float:
    """Return the mean of ‖x P‖ ÷ ‖x‖ over all words x, in the first place and segment."""
    words = tables[0] + sum((table[0] for table in tables[1:]), torch.zeros_like(tables[0][0]))
    lengths = words.norm(dim=1)
    return float(((words @ directions).norm(dim=1) / lengths.clamp(min=1e-12)).mean())


def _projection(teacher: PreTrainedModel, projection: Projection, size: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the teacher's own projection; those of none where its embeddings have the width."""
    module: Any = dict(teacher.base_model.named_modules()).get(projection.module)
    if module is None:
        return torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    weight = _on_cpu(module.weight)
    return weight, torch.zeros(len(weight)).double() if module.bias is None else _on_cpu(module.bias)


def _on_cpu(weight: Tensor) -> Tensor:
    """Return a weight in float64 on the CPU, where all of this is computed: not every accelerator has float64."""
    return weight.detach().cpu().double()
