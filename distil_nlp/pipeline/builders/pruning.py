"""The recipe section `student.pruning`: a student cut from the important parts of its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import feed_forward_width
from distil_nlp.models.layer_choice import LayerChoice
from distil_nlp.models.pruning import (
    Axes,
    Importance,
    Kept,
    check_axes,
    cut_model,
    everything,
    parameter_axes,
    shares_heads,
)
from distil_nlp.models.pruning.shapes import Shape, kept_heads, kept_units, top
from distil_nlp.models.widening import head_width
from distil_nlp.recipe.sections import PruningSection, StudentSection

_TOGETHER = ("replacing", "augment", "peers", "branches")
"""Keys of `student` whose models are made of the whole teacher's layers."""
_SIZES = ("hidden_size", "dim", "num_attention_heads", "n_heads", "intermediate_size", "hidden_dim")


@dataclass(frozen=True)
class Cut:
    """What a pruned student is made of.

    Attributes:
        model: the teacher's layers with what is kept of each.
        whole: the same model, uncut.
        layers: those that the student copies.
        kept: the numbers of what is kept, for all of the teacher's layers.
        depth: the student's; None where `layers` tell it.
    """

    model: PreTrainedModel
    whole: PreTrainedModel
    layers: LayerChoice
    kept: Kept
    depth: int | None = None

    def facts(self, section: PruningSection) -> dict[str, Any]:
        """Return what of the block `pruning` of `results.json` is known before training."""
        config, whole = self.model.config, self.whole.config
        return {
            "importance": section.importance,
            "rows": section.rows,
            "feed_forward": feed_forward_width(config),
            "heads": config.num_attention_heads,
            "width": config.hidden_size,
            "of": {
                "feed_forward": feed_forward_width(whole),
                "heads": whole.num_attention_heads,
                "width": whole.hidden_size,
            },
        }


def pruning_of(section: StudentSection) -> PruningSection | None:
    """Return how a student is cut from its teacher; None for one that has whole layers."""
    return section.pruning or (PruningSection() if section.budget or section.layers == "important" else None)


def validate_pruning(section: StudentSection) -> None:
    """Raise UserError for a pruned student that is described in another way too, or trains beside uncut ones."""
    pruning = pruning_of(section)
    if pruning is None:
        return
    if section.budget is not None:
        _validate_budget(section, pruning)
    others = [f"student.{key}" for key in ("name", *_TOGETHER) if getattr(section, key) is not None]
    others += [f"student.config.{name}" for name in _SIZES if name in section.config]
    if others:
        raise UserError(
            "student.pruning",
            "a student whose sizes are all told by student.num_layers and student.pruning",
            f"{', '.join(others)} too",
            why="that is of other sizes, or of the teacher's whole layers",
            fix="leave one of the two out",
        )


def _validate_budget(section: StudentSection, pruning: PruningSection) -> None:
    """Raise UserError for a shape that is told although it is to be found."""
    told = ["student.num_layers"] if section.num_layers is not None else []
    told += ["student.layers"] if section.layers not in ("every_other", "important", "random") else []
    told += [f"student.pruning.{key}" for key in ("feed_forward", "width") if getattr(pruning, key) != 1]
    told += ["student.embedding_size"] if section.embedding_size is not None else []
    told += ["student.architecture"] if section.architecture != "same" else []
    if told:
        raise UserError(
            "student.budget",
            "no shape beside it",
            f"{', '.join(told)} too",
            why="the shape is searched for",
            fix="leave one of the two out",
        )
    if pruning.importance not in ("fisher", "obd"):
        raise UserError(
            "student.pruning.importance",
            "fisher or obd with student.budget",
            pruning.importance,
            why="the importance of a layer, a head and a unit do not compare by any other",
            fix="leave it out",
        )


def cut_from(
    section: StudentSection, whole: PreTrainedModel, importance: Importance | None, shape: Shape | None = None
) -> Cut | None:
    """Return what a student is made of; None for one that has whole layers.

    Args:
        section: of the student.
        whole: the model that it is cut from.
        importance: of its parts; None where any of them will do, to try a shape or for random weights.
        shape: the one that was found for a budget; None where the section tells it.

    Raises:
        UserError: for a family whose parts cannot be told from each other.
    """
    pruning, config = pruning_of(section), whole.config
    if pruning is None:
        return None
    layers: LayerChoice = section.layers
    depth = shape.layers if shape else section.num_layers
    if layers == "important" or (shape is not None and layers != "random"):
        depth = depth or max(config.num_hidden_layers // 2, 1)
        _check_depth(depth, config)
        layers = top(importance.layers, depth) if importance else list(range(depth))
    sizes = shape or Shape(0, *_sizes(pruning, config))
    if (sizes.heads, sizes.units) == (
        config.num_attention_heads,
        feed_forward_width(config) or 0,
    ) and not section.budget:
        return Cut(whole, whole, layers, everything(whole), depth)
    axes = parameter_axes(whole)
    if importance is None:
        check_axes(whole, axes)
    kept = _kept(whole, axes, importance, sizes)
    return Cut(cut_model(whole, axes, kept), whole, layers, kept, depth)


def _kept(whole: PreTrainedModel, axes: Axes, importance: Importance | None, sizes: Shape) -> Kept:
    """Return what stays of all layers: the most important parts, or the first ones."""
    config = whole.config
    width = config.hidden_size if sizes.heads == config.num_attention_heads else sizes.heads * head_width(config)
    if importance is None:
        parts = everything(whole)
        return Kept(
            parts.width[:width],
            [one[: sizes.heads] for one in parts.heads],
            [one[: sizes.units] for one in parts.units],
        )
    by_head = importance.heads
    if shares_heads(whole, axes):
        by_head = by_head.sum(0, keepdim=True).expand_as(by_head)
    return Kept(
        torch.tensor(top(importance.width, width)),
        [torch.tensor(top(one, sizes.heads)) for one in by_head],
        [torch.tensor(top(one, sizes.units)) for one in importance.units],
    )


def _sizes(pruning: PruningSection, config: PretrainedConfig) -> tuple[int, int]:
    """Return the numbers of heads and feed-forward units that stay."""
    heads = kept_heads(pruning.width, config.num_attention_heads)
    return heads, kept_units(pruning.feed_forward, feed_forward_width(config) or 0)


def _check_depth(depth: int, config: PretrainedConfig) -> None:
    if depth > config.num_hidden_layers:
        raise UserError(
            "student.num_layers",
            f"at most {config.num_hidden_layers}, the teacher's layers, for student.layers=important",
            str(depth),
            why="there are no more to choose from",
            fix="lower it, or set student.layers=interpolate",
        )
