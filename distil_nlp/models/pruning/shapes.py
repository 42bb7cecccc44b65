"""Shapes that a teacher can be cut to, what each costs, and how much of the teacher's importance it loses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.models.architecture import feed_forward_width
from distil_nlp.models.pruning.axes import resized
from distil_nlp.models.pruning.importance import Importance
from distil_nlp.models.student_shape import set_depth
from distil_nlp.models.widening import head_width

_SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
"""Fractions of heads and of units that are looked at, besides every depth."""
_MULTIPLE = 8
"""Feed-forward units are cut to a multiple of it, so that products run as fast as they can."""


@dataclass(frozen=True, order=True)
class Shape:
    """Sizes of a student.

    Attributes:
        layers: its depth.
        heads: of each layer; the states are as wide as these are together.
        units: feed-forward units of each layer.
    """

    layers: int
    heads: int
    units: int

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.heads} heads and {self.units:,} units"


def shape_of(config: PretrainedConfig) -> Shape:
    """Return the shape of a model."""
    return Shape(config.num_hidden_layers, config.num_attention_heads, feed_forward_width(config) or 0)


def kept_units(share: float, units: int) -> int:
    """Return how many feed-forward units a fraction of them is."""
    multiple = _MULTIPLE if units >= 8 * _MULTIPLE else 1
    return units if share >= 1 or not units else max(round(share * units / multiple), 1) * multiple


def kept_heads(share: float, heads: int) -> int:
    """Return how many heads a fraction of them is."""
    return max(round(share * heads), 1)


def all_shapes(whole: Shape) -> list[Shape]:
    """Return the shapes that are looked at, the whole one included."""
    heads = sorted({kept_heads(share, whole.heads) for share in _SHARES})
    units = sorted({kept_units(share, whole.units) for share in _SHARES})
    return [Shape(depth, h, u) for depth in range(1, whole.layers + 1) for h in heads for u in units]


def config_of(config: PretrainedConfig, shape: Shape) -> PretrainedConfig:
    """Return the configuration of a model of a shape, whose layers are the first ones."""
    is_whole = shape.heads == config.num_attention_heads
    width = config.hidden_size if is_whole else shape.heads * head_width(config)
    smaller = resized(config, width, shape.heads, shape.units)
    set_depth(smaller, shape.layers, list(range(shape.layers)))
    return smaller


def model_of(model: PreTrainedModel, shape: Shape) -> PreTrainedModel:
    """Return a model of a shape, of the same class as another, with random weights, in eval mode."""
    return type(model)._from_config(config_of(model.config, shape), dtype=model.dtype).eval()


Cost = Callable[[PreTrainedModel], float]


Sort = tuple[int, int]
"""Heads and units of each layer."""


def costs(
    model: PreTrainedModel,
    shapes: Iterable[Shape],
    cost: Cost,
    whole: float,
    progress: Callable[[Sequence[Sort]], Iterable[Sort]] = iter,
) -> dict[Shape, float]:
    """Return what each shape costs: each layer as much as the next, so that two depths are measured of each sort.

    Args:
        model: whole.
        shapes: to be told the cost of.
        cost: of a model.
        whole: cost of the whole model, than which no shape of fewer parts is taken to cost more.
        progress: shows how many sorts of layers are measured.
    """
    depth, found = model.config.num_hidden_layers, {}
    shapes = list(shapes)
    for sort in progress(sorted({(shape.heads, shape.units) for shape in shapes})):
        first = cost(model_of(model, Shape(1, *sort)))
        layer = (cost(model_of(model, Shape(depth, *sort))) - first) / (depth - 1) if depth > 1 else 0.0
        for shape in shapes:
            if (shape.heads, shape.units) == sort:
                found[shape] = min(first + (shape.layers - 1) * max(layer, 0.0), whole)
    return found


def lost_importance(importance: Importance, shape: Shape, chosen: Sequence[int] | None = None) -> float:
    """Return the sum of the importance of all parts that a shape lacks, those of left out layers as a whole.

    For `fisher` this is twice the second-order estimate of the KL from the teacher to the cut model, were all masks
    independent.

    Args:
        importance: of the teacher's parts.
        shape: of the student.
        chosen: its layers; the most important ones if None.
    """
    kept = chosen if chosen is not None else top(importance.layers, shape.layers)
    left = torch.ones(len(importance.layers), dtype=torch.bool)
    left[list(kept)] = False
    of_layers = importance.layers[left].sum()
    inside = sum(
        _lowest(part[i], len(part[i]) - count)
        for i in kept
        for part, count in ((importance.heads, shape.heads), (importance.units, shape.units))
    )
    features = len(importance.width) * shape.heads // importance.heads.shape[1]
    return float(of_layers + inside + _lowest(importance.width, len(importance.width) - features))


def _lowest(values: torch.Tensor, count: int) -> float:
    """Return the sum of the smallest values."""
    return float(values.topk(count, largest=False).values.sum()) if count else 0.0


def top(values: torch.Tensor, count: int) -> list[int]:
    """Return the places of the largest values, in their order."""
    return sorted(values.topk(count).indices.tolist())


def largest(shapes: Sequence[Shape]) -> list[Shape]:
    """Return the shapes than which no other one is larger in one size and smaller in none."""

    def within(one: Shape, other: Shape) -> bool:
        return one != other and one.layers <= other.layers and one.heads <= other.heads and one.units <= other.units

    return [one for one in shapes if not any(within(one, other) for other in shapes)]
